"""An outbox in memory, and the contract that every outbox source keeps: the relay's only view of the log."""

from __future__ import annotations

import asyncio

from moorage.system.clock import monotonic_s
from moorage.wire.log import LogEntry, OwnerUpdated, RouteRemoved


def entry(index: int, incarnation: str = "inc_a", key: str = "board.localhost") -> LogEntry:
    """A log entry; its content tells its index."""
    event = (
        RouteRemoved(route_key=key, epoch=index)
        if index % 5 == 0
        else OwnerUpdated(
            route_key=key,
            epoch=index,
            app="board",
            environment=1,
            deployment=f"dep_{index}",
            deployment_number=index,
            artifact="sha256:" + "0" * 64,
        )
    )
    return LogEntry(index=index, incarnation=incarnation, at_ms=1_000 + index, event=event)


class MemoryOutbox:
    """A log in memory; `first` is the oldest index that it still has."""

    def __init__(self, incarnation: str = "inc_a", first: int = 1) -> None:
        self.incarnation = incarnation
        self._entries: dict[int, LogEntry] = {}
        self._next = first
        self._grown = asyncio.Event()

    @property
    def committed_index(self) -> int:
        return self._next - 1

    def commit(self, count: int = 1) -> int:
        """Add entries; the newest index."""
        for _ in range(count):
            self._entries[self._next] = entry(self._next, self.incarnation)
            self._next += 1
        self._grown.set()
        return self.committed_index

    def shorten(self, first: int) -> None:
        """Forget what is older than `first`."""
        self._entries = {index: each for index, each in self._entries.items() if index >= first}

    async def entries(self, after_index: int, limit: int) -> tuple[LogEntry, ...]:
        found = sorted(index for index in self._entries if index > after_index)[:limit]
        return tuple(self._entries[index] for index in found)

    async def wait(self, after_index: int, timeout_s: float) -> None:
        deadline = monotonic_s() + timeout_s
        while self.committed_index <= after_index and monotonic_s() < deadline:
            self._grown.clear()
            try:
                await asyncio.wait_for(self._grown.wait(), max(deadline - monotonic_s(), 0.0))
            except TimeoutError:
                return
