"""The outbox in memory keeps the contract, so that tests over it say something."""

from __future__ import annotations

from typing import Any

import pytest

from tests.events.outbox import MemoryOutbox
from tests.events.outbox_contract import OutboxContract


class TestMemoryOutbox(OutboxContract):
    @pytest.fixture
    def source(self) -> MemoryOutbox:
        return MemoryOutbox()

    async def commit(self, source: Any, count: int) -> None:
        source.commit(count)
