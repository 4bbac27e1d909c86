"""JetStream: the stream treated as the authoritative database. Take it away, with its disk: nobody notices."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest
from nats.js.errors import NotFoundError

from moorage.events.names import STREAM, consumer_name
from moorage.main.installation import EDGE
from tests.support.asking import Traffic, attached, traffic
from tests.support.bus import jetstream
from tests.support.deeds import deploy, promote, serve
from tests.support.platform import Platform
from tests.support.processes import gone
from tests.support.tiny_app import tiny_app
from tests.support.truth import committed_index, history, log_events, rows
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

APP = "harbour"
OWNERS = "select route_key, epoch, app, deployment_number, removed from route_owners where route_key <> ? order by 1"


@pytest.fixture(scope="module")
def app(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two deployments of an app, the first one promoted, and another app beside it."""
    source = tiny_app(tmp_path_factory.mktemp("source") / APP, APP)
    asyncio.run(serve(platform, source))
    tiny_app(source, APP, text="second")
    asyncio.run(deploy(platform, source))
    asyncio.run(serve(platform, tiny_app(source.parent / "other", "other")))
    return APP


async def test_jetstream_deleted_stream_is_built_anew_and_nobody_notices(platform: Platform, app: str) -> None:
    """Under traffic the stream is deleted; two promotions follow, one at once and one when the stream is back."""
    others = rows(platform, OWNERS, f"{app}.localhost")
    async with attached(platform, f"{app}.localhost") as socket, traffic(platform, f"{app}.localhost") as seen:
        await has_begun(seen)
        async with jetstream(platform) as stream:
            await stream.delete_stream(STREAM)
        await take_over(platform, app, 2)
        await answered_by(seen, "2")
        await wait_until(lambda: is_the_log(platform), what="the stream is the log again")
        await take_over(platform, app, 1)
        await answered_by(seen, "1")
        assert socket.close_code is None
    check_nothing_lost(platform, app, seen, [1, 2, 1])
    assert rows(platform, OWNERS, f"{app}.localhost") == others
    await wait_until(lambda: is_the_log(platform), what="sequence and index are the same number")
    await wait_until(lambda: is_read_to_the_end(platform), what="the edge reads the new stream")


async def test_jetstream_server_killed_and_its_disk_wiped_loses_no_owner(platform: Platform, app: str) -> None:
    """Under traffic the server is killed and its storage removed; the owner changes while there is none at all."""
    others, before = rows(platform, OWNERS, f"{app}.localhost"), len(history(platform, app))
    async with attached(platform, f"{app}.localhost") as socket, traffic(platform, f"{app}.localhost") as seen:
        await has_begun(seen)
        async with gone(platform, "nats"):
            shutil.rmtree(platform.home / "nats" / "jetstream")
            await take_over(platform, app, 2)
            await answered_by(seen, "2")
        await wait_until(lambda: is_the_log(platform), timeout_s=30, what="the stream is the log again")
        await take_over(platform, app, 1)
        await answered_by(seen, "1")
        assert socket.close_code is None
    check_nothing_lost(platform, app, seen, [1, 2, 1])
    assert rows(platform, OWNERS, f"{app}.localhost") == others
    assert len(history(platform, app)) == before + 2
    await wait_until(lambda: is_read_to_the_end(platform), what="the edge reads the new stream")


async def take_over(platform: Platform, app: str, number: int) -> None:
    """Promote, with every edge in step at the end of it: events or no events."""
    view = await promote(platform, app, number, mode="drain")
    assert view.state == "healthy", view.problem
    assert view.facts["edges_behind"] == []


async def has_begun(seen: Traffic) -> None:
    await wait_until(lambda: seen.answered > 20, what="traffic flows")


async def answered_by(seen: Traffic, deployment: str) -> None:
    await wait_until(
        lambda: all(course[-1:] == [deployment] for course in seen.courses), what=f"deployment {deployment} answers"
    )


def check_nothing_lost(platform: Platform, app: str, seen: Traffic, owners: list[int]) -> None:
    """No request failed, and the owners answered in the order in which they were owners."""
    assert seen.failures == []
    assert seen.answered > 100
    assert all(course == [str(number) for number in owners] for course in seen.courses), seen.courses
    assert [row["deployment_number"] for row in history(platform, app)][-len(owners) :] == owners


async def is_the_log(platform: Platform) -> bool:
    """Whether every message of the stream is the log entry of its sequence, up to the newest."""
    async with jetstream(platform) as stream:
        try:
            state = (await stream.stream_info(STREAM)).state
            if state.last_seq != committed_index(platform) or state.messages < state.last_seq - state.first_seq + 1:
                return False
            found = [await stream.get_msg(STREAM, seq=n) for n in range(state.first_seq, state.last_seq + 1)]
        except NotFoundError:
            return False
    entries = [json.loads(message.data or b"{}") for message in found]
    truth = {event.pop("log_index"): event for event in log_events(platform)}
    return all(entry["index"] == message.seq for entry, message in zip(entries, found, strict=True)) and all(
        entry["event"] == truth[entry["index"]] for entry in entries
    )


async def is_read_to_the_end(platform: Platform) -> bool:
    """Whether the edge has acknowledged everything, at the control plane and at the stream."""
    index = committed_index(platform)
    async with jetstream(platform) as stream:
        floor = (await stream.consumer_info(STREAM, consumer_name(EDGE))).ack_floor
    return floor is not None and floor.stream_seq == index == (await platform.edge()).applied_index
