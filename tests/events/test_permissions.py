"""Who may do what on the bus, asked of the real server with the real keys."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Coroutine
from typing import Any

import nats
import pytest
from nats.js.api import ConsumerConfig, StreamConfig

from moorage.events import names, server
from moorage.events.link import EventsDenied, EventsUnavailable, Link
from moorage.events.stream import consumer_config
from moorage.system import proc
from moorage.system.clock import monotonic_s
from tests.events.nats_server import RUNNER, NatsServer
from tests.events.outbox import MemoryOutbox
from tests.events.reading import indices, read_until, relay_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers


@pytest.fixture
async def stream(server: NatsServer) -> MemoryOutbox:
    source = MemoryOutbox()
    source.commit(3)
    await relay_of(server, source).relay_once()
    return source


async def assert_denied(link: Link, work: Coroutine[Any, Any, Any]) -> None:
    """Denied by the server, and noticed at once rather than after the time."""
    begun = monotonic_s()
    with pytest.raises(EventsDenied) as denied:
        await link.call(work, timeout_s=10.0)
    assert monotonic_s() - begun < 2.0
    assert denied.value.problem.code == "events-denied"


async def test_an_edge_may_read_its_own_cursor_and_nothing_else(server: NatsServer, stream: MemoryOutbox) -> None:
    link = server.as_edge()
    jetstream = await link.jetstream()
    own = await link.call(jetstream.consumer_info(names.STREAM, "edge1"))
    assert own.num_pending == 3
    for work in (
        jetstream.publish("moorage.log.route.owner.updated", b"{}"),
        jetstream.add_consumer(names.STREAM, consumer_config("edge1")),
        jetstream.add_consumer(names.STREAM, ConsumerConfig(deliver_subject="moorage.wake.runner.runner1")),
        jetstream.delete_consumer(names.STREAM, "edge1"),
        jetstream.consumer_info(names.STREAM, "edge2"),
        jetstream.reset_consumer(names.STREAM, "edge2", seq=1),
        jetstream.get_msg(names.STREAM, seq=1),
        jetstream.purge_stream(names.STREAM),
        jetstream.delete_stream(names.STREAM),
        jetstream.add_stream(StreamConfig(name="OTHER", subjects=["other.>"])),
        jetstream.account_info(),
        pulled_from(link, "edge2"),
    ):
        await assert_denied(link, work)
    assert link.is_connected
    assert indices(await read_until(server.events(), 3)) == [1, 2, 3]
    assert indices(await read_until(server.events("edge2"), 3)) == [1, 2, 3]  # untouched by all of this


async def pulled_from(link: Link, edge: str) -> None:
    jetstream = await link.jetstream()
    subscription = await jetstream.pull_subscribe_bind(consumer=edge, stream=names.STREAM)
    await subscription.fetch(1, timeout=5)


@pytest.mark.parametrize("subject", ["_INBOX_control.>", "_INBOX_edge2.>", "_INBOX.>", "moorage.log.>", "$JS.>", ">"])
async def test_an_edge_may_not_listen_to_others(server: NatsServer, stream: MemoryOutbox, subject: str) -> None:
    link = server.as_edge()
    jetstream = await link.jetstream()
    await assert_denied(link, subscribed(jetstream, subject))


async def subscribed(jetstream: Any, subject: str) -> None:
    subscription = await jetstream._nc.subscribe(subject)
    await subscription.next_msg(timeout=5)


async def test_a_runner_hears_its_wake_subject_and_may_say_nothing(server: NatsServer, stream: MemoryOutbox) -> None:
    client = await plain_client(server, server.runner_seed)
    try:
        heard = await client.subscribe(names.wake_subject(RUNNER))
        await client.flush()
        control = await server.control().jetstream()
        await control._nc.publish(names.wake_subject(RUNNER), b"")
        assert (await heard.next_msg(timeout=5)).data == b""
    finally:
        await client.close()
    link = server.as_runner()
    jetstream = await link.jetstream()
    await assert_denied(link, jetstream.publish("moorage.log.route.removed", b"{}"))
    await assert_denied(link, jetstream.stream_info(names.STREAM))
    await assert_denied(link, subscribed(jetstream, names.wake_subject("runner2")))


async def plain_client(server: NatsServer, seed: str) -> Any:
    return await asyncio.wait_for(nats.connect(server.plan.url, nkeys_seed_str=seed), 5)


async def test_nobody_gets_in_without_a_known_key(server: NatsServer, stream: MemoryOutbox) -> None:
    begun = monotonic_s()
    stranger = Link(server.plan.url, new_seed(), "edge1")
    with pytest.raises(EventsDenied):
        await stranger.jetstream(timeout_s=10.0)
    assert monotonic_s() - begun < 2.0
    await stranger.close()
    reader, writer = await asyncio.open_connection(server.plan.host, server.plan.port)
    writer.write(b'CONNECT {"verbose":false}\r\nPUB moorage.log.x 2\r\nhi\r\nPING\r\n')
    said = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert b"Authorization Violation" in said
    assert b"PONG" not in said


def new_seed() -> str:
    return server.new_seed()


async def test_a_key_that_was_taken_away_stops_working_and_disturbs_nobody(
    server: NatsServer, stream: MemoryOutbox
) -> None:
    staying, leaving = server.events("edge1"), server.events("edge2")
    await read_until(staying, 3)
    await read_until(leaving, 3)
    generation = staying._link.generation
    server.without_edge("edge2")
    await wait_until(lambda: refused(leaving), what="the refusal")
    assert staying._link.generation == generation
    stream.commit()
    await relay_of(server, stream).relay_once()
    assert indices(await read_until(staying, 4)) == [4]


async def refused(events: Any) -> bool:
    assert await events.fetch(0.2) == ()
    return "refused" in events.reading.problem


async def test_the_server_listens_on_one_loopback_port_only(server: NatsServer, stream: MemoryOutbox) -> None:
    mine = [each for each in proc.listeners() if each.pid == server.pid]
    assert [(each.address, each.port) for each in mine] == [("127.0.0.1", server.plan.port)]


async def test_silence_is_no_denial(server: NatsServer) -> None:
    link = server.control()
    jetstream = await link.jetstream()
    await jetstream._nc.subscribe("somebody.who.never.answers")
    with pytest.raises(EventsUnavailable):
        await link.call(jetstream._nc.request("somebody.who.never.answers", b"", timeout=0.1))
    with pytest.raises(EventsUnavailable):
        await link.call(jetstream._nc.request("somebody.who.never.answers", b"", timeout=10.0), timeout_s=0.1)


async def test_the_server_itself_accepts_the_configuration(server: NatsServer) -> None:
    assert await asyncio.to_thread(checked, server) == 0


def checked(running: NatsServer) -> int:
    argv = server.check_argv(running.binary, running.config)
    return subprocess.run(argv, capture_output=True, check=False).returncode
