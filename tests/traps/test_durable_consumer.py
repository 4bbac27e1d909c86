"""Durable consumer: assuming that all subscribers are always online. Who was away is named, catches up and says so."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from nats.js.api import ConsumerInfo

from moorage.domain.limits import EDGE_LIVE_WITHIN_S
from moorage.events.names import STREAM, consumer_name
from moorage.main.installation import EDGE
from moorage.wire.api import EdgeView, OperationView
from tests.support.asking import ask_many, who
from tests.support.bus import jetstream
from tests.support.deeds import deploy, serve
from tests.support.platform import Platform
from tests.support.processes import frozen, gone
from tests.support.tiny_app import tiny_app
from tests.support.truth import committed_index, history, owner, owner_epoch
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

MISSED = 50
DRAIN_DEADLINE_S = 3.0  # longer than a bake: who was passed by while it bakes is still there at its end


@pytest.fixture(scope="module")
def app(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two deployments of an app, the first one promoted."""
    source = tiny_app(tmp_path_factory.mktemp("source") / "tide", "tide", text="ebb")
    asyncio.run(serve(platform, source))
    tiny_app(source, "tide", text="flood")
    asyncio.run(deploy(platform, source))
    return "tide"


async def test_durable_consumer_of_a_stopped_edge_misses_nothing_of_50_promotions(platform: Platform, app: str) -> None:
    """The agent is stopped, the owner changes 50 times, the agent goes on where it was."""
    await settled(platform)
    before, epoch = await platform.edge(), owner_epoch(platform, app)
    with frozen(platform.pid_of("edge")):
        await wait_until(lambda: is_live(platform, False), timeout_s=EDGE_LIVE_WITHIN_S + 5, what="the edge is missed")
        views = await change_owner_often(platform, app, MISSED)
        assert owner_epoch(platform, app) == epoch + MISSED
        assert [view.facts["edges_behind"] for view in views] == [[EDGE]] * MISSED, "each names the lagging edge"
        lagging, missed = await edge_and_log(platform)
        missed -= before.applied_index
        assert (lagging.applied_index, lagging.behind) == (before.applied_index, missed)
        assert missed > 2 * MISSED
        cursor = await consumer(platform)
        assert cursor.ack_floor is not None
        assert cursor.ack_floor.stream_seq <= before.applied_index, "the server remembers where the edge was"
        await wait_until(lambda: is_kept(platform, missed), what="and keeps all that it has not had")
    await wait_until(lambda: has_all(platform), timeout_s=30, what="the edge has all of the log")
    await check_catch_up(platform, before.applied_index, by={"stream", "replay"})
    after = await platform.edge()
    assert after.counters["applied"] - before.counters["applied"] >= missed, "entry by entry, none skipped"
    await check_served(platform, app)
    await wait_until(lambda: has_acknowledged(platform), what="the cursor has come to the end")


async def test_durable_consumer_of_an_edge_that_died_starts_from_a_snapshot(platform: Platform, app: str) -> None:
    """kill -9: what the new agent begins with is on its disk; what it missed comes signed from the control plane."""
    await settled(platform)
    before = await platform.edge()
    async with gone(platform, "edge"):
        await wait_until(lambda: is_live(platform, False), timeout_s=EDGE_LIVE_WITHIN_S + 5, what="the edge is missed")
        views = await change_owner_often(platform, app, 3)
        assert [view.facts["edges_behind"] for view in views] == [[EDGE]] * 3
    await wait_until(lambda: has_all(platform), timeout_s=30, what="the edge has all of the log")
    await check_catch_up(platform, before.applied_index, by={"snapshot"})
    await check_served(platform, app)
    (view,) = await change_owner_often(platform, app, 1)
    assert view.facts["edges_behind"] == []
    await check_served(platform, app)


async def change_owner_often(platform: Platform, app: str, count: int) -> list[OperationView]:
    """Change the owner `count` times, each as soon as the one before is in force; the finished promotions."""
    begun, epoch, serving = [], owner_epoch(platform, app), owner(platform, app)["deployment_number"]
    for expected in range(epoch, epoch + count):
        serving = 3 - serving
        begun.append(
            await platform.begin_promote(app, serving, epoch=expected, mode="drain", drain_deadline_s=DRAIN_DEADLINE_S)
        )
        await wait_until(partial(is_past, platform, app, expected), what=f"an owner after epoch {expected}")
    views = [await platform.finished(operation) for operation in begun]
    assert [view.state for view in views] == ["healthy"] * count, [view.problem for view in views]
    return views


def is_past(platform: Platform, app: str, epoch: int) -> bool:
    return owner_epoch(platform, app) > epoch


async def check_catch_up(platform: Platform, start: int, *, by: set[str]) -> None:
    """The edge says from where to where it had to catch up, and how; and it is still said a few reports later."""
    await wait_until(lambda: is_said(platform, start), what=f"the edge says that it had missed all after {start}")
    told = (await platform.edge()).catch_up
    assert told is not None
    assert start < told["to_index"] <= committed_index(platform)
    assert told["by"] in by
    seen = (await platform.edge()).seen_ms
    await wait_until(lambda: is_heard_after(platform, seen), what="the edge has reported again")
    assert (await platform.edge()).catch_up == told


async def is_said(platform: Platform, start: int) -> bool:
    told = (await platform.edge()).catch_up
    return told is not None and told["from_index"] == start


async def is_heard_after(platform: Platform, ms: int) -> bool:
    return (await platform.edge()).seen_ms > ms


async def check_served(platform: Platform, app: str) -> None:
    """Every request goes to the newest owner."""
    answers = await ask_many(platform, f"{app}.localhost", 50)
    assert {who(answer)["deployment"] for answer in answers} == {str(history(platform, app)[-1]["deployment_number"])}


async def settled(platform: Platform) -> None:
    """Wait until nothing of an earlier test is going on and the edge has all of it."""

    async def idle() -> bool:
        async with platform.api() as api:
            return (await api.status()).operations_open == 0

    await wait_until(idle, timeout_s=30, what="nothing is going on")
    await wait_until(lambda: has_all(platform), what="the edge has all of the log")


async def is_live(platform: Platform, wanted: bool) -> bool:
    return (await platform.edge()).live is wanted


async def has_all(platform: Platform) -> bool:
    found: EdgeView = await platform.edge()
    return found.live and found.applied_index == committed_index(platform)


async def edge_and_log(platform: Platform) -> tuple[EdgeView, int]:
    """The edge as it is told, and the newest index of the log at the same moment: drains go on and add to it."""
    while True:
        index, found = committed_index(platform), await platform.edge()
        if committed_index(platform) == index:
            return found, index


async def consumer(platform: Platform) -> ConsumerInfo:
    """The edge's consumer as the event server has it."""
    async with jetstream(platform) as stream:
        found: ConsumerInfo = await stream.consumer_info(STREAM, consumer_name(EDGE))
    return found


async def is_kept(platform: Platform, count: int) -> bool:
    """Whether so many entries wait for the edge at the event server."""
    found = await consumer(platform)
    return (found.num_pending or 0) + (found.num_ack_pending or 0) >= count


async def has_acknowledged(platform: Platform) -> bool:
    found = await consumer(platform)
    return found.ack_floor is not None and found.ack_floor.stream_seq == committed_index(platform)
