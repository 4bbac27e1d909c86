"""The supervisor: starts a fixed list of child processes, watches them, stops all of them.

Rules of the room: only the standard library, since this process lives as long as the platform and should stay small.
Children start in dependency order, each as soon as what it depends on is ready; one that dies is started again with
back-off; stopping goes the other way round. A child never outlives the supervisor. Orphans of a dead child are given
to the supervisor and left alone: a runner that comes back adopts its apps. Only when all children have stopped is
everything that is left below ended too. Exits are collected by one `waitpid(-1)`, so nothing else in this process may
start processes while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moorage.domain import limits
from moorage.system import proc
from moorage.system.children import (
    Child,
    Failure,
    Phase,
    PlatformState,
    ProcessState,
    State,
    backoff_s,
    check_children,
    exit_reason,
    is_running,
    read_state,
    write_state,
)
from moorage.system.clock import monotonic_s, now_ms, pause

HEALTHY_AFTER_S = 30.0  # the back-off begins anew for a child that was ready this long
PROBE_PERIOD_S = 0.02
PROBE_TIMEOUT_S = 2.0
LEFTOVER_GRACE_S = 3.0
START_TRIES_COUNT = 3  # before the platform was ready once; a configuration that cannot work is said, not retried
LOG_CHECK_PERIOD_S = 30.0
LOG_TAIL_BYTES = 8192


@dataclass(slots=True)
class _Running:
    """A child's process. `exit` resolves with its exit code."""

    process: subprocess.Popen[bytes]
    exit: asyncio.Future[int]


@dataclass(slots=True)
class _Watch:
    """Everything known about a child while the supervisor runs."""

    child: Child
    state: ProcessState
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    running: _Running | None = None
    task: asyncio.Task[None] | None = None


class Supervisor:
    """Runs the children until it is told to stop: `code = await Supervisor(children, state_path=...).run()`."""

    def __init__(self, children: Sequence[Child], *, state_path: Path, say: Callable[..., None] | None = None) -> None:
        check_children(children)
        self._state_path = state_path
        self._say = say or say_json
        self._watches = {
            child.name: _Watch(child, ProcessState(child.name, since_ms=now_ms(), log_path=str(child.log_path)))
            for child in children
        }
        self._phase = Phase.STARTING
        self._since_ms = now_ms()
        self._was_ready = False
        self._stop = asyncio.Event()
        self._impatient = asyncio.Event()
        self.failure: Failure | None = None

    def request_stop(self) -> None:
        """Stop everything in order; asked twice, without further grace."""
        if self._stop.is_set():
            self._impatient.set()
        self._stop.set()

    async def run(self, *, on_ready: Callable[[], None] | None = None) -> Failure | None:
        """Run until SIGTERM, SIGINT, SIGHUP or `request_stop`; None after an ordinary stop.

        `on_ready` is called once, when every child is ready. Everything below this process has ended on return.
        """
        proc.adopt_orphans()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._collect)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.request_stop)
        try:
            await end_leftovers(self._state_path)
            await self._run(on_ready)
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                loop.remove_signal_handler(number)
        return self.failure

    async def _run(self, on_ready: Callable[[], None] | None) -> None:
        for watch in self._watches.values():
            watch.task = asyncio.create_task(self._keep(watch), name=watch.child.name)
            watch.task.add_done_callback(self._ended_by_itself)
        announce = asyncio.create_task(self._announce(on_ready))
        trim = asyncio.create_task(self._keep_logs_short())
        await self._stop.wait()
        self._set_phase(Phase.STOPPING)
        for task in (announce, trim):
            task.cancel()
        await asyncio.gather(*(self._stop_child(watch) for watch in self._watches.values()))
        await self._end_orphans()
        self._set_phase(Phase.STOPPED)

    async def _announce(self, on_ready: Callable[[], None] | None) -> None:
        while not all(watch.ready.is_set() for watch in self._watches.values()):
            for watch in self._watches.values():
                await watch.ready.wait()
        self._was_ready = True
        self._set_phase(Phase.READY)
        self._say("platform ready", after_ms=now_ms() - self._since_ms)
        if on_ready is not None:
            on_ready()

    async def _keep(self, watch: _Watch) -> None:
        """The life of one child: wait, start, watch, start again."""
        for name in watch.child.depends_on:
            await self._watches[name].ready.wait()
        failures = 0
        while True:
            ready_at = await self._live_once(watch)
            healthy = ready_at is not None and monotonic_s() - ready_at >= HEALTHY_AFTER_S
            failures = 1 if healthy else failures + 1
            if not self._was_ready and failures >= START_TRIES_COUNT:
                self._give_up(watch)
                return
            self._change(watch, State.BACKING_OFF)
            await pause(backoff_s(failures))
            watch.state.restarts += 1

    async def _live_once(self, watch: _Watch) -> float | None:
        """One process of a child from start to exit; when it became ready (monotonic seconds), or None."""
        ready_at = None
        try:
            running = watch.running = self._start(watch.child)
        except OSError as wrong:
            watch.state.last_exit, watch.state.last_reason = None, f"cannot start: {wrong}"
            self._say("child does not start", child=watch.child.name, error=str(wrong))
            return None
        watch.state.pid = running.process.pid
        watch.state.started_ticks = proc.started_ticks(running.process.pid)
        self._change(watch, State.STARTING)
        if await self._becomes_ready(watch.child, running):
            ready_at = monotonic_s()
            watch.ready.set()
            self._change(watch, State.READY)
        elif not running.exit.done():
            watch.state.last_reason = f"not ready within {watch.child.ready_timeout_s:g} s"
            self._say("child is not ready in time", child=watch.child.name, pid=running.process.pid)
            _signal(running.process.pid, signal.SIGKILL)
        code = await asyncio.shield(running.exit)
        self._exited(watch, code, was_ready=ready_at is not None)
        return ready_at

    def _exited(self, watch: _Watch, code: int, *, was_ready: bool) -> None:
        watch.running = None
        watch.ready.clear()
        watch.state.pid = watch.state.started_ticks = None
        watch.state.last_exit = code
        if was_ready or not watch.state.last_reason.startswith("not ready"):
            watch.state.last_reason = exit_reason(code)
        self._say("child exited", child=watch.child.name, exit=code, reason=watch.state.last_reason)

    async def _becomes_ready(self, child: Child, running: _Running) -> bool:
        if child.ready is None:
            return not running.exit.done()
        deadline = monotonic_s() + child.ready_timeout_s
        while monotonic_s() < deadline and not running.exit.done():
            with contextlib.suppress(TimeoutError, OSError):
                if await asyncio.wait_for(child.ready(), PROBE_TIMEOUT_S):
                    return not running.exit.done()
            await asyncio.wait({running.exit}, timeout=PROBE_PERIOD_S)
        return False

    def _start(self, child: Child) -> _Running:
        child.log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shorten_log(child.log_path)
        with open(child.log_path, "ab", buffering=0) as log:
            process = subprocess.Popen(
                child.argv,
                env=dict(child.environ),
                cwd=child.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at a terminal reaches the supervisor alone: it stops in order
                # This process has one thread, so running code between fork and exec is safe here.
                preexec_fn=functools.partial(proc.die_with_parent, os.getpid(), child.parent_death_signal),
            )
        return _Running(process, asyncio.get_running_loop().create_future())

    def _collect(self) -> None:
        """Collect every exit, those of adopted orphans too."""
        running = {w.running.process.pid: w.running for w in self._watches.values() if w.running is not None}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            known = running.get(pid)
            if known is not None and not known.exit.done():
                known.process.returncode = os.waitstatus_to_exitcode(status)
                known.exit.set_result(known.process.returncode)

    async def _stop_child(self, watch: _Watch) -> None:
        """Stop one child once everything that depends on it has stopped."""
        dependents = [w for w in self._watches.values() if watch.child.name in w.child.depends_on]
        while any(w.state.state is not State.STOPPED for w in dependents):
            await pause(PROBE_PERIOD_S)
        if watch.task is not None:
            watch.task.cancel()
            await asyncio.wait({watch.task})
        running = watch.running
        if running is not None and not running.exit.done():
            self._change(watch, State.STOPPING)
            await self._end(running, watch.child)
        if running is not None:
            watch.state.last_exit = running.exit.result()
            watch.state.last_reason = exit_reason(running.exit.result())
        watch.running = watch.state.pid = watch.state.started_ticks = None
        self._change(watch, State.STOPPED)

    async def _end(self, running: _Running, child: Child) -> None:
        pid = running.process.pid
        _signal(pid, child.stop_signal)
        hurry: asyncio.Future[bool] = asyncio.ensure_future(self._impatient.wait())
        either: set[asyncio.Future[Any]] = {running.exit, hurry}
        await asyncio.wait(either, timeout=child.stop_grace_s, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not running.exit.done():
            self._say("child does not stop, killing it", child=child.name, pid=pid)
            _signal(pid, signal.SIGKILL)
            await running.exit

    async def _end_orphans(self) -> None:
        """End what the children left below this process: SIGTERM, then SIGKILL."""
        for number, grace_s in ((signal.SIGTERM, LEFTOVER_GRACE_S), (signal.SIGKILL, LEFTOVER_GRACE_S)):
            left = proc.descendants(os.getpid())
            for each in left:
                self._say("ending a process that was left", pid=each.pid, signal=number.name)
                _signal(each.pid, number)
                _signal(each.pid, signal.SIGCONT)  # a frozen process cannot act on SIGTERM
            deadline = monotonic_s() + (0 if self._impatient.is_set() and number == signal.SIGTERM else grace_s)
            while proc.descendants(os.getpid()) and monotonic_s() < deadline:
                await pause(PROBE_PERIOD_S)

    def _give_up(self, watch: _Watch) -> None:
        state, child = watch.state, watch.child
        if self.failure is None:
            self.failure = Failure(child.name, state.last_exit, state.last_reason, child.log_path, tail(child.log_path))
        self._say("giving up", child=child.name, reason=state.last_reason, log=str(child.log_path))
        self._stop.set()

    def _ended_by_itself(self, task: asyncio.Task[None]) -> None:
        """A watch that failed is a bug: stop the platform loudly rather than leave a child unwatched."""
        if not task.cancelled() and (wrong := task.exception()) is not None:
            watch = self._watches[task.get_name()]
            watch.state.last_reason = f"not watched any more: {wrong!r}"
            self._give_up(watch)

    async def _keep_logs_short(self) -> None:
        while True:
            await pause(LOG_CHECK_PERIOD_S)
            for watch in self._watches.values():
                shorten_log(watch.child.log_path)

    def _change(self, watch: _Watch, state: State) -> None:
        watch.state.state, watch.state.since_ms = state, now_ms()
        if self._was_ready and self._phase in (Phase.READY, Phase.DEGRADED):
            whole = all(w.state.state is State.READY for w in self._watches.values())
            self._phase = Phase.READY if whole else Phase.DEGRADED
        self._say("child", child=watch.child.name, state=state.value, pid=watch.state.pid)
        self._write_state()

    def _set_phase(self, phase: Phase) -> None:
        self._phase = phase
        self._write_state()

    def _write_state(self) -> None:
        pid = os.getpid()
        states = tuple(watch.state for watch in self._watches.values())
        state = PlatformState(self._phase, pid, proc.started_ticks(pid) or 0, self._since_ms, states)
        try:
            write_state(self._state_path, state)
        except OSError as wrong:  # a full disk must not end the platform; status is stale until it can be written
            self._say("state file not written", error=str(wrong))


async def end_leftovers(state_path: Path) -> tuple[int, ...]:
    """End the children of a supervisor that was killed, as its state file names them; the pids that were ended.

    Only processes with the recorded pid and start time are touched, and none while that supervisor still runs.
    """
    state = read_state(state_path)
    if state is None or is_running(state):
        return ()
    left = [(each.pid, each.started_ticks) for each in state.processes if each.pid and each.started_ticks]
    left = [(pid, ticks) for pid, ticks in left if proc.is_alive(pid, ticks)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = monotonic_s() + LEFTOVER_GRACE_S
        for pid, ticks in left:
            if proc.is_alive(pid, ticks):
                _signal(pid, number)
        while any(proc.is_alive(pid, ticks) for pid, ticks in left) and monotonic_s() < deadline:
            await pause(PROBE_PERIOD_S)
    return tuple(pid for pid, _ in left)


def tail(path: Path, size_bytes: int = LOG_TAIL_BYTES) -> str:
    """The last lines of a log, whole ones, up to this many bytes."""
    try:
        with open(path, "rb") as log:
            length = log.seek(0, os.SEEK_END)
            log.seek(max(length - size_bytes, 0))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    return text if length <= size_bytes else text.partition("\n")[2]


def shorten_log(path: Path, size_bytes: int = limits.LOG_FILE_MAX_BYTES) -> bool:
    """Keep one older copy (`.1`) and empty the log once it is too long; its writer appends, so it may be open."""
    try:
        if path.stat().st_size <= size_bytes:
            return False
        with open(path, "rb") as log, open(path.with_name(path.name + ".1"), "wb") as older:
            while chunk := log.read(1 << 20):
                older.write(chunk)
        os.truncate(path, 0)
    except OSError:
        return False
    return True


def say_json(event: str, **facts: object) -> None:
    """One line of the supervisor's own log: JSON on stderr, shaped as every other process's."""
    line = json.dumps({"service": "supervisor", "event": event, "at_ms": now_ms(), **facts}, default=str)
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
