"""Running a relay beside a test, and reading from the stream until something holds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection

from moorage.events import names
from moorage.events.consumer import EdgeEvents
from moorage.events.link import Link
from moorage.events.relay import Relay, payload_of
from moorage.system.clock import monotonic_s
from moorage.wire.log import LogEntry
from tests.events.nats_server import EDGES, NatsServer
from tests.events.outbox import MemoryOutbox


def relay_of(server: NatsServer, source: MemoryOutbox, edges: Collection[str] = EDGES) -> Relay:
    """A relay over a connection of its own."""
    return Relay(server.control(), source, lambda: edges)


@contextlib.asynccontextmanager
async def relaying(server: NatsServer, source: MemoryOutbox) -> AsyncIterator[Relay]:
    """A relay that runs while the block does."""
    relay = relay_of(server, source)
    task = asyncio.create_task(relay.run())
    try:
        yield relay
        assert not task.done(), "the relay ended by itself"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def read_until(events: EdgeEvents, index: int, *, timeout_s: float = 30.0, ack: bool = True) -> list[LogEntry]:
    """Everything fetched until the entry of this index came."""
    found: list[LogEntry] = []
    deadline = monotonic_s() + timeout_s
    while not found or found[-1].index < index:
        assert monotonic_s() < deadline, f"entry {index} did not come; last {found[-1].index if found else None}"
        found += await events.fetch(1.0)
        if ack:
            await events.ack()
    return found


def indices(entries: Collection[LogEntry]) -> list[int]:
    return [each.index for each in entries]


async def stored(link: Link) -> dict[int, bytes]:
    """The whole stream by sequence, read from the server itself."""
    jetstream = await link.jetstream()
    state = (await link.call(jetstream.stream_info(names.STREAM))).state
    found = {}
    for sequence in range(state.first_seq, state.last_seq + 1):
        message = await link.call(jetstream.get_msg(names.STREAM, seq=sequence))
        found[sequence] = message.data or b""
    return found


async def assert_stream_is_log(link: Link, source: MemoryOutbox, first: int = 1) -> None:
    """Sequence by sequence, the stream is the source."""
    expected = {each.index: payload_of(each) for each in await source.entries(first - 1, 1_000_000)}
    assert await stored(link) == expected
