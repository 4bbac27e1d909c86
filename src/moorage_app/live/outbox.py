"""What waits to be sent to one client, bounded.

Rules of this room: messages keep their order; a text of a slot (shared state, people) replaces its unsent
predecessor, so a slow client gets the newest value and not every value. A client that lets too much pile up is closed.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from .messages import CLOSE_TRY_LATER

WAITING_COUNT: Final = 512


class Outbox:
    """Filled by anyone in the process, emptied by the connection's one writer."""

    def __init__(self) -> None:
        self._queue: deque[str] = deque()
        self._latest: dict[str, str] = {}
        self._close: int | None = None
        self._wake = asyncio.Event()

    def post(self, message: Mapping[str, Any]) -> None:
        """Queues a message; nothing is taken after a close."""
        self.post_text(json.dumps(message, allow_nan=False, separators=(",", ":")))

    def post_text(self, text: str) -> None:
        """Queues an encoded message."""
        if self._close is not None:
            return
        if len(self._queue) >= WAITING_COUNT:
            self._queue.clear()
            self.close(CLOSE_TRY_LATER)
            return
        self._queue.append(text)
        self._wake.set()

    def post_latest(self, slot: str, text: str) -> None:
        """Queues a text in place of an unsent one of the same slot."""
        if self._close is None:
            self._latest[slot] = text
            self._wake.set()

    def close(self, code: int) -> None:
        """Closes the socket after what is queued; the first code stands."""
        if self._close is None:
            self._close = code
            self._latest.clear()
            self._wake.set()

    async def next_batch(self) -> tuple[list[str], int | None]:
        """What is to be sent now, and the close code to send after it."""
        await self._wake.wait()
        self._wake.clear()
        batch = [*self._queue, *self._latest.values()]
        self._queue.clear()
        self._latest.clear()
        return batch, self._close
