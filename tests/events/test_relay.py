"""The relay on a real server: order, no doubles, and a stream that is rebuilt whatever happens to it."""

from __future__ import annotations

import asyncio
import signal

import pytest
from nats.js import JetStreamContext

from moorage.events import names
from moorage.events.link import EventsUnavailable
from moorage.events.plan import Why
from moorage.events.relay import BATCH_COUNT, REBUILD_KEEP_COUNT, payload_of
from moorage.events.stream import incarnation_of, see_stream, stream_config
from tests.events.nats_server import NatsServer
from tests.events.outbox import MemoryOutbox, entry
from tests.events.reading import assert_stream_is_log, indices, read_until, relay_of, relaying, stored
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers


async def test_sequence_is_index_and_the_content_is_the_log(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(BATCH_COUNT + 10)
    relay = relay_of(server, source)
    first = await relay.relay_once()
    assert (first.rebuilt, first.published, first.behind) == (Why.MISSING, BATCH_COUNT, 10)
    assert first.consumers_made == ("edge1", "edge2")
    second = await relay.relay_once()
    assert (second.rebuilt, second.published, second.behind, second.last_index) == (None, 10, 0, BATCH_COUNT + 10)
    third = await relay.relay_once()
    assert (third.published, third.confirmed) == (0, 0)
    await assert_stream_is_log(server.control(), source)


async def test_a_new_relay_goes_on_where_the_old_one_stopped(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(3)
    await relay_of(server, source).relay_once()
    source.commit(2)
    report = await relay_of(server, source).relay_once()
    assert (report.rebuilt, report.published, report.last_index) == (None, 2, 5)
    await assert_stream_is_log(server.control(), source)


async def test_an_entry_that_was_stored_without_an_answer_is_recognised(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(2)
    relay = relay_of(server, source)
    await relay.relay_once()
    source.commit(3)
    await published_by_somebody(server, entry(3), entry(4))  # what an earlier, unanswered publish did
    report = await relay.relay_once()
    assert (report.rebuilt, report.confirmed, report.published, report.last_index) == (None, 2, 1, 5)
    await assert_stream_is_log(server.control(), source)


async def test_a_foreign_entry_in_the_stream_is_thrown_out(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(2)
    relay = relay_of(server, source)
    await relay.relay_once()
    await published_by_somebody(server, entry(3, key="stranger.localhost"))
    source.commit(2)
    with pytest.raises(EventsUnavailable):
        await relay.relay_once()
    report = await relay.relay_once()
    assert report.rebuilt is Why.DIFFERS
    assert report.last_index == 4
    await assert_stream_is_log(server.control(), source)


async def test_the_stream_of_another_log_is_replaced(server: NatsServer) -> None:
    old = MemoryOutbox("inc_a")
    old.commit(9)
    await relay_of(server, old).relay_once()
    new = MemoryOutbox("inc_b")
    new.commit(4)
    report = await relay_of(server, new).relay_once()
    assert (report.rebuilt, report.last_index) == (Why.OTHER_INCARNATION, 4)
    link = server.control()
    await assert_stream_is_log(link, new)
    stream = await see_stream(link)
    assert stream is not None
    assert incarnation_of(stream) == "inc_b"


async def test_a_log_that_went_back_takes_the_stream_with_it(server: NatsServer) -> None:
    before = MemoryOutbox()
    before.commit(9)
    await relay_of(server, before).relay_once()
    restored = MemoryOutbox()
    restored.commit(4)
    report = await relay_of(server, restored).relay_once()
    assert (report.rebuilt, report.last_index) == (Why.AHEAD, 4)
    await assert_stream_is_log(server.control(), restored)


async def test_a_stream_that_the_source_does_not_reach_back_to_starts_anew_further_on(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(3)
    relay = relay_of(server, source)
    await relay.relay_once()
    source.commit(20)
    source.shorten(11)
    await relay.relay_once()  # the gap is noticed here at the latest
    report = await relay.relay_once()
    assert report.last_index == 23
    await assert_stream_is_log(server.control(), source, first=11)


async def test_an_empty_source_whose_entries_were_all_dropped_keeps_the_numbers(server: NatsServer) -> None:
    source = MemoryOutbox(first=42)
    report = await relay_of(server, source).relay_once()
    assert (report.rebuilt, report.last_index) == (Why.MISSING, 41)
    source.commit()
    await relay_of(server, source).relay_once()
    assert list(await stored(server.control())) == [42]


async def test_only_the_newest_entries_are_filled_in_again(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(REBUILD_KEEP_COUNT + 500)
    relay = relay_of(server, source)
    while (await relay.relay_once()).behind:
        pass
    sequences = sorted(await stored(server.control()))
    assert (sequences[0], sequences[-1], len(sequences)) == (501, REBUILD_KEEP_COUNT + 500, REBUILD_KEEP_COUNT)


async def test_a_stream_of_another_shape_is_replaced(server: NatsServer) -> None:
    source = MemoryOutbox()
    source.commit(2)
    await relay_of(server, source).relay_once()
    link = server.control()
    jetstream = await link.jetstream()
    await jetstream.update_stream(stream_config("inc_a", 1), max_msgs=7)
    report = await relay_of(server, source).relay_once()
    assert report.rebuilt is Why.OTHER_SHAPE
    await assert_stream_is_log(link, source)


async def test_consumers_follow_the_list_of_edges(server: NatsServer) -> None:
    source = MemoryOutbox()
    edges = ["edge1"]
    relay = relay_of(server, source, edges)
    assert (await relay.relay_once()).consumers_made == ("edge1",)
    edges[:] = ["edge2"]
    await wait_until(lambda: made(relay, "edge2"), what="the consumer of edge2")
    link = server.control()
    jetstream = await link.jetstream()
    assert [each.name for each in await jetstream.consumers_info(names.STREAM)] == ["edge2"]


async def made(relay: object, edge: str) -> bool:
    return edge in (await relay.relay_once()).consumers_made  # type: ignore[attr-defined]


async def test_a_server_killed_again_and_again_while_publishing_loses_and_doubles_nothing(server: NatsServer) -> None:
    source = MemoryOutbox()
    events = server.events()
    async with relaying(server, source) as relay:
        for round_number in range(4):
            target = source.commit(300)
            await wait_until(lambda: relay.report and relay.report.last_index >= target - 250, what="part of it")  # noqa: B023
            server.kill()  # in the middle of a batch
            source.commit(50)
            server.start()
            if round_number == 1:
                server.tell(signal.SIGSTOP)
                source.commit(20)
                server.tell(signal.SIGCONT)
        target = source.commit(1)
        await wait_until(lambda: relay.report and relay.report.last_index == target, what="everything published")
        found = await read_until(events, target)
    await assert_stream_is_log(server.control(), source)
    assert sorted(set(indices(found))) == list(range(1, target + 1))
    assert relay.report is not None


async def test_a_deleted_stream_is_rebuilt_under_the_reader(server: NatsServer) -> None:
    source = MemoryOutbox()
    events = server.events()
    async with relaying(server, source):
        source.commit(5)
        assert indices(await read_until(events, 5)) == [1, 2, 3, 4, 5]
        link = server.control()
        jetstream = await link.jetstream()
        await jetstream.delete_stream(names.STREAM)
        source.commit(2)
        found = await read_until(events, 7)
    assert indices(found)[-2:] == [6, 7]
    await assert_stream_is_log(link, source)


async def test_a_wiped_storage_is_rebuilt_though_nothing_is_published(server: NatsServer) -> None:
    source = MemoryOutbox()
    events, late = server.events("edge1"), server.events("edge2")
    async with relaying(server, source):
        source.commit(8)
        await read_until(events, 8)
        server.kill()
        server.wipe()
        server.start()
        assert indices(await read_until(late, 8)) == list(range(1, 9))  # the cursor is gone, the log is not
        source.commit()
        assert indices(await read_until(events, 9))[-1] == 9
    await assert_stream_is_log(server.control(), source)


async def test_an_unreachable_server_is_unavailable_and_not_an_empty_stream(server: NatsServer) -> None:
    server.kill()
    source = MemoryOutbox()
    source.commit(3)
    relay = relay_of(server, source)
    with pytest.raises(EventsUnavailable):
        await relay.relay_once()
    server.start()
    await wait_until(lambda: caught_up(relay), what="the relay")
    await assert_stream_is_log(server.control(), source)


async def caught_up(relay: object) -> bool:
    try:
        return (await relay.relay_once()).last_index == 3  # type: ignore[attr-defined, no-any-return]
    except EventsUnavailable:
        return False


async def published_by_somebody(server: NatsServer, *entries: object) -> None:
    link = server.control()
    jetstream: JetStreamContext = await link.jetstream()
    for each in entries:
        await jetstream.publish("moorage.log.route.owner.updated", payload_of(each))  # type: ignore[arg-type]
    await asyncio.gather(link.close())
