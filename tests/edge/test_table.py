"""The route table never goes back: whatever the stream does, it equals the fold of a prefix of the log."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.domain.allocation import Posture
from moorage.domain.route import Applied
from moorage.edge.table import RouteTable
from moorage.wire.log import LogEntry, OwnerUpdated, RouteHeld, RouteRemoved
from tests.edge.ledger import Ledger

KEYS = ("a.localhost", "b.localhost")

steps = st.lists(
    st.one_of(
        st.tuples(st.just("own"), st.sampled_from(KEYS), st.integers(1, 3)),
        st.tuples(st.just("hold"), st.sampled_from(KEYS), st.booleans()),
        st.tuples(st.just("remove"), st.sampled_from(KEYS), st.none()),
        st.tuples(st.just("place"), st.integers(1, 4), st.sampled_from(Posture)),
    ),
    max_size=30,
)


def write(ledger: Ledger, history: list[tuple[str, Any, Any]]) -> None:
    for kind, what, value in history:
        if kind == "own":
            ledger.own(what, value)
        elif kind == "place":
            ledger.place(what, 1000 + what, posture=value)
        elif what in ledger.fold_owners():
            ledger.hold(what, value) if kind == "hold" else ledger.remove(what)


def state(table: RouteTable) -> tuple[Any, ...]:
    return table.index, dict(table.owners), dict(table.endpoints)


def loaded(ledger: Ledger) -> RouteTable:
    table = RouteTable()
    table.load(ledger.empty())
    return table


@given(steps, st.data())
@settings(max_examples=200, deadline=None)
def test_replayed_reordered_and_repeated_entries_leave_the_fold_of_a_prefix(
    history: list[tuple[str, Any, Any]], data: st.DataObject
) -> None:
    ledger = Ledger()
    write(ledger, history)
    prefixes = [state(loaded(ledger))]
    exact = loaded(ledger)
    for entry in ledger.entries:
        assert exact.fold(entry).verdict is Applied.APPLY
        prefixes.append(state(exact))
    table, last = loaded(ledger), 0
    delivered = data.draw(st.lists(st.sampled_from(ledger.entries), max_size=60)) if ledger.entries else []
    for entry in delivered:
        verdict = table.fold(entry).verdict
        assert table.index >= last
        last = table.index
        assert state(table) == prefixes[table.index]
        assert (verdict is Applied.APPLY) == (entry.index == last and verdict is not Applied.DUPLICATE)
    counts = table.counts
    assert counts.applied == table.index
    assert counts.applied + counts.duplicates + counts.gaps == len(delivered)
    assert counts.stale == 0


@given(steps, st.data())
@settings(max_examples=100, deadline=None)
def test_a_snapshot_at_any_index_and_the_rest_of_the_log_equal_the_whole_log(
    history: list[tuple[str, Any, Any]], data: st.DataObject
) -> None:
    ledger = Ledger()
    write(ledger, history)
    cut = data.draw(st.integers(0, ledger.index))
    entries, ledger.entries = ledger.entries, ledger.entries[:cut]
    table = RouteTable()
    table.load(ledger.fold())
    for entry in entries[cut:]:
        table.fold(entry)
    ledger.entries = entries
    whole = RouteTable()
    whole.load(ledger.fold())
    assert state(table) == state(whole)


def entry(ledger: Ledger, event: Any) -> LogEntry:
    return LogEntry(index=ledger.index + 1, incarnation=ledger.incarnation, at_ms=1, event=event)


def owner(epoch: int, deployment: int = 1) -> OwnerUpdated:
    return OwnerUpdated(
        route_key=KEYS[0],
        epoch=epoch,
        app="app",
        environment=1,
        deployment=f"dep_{deployment}",
        deployment_number=deployment,
        artifact="sha256:0",
    )


def test_an_owner_with_an_equal_or_lower_epoch_is_counted_and_dropped_and_the_log_goes_on() -> None:
    ledger = Ledger()
    table = loaded(ledger)
    table.fold(ledger.add(owner(5)))
    for epoch in (5, 4, 1):
        assert table.fold(ledger.add(owner(epoch, deployment=9))).verdict is Applied.STALE
    assert table.owners[KEYS[0]].deployment == "dep_1"
    assert (table.index, table.counts.stale) == (4, 3)
    assert table.fold(ledger.add(owner(6, deployment=2))).verdict is Applied.APPLY
    assert table.owners[KEYS[0]].deployment == "dep_2"


def test_a_removed_route_keeps_its_epoch_so_that_an_old_owner_cannot_come_back() -> None:
    ledger = Ledger()
    table = loaded(ledger)
    table.fold(ledger.add(owner(1)))
    table.fold(ledger.add(RouteRemoved(route_key=KEYS[0], epoch=2)))
    assert table.fold(ledger.add(owner(2))).verdict is Applied.STALE
    assert KEYS[0] not in table.owners
    assert table.fold(ledger.add(RouteRemoved(route_key=KEYS[0], epoch=2))).verdict is Applied.STALE
    assert table.fold(ledger.add(owner(3))).verdict is Applied.APPLY


def test_a_hold_of_another_epoch_is_stale() -> None:
    ledger = Ledger()
    table = loaded(ledger)
    table.fold(ledger.add(owner(3)))
    for epoch in (2, 4):
        assert table.fold(ledger.add(RouteHeld(route_key=KEYS[0], epoch=epoch, held=True))).verdict is Applied.STALE
    assert not table.owners[KEYS[0]].held
    table.fold(ledger.add(RouteHeld(route_key=KEYS[0], epoch=3, held=True)))
    assert table.owners[KEYS[0]].held


def test_an_allocation_that_is_gone_stays_gone() -> None:
    ledger = Ledger()
    table = loaded(ledger)
    old = ledger.place(1, 1000)
    table.fold(old)
    table.fold(ledger.place(1, 1000, posture=Posture.GONE))
    assert table.fold(ledger.add(old.event)).verdict is Applied.STALE
    assert not table.endpoints


def test_a_gap_and_another_incarnation_change_nothing() -> None:
    ledger, other = Ledger(), Ledger("inc-2")
    table = loaded(ledger)
    ledger.own(KEYS[0], 1)
    assert table.fold(ledger.own(KEYS[0], 2)).verdict is Applied.GAP
    assert table.fold(other.own(KEYS[0], 3)).verdict is Applied.FOREIGN
    assert (table.index, dict(table.owners), table.counts.gaps) == (0, {}, 1)


def test_an_older_snapshot_of_the_same_log_is_not_loaded_and_another_log_is() -> None:
    ledger, other = Ledger(), Ledger("inc-2")
    old = ledger.fold()
    ledger.own(KEYS[0], 1)
    table = RouteTable()
    table.load(ledger.fold())
    assert table.load(old).verdict is Applied.DUPLICATE
    assert KEYS[0] in table.owners
    other.own(KEYS[1], 1)
    assert table.load(other.fold()).verdict is Applied.APPLY
    assert set(table.owners) == {KEYS[1]}


def test_a_snapshot_cannot_take_a_route_back_either() -> None:
    ledger = Ledger()
    table = loaded(ledger)
    table.fold(ledger.add(owner(7)))
    lying = ledger.fold().model_copy(update={"index": 9, "routes": (owner(6, deployment=9),)})
    table.load(lying)
    assert table.owners[KEYS[0]].epoch == 7
    assert table.counts.stale == 1
