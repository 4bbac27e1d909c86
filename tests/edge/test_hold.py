"""Hold and release: reconnects wait at the edge while sessions are moved, then come in at a pace."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import websockets.exceptions

from moorage.domain.allocation import Posture
from tests.edge.kit import HOST, Edge, pin_in, running_edge
from tests.edge.test_pins import sign
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

PIN = sign("1-abc", 1)


async def held(edge: Edge) -> None:
    old, new = await edge.app("old"), await edge.app("new")
    edge.ledger.place(1, old.port)
    edge.ledger.own(HOST, 1, held=True)
    edge.ledger.place(2, new.port, deployment=2)
    await edge.in_force()


async def waiting(edge: Edge, count: int) -> None:
    """Until so many client connections are open at the proxy (one more is the question's own)."""
    proxy = edge.proxy()

    async def are_there() -> bool:
        info = (await proxy._send(["show info"]))[0]
        return f"\nCurrConns: {count + 3}\n" in info or int(info.split("\nCurrConns: ")[1].split()[0]) >= count

    await wait_until(are_there, what=f"{count} clients waiting")
    await proxy.close()


async def test_an_upgrade_waits_and_is_routed_by_what_holds_after_the_release(edge: Edge) -> None:
    """Owner and posture change during the hold: what was read before it must not decide."""
    await held(edge)
    pinned, fresh = (asyncio.create_task(edge.socket(pin=pin)) for pin in (PIN, None))
    await waiting(edge, 2)
    edge.ledger.place(1, edge.apps["old"].port, posture=Posture.NO_UPGRADES)
    edge.ledger.own(HOST, 2, held=True)
    edge.ledger.place(1, edge.apps["old"].port, posture=Posture.CUT)
    await edge.in_force()
    assert not pinned.done()
    assert not fresh.done()
    edge.ledger.hold(HOST, False)
    for task in (pinned, fresh):
        socket = await task
        assert await socket.recv() == "new"
        await socket.close()
    assert edge.apps["old"].upgraded == 0


async def test_plain_requests_are_not_held(edge: Edge) -> None:
    await held(edge)
    assert (await edge.get()).json()["app"] == "old"
    assert (await edge.get(pin=PIN)).json()["app"] == "old"


async def test_other_routes_are_not_held(edge: Edge) -> None:
    await held(edge)
    edge.ledger.own("other.localhost", 2)
    await edge.in_force()
    async with await edge.socket(host="other.localhost") as socket:
        assert await socket.recv() == "new"


async def test_pins_that_refuse_upgrades_are_not_used_after_a_release_that_was_called_off(edge: Edge) -> None:
    await held(edge)
    task = asyncio.create_task(edge.socket(pin=PIN))
    await waiting(edge, 1)
    edge.ledger.place(1, edge.apps["old"].port, posture=Posture.NO_UPGRADES)
    await edge.in_force()
    edge.ledger.place(1, edge.apps["old"].port, posture=Posture.OPEN)
    edge.ledger.hold(HOST, False)
    socket = await task
    assert await socket.recv() == "old"
    await socket.close()


async def test_a_release_is_paced(folder: Path) -> None:
    async with running_edge(folder, admission_per_s=50) as edge:
        await held(edge)
        tasks = [asyncio.create_task(edge.socket()) for _ in range(40)]
        await waiting(edge, 40)
        edge.ledger.hold(HOST, False)
        sockets = await asyncio.gather(*tasks)
        at_s = sorted(edge.apps["old"].upgraded_at_s)
        assert len(at_s) == 40
        assert 0.6 < at_s[-1] - at_s[0] < 3.0  # 40 at 50 a second
        assert max(sum(1 for other in at_s if 0 <= other - start < 0.1) for start in at_s) <= 15
        for socket in sockets:
            await socket.close()


async def test_a_hold_past_its_budget_is_answered(folder: Path) -> None:
    async with running_edge(folder, hold_budget_s=0.3) as edge:
        await held(edge)
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            await edge.socket()
        answer = refused.value.response
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert b'"code":"hold-expired"' in (answer.body or b"")
        assert edge.apps["old"].upgraded == 0


async def test_a_client_that_gave_up_while_held_does_not_reach_the_app(edge: Edge) -> None:
    await held(edge)
    gone = [asyncio.create_task(edge.socket()) for _ in range(5)]
    await waiting(edge, 5)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    stays = asyncio.create_task(edge.socket())
    await waiting(edge, 1)
    edge.ledger.hold(HOST, False)
    async with await stays as socket:
        assert await socket.recv() == "old"
        assert edge.apps["old"].upgraded == 1


async def test_a_route_that_changes_its_environment_while_held_is_pinned_in_the_new_one(edge: Edge) -> None:
    await held(edge)
    third = await edge.app("third")
    edge.ledger.place(3, third.port, deployment=3, environment=2)
    pinned, fresh = (asyncio.create_task(edge.socket(pin=pin)) for pin in (PIN, None))
    await waiting(edge, 2)
    edge.ledger.own(HOST, 3, environment=2)
    async with await pinned as first, await fresh as second:
        for socket in (first, second):
            assert await socket.recv() == "third"
            pin = pin_in(socket)
            assert pin is not None
            assert pin == sign(pin.partition(".")[0], 2)


async def test_a_route_removed_while_held_is_an_honest_404(edge: Edge) -> None:
    await held(edge)
    task = asyncio.create_task(edge.socket())
    await waiting(edge, 1)
    edge.ledger.remove(HOST)
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        await task
    assert refused.value.response.status_code == 404


async def test_two_hundred_clients_come_through_a_whole_hand_over(edge: Edge) -> None:
    """Hold, refuse upgrades, switch, cut: every client reconnects at once, and lands on the new allocation."""
    old, new = await edge.app("old"), await edge.app("new")
    edge.ledger.place(1, old.port)
    edge.ledger.own(HOST, 1)
    await edge.in_force()
    sockets = await asyncio.gather(*(edge.socket() for _ in range(200)))
    await edge.counted(1, 200)

    async def reconnecting(socket: websockets.asyncio.client.ClientConnection) -> str:
        assert await socket.recv() == "old"
        with pytest.raises(websockets.exceptions.ConnectionClosedError):
            await socket.recv()
        async with await edge.socket() as again:
            return str(await again.recv())

    clients = [asyncio.create_task(reconnecting(socket)) for socket in sockets]
    edge.ledger.place(2, new.port, deployment=2)
    edge.ledger.hold(HOST, True)
    edge.ledger.place(1, old.port, posture=Posture.NO_UPGRADES)
    edge.ledger.own(HOST, 2, held=True)
    await edge.in_force()
    edge.ledger.place(1, old.port, posture=Posture.CUT)
    await edge.in_force()
    assert edge.attached(1) == 0
    await waiting(edge, 200)
    assert new.upgraded == 0
    edge.ledger.place(1, old.port, posture=Posture.FENCED)
    edge.ledger.hold(HOST, False)
    assert set(await asyncio.gather(*clients)) == {"new"}
    assert old.upgraded == 200
    assert new.upgraded == 200
