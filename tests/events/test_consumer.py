"""An edge's reader on a real server: catching up, starting anywhere, and everything that goes on around it."""

from __future__ import annotations

import asyncio
import signal
import statistics

import pytest

from moorage.events import names
from moorage.events.plan import Standing
from moorage.events.relay import payload_of
from moorage.system.clock import monotonic_s
from tests.events.nats_server import NatsServer
from tests.events.outbox import MemoryOutbox, entry
from tests.events.reading import indices, read_until, relay_of, relaying
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers


async def test_entries_arrive_whole_and_in_order(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(7)
    async with relaying(server, source):
        found = await read_until(server.events(), 7)
    assert tuple(found) == await source.entries(0, 10)


async def test_an_edge_that_was_away_for_fifty_entries_gets_them_from_its_cursor(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(3)
    async with relaying(server, source) as relay:
        first = server.events()
        assert indices(await read_until(first, 3)) == [1, 2, 3]
        await first.close()
        source.commit(50)
        await wait_until(lambda: relay.report and relay.report.last_index == 53, what="all published")
        found = await read_until(server.events(), 53)
    assert indices(found) == list(range(4, 54))


async def test_what_was_not_acknowledged_comes_again_at_once(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(4)
    async with relaying(server, source):
        crashed = server.events()
        assert indices(await read_until(crashed, 4, ack=False)) == [1, 2, 3, 4]
        await crashed.close()
        begun = monotonic_s()
        assert indices(await read_until(server.events(), 4)) == [1, 2, 3, 4]
        assert monotonic_s() - begun < 5.0  # and not after the acknowledgement wait of 30 s


async def test_only_what_was_fetched_is_acknowledged(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(4)
    async with relaying(server, source):
        events = server.events()
        await read_until(events, 4)
        source.commit(2)
        assert indices(await read_until(events, 6, ack=False)) == [5, 6]
        await events.close()
        assert indices(await read_until(server.events(), 6)) == [5, 6]


async def test_two_edges_have_cursors_of_their_own(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(3)
    async with relaying(server, source):
        assert indices(await read_until(server.events("edge1"), 3)) == [1, 2, 3]
        assert indices(await read_until(server.events("edge2"), 3)) == [1, 2, 3]


async def test_reset_goes_back_and_forth(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(9)
    events = server.events()
    async with relaying(server, source):
        await read_until(events, 9)
        await events.reset(5)
        assert indices(await read_until(events, 9)) == [6, 7, 8, 9]
        await events.reset(0)
        assert indices(await read_until(events, 9)) == list(range(1, 10))
        await events.reset(9)
        assert await events.fetch(0.2) == ()
        assert events.reading.standing is Standing.FOLLOWS
        source.commit()
        assert indices(await read_until(events, 10)) == [10]


async def test_a_cursor_beyond_the_stream_waits_without_skipping(server: NatsServer) -> None:
    """A snapshot may be ahead of the relay: what comes then must not be jumped over."""
    source = MemoryOutbox()
    source.commit(3)
    events = server.events()
    async with relaying(server, source):
        await events.reset(6)
        assert await events.fetch(0.3) == ()
        assert events.reading.standing is Standing.AHEAD
        source.commit(5)
        found = await read_until(events, 8)
    assert indices(found) == [4, 5, 6, 7, 8]


async def test_a_trimmed_stream_shows_a_gap_and_says_so(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(3)
    events = server.events()
    async with relaying(server, source) as relay:
        await read_until(events, 3)
        source.commit(7)
        await wait_until(lambda: relay.report and relay.report.last_index == 10, what="all published")
        jetstream = await server.control().jetstream()
        await jetstream.purge_stream(names.STREAM, seq=9)
        await events.reset(3)
        found = await read_until(events, 10)
    assert indices(found) == [9, 10]
    assert events.reading.standing is Standing.TRIMMED


async def test_another_history_is_handed_on_from_its_start(server: NatsServer) -> None:
    old = MemoryOutbox("inc_a")
    old.commit(9)
    events = server.events()
    async with relaying(server, old):
        await read_until(events, 9)
    new = MemoryOutbox("inc_b")
    new.commit(4)
    async with relaying(server, new):
        found = [each for each in await read_until_incarnation(events, "inc_b") if each.incarnation == "inc_b"]
        assert indices(found) == [1, 2, 3, 4]
        await events.reset(4)  # as after a snapshot of the new history
        new.commit()
        assert indices(await read_until(events, 5)) == [5]


async def read_until_incarnation(events: object, incarnation: str) -> list[object]:
    found: list[object] = []

    async def more() -> bool:
        found.extend(await events.fetch(0.5))  # type: ignore[attr-defined]
        await events.ack()  # type: ignore[attr-defined]
        return bool(found) and found[-1].incarnation == incarnation  # type: ignore[attr-defined]

    await wait_until(more, what="the other history")
    return found


async def test_repeated_and_reordered_entries_are_handed_on_as_they_come(server: NatsServer) -> None:
    """The stream cannot reorder under the expected sequence; what somebody forces into it is no log entry here."""
    source = MemoryOutbox()
    source.commit(2)
    events = server.events()
    await relay_of(server, source).relay_once()
    jetstream = await server.control().jetstream()
    for each in (entry(1), entry(5), entry(3)):  # an old one, one too early, one late: sequences 3, 4, 5
        await jetstream.publish("moorage.log.route.owner.updated", payload_of(each))
    await jetstream.publish("moorage.log.route.owner.updated", b"{}")
    assert indices(await read_until(events, 2)) == [1, 2]
    assert await events.fetch(0.3) == ()
    assert events.reading.unreadable == 4
    async with relaying(server, source):  # the relay throws them out
        source.commit(4)
        found = await read_until(events, 6)
    assert indices(found)[-4:] == [3, 4, 5, 6]


async def test_without_a_server_it_answers_nothing_in_time_and_goes_on_later(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(2)
    events = server.events()
    async with relaying(server, source):
        await read_until(events, 2)
        server.kill()
        begun = monotonic_s()
        assert await events.fetch(0.4) == ()
        assert 0.4 <= monotonic_s() - begun < 1.5
        await events.ack()
        await events.reset(2)
        assert not events.reading.connected
        assert events.reading.problem
        source.commit(1)
        server.start()
        assert indices(await read_until(events, 3)) == [3]


async def test_a_server_that_was_never_there_is_waited_for(server: NatsServer) -> None:
    server.kill()
    events = server.events()
    assert await events.fetch(0.2) == ()
    source = MemoryOutbox()
    source.commit(1)
    server.start()
    async with relaying(server, source):
        assert indices(await read_until(events, 1)) == [1]


async def test_a_fetch_in_flight_over_a_restart_is_not_lost(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(1)
    events = server.events()
    async with relaying(server, source):
        await read_until(events, 1)
        waiting = asyncio.create_task(events.fetch(20.0))
        await asyncio.wait({waiting}, timeout=0.2)
        server.kill()
        server.start()
        begun = monotonic_s()
        source.commit(1)
        assert indices(await waiting) == [2]
        assert monotonic_s() - begun < 5.0


async def test_a_frozen_server_is_noticed_and_survived(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(1)
    events = server.events()
    async with relaying(server, source):
        await read_until(events, 1)
        server.tell(signal.SIGSTOP)
        assert await events.fetch(0.5) == ()
        server.tell(signal.SIGCONT)
        source.commit(1)
        assert indices(await read_until(events, 2))[-1] == 2


async def test_a_cancelled_fetch_loses_nothing(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(1)
    events = server.events()
    seen: list[int] = []
    async with relaying(server, source):
        await read_until(events, 1)
        for index in range(2, 40):
            waiting = asyncio.create_task(events.fetch(5.0))
            await asyncio.wait({waiting}, timeout=0.0005 * (index % 8))
            source.commit(1)
            waiting.cancel()
            result = (await asyncio.gather(waiting, return_exceptions=True))[0]
            if not isinstance(result, BaseException):
                seen += indices(result)
                await events.ack()
        seen += indices(await read_until(events, 39)) if seen[-1:] != [39] else []
    assert sorted(set(seen)) == list(range(2, 40))


async def test_an_entry_is_fetched_within_milliseconds(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(1)
    events = server.events()
    delays = []
    async with relaying(server, source):
        await read_until(events, 1)
        for _ in range(200):
            waiting = asyncio.create_task(events.fetch(5.0))
            await asyncio.wait({waiting}, timeout=0.003)
            begun = monotonic_s()
            source.commit(1)
            await waiting
            delays.append(monotonic_s() - begun)
            await events.ack()
    p50, p99 = statistics.median(delays), statistics.quantiles(delays, n=100)[98]
    print(f"commit to fetch: p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms")
    assert p50 < 0.02
