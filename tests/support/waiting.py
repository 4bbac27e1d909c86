"""Waiting for a condition with a deadline; the only way a test may wait."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from moorage.system.clock import wait_until as _wait_until


async def wait_until(
    condition: Callable[[], Any | Awaitable[Any]], *, timeout_s: float = 20.0, what: str = "the condition"
) -> None:
    """Wait until the condition (plain or async) is true; AssertionError with `what` after the deadline."""

    async def holds() -> bool:
        answer = condition()
        return bool(await answer if inspect.isawaitable(answer) else answer)

    assert await _wait_until(holds, timeout_s=timeout_s), f"not within {timeout_s} s: {what}"
