"""The build worker: claims one build at a time and reports each stage until it is an artifact, blocked or failed.

Rules: the control plane decides who builds what; a lease that is lost ends the build at once and says nothing more.
A worker that is killed leaves a work folder and nothing else: the next claim begins again from the source, and the
next start of the worker clears what is left.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moorage.artifacts.archive import unpack_archive
from moorage.artifacts.foreign import misfit, other_app, this_machine
from moorage.artifacts.manifest import manifest_to_json
from moorage.artifacts.store import ArtifactStore
from moorage.build.assemble import Assembly, Order, Workshop
from moorage.build.bench import in_thread
from moorage.build.outcome import Blocked, Failed, disk_failure
from moorage.build.tools import end_leftovers
from moorage.build.vango.toolchain import CACHE
from moorage.domain.artifact import Manifest
from moorage.domain.errors import MoorageError, Problem, Refused, Unavailable
from moorage.domain.limits import LEASE_RENEW_S, LONG_POLL_MAX_S
from moorage.system.clock import pause
from moorage.system.files import sha256_of
from moorage.system.rand import jitter
from moorage.system.settings import inherited_environ
from moorage.system.source_archive import unpack
from moorage.wire.build import BuildJob, BuildReply, BuildReport

RETRY_S = 1.0  # after the control plane did not answer
_NOT_OURS = ("lease-lost", "operation-canceled", "operation-unknown", "operation-finished")

_log = logging.getLogger(__name__)


class ControlPlane(Protocol):
    """What a worker needs of the control plane; `client.agents.BuildClient` is it."""

    async def claim(self, wait_s: float) -> BuildJob | None: ...
    async def report(self, operation: str, report: BuildReport) -> BuildReply: ...
    async def fetch_source(self, source: str, target: Path) -> None: ...


@dataclass(frozen=True, slots=True)
class Tempo:
    """How often a worker speaks."""

    renew_s: float = LEASE_RENEW_S
    claim_wait_s: float = LONG_POLL_MAX_S
    retry_s: float = RETRY_S


class LeaseGone(MoorageError):
    """The build belongs to another worker by now, or was canceled."""


class Worker:
    """Builds what the control plane hands out, one build at a time."""

    def __init__(
        self,
        control: ControlPlane,
        artifacts: ArtifactStore,
        folder: Path,
        shop: Workshop | None = None,
        tempo: Tempo | None = None,
    ) -> None:
        """`folder` is where builds happen and belongs to this worker alone. `shop` None: tools see this process's own
        environment as far as `tool_environ` lets it through, and apps run on the base interpreter."""
        self._control, self._artifacts, self._folder = control, artifacts, folder
        self._shop, self._tempo = shop or Workshop(inherited_environ()), tempo or Tempo()

    async def run(self) -> None:
        """Work until canceled. What an earlier run left behind is cleared first."""
        await in_thread(sweep, self._folder)
        while True:
            try:
                await self.work_once(self._tempo.claim_wait_s)
            except MoorageError as lost:
                _log.warning("no build could be claimed: %s", lost)
                await pause(jitter(self._tempo.retry_s))

    async def work_once(self, wait_s: float) -> bool:
        """Claim one build and take it to its end; says whether there was one.

        Raises Unavailable and Refused when claiming is answered so.
        """
        job = await self._control.claim(wait_s)
        if job is None:
            return False
        _log.info("building %s deployment %s (%s)", job.app, job.deployment_number, job.operation)
        work = self._folder / f"{job.operation}-{job.token}"
        lease = Lease(self._control, job, self._tempo)
        try:
            await lease.hold(lambda: self._build(job, work, lease))
        except LeaseGone:
            _log.info("the build of %s deployment %s belongs to somebody else now", job.app, job.deployment_number)
        finally:
            await in_thread(remove_tree, work)
        return True

    async def _build(self, job: BuildJob, work: Path, lease: Lease) -> None:
        """Build, or take over what was built elsewhere, and report how it ended."""
        make = self._take_over if job.kind == "artifact" else self._assemble
        try:
            manifest = await make(job, work, lease)
            digest = await in_thread(self._artifacts.put, work / "tree", manifest)
        except (Refused, Unavailable) as ended:
            await lease.conclude(_ending(job, ended))
        except OSError as failed:
            await lease.conclude(_ending(job, disk_failure(failed)))
        else:
            await lease.conclude(_built(job, manifest, digest))

    async def _assemble(self, job: BuildJob, work: Path, lease: Lease) -> Manifest:
        archive = await self._fetch(job, work, lease)
        unpacked = await in_thread(unpack, archive, work / "source")
        archive.unlink()
        facts = {**job.source_facts, "tree_digest": unpacked.tree_digest, "files": unpacked.files}
        await lease.tell("building", f"{unpacked.files} files unpacked")
        order = Order(job.app, {**facts, "archive": job.source}, job.environ)
        return await Assembly(work, order, self._shop).run(lease.tell)

    async def _take_over(self, job: BuildJob, work: Path, lease: Lease) -> Manifest:
        """An imported artifact: nothing is built, every file is verified.

        Raises Refused (`archive-*`, `artifact-other-app`, `artifact-other-platform`) and OSError.
        """
        archive = await self._fetch(job, work, lease)
        await lease.tell("validating", "verifying every file of the archive")
        head = await in_thread(unpack_archive, archive, work / "tree")
        archive.unlink()
        problem = other_app(head.manifest.app, job.app) or misfit(head.manifest, this_machine())
        if problem is not None:
            raise Refused(problem)
        await lease.tell("validating", f"{len(head.manifest.files)} files verified")
        return head.manifest

    async def _fetch(self, job: BuildJob, work: Path, lease: Lease) -> Path:
        """What was uploaded, in the work folder. Raises Failed when it is not what its digest names."""
        await lease.tell("fetching", f"fetching the {job.kind}")
        await in_thread(work.mkdir, parents=True)
        archive = work / "upload"
        await self._control.fetch_source(job.source, archive)
        if await in_thread(sha256_of, archive) != job.source:
            hint = "Deploy again: the upload or the download was damaged."
            raise Failed(
                Problem("source-digest-mismatch", f"The {job.kind} is not what was uploaded", job.source, hint, 422)
            )
        return archive


class Lease:
    """The right to build one job: every stage is reported, and the latest one again and again to keep the lease."""

    def __init__(self, control: ControlPlane, job: BuildJob, tempo: Tempo) -> None:
        self._control, self._job, self._tempo = control, job, tempo
        self._latest = BuildReport(token=job.token, stage="fetching", progress="claimed")
        self._concluded = False
        self._turn = asyncio.Lock()  # one report at a time: a late renewal must not arrive behind the next stage

    async def hold(self, build: Callable[[], Awaitable[None]]) -> None:
        """Run the build while the lease is kept. Raises LeaseGone, with the build ended."""
        building = asyncio.ensure_future(build())
        renewing = asyncio.create_task(self._renew())
        try:
            await asyncio.wait({building, renewing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (building, renewing):
                task.cancel()
            await asyncio.wait({building, renewing})
        await self._settle(building, renewing)

    async def _settle(self, building: asyncio.Future[None], renewing: asyncio.Task[None]) -> None:
        """Pass on that the lease is gone. A bug in a build ends that build, and is not handed out again and again."""
        failures = [task.exception() for task in (building, renewing) if not task.cancelled()]
        gone = next((f for f in failures if isinstance(f, LeaseGone)), None)
        if gone is not None:
            raise gone
        bug = next((f for f in failures if f is not None), None)
        if bug is not None:
            _log.error("the build of %s crashed", self._job.app, exc_info=bug)
            detail, hint = f"{type(bug).__name__}: {bug}", "This is a fault of Moorage; its log has the details."
            await self.conclude(_ending(self._job, Failed(Problem("build-crashed", "The build crashed", detail, hint))))

    async def tell(self, stage: str, progress: str) -> None:
        """Report a stage; a control plane that does not answer hears of it at the next renewal."""
        self._latest = BuildReport.model_validate({"token": self._job.token, "stage": stage, "progress": progress})
        await self._send(self._latest)

    async def conclude(self, report: BuildReport) -> None:
        """Report the end, until the control plane has heard it. An ending that it will not take is the build's failure.

        Raises LeaseGone when it is nobody's business now.
        """
        self._concluded = True
        try:
            while not await self._send(report):
                await pause(jitter(self._tempo.retry_s))
        except LeaseGone as gone:
            if gone.problem.code in _NOT_OURS or report.stage == "failed":
                raise
            await self.conclude(_ending(self._job, Failed(gone.problem)))

    async def _renew(self) -> None:
        while True:
            await pause(self._tempo.renew_s)
            async with self._turn:
                if not self._concluded:
                    await self._say(self._latest)

    async def _send(self, report: BuildReport) -> bool:
        async with self._turn:
            return await self._say(report)

    async def _say(self, report: BuildReport) -> bool:
        """Whether the control plane heard it. Raises LeaseGone when it wants to hear no more."""
        try:
            reply = await self._control.report(self._job.operation, report)
        except Unavailable as lost:
            _log.warning("stage %s was not heard: %s", report.stage, lost)
            return False
        except Refused as refused:
            if refused.problem.code not in _NOT_OURS:
                _log.error("stage %s was refused: %s", report.stage, refused)
            raise LeaseGone(refused.problem) from refused
        if not reply.go_on and report.stage not in ("built", "blocked", "failed"):
            raise LeaseGone(Problem("operation-canceled", "The build was canceled"))
        return True


def _ending(job: BuildJob, ended: MoorageError) -> BuildReport:
    """The report of a build without an artifact: a refusal is for the author of the source, the rest for others."""
    problem = ended.problem
    log_tail = ended.log_tail if isinstance(ended, (Blocked, Failed)) else ()
    stage = "failed" if isinstance(ended, Unavailable) or _is_ours(problem) else "blocked"
    return BuildReport.model_validate(
        {
            "token": job.token,
            "stage": stage,
            "progress": problem.title,
            "code": problem.code,
            "detail": problem.detail or problem.title,
            "hint": problem.hint,
            "log_tail": log_tail,
        }
    )


def _is_ours(problem: Problem) -> bool:
    """Refusals that no change of the source can mend."""
    return problem.code in ("artifact-mismatch", "source-unknown")


def _built(job: BuildJob, manifest: Manifest, digest: str) -> BuildReport:
    """The report of an artifact. Its list of files stays in the artifact store: it may be larger than a message, and
    the runner compares every file with it before each start."""
    document = json.loads(manifest_to_json(manifest))["manifest"]
    if job.kind == "artifact":  # the store keeps the artifact as it came; where it came from is told of it here
        document["source"]["imported"] = job.source_facts.get("imported")
    size = sum(entry.size for entry in manifest.files)
    return BuildReport(
        token=job.token,
        stage="built",
        progress=f"{len(manifest.files)} files, {digest[:19]}",
        artifact=digest,
        manifest={**document, "files": []},
        size_bytes=size,
    )


def sweep(folder: Path) -> int:
    """Clear what a worker that was killed left in its folder, its tools included; says how many builds."""
    folder.mkdir(parents=True, exist_ok=True)
    left = [place for place in folder.iterdir() if place.is_dir() and place.name != CACHE]
    for place in left:
        end_leftovers(place)
        remove_tree(place)
    return len(left)


def remove_tree(root: Path) -> None:
    """Remove a work folder, whatever modes a build left in it."""
    if not root.exists():
        return
    for folder, _, _ in os.walk(root):
        os.chmod(folder, os.stat(folder).st_mode | stat.S_IRWXU)
    shutil.rmtree(root, ignore_errors=True)
