"""What a supervisor is told and what it tells: children, when they are ready, and the state file.

Rules of the room: only the standard library. Values and decisions, and the one file that `moorage status` reads; the
acting is in `supervise`.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from moorage.system import proc
from moorage.system.files import write_atomic

BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0
READY_TIMEOUT_S = 30.0
STOP_GRACE_S = 10.0
_STATE_FORMAT = 1


@dataclass(frozen=True, slots=True)
class TcpReady:
    """Ready once a TCP connection is accepted."""

    host: str
    port: int

    async def __call__(self) -> bool:
        return await _connects(asyncio.open_connection(self.host, self.port))


@dataclass(frozen=True, slots=True)
class UnixReady:
    """Ready once a connection to a unix socket is accepted."""

    path: Path

    async def __call__(self) -> bool:
        return await _connects(asyncio.open_unix_connection(str(self.path)))


@dataclass(frozen=True, slots=True)
class HttpReady:
    """Ready once `GET path` answers 200."""

    host: str
    port: int
    path: str

    async def __call__(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        try:
            writer.write(f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            return (await reader.readline()).split()[1:2] == [b"200"]
        except OSError:
            return False
        finally:
            writer.close()


Ready = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Child:
    """One process to run. `environ` is its whole environment; its output is appended to `log_path`.

    `ready` is asked until it says True (None: ready as soon as it runs). `parent_death_signal` is what the kernel
    sends it when the supervisor dies without stopping it.
    """

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    log_path: Path
    ready: Ready | None = None
    depends_on: tuple[str, ...] = ()
    folder: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace_s: float = STOP_GRACE_S
    ready_timeout_s: float = READY_TIMEOUT_S
    parent_death_signal: signal.Signals = signal.SIGTERM


class State(StrEnum):
    """Of a child: waiting for what it depends on, starting, ready, waiting to be started again, stopping, stopped."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing-off"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Phase(StrEnum):
    """Of the whole: `degraded` = was ready, and a child is not now."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(slots=True)
class ProcessState:
    """What `moorage status` shows of a child. `last_exit` is the exit code, negative for a signal."""

    name: str
    state: State = State.WAITING
    pid: int | None = None
    started_ticks: int | None = None
    restarts: int = 0
    last_exit: int | None = None
    last_reason: str = ""
    since_ms: int = 0
    log_path: str = ""


@dataclass(frozen=True, slots=True)
class PlatformState:
    """The content of the state file."""

    phase: Phase
    pid: int
    started_ticks: int
    since_ms: int
    processes: tuple[ProcessState, ...]
    format: int = _STATE_FORMAT


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the platform did not come up: the child, its last exit code (None: never ready), the end of its log."""

    child: str
    exit_code: int | None
    reason: str
    log_path: Path
    log_tail: str


def backoff_s(failures: int) -> float:
    """How long to wait before the start that follows this many failures in a row (0: none)."""
    return 0.0 if failures == 0 else min(BACKOFF_FIRST_S * 2 ** min(failures - 1, 16), BACKOFF_MAX_S)


def check_children(children: Sequence[Child]) -> None:
    """Assert that names are unique and dependencies known, without circles."""
    names = [child.name for child in children]
    assert len(set(names)) == len(names), "children have distinct names"
    started: set[str] = set()
    left = {child.name: set(child.depends_on) for child in children}
    while left:
        free = [name for name, needs in left.items() if needs <= started]
        assert free, f"children that wait for each other or for nobody: {sorted(left)}"
        started.update(free)
        for name in free:
            del left[name]


def write_state(path: Path, state: PlatformState) -> None:
    """Replace the state file, private to its owner."""
    write_atomic(path, json.dumps(asdict(state), indent=1).encode(), mode=0o600)


def read_state(path: Path) -> PlatformState | None:
    """The state file, or None when there is none that can be read. The writer may be gone: see `is_running`."""
    try:
        raw = json.loads(path.read_bytes())
        processes = tuple(ProcessState(**{**each, "state": State(each["state"])}) for each in raw.pop("processes"))
        return PlatformState(**{**raw, "phase": Phase(raw["phase"])}, processes=processes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_running(state: PlatformState) -> bool:
    """Whether the supervisor that wrote this state still runs."""
    return proc.is_alive(state.pid, state.started_ticks)


def exit_reason(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


async def _connects(opening: Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> bool:
    try:
        _, writer = await opening
    except OSError:
        return False
    writer.close()
    return True
