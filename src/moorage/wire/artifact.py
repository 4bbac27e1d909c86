"""The public API of artifacts: what is stored, what an archive of one is imported as, and what runs here.

The archive itself is no message: `GET /v1/artifacts/{digest}/archive` streams it, `PUT /v1/sources/{sha256}` takes it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from moorage.wire.message import Message

FILE_NAME_MAX_CHARS = 255

UploadKind = Literal["source", "artifact"]


class ImportRequest(Message):
    """Make a deployment of the uploaded archive with this SHA-256 (hex). `file` is its name, for people."""

    archive: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    file: Annotated[str, Field(max_length=FILE_NAME_MAX_CHARS)] = ""


class MachineView(Message):
    """What artifacts with native code must have been built for."""

    native: str
    python: str


class ArtifactView(Message):
    """An artifact that deployments name (their numbers, newest first). `native` None: no native code was seen in it."""

    digest: str
    app: str
    kind: str
    depth: str
    native: str | None
    state_entries: int
    size_bytes: int
    created_ms: int
    deployments: tuple[int, ...]


class ArtifactDetail(ArtifactView):
    """An artifact with all that its manifest says, the list of files aside; `present` when its files are stored."""

    process: dict[str, Any]
    state: tuple[dict[str, Any], ...]
    migrations: tuple[dict[str, Any], ...]
    source: dict[str, Any]
    facts: dict[str, Any]
    present: bool
