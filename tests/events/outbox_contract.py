"""The contract of an outbox source. A test class inherits it and says how a source and its entries are made."""

from __future__ import annotations

import asyncio
from typing import Any

from moorage.events.relay import OutboxSource
from moorage.system.clock import monotonic_s


class OutboxContract:
    """Inherit, and define `source` (a fixture with an empty log) and `commit` (adds entries to it)."""

    async def commit(self, source: Any, count: int) -> None:
        raise NotImplementedError

    async def test_an_empty_log_has_nothing(self, source: OutboxSource) -> None:
        assert source.committed_index == 0
        assert await source.entries(0, 10) == ()

    async def test_indices_are_gapless_and_carry_the_incarnation(self, source: OutboxSource) -> None:
        await self.commit(source, 5)
        found = await source.entries(0, 10)
        assert [each.index for each in found] == [1, 2, 3, 4, 5]
        assert {each.incarnation for each in found} == {source.incarnation}
        assert source.committed_index == 5

    async def test_entries_begin_behind_the_index_and_keep_to_the_limit(self, source: OutboxSource) -> None:
        await self.commit(source, 5)
        assert [each.index for each in await source.entries(2, 2)] == [3, 4]
        assert await source.entries(5, 10) == ()
        assert await source.entries(50, 10) == ()

    async def test_waiting_ends_with_a_new_entry(self, source: OutboxSource) -> None:
        await self.commit(source, 1)
        begun = monotonic_s()
        waiting = asyncio.create_task(_wait(source, 1, 30.0))
        await asyncio.wait({waiting}, timeout=0.05)
        assert not waiting.done()
        await self.commit(source, 1)
        await waiting
        assert monotonic_s() - begun < 10.0
        assert [each.index for each in await source.entries(1, 10)] == [2]

    async def test_waiting_for_what_is_there_returns_at_once_and_for_nothing_in_time(
        self, source: OutboxSource
    ) -> None:
        await self.commit(source, 2)
        begun = monotonic_s()
        await source.wait(1, 30.0)
        await source.wait(2, 0.05)
        assert monotonic_s() - begun < 10.0


async def _wait(source: OutboxSource, after_index: int, timeout_s: float) -> None:
    await source.wait(after_index, timeout_s)
