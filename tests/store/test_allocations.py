"""Allocations: durable postures and states by compare-and-swap, ports in quarantine, the runner's revision."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from moorage.domain.allocation import TERMINAL, Posture, State, may_become, may_move
from moorage.domain.errors import Refused
from moorage.domain.limits import APP_PORT_FIRST, APP_PORT_LAST
from moorage.store import allocations, log
from moorage.store.database import Database, Tx
from tests.store.rows import ACKED_ALL, add_allocation, add_app

WAYS = {
    State.PLANNED: [],
    State.PULLING: [State.PULLING],
    State.STARTING: [State.STARTING],
    State.READY: [State.READY],
    State.DRAINING: [State.READY, State.DRAINING],
    State.STOPPED: [State.STOPPED],
    State.FAILED: [State.FAILED],
    State.LOST: [State.LOST],
}


async def everything(db: Database, id: str = "alc_1") -> tuple[object, ...]:
    def look(tx: Tx) -> tuple[object, ...]:
        return (
            allocations.get(tx, id),
            allocations.transitions(tx, id),
            log.committed_index(tx),
            allocations.desired_revision(tx),
        )

    return await db.read(look)


def come_to(tx: Tx, state: State, id: str = "alc_1") -> None:
    for step in WAYS[state]:
        assert allocations.observe(tx, id, step, reason="test")


async def test_a_planned_allocation_has_number_port_and_user_of_its_own(db: Database) -> None:
    def plan(tx: Tx) -> list[allocations.Allocation]:
        add_app(tx)
        return [add_allocation(tx, f"alc_{n}") for n in range(3)]

    made = await db.write(plan)
    assert [a.number for a in made] == [1, 2, 3]
    assert len({a.port for a in made}) == 3
    assert all(APP_PORT_FIRST <= a.port <= APP_PORT_LAST for a in made)
    assert {(a.state, a.posture, a.want, a.version, a.store_enabled) for a in made} == {
        (State.PLANNED, Posture.OPEN, "run", 1, True)
    }
    assert await db.read(log.committed_index) == 0, "an edge is told when it is ready, not before"
    assert await db.read(allocations.desired_revision) == 3, "the runner is told at once"


async def test_every_pair_of_states_through_reports(db: Database) -> None:
    """What the table allows is recorded with its transition; what it does not changes nothing and is audited."""
    await db.write(add_app)
    for number, (current, seen) in enumerate(product(State, State)):
        id = f"alc_{number}"
        await db.write(lambda tx, id=id: add_allocation(tx, id))  # type: ignore[misc]
        await db.write(lambda tx, id=id, current=current: come_to(tx, current, id))  # type: ignore[misc]
        before = await everything(db, id)
        changed = await db.write(lambda tx, id=id, seen=seen: allocations.observe(tx, id, seen, reason="seen"))  # type: ignore[misc]
        after = await everything(db, id)
        if may_become(current, seen):
            assert changed is not None
            assert (changed.state, changed.version) == (seen, len(before[1]) + 1)  # type: ignore[arg-type]
            assert after[1][-1]["state"] == seen  # type: ignore[index]
            assert (changed.ended_ms is not None) is (seen in TERMINAL)
        else:
            assert changed is None
            assert after == before, (current, seen)
        audited = await db.read(lambda tx, id=id: [row["outcome"] for row in log.audit_of(tx, id)])  # type: ignore[misc]
        refused = not may_become(current, seen) and seen is not current and current not in TERMINAL
        assert audited == (["refused"] if refused else []), (current, seen)


async def test_every_pair_of_postures(db: Database) -> None:
    await db.write(add_app)
    for number, (current, wanted) in enumerate(product(Posture, Posture)):
        id = f"alc_{number}"
        await db.write(lambda tx, id=id: add_allocation(tx, id))  # type: ignore[misc]
        await db.write(lambda tx, id=id, p=current: allocations.set_posture(tx, id, p, reason="first"))  # type: ignore[misc]
        before = await everything(db, id)
        said = await db.write(lambda tx, id=id, p=wanted: allocations.set_posture(tx, id, p, reason="then"))  # type: ignore[misc]
        after = await everything(db, id)
        if not may_move(current, wanted):
            assert said is None
        assert (after == before) is (current is wanted or not may_move(current, wanted)), (current, wanted)


async def test_a_change_that_an_edge_must_know_is_in_the_log_with_it(db: Database) -> None:
    await db.write(lambda tx: (add_app(tx), add_allocation(tx)))
    ready = await db.write(lambda tx: allocations.observe(tx, "alc_1", State.READY, pid=7, ready_ms=5))
    assert ready is not None
    entries = await db.read(lambda tx: log.entries(tx, 0, 10))
    assert [(e.index, e.event.type) for e in entries] == [(1, "allocation.updated")]
    event = entries[0].event
    assert event.type == "allocation.updated"
    assert (event.ready, event.version, event.port) == (True, ready.version, ready.port)
    assert ready.log_index == 1
    # What only the runner must know is not for edges.
    stopped = await db.write(lambda tx: allocations.set_want(tx, "alc_1", "stop", reason="test"))
    assert stopped is not None
    assert (await db.read(log.committed_index), stopped.log_index) == (1, 1)


async def test_a_failed_transaction_takes_the_transition_and_its_log_entry_back(db: Database) -> None:
    await db.write(lambda tx: (add_app(tx), add_allocation(tx)))
    before = await everything(db)

    def move_and_break(tx: Tx) -> None:
        allocations.observe(tx, "alc_1", State.READY)
        allocations.set_posture(tx, "alc_1", Posture.CUT, reason="test")
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await db.write(move_and_break)
    assert await everything(db) == before


async def test_a_write_from_an_old_version_is_a_bug_that_changes_nothing(db: Database) -> None:
    """The compare-and-swap by version also holds against a row that somebody kept too long."""
    await db.write(lambda tx: (add_app(tx), add_allocation(tx)))
    old = await db.read(lambda tx: allocations.get(tx, "alc_1"))
    assert old is not None
    await db.write(lambda tx: allocations.set_want(tx, "alc_1", "stop", reason="test"))
    before = await everything(db)
    with pytest.raises(AssertionError):
        await db.write(lambda tx: allocations._update(tx, old, replace(old, want="run"), "late"))
    assert await everything(db) == before


async def test_the_fence_is_recorded_once_and_can_be_called_off(db: Database) -> None:
    await db.write(lambda tx: (add_app(tx), add_allocation(tx)))
    revision = await db.read(allocations.desired_revision)
    for _ in range(2):
        off = await db.write(lambda tx: allocations.disable_store_user(tx, "alc_1", reason="fence"))
        assert off is not None
        assert not off.store_enabled
    assert await db.read(allocations.desired_revision) == revision + 1, "the runner is told once"
    on = await db.write(lambda tx: allocations.enable_store_user(tx, "alc_1", reason="called off"))
    assert on is not None
    assert on.store_enabled


async def test_a_port_is_in_quarantine_until_every_edge_has_acknowledged_its_removal(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocations, "APP_PORT_LAST", APP_PORT_FIRST + 1)  # two ports in all
    await db.write(add_app)
    first = await db.write(lambda tx: add_allocation(tx, "alc_1"))
    second = await db.write(lambda tx: add_allocation(tx, "alc_2"))
    with pytest.raises(Refused) as refused:
        await db.write(lambda tx: add_allocation(tx, "alc_3"))
    assert (refused.value.problem.code, refused.value.problem.status) == ("ports-exhausted", 503)
    assert await db.read(lambda tx: allocations.get(tx, "alc_3")) is None

    await db.write(lambda tx: allocations.observe(tx, "alc_1", State.READY))
    await db.write(lambda tx: allocations.observe(tx, "alc_1", State.STOPPED))
    await db.write(lambda tx: allocations.set_posture(tx, "alc_1", Posture.GONE, reason="test"))
    removal = await db.read(log.committed_index)
    with pytest.raises(Refused):
        await db.write(lambda tx: add_allocation(tx, "alc_3", acked_index=removal - 1))
    third = await db.write(lambda tx: add_allocation(tx, "alc_3", acked_index=removal))
    assert third.port == first.port != second.port
    assert third.number == 3, "a port is given again, a number never"


async def test_ports_are_given_in_turn(db: Database) -> None:
    """A port that has just become free is the last to be given again."""
    await db.write(add_app)
    ports = []
    for number in range(5):
        made = await db.write(lambda tx, n=number: add_allocation(tx, f"alc_{n}"))  # type: ignore[misc]
        ports.append(made.port)
        await db.write(lambda tx, n=number: allocations.set_posture(tx, f"alc_{n}", Posture.GONE, reason="test"))  # type: ignore[misc]
    assert len(set(ports)) == 5


async def test_a_port_that_a_stranger_holds_is_not_given(db: Database) -> None:
    await db.write(add_app)
    made = await db.write(lambda tx: add_allocation(tx, usable=lambda port: port % 10 == 3))
    assert made.port % 10 == 3


async def test_gone_is_not_live_and_stays_readable(db: Database) -> None:
    await db.write(lambda tx: (add_app(tx), add_allocation(tx), add_allocation(tx, "alc_2")))
    await db.write(lambda tx: allocations.set_posture(tx, "alc_1", Posture.GONE, reason="test"))
    assert await db.read(lambda tx: [a.id for a in allocations.live(tx)]) == ["alc_2"]
    assert await db.read(lambda tx: [a.id for a in allocations.live(tx, 1)]) == ["alc_2"]
    assert await db.read(lambda tx: [a.id for a in allocations.newest(tx, 10)]) == ["alc_2", "alc_1"]
    assert await db.read(log.committed_index) < ACKED_ALL
