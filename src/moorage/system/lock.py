"""The lock of a data directory: one platform per directory.

Rules of the room: the kernel's lock (flock) decides, since it goes with its process; what the file says is for
people and for the CLI (who holds it, where its API is).
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from moorage.domain.errors import Problem, Refused
from moorage.system import proc

_NAMED_WITHIN_S = 1.0  # between taking the lock and writing the name a holder needs a moment
_NAMED_PERIOD_S = 0.01


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a data directory: process (pid and start in clock ticks) and the address of its API."""

    pid: int
    started_ticks: int
    api: str


class HomeLock:
    """The held lock; released by `release`, by leaving the `with` block, or by the death of the process.

    The kernel's lock belongs to the open file: a process that is given the descriptor holds it, too (`hand_on`).
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor

    def hand_on(self) -> int:
        """The descriptor, made to survive the start of another program, which takes it up with `inherited_lock`."""
        os.set_inheritable(self._descriptor, True)
        return self._descriptor

    def publish(self, api: str) -> Holder:
        """Write who holds the directory and where its API is (a URL)."""
        holder = Holder(os.getpid(), proc.started_ticks(os.getpid()) or 0, api)
        data = json.dumps(asdict(holder)).encode() + b"\n"
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)
        os.fsync(self._descriptor)
        return holder

    def release(self) -> None:
        """Let the directory go; the file stays, empty."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> HomeLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def take_lock(path: Path, *, api: str = "") -> HomeLock:
    """Take the lock of a data directory, without waiting. A lock whose holder was killed is simply free.

    Raises Refused with `already-running`; its facts hold `pid` and `api` of the holder.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Refused(_already_running(path, _named_holder(path))) from None
    lock = HomeLock(path, descriptor)
    lock.publish(api)
    return lock


def inherited_lock(path: Path, descriptor: int, *, api: str) -> HomeLock:
    """The lock that the program which started this one has taken and handed on."""
    os.set_inheritable(descriptor, False)
    lock = HomeLock(path, descriptor)
    lock.publish(api)
    return lock


def lock_holder(path: Path) -> Holder | None:
    """Who holds the directory now, or None: no file, nobody named, or the named process is gone."""
    try:
        content = json.loads(path.read_bytes() or b"{}")
        holder = Holder(int(content["pid"]), int(content["started_ticks"]), str(content["api"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return holder if proc.is_alive(holder.pid, holder.started_ticks) else None


def _named_holder(path: Path) -> Holder | None:
    deadline = time.monotonic() + _NAMED_WITHIN_S
    while (holder := lock_holder(path)) is None and time.monotonic() < deadline:
        time.sleep(_NAMED_PERIOD_S)
    return holder


def _already_running(path: Path, holder: Holder | None) -> Problem:
    who = f"pid {holder.pid}" + (f", API {holder.api}" if holder.api else "") if holder else "an unnamed process"
    return Problem(
        "already-running",
        "Moorage already runs on this data directory",
        f"{path.parent} is held by {who}",
        "Use it as it is, stop it with `moorage down`, or choose another MOORAGE_HOME.",
        facts={"pid": holder.pid if holder else None, "api": holder.api if holder else ""},
    )
