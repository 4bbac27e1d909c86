"""The whole platform stops under people on a Vango app and starts again: nobody had counted them, and nobody is called
nobody."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from moorage.system.proc import is_alive
from tests.support.platform import Platform, start_platform, stop_platform
from tests.support.vango.crowd import RESUMED, all_back, differences, marks
from tests.support.vango_stage import (
    PEOPLE_COUNT,
    Shelf,
    at_board,
    attached,
    come_and_leave,
    fates,
    needs_go,
    records,
    serve,
    settled,
    store_everybody,
    type_once,
)
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.servers, needs_go, pytest.mark.timeout(300)]

APP = "vango-stopped"
PROCESSES = ("nats", "haproxy", "control", "edge", "runner")


@pytest_asyncio.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    """A platform of its own: it is stopped."""
    running = await asyncio.to_thread(start_platform, tmp_path / "home")
    try:
        yield running
    finally:
        await asyncio.to_thread(stop_platform, running)


async def down(platform: Platform) -> None:
    """`moorage down`, as somebody does who moves the machine."""
    answer = await platform.run("down")
    assert answer.code == 0, answer.err


async def power_cut(platform: Platform) -> None:
    """Every process of the installation ends at once, without a word."""
    store, app = (await platform.store(APP)).identity, (await platform.allocation(APP)).pid
    assert store is not None
    pids = [platform.pid, *map(platform.pid_of, PROCESSES), store.pid, app or 0]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    await wait_until(lambda: not any(is_alive(pid, None) for pid in pids), what="all have ended")


async def replacement_of(platform: Platform, dead: str) -> str:
    """The replacement that has taken the place of an allocation (previews are replaced, too), once it has begun."""
    found: list[str] = []

    async def begun() -> bool:
        async with platform.api() as api:
            views = [await api.operation(o.id) for o in await api.operations(APP) if o.kind == "replacement"]
        found[:] = [view.id for view in views if dead in view.facts.get("baseline", {})]
        return bool(found)

    await wait_until(begun, what="the replacement has begun")
    return found[0]


def age_of(account: Mapping[str, Any], label: str) -> int:
    """How old (ms) the state was that a session went on with, as the account has it."""
    return next(int(row["age_ms"]) for row in account["rows"] if row["label"] == label)


@pytest.mark.parametrize("stop", [down, power_cut])
async def test_who_comes_back_is_named_and_nobody_else_is_called_nobody(
    platform: Platform, stop: Callable[[Platform], Awaitable[None]]
) -> None:
    """Everybody resumes, and is named; the records of those who had left before are unknown."""
    await serve(platform, Shelf(), APP)
    await come_and_leave(platform, APP)
    async with at_board(platform, APP) as people:
        await type_once(people)
        await store_everybody(platform, APP, people)
        await attached(platform, APP, PEOPLE_COUNT)
        left = len(await records(platform, APP)) - PEOPLE_COUNT
        before, dead = marks(people), await platform.allocation(APP)
        port, api_port = str(platform.http_port), platform.api_url.rpartition(":")[2]
        await stop(platform)
        up = await platform.run("up", "--detach", "--port", port, "--api-port", api_port, "--json")
        assert up.code == 0, up.out + up.err
        platform.pid = up.json["pid"]
        await all_back(people, before)
        seen = fates(people, before)
    assert {fate.seen for fate in seen} == {RESUMED}, seen
    done = await settled(platform, await replacement_of(platform, dead.id))
    account = done.facts["account"]
    said = {row["label"]: row["outcome"] for row in account["rows"]}
    assert not differences(said, seen), f"{differences(said, seen)}: {account}"
    assert (account["resumed"], account["total"]) == (PEOPLE_COUNT, PEOPLE_COUNT + left)
    assert account["reasons"] == ({"unknown": {"not-counted": left}} if left else {})
    assert account["uncounted"] == [dead.number]
    assert done.state == "settled_with_losses", "not all is known, so it is not called settled"
    assert not any("were attached" in stage.note for stage in done.stages), "nobody had counted them"
    for fate in seen:
        assert (fate.loss_age_s or 0.0) * 1000 <= age_of(account, fate.label), fate
