"""The plain process driver: an instance is a process in a session of its own. It isolates nothing.

Rules: a process is known by pid, start time and boot, never by pid alone. Its exit is noticed through a pidfd, which
works for adopted processes too; the exit code is known only of our own children. What belongs to an instance is its
session, its group, and everything that carries its mark (HOME) in the environment it was started with.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from pathlib import Path

from moorage.domain.limits import LET_GO_PER_S, LET_GO_WITHIN_S
from moorage.runner.drivers.driver import Instance, Stranger
from moorage.runner.launch import Launch
from moorage.runner.record import Identity
from moorage.system import proc
from moorage.system.clock import pause
from moorage.system.sockets import end_input

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_GONE_PERIOD_S = 0.01
_GONE_TRIES_COUNT = 200


def boot_id() -> str:
    """Names this boot of the machine; empty where the kernel does not say."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


class ProcessInstance:
    """One process and what it started."""

    def __init__(self, identity: Identity, pidfd: int, mark: Path, child: subprocess.Popen[bytes] | None) -> None:
        self.identity = identity
        self._pidfd, self._mark, self._child = pidfd, mark, child
        self._listening: tuple[str, str] | None = None  # link in /proc and what it showed
        loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[int | None] = loop.create_future()
        loop.add_reader(pidfd, self._on_exit)

    @property
    def is_over(self) -> bool:
        """See Instance."""
        return self._exit.done() or not proc.is_alive(self.identity.pid, self.identity.started_ticks)

    async def ended(self) -> int | None:
        """See Instance."""
        return await asyncio.shield(self._exit)

    def terminate(self) -> None:
        """See Instance."""
        if not self._exit.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.identity.pid, signal.SIGTERM)

    async def kill(self) -> None:
        """See Instance. A process in an uninterruptible wait cannot be killed: after 2 s it is left to the kernel."""
        await _kill_all(self.identity, self._mark)

    def members(self) -> tuple[proc.Process, ...]:
        """The living processes that belong to the instance."""
        return _members(self.identity, self._mark)

    def listens(self, host: str, port: int) -> bool:
        """See Instance."""
        if self._listening is not None:
            with contextlib.suppress(OSError):
                if os.readlink(self._listening[0]) == self._listening[1]:
                    return True
        pids = {member.pid for member in self.members()}
        mine = [found for found in _listeners(host, port) if found.pid in pids]
        self._listening = _link_of(mine[0]) if mine else None
        return bool(mine)

    def let_go(self, port: int) -> int:
        """See Instance."""
        paced = {"per_s": LET_GO_PER_S, "within_s": LET_GO_WITHIN_S}
        return sum(end_input(member.pid, port, **paced) for member in self.members())

    def release(self) -> None:
        """See Instance."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _on_exit(self) -> None:
        self.release()
        code = self._child.poll() if self._child is not None else None
        if not self._exit.done():
            self._exit.set_result(code)


class ProcessDriver:
    """Runs allocations as plain processes of the platform's own user."""

    name = "process"
    isolation = "none"

    def start(self, launch: Launch, *, log: Path, mark: Path) -> Instance:
        """See Driver."""
        assert launch.environ.get("HOME") == str(mark), "an instance is recognised by its HOME"
        with open(log, "ab", buffering=0) as output:
            child = subprocess.Popen(
                launch.argv,
                env=dict(launch.environ),
                cwd=launch.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        pidfd = os.pidfd_open(child.pid)  # cannot fail: a child that ended stays a zombie until it is waited for
        ticks = proc.started_ticks(child.pid)
        assert ticks is not None, "our own child has a start time until it is waited for"
        return ProcessInstance(Identity(pid=child.pid, started_ticks=ticks, boot=boot_id()), pidfd, mark, child)

    def adopt(self, identity: Identity, *, mark: Path) -> Instance | None:
        """See Driver."""
        if identity.boot != boot_id():
            return None
        try:
            pidfd = os.pidfd_open(identity.pid)
        except OSError:
            return None
        if not proc.is_alive(identity.pid, identity.started_ticks):  # asked after the pidfd: now both name the same
            os.close(pidfd)
            return None
        return ProcessInstance(identity, pidfd, mark, None)

    def find(self, *, mark: Path) -> Instance | None:
        """See Driver."""
        for found in proc.processes():
            if found.pid == found.session and found.state not in "ZX" and _carries(found.pid, mark):
                identity = Identity(pid=found.pid, started_ticks=found.started_ticks, boot=boot_id())
                return self.adopt(identity, mark=mark)
        return None

    async def sweep(self, identity: Identity | None, *, mark: Path) -> None:
        """See Driver."""
        same_boot = identity is not None and identity.boot == boot_id()
        await _kill_all(identity if same_boot else None, mark)

    def stranger(self, host: str, port: int, instance: Instance | None) -> Stranger | None:
        """See Driver. Looked for twice: a child of the instance that was just ending held the socket, too."""
        first = self._look(host, port, instance)
        return first if first is not None and self._look(host, port, instance) == first else None

    def _look(self, host: str, port: int, instance: Instance | None) -> Stranger | None:
        found = _listeners(host, port)
        mine = {m.pid for m in instance.members()} if isinstance(instance, ProcessInstance) and found else set()
        for listener in found:
            if listener.pid not in mine:
                return Stranger(listener.pid, proc.command_of(listener.pid) if listener.pid else "")
        return None


def _members(identity: Identity | None, mark: Path) -> tuple[proc.Process, ...]:
    everybody, leader, since = proc.processes(), None, 0
    if identity is not None:
        since = identity.started_ticks  # nothing older belongs to it
        # While any of ours lives in the group, the kernel does not use its number again.
        reused = any(f.pid == identity.pid and f.started_ticks != since for f in everybody)
        leader = None if reused else identity.pid
    return tuple(
        found
        for found in everybody
        if found.state not in "ZX"
        and found.started_ticks >= since
        and (leader in (found.session, found.group, found.pid) or _carries(found.pid, mark))
    )


async def _kill_all(identity: Identity | None, mark: Path) -> None:
    for _ in range(_GONE_TRIES_COUNT):
        left = _members(identity, mark)
        if not left:
            return
        for member in left:
            _kill(member)
        await pause(_GONE_PERIOD_S)


def _listeners(host: str, port: int) -> tuple[proc.Listener, ...]:
    """The listening sockets that a connection to host and port may reach."""
    reached = {host, "0.0.0.0", "::", f"::ffff:{host}"}
    return tuple(found for found in proc.listeners(port) if found.address in reached)


def _link_of(listener: proc.Listener) -> tuple[str, str] | None:
    """The descriptor in /proc that holds a listening socket: to look there again costs one system call."""
    folder, target = f"/proc/{listener.pid}/fd", f"socket:[{listener.inode}]"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                if os.readlink(f"{folder}/{name}") == target:
                    return f"{folder}/{name}", target
    return None


def _carries(pid: int, mark: Path) -> bool:
    """Whether a process was started with this HOME."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ:
            return f"HOME={mark}".encode() in environ.read().split(b"\0")
    except OSError:
        return False


def _kill(member: proc.Process) -> None:
    """Kill exactly this process, not one that got its number meanwhile."""
    try:
        pidfd = os.pidfd_open(member.pid)
    except OSError:
        return
    try:
        if proc.is_alive(member.pid, member.started_ticks):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
