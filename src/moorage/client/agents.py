"""What agents ask of the control plane: edges, runners and the build worker, each with a token of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from moorage.client.http import Http
from moorage.wire.build import BuildJob, BuildReply, BuildReport
from moorage.wire.edge import EdgeReply, EdgeReport, LogPage
from moorage.wire.log import SignedSnapshot
from moorage.wire.runner import Desired, RunnerReport

_CHUNK_BYTES = 1 << 18


class EdgeClient:
    """The control plane as one edge sees it."""

    def __init__(self, http: Http, edge: str) -> None:
        self._http, self.edge = http, edge

    async def snapshot(self) -> SignedSnapshot:
        """The signed fold of the log."""
        answer = await self._http.send("GET", f"/v1/edges/{self.edge}/snapshot")
        return SignedSnapshot.model_validate_json(answer.content)

    async def log(self, after_index: int) -> LogPage:
        """The entries after an index."""
        answer = await self._http.send("GET", f"/v1/edges/{self.edge}/log", query={"after": after_index})
        return LogPage.model_validate_json(answer.content)

    async def report(self, report: EdgeReport) -> EdgeReply:
        """Acknowledge what is in force and tell live counts."""
        answer = await self._http.send(
            "POST", f"/v1/edges/{self.edge}/report", json=report.model_dump(mode="json"), timeout_s=5.0
        )
        return EdgeReply.model_validate_json(answer.content)


class RunnerClient:
    """The control plane as one runner sees it."""

    def __init__(self, http: Http, runner: str) -> None:
        self._http, self.runner = http, runner

    async def desired(self, after_revision: int, wait_s: float) -> Desired:
        """The desired state; waits up to `wait_s` for a revision above `after_revision` (-1: answer at once)."""
        answer = await self._http.send(
            "GET",
            f"/v1/runners/{self.runner}/desired",
            query={"after": after_revision, "wait_s": wait_s},
            timeout_s=wait_s + 10.0,
        )
        return Desired.model_validate_json(answer.content)

    async def report(self, report: RunnerReport) -> None:
        """Tell the whole picture."""
        await self._http.send(
            "POST", f"/v1/runners/{self.runner}/report", json=report.model_dump(mode="json"), timeout_s=5.0
        )


class BuildClient:
    """The control plane as a build worker sees it."""

    def __init__(self, http: Http, worker: str) -> None:
        self._http, self.worker = http, worker

    async def claim(self, wait_s: float) -> BuildJob | None:
        """The next build under a fresh lease, or None when none came within `wait_s`."""
        answer = await self._http.send(
            "POST",
            "/v1/builds/claim",
            json={"worker": self.worker},
            query={"wait_s": wait_s},
            timeout_s=wait_s + 10.0,
        )
        return BuildJob.model_validate_json(answer.content) if answer.status_code == 200 else None

    async def report(self, operation: str, report: BuildReport) -> BuildReply:
        """Record a stage; Refused with `lease-lost` once the token is old."""
        answer = await self._http.send(
            "POST", f"/v1/builds/{operation}/report", json=report.model_dump(mode="json"), timeout_s=10.0
        )
        return BuildReply.model_validate_json(answer.content)

    async def fetch_source(self, source: str, target: Path) -> None:
        """Write what was uploaded with this digest (the archive of a source or of an artifact) to `target`."""
        await self._http.download(f"/v1/sources/{source}", target, timeout_s=120.0)


async def chunks_of(path: Path, seen: Callable[[int], object] = lambda _bytes: None) -> AsyncIterator[bytes]:
    """The file's content in pieces, for an upload; `seen` is told how many more bytes are on their way."""
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            yield chunk
            seen(len(chunk))
