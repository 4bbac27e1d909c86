"""What the build worker and the control plane tell each other: claim a job, report its stages."""

from __future__ import annotations

from typing import Any, Literal

from moorage.wire.message import Message


class BuildJob(Message):
    """A build to do: the uploaded source by digest, under a lease whose `token` every report repeats.

    `kind` artifact: what was uploaded is the archive of an artifact, to be verified and stored as it is.
    """

    operation: str
    token: int
    app: str
    deployment: str
    deployment_number: int
    source: str
    source_facts: dict[str, Any]
    kind: Literal["source", "artifact"] = "source"
    environ: dict[str, str] = {}


class BuildReport(Message):
    """A stage reached. `progress` is one line for people. With `built`: the artifact's digest and manifest (as JSON);
    with `blocked` or `failed`: code, detail, hint and the last lines of the tool's output."""

    token: int
    stage: Literal["fetching", "building", "validating", "built", "blocked", "failed"]
    progress: str = ""
    artifact: str = ""
    manifest: dict[str, Any] = {}
    size_bytes: int = 0
    code: str = ""
    detail: str = ""
    hint: str = ""
    log_tail: tuple[str, ...] = ()


class BuildReply(Message):
    """Whether the worker may go on: False once its token is old or the operation was canceled."""

    go_on: bool
