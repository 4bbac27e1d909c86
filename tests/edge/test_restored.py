"""A control database that was restored from a copy: its log ends before what the edge has, under the same name."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from moorage.domain.allocation import Posture
from moorage.domain.route import Applied
from moorage.edge.follow import Follower
from moorage.edge.kept import RouteCopy
from moorage.edge.table import RouteTable
from moorage.system.clock import monotonic_s
from moorage.wire.edge import EdgeReply
from tests.edge.kit import HOST, Edge
from tests.edge.ledger import Ledger, Stream
from tests.edge.test_pins import sign
from tests.support.waiting import wait_until


async def lose(edge: Edge) -> int:
    """Route and allocations as a copy of the database has them, then changes that the copy does not have; where it
    ends."""
    for number, name in enumerate(("one", "two", "three"), 1):
        edge.ledger.place(number, (await edge.app(name)).port, deployment=number)
    edge.ledger.own(HOST, 1)
    await edge.in_force()
    kept = edge.ledger.index
    edge.ledger.own(HOST, 2)
    edge.ledger.own("lost.localhost", 2)
    edge.ledger.place(1, edge.apps["one"].port, deployment=1, posture=Posture.GONE)
    await edge.in_force()
    assert await served(edge) == "two"
    return kept


async def served(edge: Edge, host: str = HOST) -> str:
    answer = await edge.get(host=host, accept="application/json")
    return str(answer.json().get("app") or answer.json()["code"])


async def assert_is_as_restored(edge: Edge) -> None:
    """Owner, allocations and the route that is no more; and the log goes on from here, epochs that were used before
    included."""
    assert await served(edge) == "one"
    assert (await edge.get(pin=sign("1-abc", 1))).json()["app"] == "one"
    assert await served(edge, "lost.localhost") == "unknown-host"
    edge.ledger.own(HOST, 3)
    await edge.in_force()
    assert await served(edge) == "three"


@pytest.mark.servers
async def test_an_edge_that_is_ahead_takes_what_the_control_plane_has_and_says_so(edge: Edge) -> None:
    kept = await lose(edge)
    ahead = edge.ledger.index
    edge.ledger.take_back(kept)
    await edge.in_force()
    told = [report.catch_up for report in edge.ledger.reports if report.catch_up and report.catch_up.by == "restored"]
    assert [(catch_up.from_index, catch_up.to_index) for catch_up in told[:1]] == [(ahead, kept)]
    assert edge.stream.resets[-1] == kept
    await assert_is_as_restored(edge)


@pytest.mark.servers
async def test_what_the_stream_still_has_of_the_lost_history_is_not_applied(edge: Edge) -> None:
    kept = await lose(edge)
    lost = edge.ledger.take_back(kept)
    await edge.in_force()
    asked = edge.ledger.snapshots_asked
    edge.stream.deliver(*lost)
    await wait_until(lambda: edge.ledger.snapshots_asked > asked, what="a fresh snapshot instead")
    await edge.in_force()
    await assert_is_as_restored(edge)


@pytest.mark.servers
@pytest.mark.parametrize("has_copy", [True, False])
async def test_an_agent_that_comes_back_after_the_restoration_repairs_a_proxy_that_is_ahead(
    edge: Edge, has_copy: bool
) -> None:
    kept = await lose(edge)
    await edge.kill_agent()
    edge.ledger.take_back(kept)
    if not has_copy:
        for name in ("routes.json", "routes.json.log"):
            (edge.settings.directory / name).unlink()
    edge.start_agent()
    await edge.in_force()
    await assert_is_as_restored(edge)


@pytest.mark.servers
async def test_an_agent_that_dies_after_it_went_back_does_not_go_forth_again(edge: Edge) -> None:
    kept = await lose(edge)
    edge.ledger.take_back(kept)
    await edge.in_force()
    await edge.kill_agent()
    edge.ledger.is_down = True
    await edge.restart_proxy()
    edge.start_agent()

    async def is_back() -> bool:
        return await served(edge) == "one"

    await wait_until(is_back, what="the restored table from disk")
    edge.ledger.is_down = False
    await edge.in_force()
    await assert_is_as_restored(edge)


async def test_an_answer_that_is_older_than_what_came_meanwhile_takes_nothing_back(tmp_path: Path) -> None:
    ledger = Ledger(key=Ed25519PrivateKey.generate())
    ledger.own(HOST, 1)
    follower = Follower(ledger, Stream(ledger), RouteCopy(tmp_path / "routes.json"), ledger.key.public_key())
    await follower.ask()
    asked_s, asked_index = monotonic_s(), follower.table.index
    reply = EdgeReply(incarnation=ledger.incarnation, committed_index=ledger.index)
    follower.take([ledger.own(HOST, 2)])
    assert follower.hear(reply, asked_s, asked_index)
    assert not follower.must_ask
    follower.hear(reply, asked_s + 100, asked_index)
    assert not follower.must_ask


async def test_only_a_control_plane_that_says_so_for_a_while_takes_the_table_back(tmp_path: Path) -> None:
    ledger = Ledger(key=Ed25519PrivateKey.generate())
    for turn in range(3):
        ledger.own(HOST, turn)
    follower = Follower(ledger, Stream(ledger), RouteCopy(tmp_path / "routes.json"), ledger.key.public_key())
    await follower.ask()
    whole, short = (EdgeReply(incarnation=ledger.incarnation, committed_index=index) for index in (3, 2))
    for after_s, reply, asks in ((0, short, False), (1.9, short, False), (2, whole, False), (3, short, False)):
        assert follower.hear(reply, after_s, 3)
        assert follower.must_ask is asks
    assert not follower.hear(short, 5, 3)
    assert follower.must_ask


def test_an_old_message_that_is_sent_again_takes_nothing_back() -> None:
    ledger = Ledger()
    ledger.own(HOST, 1)
    old = ledger.fold()
    ledger.own(HOST, 2)
    table = RouteTable()
    table.load(ledger.fold())
    assert table.load(old, is_restored=True).verdict is Applied.DUPLICATE
    assert table.owners[HOST].epoch == 2
    ledger.take_back(1)
    assert table.load(ledger.fold(), is_restored=True).verdict is Applied.APPLY
    assert (table.index, table.owners[HOST].epoch) == (1, 1)
