"""Time. Everything else takes `now` as an argument; waiting for a condition lives here too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


def now_ms() -> int:
    """Wall clock, milliseconds since the Unix epoch: for people and records, never for leases."""
    return time.time_ns() // 1_000_000


def monotonic_s() -> float:
    """Seconds on the monotonic clock: for leases, deadlines and durations."""
    return time.monotonic()


async def pause(seconds: float) -> None:
    """Wait this long."""
    await asyncio.sleep(seconds)


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Wait until the event is set or the time is over; says whether it was set. The event is cleared."""
    try:
        async with asyncio.timeout(max(seconds, 0.0)):  # `wait_for` of Python 3.11 can swallow a cancellation
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True


async def wait_until(condition: Callable[[], Awaitable[bool]], *, timeout_s: float, period_s: float = 0.02) -> bool:
    """Ask the condition again and again until it holds or the time is over; says whether it held."""
    deadline = monotonic_s() + timeout_s
    while not await condition():
        if monotonic_s() >= deadline:
            return False
        await asyncio.sleep(period_s)
    return True
