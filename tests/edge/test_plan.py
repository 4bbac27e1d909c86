"""Plans lead from any state of a proxy to the wanted one, and never through a state that answers for the wrong app."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.domain.allocation import Posture
from moorage.edge.plan import everything, is_route_key, plan_changes, plan_collection, unreferenced_slots, wanted
from moorage.edge.proxy.actual import ActualProxy
from moorage.edge.proxy.commands import SetRoute, SetSlot
from moorage.edge.proxy.hot import KNOWN_FLAG, SLOTS_MAX_COUNT, HotEntry, pack, unpack
from moorage.edge.table import RouteTable, Touched
from tests.edge.ledger import Ledger

KEYS = ("a.localhost", "b.localhost", "c.localhost")

postures = st.one_of(st.just(Posture.OPEN), st.just(Posture.OPEN), st.sampled_from(Posture))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("own"), st.sampled_from(KEYS), st.integers(1, 3)),
        st.tuples(st.just("hold"), st.sampled_from(KEYS), st.booleans()),
        st.tuples(st.just("remove"), st.sampled_from(KEYS), st.none()),
        st.tuples(st.just("place"), st.integers(1, 9), st.tuples(postures, st.sampled_from((True, True, True, False)))),
    ),
    min_size=1,
    max_size=40,
)


def add(ledger: Ledger, step: tuple[str, Any, Any]) -> None:
    kind, what, value = step
    if kind == "own":
        ledger.own(what, value)
    elif kind == "place":
        ledger.place(what, 1000 + what, deployment=1 + what % 3, posture=value[0], ready=value[1])
    elif what in ledger.fold_owners():
        ledger.hold(what, value) if kind == "hold" else ledger.remove(what)


def answers(actual: ActualProxy, key: str) -> set[int]:
    """The allocations that a fresh session of this key may reach."""
    entry = actual.routes.get(key)
    if entry is None:
        return set()
    numbers = {actual.slots.get(slot, 0) for slot in entry.slots}
    return {number for number in numbers if number in actual.servers and not actual.servers[number].stopped}


def meant(table: RouteTable, key: str) -> set[int]:
    want = wanted(table, Touched(frozenset({key}))).routes[key]
    return set(want.picks) if want else set()


def table_of(ledger: Ledger) -> RouteTable:
    table = RouteTable()
    table.load(ledger.empty())
    return table


@given(steps)
@settings(max_examples=200, deadline=None)
def test_every_step_of_every_plan_answers_by_the_old_or_the_new_owner(history: list[tuple[str, Any, Any]]) -> None:
    ledger = Ledger()
    table, actual = table_of(ledger), ActualProxy()
    for step in history:
        before = {key: meant(table, key) for key in KEYS}
        add(ledger, step)
        touched = Touched()
        for entry in ledger.entries[table.index :]:
            touched |= table.fold(entry).touched
        after = {key: meant(table, key) for key in KEYS}
        for command in plan_changes(wanted(table, touched), actual):
            actual.take([command])
            for key in KEYS:
                assert answers(actual, key) <= before[key] or answers(actual, key) <= after[key]
                assert answers(actual, key) or not (before[key] and after[key])  # nobody is turned away in between
        for key in KEYS:
            assert answers(actual, key) == after[key]
        assert plan_changes(wanted(table, everything(table, actual)), actual) == ()


@given(steps, st.integers(0, 200))
@settings(max_examples=100, deadline=None)
def test_a_plan_that_was_cut_off_anywhere_is_made_good_by_the_next(
    history: list[tuple[str, Any, Any]], cut: int
) -> None:
    ledger = Ledger()
    for step in history:
        add(ledger, step)
    table, actual = table_of(ledger), ActualProxy()
    for entry in ledger.entries:
        table.fold(entry)
    plan = plan_changes(wanted(table, everything(table, actual)), actual)
    actual.take(plan[:cut])
    actual.take(plan_changes(wanted(table, everything(table, actual)), actual))
    for key in KEYS:
        assert answers(actual, key) == meant(table, key)


@given(steps)
@settings(max_examples=100, deadline=None)
def test_collection_leaves_nothing_of_the_past_and_nothing_else_out(history: list[tuple[str, Any, Any]]) -> None:
    ledger = Ledger()
    table, actual = table_of(ledger), ActualProxy()
    for step in history:
        add(ledger, step)
        for entry in ledger.entries[table.index :]:
            touched = table.fold(entry).touched
            actual.take(plan_changes(wanted(table, touched), actual))
    served = {key: answers(actual, key) for key in KEYS}
    actual.take(plan_collection(table, actual, forgotten=unreferenced_slots(actual)))
    assert {key: answers(actual, key) for key in KEYS} == served
    assert not unreferenced_slots(actual)
    assert set(actual.servers) <= set(table.endpoints)


def test_a_slot_is_kept_one_pass_longer_than_its_route() -> None:
    """A request may have read the route just before it changed."""
    ledger = Ledger()
    table, actual = table_of(ledger), ActualProxy()
    table.fold(ledger.place(1, 1000))
    table.fold(ledger.own(KEYS[0], 1))
    actual.take(plan_changes(wanted(table, everything(table, actual)), actual))
    old = actual.routes[KEYS[0]]
    table.fold(ledger.place(2, 1001))
    actual.take(plan_changes(wanted(table, everything(table, actual)), actual))
    assert actual.slots[old.base] == 1
    assert plan_collection(table, actual, forgotten=frozenset()) == ()


def test_a_change_of_one_flag_is_one_command() -> None:
    ledger = Ledger()
    table, actual = table_of(ledger), ActualProxy()
    table.fold(ledger.place(1, 1000))
    table.fold(ledger.own(KEYS[0], 1))
    actual.take(plan_changes(wanted(table, everything(table, actual)), actual))
    touched = table.fold(ledger.hold(KEYS[0], True)).touched
    plan = plan_changes(wanted(table, touched), actual)
    assert [type(command).__name__ for command in plan] == ["SetRoute", "SetMark"]


def test_a_change_of_owner_alone_switches_the_cure_on_and_off_by_one_command() -> None:
    ledger = Ledger()
    table, actual = table_of(ledger), ActualProxy()
    table.fold(ledger.place(1, 1000))
    table.fold(ledger.own(KEYS[0], 1))
    actual.take(plan_changes(wanted(table, everything(table, actual)), actual))
    for cure in (True, False):
        touched = table.fold(ledger.own(KEYS[0], 1, cure=cure)).touched
        plan = plan_changes(wanted(table, touched), actual)
        assert [type(command).__name__ for command in plan] == ["SetRoute", "SetMark"]
        actual.take(plan)
        assert actual.routes[KEYS[0]].cured is cure


def test_a_closed_route_has_no_environment_so_that_no_pin_holds() -> None:
    ledger = Ledger()
    table, actual = table_of(ledger), ActualProxy()
    table.fold(ledger.place(1, 1000))
    table.fold(ledger.own(KEYS[0], 1))
    actual.take(plan_changes(wanted(table, everything(table, actual), closed=True), actual))
    assert actual.routes[KEYS[0]] == HotEntry(0, 0, held=False, closed=True, environment=0)


def test_a_fresh_base_never_overlaps_and_goes_round() -> None:
    ledger = Ledger()
    table = table_of(ledger)
    actual = ActualProxy(slots={SLOTS_MAX_COUNT - 1: 7, 0: 8, 2: 9}, next_slot=SLOTS_MAX_COUNT - 2)
    for number in (1, 2, 3):
        table.fold(ledger.place(number, 1000 + number))
    table.fold(ledger.own(KEYS[0], 1))
    plan = plan_changes(wanted(table, Touched(frozenset({KEYS[0]}))), actual)
    assert [command.slot for command in plan if isinstance(command, SetSlot)] == [3, 4, 5]
    assert next(command.entry.base for command in plan if isinstance(command, SetRoute)) == 3


def test_what_could_be_read_as_syntax_never_reaches_the_socket() -> None:
    for key in ("a b", "a;b", "a\nshow info", "", "A.localhost", "a\\", "é", "x" * 255):
        assert not is_route_key(key)
    ledger = Ledger()
    table, actual = table_of(ledger), ActualProxy()
    table.fold(ledger.own("a;clear table hot", 1))
    table.fold(ledger.add(ledger.place(1, 1000).event.model_copy(update={"host": "x y", "version": 9, "number": 2})))
    plan = plan_changes(wanted(table, everything(table, actual)), deepcopy(actual))
    assert all(";" not in command.line() and "x y" not in command.line() for command in plan)


@given(
    st.integers(0, SLOTS_MAX_COUNT - 1),
    st.integers(0, 63),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.integers(0, 2**32 - 1),
)
def test_a_hot_entry_survives_packing(base: int, count: int, flags: tuple[bool, bool, bool], environment: int) -> None:
    held, closed, cured = flags
    entry = HotEntry(base, count, held, closed, environment, cured)
    packed = pack(entry)
    assert 0 < packed < 2**32
    assert packed & KNOWN_FLAG
    assert unpack(packed, environment) == entry
