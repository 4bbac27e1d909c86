"""What each posture of an allocation means for new sessions, pins, upgrades and what is attached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import websockets.exceptions

from moorage.domain.allocation import Posture
from moorage.edge.proxy.commands import Command, ShutdownSessions
from moorage.edge.proxy.haproxy import HAProxy
from tests.edge.kit import HOST, Edge
from tests.edge.test_pins import sign
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

PIN = sign("1-abc", 1)


async def put(edge: Edge, posture: Posture) -> None:
    """Allocation 1 of the owner in this posture, allocation 2 open beside it."""
    if not edge.apps:
        old, new = await edge.app("old"), await edge.app("new")
        edge.ledger.place(1, old.port)
        edge.ledger.place(2, new.port)
        edge.ledger.own(HOST, 1)
    edge.ledger.place(1, edge.apps["old"].port, posture=posture)
    await edge.in_force()


async def picked(edge: Edge) -> set[str]:
    return {(await edge.get()).json()["app"] for _ in range(30)}


async def upgrade_of_pin(edge: Edge) -> str:
    async with await edge.socket(pin=PIN) as socket:
        return str(await socket.recv())


async def test_open_takes_everything(edge: Edge) -> None:
    await put(edge, Posture.OPEN)
    assert await picked(edge) == {"old", "new"}
    assert (await edge.get(pin=PIN)).json()["app"] == "old"
    assert await upgrade_of_pin(edge) == "old"


async def test_no_picks_keeps_pins_and_pinned_upgrades(edge: Edge) -> None:
    await put(edge, Posture.NO_PICKS)
    assert await picked(edge) == {"new"}
    assert (await edge.get(pin=PIN)).json()["app"] == "old"
    assert await upgrade_of_pin(edge) == "old"


async def test_no_upgrades_keeps_pinned_requests_and_sends_upgrades_to_a_pick(edge: Edge) -> None:
    await put(edge, Posture.OPEN)
    async with await edge.socket(pin=PIN) as attached:
        assert await attached.recv() == "old"
        await put(edge, Posture.NO_UPGRADES)
        assert await picked(edge) == {"new"}
        assert (await edge.get(pin=PIN)).json()["app"] == "old"
        assert await upgrade_of_pin(edge) == "new"
        assert edge.apps["old"].attached == 1  # what is attached stays


async def test_no_upgrades_can_be_called_off(edge: Edge) -> None:
    await put(edge, Posture.NO_UPGRADES)
    assert await upgrade_of_pin(edge) == "new"
    await put(edge, Posture.OPEN)
    assert await upgrade_of_pin(edge) == "old"
    assert await picked(edge) == {"old", "new"}


@pytest.mark.parametrize("posture", [Posture.CUT, Posture.FENCED, Posture.GONE])
async def test_from_the_cut_on_nothing_reaches_it_and_what_was_attached_is_closed(edge: Edge, posture: Posture) -> None:
    await put(edge, Posture.OPEN)
    sockets = [await edge.socket(pin=sign(f"1-{number}", 1)) for number in range(20)]
    for socket in sockets:
        assert await socket.recv() == "old"
    await edge.counted(1, 20)
    await put(edge, posture)
    for socket in sockets:
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as closed:
            await socket.recv()
        assert closed.value.rcvd is None  # no close frame: the client is to reconnect
    await wait_until(lambda: edge.apps["old"].attached == 0, what="the app's end closed")
    heads = len(edge.apps["old"].heads)
    assert (await edge.get(pin=PIN)).json()["app"] == "new"
    assert await upgrade_of_pin(edge) == "new"
    assert await picked(edge) == {"new"}
    assert len(edge.apps["old"].heads) == heads


class SlowToCut(HAProxy):
    """The real proxy, in which one connection outlives the first cuts of allocation 1."""

    looks = 0
    cuts = 0

    async def apply(self, commands: Sequence[Command]) -> None:
        SlowToCut.cuts += ShutdownSessions(1) in commands
        await super().apply(commands)

    async def connections(self) -> Mapping[int, int]:
        SlowToCut.looks += SlowToCut.cuts > 0
        left = 1 if SlowToCut.cuts < 4 else 0
        return {**await super().connections(), 1: left}


async def test_a_cut_is_repeated_and_not_acknowledged_before_nothing_is_attached(edge: Edge) -> None:
    await edge.kill_agent()
    SlowToCut.looks = SlowToCut.cuts = 0
    edge.proxy_type = SlowToCut
    edge.start_agent()
    await put(edge, Posture.OPEN)
    index = edge.ledger.index
    edge.ledger.place(1, edge.apps["old"].port, posture=Posture.CUT)
    await wait_until(lambda: edge.ledger.last_report.applied_index > index, what="the cut acknowledged")
    assert SlowToCut.cuts == 4
    assert SlowToCut.looks >= 4


async def test_an_allocation_that_is_not_ready_loses_its_pins_until_it_is(edge: Edge) -> None:
    await put(edge, Posture.OPEN)
    edge.ledger.place(1, edge.apps["old"].port, ready=False)
    await edge.in_force()
    assert (await edge.get(pin=PIN)).json()["app"] == "new"
    edge.ledger.place(1, edge.apps["old"].port, ready=True)
    await edge.in_force()
    assert (await edge.get(pin=PIN)).json()["app"] == "old"


async def test_an_allocation_may_come_back_on_another_port(edge: Edge) -> None:
    await put(edge, Posture.OPEN)
    elsewhere = await edge.app("elsewhere")
    edge.ledger.place(1, elsewhere.port)
    await edge.in_force()
    assert (await edge.get(pin=PIN)).json()["app"] == "elsewhere"
