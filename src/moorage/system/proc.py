"""What the kernel says about processes and ports: readers of /proc, and free ports.

Rules of the room: readers never raise for a process that has just gone; they answer None or leave it out. A process
is known by pid *and* start time, since pids are used again. Only the standard library: the supervisor imports this.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import signal
import socket
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from moorage.domain.errors import Problem, Refused

_PROC = Path("/proc")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LISTEN = "0A"
_ON_LINUX = sys.platform == "linux"

# Above the range of app ports and below the kernel's ephemeral range: no client socket takes such a port while a
# server that owns it is being restarted.
SERVER_PORT_FIRST = 30_000
SERVER_PORT_LAST = 32_767
_PORT_TRIES_COUNT = 200


@dataclass(frozen=True, slots=True)
class Process:
    """One process as /proc shows it. `started_ticks` is its start in clock ticks since boot: with the pid it names
    the process for good. `state` is the kernel's letter (R, S, D, T, Z)."""

    pid: int
    parent: int
    group: int
    session: int
    state: str
    started_ticks: int


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening TCP socket. `pid` is None when its owner cannot be seen (another user's process)."""

    address: str
    port: int
    inode: int
    pid: int | None


def process(pid: int) -> Process | None:
    """The process with this pid, or None when there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold spaces and brackets
    return Process(pid, int(fields[1]), int(fields[2]), int(fields[3]), fields[0], int(fields[19]))


def started_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot, or None when there is none."""
    found = process(pid)
    return found.started_ticks if found else None


def is_alive(pid: int, ticks: int | None = None) -> bool:
    """Whether the process runs (a zombie does not), and, given its start, is still the same one."""
    found = process(pid)
    return found is not None and found.state not in "ZX" and ticks in (None, found.started_ticks)


def command_of(pid: int) -> str:
    """The command line with single spaces; the bare name for a kernel thread; empty when there is no process."""
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
        if raw:
            return " ".join(raw.rstrip(b"\0").decode(errors="replace").split("\0"))
        return f"[{(_PROC / str(pid) / 'comm').read_text().strip()}]"
    except OSError:
        return ""


def processes() -> tuple[Process, ...]:
    """All processes that can be seen, zombies included."""
    try:
        pids = [int(name) for name in os.listdir(_PROC) if name.isdigit()]
    except OSError:
        return ()
    return tuple(found for pid in pids if (found := process(pid)))


def descendants(pid: int, among: Iterable[Process] | None = None) -> tuple[Process, ...]:
    """Everything below a process, parents before children, zombies left out."""
    children: dict[int, list[Process]] = {}
    for found in processes() if among is None else among:
        children.setdefault(found.parent, []).append(found)
    below: list[Process] = []
    queue = [pid]
    while queue:
        for child in children.get(queue.pop(0), ()):
            below.append(child)
            queue.append(child.pid)
    return tuple(child for child in below if child.state not in "ZX")


def pss_bytes(pid: int) -> int | None:
    """Proportional set size of one process in bytes; None when it is gone or not ours to read."""
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None


def tree_pss_bytes(pid: int) -> int:
    """Proportional set size of a process and everything below it, in bytes."""
    return sum(pss_bytes(each) or 0 for each in (pid, *(child.pid for child in descendants(pid))))


def listeners(port: int | None = None) -> tuple[Listener, ...]:
    """The listening TCP sockets (of one port), with the process that holds each."""
    found = [row for name in ("tcp", "tcp6") for row in _socket_rows(_PROC / "net" / name) if port in (None, row[1])]
    owners = _socket_owners({inode for _, _, inode in found})
    return tuple(Listener(address, number, inode, owners.get(inode)) for address, number, inode in found)


def listening_pid(port: int) -> int | None:
    """The process that listens on a TCP port, or None when nobody does or its owner cannot be seen."""
    return next((each.pid for each in listeners(port) if each.pid is not None), None)


def _socket_rows(table: Path) -> Iterable[tuple[str, int, int]]:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if fields[3] == _LISTEN:
            address, _, number = fields[1].rpartition(":")
            yield _address(address), int(number, 16), int(fields[9])


def _address(hexadecimal: str) -> str:
    words = [int(hexadecimal[i : i + 8], 16) for i in range(0, len(hexadecimal), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)  # the kernel prints words in its own byte order
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _socket_owners(inodes: set[int]) -> dict[int, int]:
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    owners: dict[int, int] = {}
    if not wanted:
        return owners
    for name in os.listdir(_PROC):
        if name.isdigit():
            for target in _open_files(_PROC / name / "fd"):
                if target in wanted:
                    owners.setdefault(wanted[target], int(name))
    return owners


def _open_files(folder: Path) -> Iterable[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(folder / name)
        except OSError:
            continue


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that is free on this address now, outside the range that client sockets are given."""
    for number in random.sample(range(SERVER_PORT_FIRST, SERVER_PORT_LAST + 1), _PORT_TRIES_COUNT):
        if _bind_error(host, number) is None:
            return number
    with _tcp_socket(host) as probe:
        try:
            probe.bind((host, 0))
        except OSError as wrong:
            raise Refused(_port_problem(host, 0, "bind", wrong)) from wrong
        return int(probe.getsockname()[1])


def require_port(host: str, port: int, *, key: str) -> int:
    """The port to listen on: the given one once it proved free, or a free one for 0. `key` names the setting.

    Raises Refused with `port-taken` (naming the owner), `port-forbidden` or `bind-unavailable`.
    """
    if port == 0:
        return free_port(host)
    wrong = _bind_error(host, port)
    if wrong is None:
        return port
    raise Refused(_port_problem(host, port, key, wrong))


def _port_problem(host: str, port: int, key: str, wrong: OSError) -> Problem:
    if wrong.errno == errno.EADDRINUSE:
        owner = listening_pid(port)
        held = f"pid {owner} ({command_of(owner)})" if owner else "a process of another user"
        return Problem(
            "port-taken",
            f"Port {port} is taken",
            f"{host}:{port} ({key}) is held by {held}",
            f"Stop that process, or choose another {key}; 0 picks a free port.",
            facts={"port": port, "key": key, "pid": owner, "command": command_of(owner) if owner else ""},
        )
    if wrong.errno in (errno.EACCES, errno.EPERM):
        return Problem(
            "port-forbidden",
            f"Port {port} needs more rights",
            f"{host}:{port} ({key}): {wrong.strerror}",
            f"Choose a {key} of 1024 or more, or grant the right to bind low ports.",
            facts={"port": port, "key": key},
        )
    return Problem(
        "bind-unavailable",
        f"Cannot listen on {host}",
        f"{host}:{port} ({key}): {wrong.strerror}",
        "Set `bind` to an address of this machine.",
        facts={"port": port, "key": key, "bind": host},
    )


def is_port_free(host: str, port: int) -> bool:
    """Whether a TCP port could be listened on just now."""
    return _bind_error(host, port) is None


def _bind_error(host: str, port: int) -> OSError | None:
    with _tcp_socket(host) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as wrong:
            return wrong
    return None


def _tcp_socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)


def adopt_orphans() -> bool:
    """Make this process the one that orphans below it are given to (PR_SET_CHILD_SUBREAPER); False where the
    kernel has no such thing."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int, with_signal: int = signal.SIGTERM) -> None:
    """Called in a child between fork and exec: get this signal when the parent dies; end at once if it is gone."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # the parent's Python handlers must not swallow it before the exec
    _prctl(_PR_SET_PDEATHSIG, int(with_signal))
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> bool:
    return _ON_LINUX and _LIBC.prctl(option, value, 0, 0, 0) == 0


_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded here, so that nothing is loaded between fork and exec
