"""An entry is there as soon as it was committed, also after fetches that ended without one."""

from __future__ import annotations

import asyncio

import pytest

from moorage.events.consumer import FETCH_COUNT
from moorage.system.clock import monotonic_s
from tests.events.nats_server import NatsServer
from tests.events.outbox import MemoryOutbox
from tests.events.reading import indices, read_until, relaying
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

ROUNDS_COUNT = 15
LATE_S = 0.25  # a pull lasts a second: what waits for the end of one is later than this


async def test_no_entry_waits_for_the_end_of_a_pull(server: NatsServer) -> None:
    """The server's word that an earlier pull has ended may come late, into the next one."""
    source = MemoryOutbox()
    source.commit(1)
    events = server.events()
    delays_s = []
    async with relaying(server, source):
        await read_until(events, 1)
        for _ in range(ROUNDS_COUNT):
            await events.fetch(0.05)
            for _ in range(3):
                waiting = asyncio.create_task(events.fetch(5.0))
                await asyncio.wait({waiting}, timeout=0.02)
                begun_s = monotonic_s()
                source.commit(1)
                assert len(await waiting) == 1
                delays_s.append(monotonic_s() - begun_s)
                await events.ack()
    await events.close()
    assert sorted(delays_s)[-3] < LATE_S, f"of {len(delays_s)}: {sorted(delays_s)[-5:]}"


async def test_a_backlog_comes_in_batches(server: NatsServer) -> None:
    """Waiting for one entry does not mean reading a long absence one by one."""
    source = MemoryOutbox()
    source.commit(3 * FETCH_COUNT)
    async with relaying(server, source) as relay:
        await wait_until(lambda: relay.report is not None and relay.report.last_index == 3 * FETCH_COUNT)
        events = server.events()
        found = await read_until(events, 1)
        fetches = 1
        while indices(found)[-1] < 3 * FETCH_COUNT:
            found = [*found, *await events.fetch(5.0)]
            await events.ack()
            fetches += 1
        await events.close()
    assert indices(found) == list(range(1, 3 * FETCH_COUNT + 1))
    assert fetches <= 6
