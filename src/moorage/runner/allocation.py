"""One allocation from its start (or adoption) to its end.

Rules: nothing runs that was not verified just before. It is ready once its health path answers *and* the socket that
answers is its own. It is never started again: whatever ends it, the end is recorded with its reason. Every change is
written to `run.json` before it is reported.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moorage.artifacts.store import ArtifactStore
from moorage.domain.allocation import State
from moorage.domain.errors import MoorageError, Problem
from moorage.domain.limits import READY_PROBE_PERIOD_S
from moorage.runner import health, logs
from moorage.runner.drivers.driver import Driver, Instance
from moorage.runner.launch import Launch, Layout, Surroundings, plan_launch
from moorage.runner.record import Place, Record, write_record
from moorage.system.clock import monotonic_s, now_ms, pause

LISTEN_CHECK_PERIOD_S = 1.0
LISTEN_MISSED_COUNT = 3  # an app may exchange its socket; three looks in a row without one mean that it has none
ABANDON_GRACE_S = 2.0  # for an app that never became ready
_SLOW_AFTER_S = 5.0
_SLOW_PROBE_PERIOD_S = 0.25

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Equipment:
    """What an allocation is run with."""

    driver: Driver
    artifacts: ArtifactStore
    around: Surroundings


@dataclass(frozen=True, slots=True)
class _End:
    """Why an allocation ends: its last state and reason, and how much time its process is given."""

    state: State
    reason: str
    detail: str
    grace_s: float


class AllocationRun:
    """Runs one allocation; `record` is what is known of it. `changed` is called after each change."""

    def __init__(self, record: Record, place: Place, equipment: Equipment, changed: Callable[[], None]) -> None:
        self.record, self.place = record, place
        self._equipment, self._changed = equipment, changed
        self._stop_asked = asyncio.Event()
        self._let_go_asked = False
        self._instance: Instance | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._stop_asked.is_set()

    @property
    def is_letting_go(self) -> bool:
        """Whether the input of its connections was ended, or is being ended."""
        return self._let_go_asked or self.record.let_go is not None

    async def let_go(self) -> None:
        """End the input of its connections: it reads an end and stores its sessions before anything cuts them.

        Where that cannot be done nothing is reported, and the cut alone must do.
        """
        self._let_go_asked = True
        if self._instance is None or self.record.is_over:
            return
        try:
            count = await asyncio.to_thread(self._instance.let_go, self.record.desired.port)
        except OSError as failed:
            _log.warning("the input of allocation %s cannot be ended: %s", self.record.allocation, failed)
            return
        await self._note(self.record.but(let_go=count), must=False)

    def stop(self) -> None:
        """Ask it to end; its process is given the grace time of the desired state."""
        self._stop_asked.set()

    async def start(self) -> None:
        """Verify, start, and follow it to its end."""
        launch = await self._prepare()
        if isinstance(launch, Problem):
            return await self._over(State.FAILED, launch.code, _sentence(launch))
        if self.is_stopping:
            return await self._over(State.STOPPED, "", "It was stopped before it was started.")
        instance = await self._spawn(launch)
        if isinstance(instance, Problem):
            return await self._over(State.FAILED, instance.code, _sentence(instance))
        await self._follow(instance)

    async def resume(self) -> None:
        """Adopt the process of an earlier runner and follow it; an allocation whose process is gone is lost."""
        instance = self._adopted()
        if instance is None:
            return await self._gone()
        identity = instance.identity
        await self._note(self.record.but(adopted=True, identity=identity), must=False)
        _log.info("adopted allocation %s as pid %s", self.record.allocation, identity.pid)
        await self._follow(instance)

    def release(self) -> None:
        """Let go of it without ending it."""
        if self._instance is not None:
            self._instance.release()

    # ---- starting ---------------------------------------------------------------------------------------------

    async def _prepare(self) -> Launch | Problem:
        desired, port = self.record.desired, self.record.desired.port
        try:
            await asyncio.to_thread(_make_folders, self.place)
            await self._note(self.record.but(state=State.PULLING))
            kind, layout = await asyncio.to_thread(self._verified)
        except MoorageError as failed:
            return failed.problem
        except OSError as failed:
            return Problem("start-failed", "The allocation could not be prepared", str(failed))
        holder = self._equipment.driver.stranger(desired.host, port, None)
        if holder is not None:
            return Problem("port-taken", f"Port {port} is held by {holder}")
        return plan_launch(desired.command, kind, desired.environ, self.place.private, layout, self._equipment.around)

    def _verified(self) -> tuple[str, Layout]:
        """The artifact's kind and layout, once every byte has been verified."""
        digest, store = self.record.desired.artifact, self._equipment.artifacts
        store.verify(digest)
        return store.manifest(digest).kind, layout_of(store.tree(digest))

    async def _spawn(self, launch: Launch) -> Instance | Problem:
        """The started process. Written down before it exists and again when its identity is known."""
        try:
            await self._note(self.record.but(state=State.STARTING, started_ms=now_ms()))
            instance = self._equipment.driver.start(launch, log=self.place.log, mark=self.place.private)
        except OSError as failed:
            return Problem("start-failed", "The process could not be started", f"{launch.argv[0]}: {failed.strerror}")
        try:
            await self._note(self.record.but(identity=instance.identity))
        except OSError as failed:
            await instance.kill()
            instance.release()
            return Problem("start-failed", "The allocation's folder cannot be written", str(failed))
        return instance

    # ---- adopting ---------------------------------------------------------------------------------------------

    def _adopted(self) -> Instance | None:
        driver, identity = self._equipment.driver, self.record.identity
        if identity is None:
            return driver.find(mark=self.place.private)
        return driver.adopt(identity, mark=self.place.private)

    async def _gone(self) -> None:
        """The process ended while no runner watched, so nobody knows how."""
        # What the dead process left running must not serve on.
        await self._equipment.driver.sweep(self.record.identity, mark=self.place.private)
        if self.record.stopping:
            return await self._over(State.STOPPED, "", "It ended while no runner watched.")
        started = self.record.identity is not None
        reason = "exited-unseen" if started else "start-interrupted"
        what = f"Process {self.record.identity.pid} is gone" if self.record.identity else "Its start was interrupted"
        await self._over(State.LOST, reason, f"{what}; no runner watched, so its exit code is unknown.")

    # ---- following --------------------------------------------------------------------------------------------

    async def _follow(self, instance: Instance) -> None:
        self._instance = instance
        if self.record.stopping:
            self._stop_asked.set()
        course = asyncio.create_task(self._course(instance))
        exited = asyncio.create_task(instance.ended())
        stop = asyncio.create_task(self._stop_asked.wait())
        try:
            await asyncio.wait({course, exited, stop}, return_when=asyncio.FIRST_COMPLETED)
            end = await self._end_of(exited, stop, course)
        finally:
            for task in (course, exited, stop):
                task.cancel()
        await self._finish(instance, end)

    async def _course(self, instance: Instance) -> _End:
        """Wait until it is ready, then until it no longer listens; the reason when either fails."""
        if self.record.state is not State.READY:
            failed = await self._become_ready(instance)
            if failed is not None:
                return failed
            await self._note(self.record.but(state=State.READY, ready_ms=now_ms()), must=False)
        missed, desired = 0, self.record.desired
        while missed < LISTEN_MISSED_COUNT:
            await pause(LISTEN_CHECK_PERIOD_S)
            missed = 0 if instance.listens(desired.host, desired.port) else missed + 1
        detail = f"The process lives, but does not listen on port {desired.port} any more."
        return _End(State.FAILED, "not-listening", detail, desired.stop_grace_s)

    async def _become_ready(self, instance: Instance) -> _End | None:
        desired, begun = self.record.desired, monotonic_s()
        last: int | None = None
        while monotonic_s() - begun < desired.ready_timeout_s:
            last = await health.probe(desired.host, desired.port, desired.health)
            if last is not None:
                holder = self._equipment.driver.stranger(desired.host, desired.port, instance)
                if holder is not None:
                    detail = f"Port {desired.port} is held by {holder}"
                    return _End(State.FAILED, "port-taken", detail, ABANDON_GRACE_S)
                if health.is_healthy(last) and instance.listens(desired.host, desired.port):
                    return None
            await pause(READY_PROBE_PERIOD_S if monotonic_s() - begun < _SLOW_AFTER_S else _SLOW_PROBE_PERIOD_S)
        detail = f"{_answer(last)} on {desired.health}, port {desired.port}, within {desired.ready_timeout_s:g} s."
        return _End(State.FAILED, "ready-timeout", detail, ABANDON_GRACE_S)

    async def _end_of(
        self, exited: asyncio.Task[int | None], stop: asyncio.Task[bool], course: asyncio.Task[_End]
    ) -> _End:
        desired = self.record.desired
        if exited.done():
            holder = None
            if self.record.state is not State.READY and self._instance is not None:
                holder = self._equipment.driver.stranger(desired.host, desired.port, self._instance)
            if holder is not None:
                return _End(State.FAILED, "port-taken", f"Port {desired.port} is held by {holder}", 0.0)
            return _End(State.FAILED, "exited", "", 0.0)
        if course.done():
            return course.result()  # a bug in the course is raised here
        assert stop.done(), "one of the three has ended"
        return _End(State.STOPPED, "", "", desired.stop_grace_s)

    async def _finish(self, instance: Instance, end: _End) -> None:
        """End what still runs: ask, wait for the grace time, kill; frozen processes die of the last."""
        if not instance.is_over:
            stopping = State.DRAINING if self.record.state is State.READY else self.record.state
            await self._note(self.record.but(state=stopping, stopping=True), must=False)
            instance.terminate()
            await _within(instance.ended(), end.grace_s)
        deaf = "" if instance.is_over else f"It did not end within {end.grace_s:g} s of SIGTERM, so SIGKILL ended it."
        await instance.kill()
        if not instance.is_over:
            return await self._over(State.LOST, "unkillable", "The kernel holds its process; it could not be ended.")
        code = await _within(instance.ended(), ABANDON_GRACE_S)
        instance.release()
        detail = end.detail or deaf or _how(code, adopted=self.record.adopted, reason=end.reason)
        await self._over(end.state, end.reason, detail, code)

    # ---- remembering ------------------------------------------------------------------------------------------

    async def _over(self, state: State, reason: str, detail: str, code: int | None = None) -> None:
        tail = logs.tail_lines(self.place.log)
        record = self.record.but(
            state=state, reason=reason, detail=detail, exit_code=code, log_tail=tail, ended_ms=now_ms()
        )
        _log.info("allocation %s is %s %s %s", record.allocation, state, reason, detail)
        await self._note(record, must=False)

    async def _note(self, record: Record, *, must: bool = True) -> None:
        """Write the record and tell of the change. Raises OSError when it must be written and cannot be."""
        try:
            await asyncio.to_thread(write_record, self.place, record)
        except OSError as failed:
            if must:
                raise
            _log.error("cannot write %s: %s", self.place.record, failed)
        self.record = record
        self._changed()


def layout_of(tree: Path) -> Layout:
    """What matters of an artifact's tree for starting it."""
    site = tree / "site"
    packages: frozenset[str] = frozenset()
    if site.is_dir():
        packages = frozenset(found.parent.name for found in site.glob("*/__main__.py"))
    return Layout(tree, (tree / "app").is_dir(), site.is_dir(), packages)


def _make_folders(place: Place) -> None:
    for folder in (place.folder, place.private, place.private / "tmp"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.log.touch(0o600)
    os.chmod(place.log, 0o600)


async def _within(awaited: object, seconds: float) -> int | None:
    assert asyncio.iscoroutine(awaited)
    try:
        code: int | None = await asyncio.wait_for(awaited, max(seconds, 0.0))
    except TimeoutError:
        return None
    return code


def _how(code: int | None, *, adopted: bool, reason: str) -> str:
    """How a process ended, in words."""
    if not reason:
        return ""
    if code is None:
        known = (
            "its exit code is unknown, since an earlier runner started it" if adopted else "its exit code is unknown"
        )
        return f"The process ended; {known}."
    if code < 0:
        try:
            return f"The process was ended by {signal.Signals(-code).name}."
        except ValueError:
            return f"The process was ended by signal {-code}."
    return f"The process ended with exit code {code}."


def _answer(status: int | None) -> str:
    if status is None:
        return "Nobody answered"
    return f"The last answer was HTTP {status}" if status else "The last answer was no HTTP, or came too late"


def _sentence(problem: Problem) -> str:
    return f"{problem.title}: {problem.detail}" if problem.detail else f"{problem.title}."
