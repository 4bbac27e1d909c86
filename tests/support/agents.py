"""Stand-ins for the agents: an edge, a runner and a build worker that speak the real messages to the real API.

They start no process and no proxy; everything they know comes through the endpoints, and they keep what a real agent
keeps when the control plane goes away. They check as they go: the log has no gap, epochs and versions never fall.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import httpx
from starlette.types import ASGIApp

from moorage.artifacts.manifest import manifest_to_json
from moorage.client.agents import BuildClient, EdgeClient, RunnerClient
from moorage.client.http import Http
from moorage.domain.allocation import Posture, State
from moorage.domain.artifact import Manifest, artifact_digest
from moorage.domain.errors import MoorageError
from moorage.domain.limits import REPORT_PERIOD_S
from moorage.domain.route import Applied, decide_epoch, decide_log_entry
from moorage.system.clock import monotonic_s, now_ms, pause
from moorage.wire.build import BuildJob, BuildReport
from moorage.wire.edge import EdgeReport, Sockets
from moorage.wire.log import AllocationUpdated, OwnerUpdated, RouteHeld, RouteRemoved, verify_snapshot
from moorage.wire.runner import AllocationReport, Desired, DesiredAllocation, RunnerReport

POLL_S = 0.2
RETRY_S = 0.02

# With each request httpx asks whether it runs under trio, and for that imports sniffio, which is not installed: every
# time the whole path is searched. This entry says the same at once.
if find_spec("sniffio") is None:
    sys.modules["sniffio"] = None  # type: ignore[assignment]


class InProcess(Http):
    """The typed client's connection, straight into an ASGI app of this event loop."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        super().__init__("http://control", token)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {token}"}
        self._client = httpx.AsyncClient(transport=transport, base_url=self.base, headers=headers)


@dataclass
class StandInEdge:
    """Follows the log and acknowledges it. `sockets` is what is attached, by allocation number; others have 0."""

    client: EdgeClient
    wake: Callable[[int, float], Any]
    public_key: Any
    sockets: dict[int, int] = field(default_factory=dict)
    deaf: bool = False
    incarnation: str = ""
    index: int = 0
    owners: dict[str, OwnerUpdated | RouteRemoved] = field(default_factory=dict)
    allocations: dict[int, AllocationUpdated] = field(default_factory=dict)
    _told: Any = None
    _told_at_s: float = 0.0

    async def run(self) -> None:
        """For ever."""
        seen = -1
        while True:
            if not self.deaf:
                await self.follow_once()
            seen = await self.wake(seen, 0.5)

    async def follow_once(self) -> None:
        """Apply what is new and acknowledge it."""
        if not self.incarnation:
            await self._load()
        page = await self.client.log(self.index)
        assert page.incarnation == self.incarnation
        assert page.complete
        for entry in page.entries:
            said = decide_log_entry(applied_index=self.index, incoming_index=entry.index, same_incarnation=True)
            assert said is Applied.APPLY, f"after {self.index} came {entry.index}: {said}"
            self._apply(entry.event)
            self.index = entry.index
        if self.has_news() or monotonic_s() - self._told_at_s > REPORT_PERIOD_S:
            self._told, self._told_at_s = self._state(), monotonic_s()
            await self.client.report(self.report())

    def has_news(self) -> bool:
        """Whether the last report does not say how things are now."""
        return bool(self._told != self._state())

    def _state(self) -> tuple[Any, ...]:
        return self.index, tuple(sorted(self.sockets.items()))

    def say_again(self) -> None:
        """Report with the next pass, news or not."""
        self._told = None

    def report(self, **changed: Any) -> EdgeReport:
        """What this edge would say now."""
        counts = {n: 0 for n, a in self.allocations.items() if a.posture is not Posture.GONE} | self.sockets
        sockets = tuple(Sockets(number=n, attached=count, pins=count) for n, count in counts.items())
        said = EdgeReport(
            edge=self.client.edge,
            incarnation=self.incarnation,
            applied_index=self.index,
            applied=self.index,
            duplicates=0,
            gaps=0,
            stale=0,
            sockets=sockets,
        )
        return said.model_copy(update=changed)

    async def _load(self) -> None:
        snapshot = verify_snapshot(await self.client.snapshot(), self.public_key)
        self.incarnation, self.index = snapshot.incarnation, snapshot.index
        self.owners = {owner.route_key: owner for owner in snapshot.routes}
        self.allocations = {a.number: a for a in snapshot.allocations}

    def _apply(self, event: OwnerUpdated | RouteHeld | RouteRemoved | AllocationUpdated) -> None:
        match event:
            case OwnerUpdated() | RouteRemoved():
                known = self.owners.get(event.route_key)
                said = decide_epoch(applied_epoch=known.epoch if known else 0, incoming_epoch=event.epoch)
                assert said is Applied.APPLY, f"{event.route_key} fell to epoch {event.epoch}"
                self.owners[event.route_key] = event
            case RouteHeld():
                known = self.owners[event.route_key]
                assert isinstance(known, OwnerUpdated)
                assert known.epoch == event.epoch
                self.owners[event.route_key] = known.model_copy(update={"held": event.held})
            case AllocationUpdated():
                before = self.allocations.get(event.number)
                assert before is None or before.version < event.version
                self.allocations[event.number] = event


@dataclass
class StandInRunner:
    """Makes the desired state true at once. `behave` answers for an allocation that should run: `ready`, `fail`
    (exits with a log), `hang` (never ready); `stubborn` allocations never stop."""

    client: RunnerClient
    behave: Callable[[DesiredAllocation], str] = lambda _wanted: "ready"
    stubborn: set[int] = field(default_factory=set)
    revision: int = -1
    desired: Desired | None = None
    seen: dict[str, AllocationReport] = field(default_factory=dict)
    environs: dict[int, dict[str, str]] = field(default_factory=dict)
    _pids: int = 1000

    async def run(self) -> None:
        """For ever; a control plane that does not answer is asked again."""
        while True:
            try:
                await self.work_once(POLL_S)
            except MoorageError:
                self.revision = -1
                await pause(RETRY_S)

    async def work_once(self, wait_s: float = 0.0) -> None:
        """Take the desired state, obey, tell."""
        self.desired = await self.client.desired(self.revision, wait_s)
        self.revision = self.desired.revision
        for wanted in self.desired.allocations:
            self.environs[wanted.number] = wanted.environ
            self._obey(wanted)
        await self.tell()
        kept = {wanted.allocation for wanted in self.desired.allocations}
        self.seen = {id: report for id, report in self.seen.items() if id in kept}

    async def tell(self) -> None:
        """Report the whole picture."""
        await self.client.report(
            RunnerReport(
                runner=self.client.runner, revision=self.revision, allocations=tuple(self.seen.values()), stores=()
            )
        )

    async def crash(self, allocation: str, *, state: State = State.FAILED) -> None:
        """The process of a ready allocation dies."""
        self._end(allocation, state, -signal.SIGKILL, reason="exited")
        await self.tell()

    def _end(self, allocation: str, state: State, exit_code: int | None, **more: Any) -> None:
        """What was known of it stays, as it does with a real runner."""
        known = self.seen.get(allocation) or AllocationReport(allocation=allocation, state=state)
        self.seen[allocation] = known.model_copy(update={"state": state, "exit_code": exit_code, **more})

    def _obey(self, wanted: DesiredAllocation) -> None:
        known = self.seen.get(wanted.allocation)
        over = known is not None and known.state in (State.FAILED, State.STOPPED)
        if wanted.want == "stop":
            if not over and wanted.number not in self.stubborn:
                self._end(wanted.allocation, State.STOPPED, -signal.SIGTERM if known else None)
        elif known is None or known.state is State.STARTING:
            self._start(wanted)

    def _start(self, wanted: DesiredAllocation) -> None:
        known = self.seen.get(wanted.allocation)
        if known is None:
            self._pids += 1
            known = AllocationReport(
                allocation=wanted.allocation, state=State.STARTING, pid=self._pids, started_ms=now_ms()
            )
            self.seen[wanted.allocation] = known
        match self.behave(wanted):
            case "ready":
                ready = known.model_copy(update={"state": State.READY, "ready_ms": now_ms()})
                self.seen[wanted.allocation] = ready
            case "fail":
                log_tail = ("Traceback", "ValueError: no such board")
                self._end(wanted.allocation, State.FAILED, 1, reason="exited", log_tail=log_tail)


@dataclass
class StandInBuilder:
    """Builds at once what `manifests` holds for a source's digest; without one the build is blocked."""

    client: BuildClient
    manifests: dict[str, Manifest] = field(default_factory=dict)
    jobs: list[BuildJob] = field(default_factory=list)

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self.work_once(POLL_S)
            except MoorageError:
                await pause(RETRY_S)

    async def work_once(self, wait_s: float = 0.0) -> BuildJob | None:
        """Claim one build and do it."""
        job = await self.client.claim(wait_s)
        if job is None:
            return None
        self.jobs.append(job)
        for stage in ("fetching", "building", "validating"):
            report = BuildReport(token=job.token, stage=stage, progress=f"{stage} {job.app}")  # type: ignore[arg-type]
            if not (await self.client.report(job.operation, report)).go_on:
                return job
        await self.client.report(job.operation, self.result(job))
        return job

    def result(self, job: BuildJob) -> BuildReport:
        """The last report of a job."""
        made = self.manifests.get(job.source)
        if made is None:
            return BuildReport(token=job.token, stage="blocked", code="source-unsupported", detail="no known kind")
        return built(job.token, made)


def built(token: int, made: Manifest) -> BuildReport:
    """The report of a finished build."""
    return BuildReport(
        token=token,
        stage="built",
        artifact=artifact_digest(made),
        manifest=json.loads(manifest_to_json(made))["manifest"],
        size_bytes=sum(entry.size for entry in made.files),
    )


async def end(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for them; a task that failed by itself raises its error here."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
