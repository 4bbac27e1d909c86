"""Faults after which a kinder account would be easy, and wrong."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect

from demo.people import crowd
from examples.board.materialise import materialise
from moorage.system.proc import is_alive
from tests.support.platform import Platform
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

PLAIN = Path(__file__).parents[2] / "examples" / "plain"


@contextlib.asynccontextmanager
async def sockets(platform: Platform, count: int) -> AsyncIterator[list[ClientConnection]]:
    """WebSockets to the plain app, counted by the platform."""
    async with contextlib.AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                connect(f"ws://{platform.host('plain')}/ws", host="127.0.0.1", port=platform.http_port)
            )
            for _ in range(count)
        ]
        await wait_until(lambda: counted(platform, count), what=f"{count} sockets counted")
        yield opened


async def counted(platform: Platform, count: int) -> bool:
    async with platform.api() as api:
        return (await api.sessions("plain")).attached_sockets == count


async def reported_ms(platform: Platform) -> int:
    """When the edge has reported last, Unix milliseconds."""
    async with platform.api() as api:
        return (await api.status()).edges[0].seen_ms


async def reported_after(platform: Platform, at_ms: int) -> bool:
    return await reported_ms(platform) > at_ms


async def test_sessions_of_a_plain_app_that_crashes_are_lost_and_counted(platform: Platform) -> None:
    await platform.serve(PLAIN)
    async with sockets(platform, 7):
        crashed = await platform.allocation("plain")
        assert crashed.pid
        os.kill(crashed.pid, signal.SIGKILL)
        await wait_until(lambda: replaced(platform), what="a replacement")
    view = await platform.newest("plain", "replacement")
    assert view.state == "settled_with_losses"
    assert (view.facts["account"]["lost"], view.facts["account"]["total"]) == (7, 7)
    assert view.facts["account"]["reasons"] == {"lost": {"process-ended": 7}}


async def replaced(platform: Platform) -> bool:
    async with platform.api() as api:
        return any(o.kind == "replacement" and o.finished for o in await api.operations("plain"))


async def test_sockets_that_die_with_a_draining_process_are_not_called_closed(platform: Platform) -> None:
    _, number = await platform.serve(PLAIN)
    async with sockets(platform, 5) as opened:
        draining = await platform.allocation("plain")
        assert draining.pid
        _, following = await platform.deploy(PLAIN)
        assert following == number + 1
        await platform.promote("plain", following, "--drain")
        await opened[0].close()
        await wait_until(lambda: counted(platform, 4), what="one closed by itself")
        told_ms = await reported_ms(platform)
        await wait_until(lambda: reported_after(platform, told_ms + 500), what="a later report says the same")
        os.kill(draining.pid, signal.SIGKILL)
        view = await platform.newest("plain", "drain")
    assert view.facts["account"]["reasons"] == {"ended": {"closed": 1}, "lost": {"process-ended": 4}}
    assert view.state == "settled_with_losses"


async def test_sessions_that_an_app_let_go_while_it_was_terminated_are_in_the_account(
    platform: Platform, tmp_path: Path
) -> None:
    await platform.serve(materialise("v1", tmp_path / "v1"))
    host = platform.host("board")
    async with crowd(3, ("127.0.0.1", platform.http_port), host) as people:
        found = await platform.allocation("board")
        assert found.pid
        os.kill(found.pid, signal.SIGTERM)
        for person in people:
            await person.until(lambda person=person: len(person.welcomes) > 1 and person.here, 30.0)
        view = await platform.newest("board", "replacement")
        assert [person.welcomes[-1].outcome for person in people] == ["resumed"] * 3
    assert (view.facts["account"]["resumed"], view.facts["account"]["total"]) == (3, 3)


async def test_nobody_is_cut_while_the_edge_has_not_acknowledged(own_platform: Platform, tmp_path: Path) -> None:
    await own_platform.serve(materialise("v1", tmp_path / "v1"))
    _, number = await own_platform.deploy(materialise("v2", tmp_path / "v2"))
    async with crowd(3, ("127.0.0.1", own_platform.http_port), own_platform.host("board")) as people:
        old = await own_platform.allocation("board")
        assert old.pid
        os.kill(own_platform.pid_of("edge"), signal.SIGSTOP)
        view = await own_platform.promote("board", number, "--handover")
        assert view.state == "rolled_back", view.facts
        assert view.problem
        assert view.problem["code"] == "handover-called-off"
        assert "edge-1" in view.problem["detail"]
        assert is_alive(old.pid)
        os.kill(own_platform.pid_of("edge"), signal.SIGCONT)
        for person in people:
            await person.type("still here")
        assert [len(person.welcomes) for person in people] == [1, 1, 1]
        again = await own_platform.promote("board", number, "--handover")
        assert again.state == "healthy", again.problem
        assert again.facts["account"]["resumed"] == 3
