"""The stand-ins of the control tests against the real agents: one script of observations, played with both.

Everything is observed through the public API, so both are held to what people and programs are told. What is in their
power differs (a stand-in is told how many sockets it has, a real edge gets them), what is seen must not.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from moorage.client.api import Api
from moorage.system.rand import new_secret
from moorage.wire.api import AllocationView, EdgeView, OperationView, PromoteRequest
from tests.control.rig import World
from tests.support.asking import attached
from tests.support.deeds import begin_deploy
from tests.support.nouns import manifest
from tests.support.platform import Platform
from tests.support.tiny_app import tiny_app
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

SOCKETS_COUNT = 2


class Town(Protocol):
    """A control plane with agents, and what a test may do to them. `text` makes versions differ."""

    api: Api

    async def begin_deploy(self, app: str, text: str, *, starts: bool = True) -> str:
        """Start a deploy of a version that starts, or exits at once; its operation."""

    async def attach(self, app: str, allocation: int, count: int) -> None:
        """So many sockets are attached to the owner from now on (0: all leave)."""

    async def kill(self, allocation: AllocationView) -> None:
        """kill -9 of the process of a ready allocation."""


class StandIns:
    """The agents of the control tests."""

    def __init__(self, world: World) -> None:
        self.world, self.api = world, world.api

    async def begin_deploy(self, app: str, text: str, *, starts: bool = True) -> str:
        self.world.runner.behave = lambda _wanted: "ready" if starts else "fail"
        return await self.world.begin_deploy(manifest(app, content=text), app)

    async def attach(self, app: str, allocation: int, count: int) -> None:
        self.world.edge.sockets = {allocation: count}

    async def kill(self, allocation: AllocationView) -> None:
        await self.world.runner.crash(allocation.id)


class Agents:
    """A whole platform."""

    def __init__(self, platform: Platform, api: Api, folder: Path) -> None:
        self.platform, self.api, self.folder = platform, api, folder
        self.sockets = AsyncExitStack()

    async def begin_deploy(self, app: str, text: str, *, starts: bool = True) -> str:
        broken = self.folder / "no-start"
        broken.write_text("")
        source = tiny_app(self.folder / app, app, text=text, broken=None if starts else broken)
        return await begin_deploy(self.platform, source)

    async def attach(self, app: str, allocation: int, count: int) -> None:
        await self.sockets.aclose()
        for _ in range(count):
            await self.sockets.enter_async_context(attached(self.platform, f"{app}.localhost"))

    async def kill(self, allocation: AllocationView) -> None:
        assert allocation.pid is not None
        os.kill(allocation.pid, signal.SIGKILL)


@asynccontextmanager
async def _stand_ins(folder: Path) -> AsyncIterator[Town]:
    world = await World(folder / "home").start()
    yield StandIns(world)
    await world.stop()


@asynccontextmanager
async def _agents(platform: Platform, folder: Path) -> AsyncIterator[Town]:
    async with platform.api() as api:
        agents = Agents(platform, api, folder)
        async with agents.sockets:
            yield agents


@pytest.fixture(params=["stand-ins", "agents"])
async def town(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Town]:
    """Both, one after the other; only the second needs a platform."""
    made = (
        _stand_ins(tmp_path) if request.param == "stand-ins" else _agents(request.getfixturevalue("platform"), tmp_path)
    )
    async with made as town:
        yield town


async def ended(town: Town, operation: str) -> OperationView:
    """The operation once it is finished."""
    found: list[OperationView] = []

    async def over() -> bool:
        found.append(await town.api.operation(operation))
        return found[-1].finished

    await wait_until(over, timeout_s=60.0, what="the end of the operation")
    return found[-1]


async def deploy(town: Town, app: str, text: str) -> int:
    """Deploy up to the preview; the number."""
    view = await ended(town, await town.begin_deploy(app, text))
    assert view.state == "preview_ready", view.problem
    stages = list(dict.fromkeys(stage.state for stage in view.stages))
    assert stages == ["queued", "fetching", "building", "validating", "preview_ready"]
    return int(view.input["deployment"])


async def promote(town: Town, app: str, number: int, mode: Any = None) -> OperationView:
    """Promote from the epoch as it is now; the finished operation."""
    epoch = (await town.api.promotion_report(app, number)).epoch
    request = PromoteRequest(deployment=number, expected_epoch=epoch, mode=mode)
    return await ended(town, (await town.api.promote(app, request, key=new_secret())).operation)


async def newest(town: Town, app: str, environment: str = "production") -> AllocationView:
    """The newest allocation of an environment, gone ones too."""
    found = [a for a in await town.api.allocations(app, all=True) if a.environment == environment]
    return max(found, key=lambda a: a.number)


async def by_number(town: Town, app: str, number: int) -> AllocationView:
    return next(a for a in await town.api.allocations(app, all=True) if a.number == number)


def life(view: AllocationView) -> dict[str, Any]:
    """What is told of an allocation, without what differs from one to the next."""
    times = [view.created_ms, view.ready_ms, view.ended_ms]
    return {
        "state": view.state,
        "posture": view.posture,
        "want": view.want,
        "has_pid": view.pid is not None,
        "sockets": view.attached_sockets,
        "reason": view.reason,
        "exit_code": view.exit_code,
        "has_log": bool(view.log_tail),
        "was_ready": view.ready_ms is not None,
        "has_ended": view.ended_ms is not None,
        "in_order": (known := [t for t in times if t is not None]) == sorted(known),
    }


SERVING: dict[str, Any] = {
    "state": "ready",
    "posture": "open",
    "want": "run",
    "has_pid": True,
    "sockets": 0,
    "reason": "",
    "exit_code": None,
    "has_log": False,
    "was_ready": True,
    "has_ended": False,
    "in_order": True,
}
OVER = {**SERVING, "posture": "gone", "has_ended": True}


async def becomes(town: Town, app: str, number: int, expected: dict[str, Any]) -> None:
    """Wait until this is what is told of an allocation; the last that was told is in the failure."""
    told: dict[str, Any] = {}

    async def same() -> bool:
        told.update(life(await by_number(town, app, number)))
        return told == expected

    try:
        await wait_until(same, timeout_s=10.0)
    except AssertionError:
        assert told == expected


async def edge_is_current(town: Town) -> EdgeView:
    """The one edge once it has acknowledged everything that is committed."""
    found: list[EdgeView] = []

    async def current() -> bool:
        status = await town.api.status()
        found[:] = status.edges
        return [e.applied_index for e in found] == [status.log_index]

    await wait_until(current, timeout_s=10.0, what="the edge has acknowledged the whole log")
    return found[0]


async def test_an_allocation_from_its_start_to_its_end(town: Town) -> None:
    """Ready in a preview and as the owner's; put aside with sockets by the next owner; stopped when they have left."""
    first = await deploy(town, "life", "one")
    preview = await newest(town, "life", "preview 1")
    await becomes(town, "life", preview.number, SERVING)
    await promote(town, "life", first)
    old = await newest(town, "life")
    await becomes(town, "life", old.number, SERVING)
    await town.attach("life", old.number, SOCKETS_COUNT)
    await becomes(town, "life", old.number, {**SERVING, "sockets": SOCKETS_COUNT})
    done = await promote(town, "life", await deploy(town, "life", "two"), "drain")
    assert done.state == "healthy", done.problem
    await becomes(town, "life", old.number, {**SERVING, "posture": "no_picks", "sockets": SOCKETS_COUNT})
    await town.attach("life", old.number, 0)
    drain = await ended(town, done.children[0])
    assert (drain.state, drain.facts["account"]["ended"]) == ("settled", SOCKETS_COUNT)
    await becomes(town, "life", old.number, {**OVER, "state": "stopped", "want": "stop", "exit_code": -signal.SIGTERM})


async def test_a_process_that_dies_is_reported_with_its_signal_and_replaced(town: Town) -> None:
    await promote(town, "crash", await deploy(town, "crash", "one"))
    dead = await newest(town, "crash")
    await becomes(town, "crash", dead.number, SERVING)
    await town.kill(dead)
    gone = {**OVER, "state": "failed", "reason": "exited", "exit_code": -signal.SIGKILL}
    await becomes(town, "crash", dead.number, gone)

    async def replaced() -> bool:
        return (await newest(town, "crash")).number > dead.number

    await wait_until(replaced, what="another allocation")
    await becomes(town, "crash", (await newest(town, "crash")).number, SERVING)


async def test_an_app_that_exits_before_it_is_ready(town: Town) -> None:
    failed = await ended(town, await town.begin_deploy("broken", "one", starts=False))
    assert failed.state == "failed"
    assert failed.problem is not None
    assert failed.problem["code"] == "allocation-exited"
    assert failed.problem["log_tail"]
    said = {"reason": "exited", "exit_code": 1, "has_log": True}
    never = {**OVER, **said, "state": "failed", "want": "stop", "was_ready": False}
    await becomes(town, "broken", (await newest(town, "broken", "preview 1")).number, never)


async def test_an_edge_acknowledges_owners_holds_and_releases(town: Town) -> None:
    """A hand-over stops before its cut unless every edge has acknowledged the hold; it ends with the release."""
    first = await deploy(town, "held", "one")
    before = await edge_is_current(town)
    await promote(town, "held", first)
    after = await edge_is_current(town)
    assert (after.live, after.behind) == (True, 0)
    assert after.applied_index > before.applied_index
    owner = await newest(town, "held")
    await town.attach("held", owner.number, SOCKETS_COUNT)
    await becomes(town, "held", owner.number, {**SERVING, "sockets": SOCKETS_COUNT})
    second = await deploy(town, "held", "two")
    done = await promote(town, "held", second, "handover")
    await town.attach("held", owner.number, 0)
    assert done.state == "healthy", done.problem
    handover = await ended(town, done.children[0])
    states = list(dict.fromkeys(stage.state for stage in handover.stages))
    assert states == ["planned", "refusing_new", "cutting", "storing", "fenced", "admitting", handover.state]
    assert handover.facts["account"]["total"] == SOCKETS_COUNT

    async def released() -> bool:
        (route,) = [r for r in await town.api.routes() if (r.app, r.environment) == ("held", "production")]
        told = (route.epoch, route.deployment, route.held, route.ready_allocations, route.edges_behind)
        return told == (2, second, False, 1, ())

    await wait_until(released, timeout_s=10.0, what="the release is acknowledged")
    assert (await edge_is_current(town)).counters["gaps"] == 0
