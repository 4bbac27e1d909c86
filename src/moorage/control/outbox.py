"""The log as the relay reads it: the outbox rows of the control database."""

from __future__ import annotations

from moorage.store import log
from moorage.store.database import Database
from moorage.system.clock import monotonic_s
from moorage.wire.log import LogEntry


class Outbox:
    """The source of the relay. The database is asked each time: nothing here can be stale."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @property
    def incarnation(self) -> str:
        """The name of this log."""
        return self._db.read_now(log.incarnation)

    @property
    def committed_index(self) -> int:
        """The index of the newest committed entry."""
        return self._db.read_now(log.committed_index)

    async def entries(self, after_index: int, limit: int) -> tuple[LogEntry, ...]:
        """Committed entries behind an index, oldest first."""
        return await self._db.read(lambda tx: log.entries(tx, after_index, limit))

    async def wait(self, after_index: int, timeout_s: float) -> None:
        """Return as soon as there is an entry behind the index, or after the time."""
        deadline = monotonic_s() + timeout_s
        while True:
            seen = self._db.changes.version
            left = deadline - monotonic_s()
            if self.committed_index > after_index or left <= 0:
                return
            await self._db.changes.wait(seen, left)
