"""Sockets of another process: end what they may read, without a word to either side.

An app whose connection is reset while it writes may take the failed write for the end of the session and drop what it
holds. When its input ends instead, it reads everything that had arrived, then an orderly end, and its writes still
succeed. Linux 5.6 and later, for processes that this one may trace (its children, or any with the right to).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import time
from pathlib import Path

from moorage.system.clock import monotonic_s

_PIDFD_GETFD = 438  # the same number on every architecture
_ESTABLISHED = "01"
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def end_input(pid: int, port: int, *, per_s: float, within_s: float) -> int:
    """End the input of every connection that the process has accepted on the TCP port; how many there were.

    One after the other, at most `per_s` of them a second unless they would then take longer than `within_s` in all:
    this blocks for as long. Raises OSError when the kernel or the system's policy does not allow it, or the process is
    gone.
    """
    accepted = {f"socket:[{inode}]" for inode in _accepted(port)}
    if not accepted:
        return 0
    folder, count = Path(f"/proc/{pid}/fd"), 0
    step_s = step_between(len(accepted), per_s=per_s, within_s=within_s)
    start_s = monotonic_s()
    pidfd = os.pidfd_open(pid)
    try:
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(folder / name) in accepted:  # looked at just before: a number may be another's by then
                    count += _shut(pidfd, int(name))
                    time.sleep(max(0.0, start_s + count * step_s - monotonic_s()))
    finally:
        os.close(pidfd)
    return count


def step_between(count: int, *, per_s: float, within_s: float) -> float:
    """Seconds from one of `count` turns to the next: `per_s` of them a second, or all of them within `within_s`."""
    return min(1 / per_s, within_s / max(1, count))


def _accepted(port: int) -> set[str]:
    """The inodes of the established connections whose own end is this port."""
    found: set[str] = set()
    for table in _TABLES:
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _ESTABLISHED and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def _shut(pidfd: int, number: int) -> int:
    """Shut the reading side of the other process's descriptor; 0 when that connection has ended meanwhile."""
    taken = _libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
    if taken < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    with socket.socket(fileno=taken) as theirs:
        try:
            theirs.shutdown(socket.SHUT_RD)
        except OSError:
            return 0
    return 1


_libc = ctypes.CDLL(None, use_errno=True)
