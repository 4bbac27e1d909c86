"""Every outbox source keeps the contract: the one in memory, so that tests over it say something, and the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from moorage.control.outbox import Outbox
from moorage.domain.ids import Prefix
from moorage.store import log
from moorage.store.database import Database
from moorage.system.clock import now_ms
from moorage.system.rand import new_id
from tests.events.outbox import MemoryOutbox, entry
from tests.events.outbox_contract import OutboxContract


class TestMemoryOutbox(OutboxContract):
    @pytest.fixture
    def source(self) -> MemoryOutbox:
        return MemoryOutbox()

    async def commit(self, source: Any, count: int) -> None:
        source.commit(count)


class TestDatabaseOutbox(OutboxContract):
    @pytest.fixture
    async def source(self, tmp_path: Path) -> AsyncIterator[Outbox]:
        database = Database(tmp_path / "control.db", now_ms)
        await database.write(lambda tx: log.create_incarnation(tx, new_id(Prefix.INCARNATION)))
        yield Outbox(database)
        database.close()

    async def commit(self, source: Any, count: int) -> None:
        for number in range(1, count + 1):
            event = entry(number).event
            await source._db.write(lambda tx, event=event: log.append(tx, event))
