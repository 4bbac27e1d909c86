"""Doing harm to the platform's own processes, by pid, and seeing them come back."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from moorage.system.children import State, read_state
from tests.support.platform import Platform
from tests.support.waiting import wait_until

BACK_WITHIN_S = 30.0


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process where it is (SIGSTOP) and let it go on afterwards."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def back(platform: Platform, name: str, old: int) -> int:
    """Wait until the supervisor has another process of this name than `old`, and it is ready; its pid."""

    def pid() -> int | None:
        state = read_state(platform.home / "run" / "processes.json")
        assert state is not None
        (found,) = [each for each in state.processes if each.name == name]
        return found.pid if found.state is State.READY and found.pid != old else None

    await wait_until(lambda: pid() is not None, timeout_s=BACK_WITHIN_S, what=f"{name} is back")
    return pid() or 0


async def kill(platform: Platform, name: str) -> int:
    """kill -9 one of the platform's processes and wait until its successor is ready; the successor's pid."""
    old = platform.pid_of(name)
    os.kill(old, signal.SIGKILL)
    return await back(platform, name, old)


@asynccontextmanager
async def gone(platform: Platform, name: str) -> AsyncIterator[None]:
    """kill -9 one of the platform's processes and hold its restart off (the supervisor is frozen) for a while."""
    old = platform.pid_of(name)
    with frozen(platform.pid):
        os.kill(old, signal.SIGKILL)
        try:
            yield
        finally:
            os.kill(platform.pid, signal.SIGCONT)
            await back(platform, name, old)
