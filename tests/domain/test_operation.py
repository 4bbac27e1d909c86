"""Operations: every machine walked, every pair; a stage can always fail and says so in a state of its own."""

from __future__ import annotations

from itertools import product

import pytest

from moorage.control.operations.engine import failure_state
from moorage.domain.operation import MACHINES, SUCCESS, Kind, first_state, is_final, may_cancel, may_move
from moorage.store.operations import Operation

PAIRS = [(kind, a, b) for kind in Kind for a, b in product(MACHINES[kind], MACHINES[kind])]


def test_every_kind_has_a_machine() -> None:
    assert set(MACHINES) == set(Kind)


def test_every_pair() -> None:
    for kind, current, wanted in PAIRS:
        assert may_move(kind, current, wanted) is (current == wanted or wanted in MACHINES[kind][current])
        if is_final(kind, current) and current != wanted:
            assert not may_move(kind, current, wanted), (kind, current, wanted)


@pytest.mark.parametrize("kind", Kind)
def test_every_state_is_reached_and_every_way_ends(kind: Kind) -> None:
    table = MACHINES[kind]
    assert all(after in table for states in table.values() for after in states), "no way leads out of the table"
    reached = {first_state(kind)}
    while more := {after for state in reached for after in table[state]} - reached:
        reached |= more
    assert reached == set(table)
    assert any(is_final(kind, state) and state in SUCCESS for state in table), "it can succeed"
    for state in table:
        assert _ends(table, state), f"{kind} cannot end from {state}"


def _ends(table: dict[str, tuple[str, ...]], state: str) -> bool:
    seen, todo = set(), [state]
    while todo:
        current = todo.pop()
        if not table[current]:
            return True
        seen.add(current)
        todo += [after for after in table[current] if after not in seen]
    return False


@pytest.mark.parametrize("kind", Kind)
def test_no_machine_goes_round_in_a_circle(kind: Kind) -> None:
    """A stage is never entered a second time: what a resumed operation has recorded is behind it for good."""
    table = MACHINES[kind]

    def walk(state: str, path: tuple[str, ...]) -> None:
        assert state not in path, (kind, *path, state)
        for after in table[state]:
            walk(after, (*path, state))

    walk(first_state(kind), ())


def test_a_bug_at_any_stage_can_be_recorded() -> None:
    for kind, state in [(k, s) for k in Kind for s in MACHINES[k] if MACHINES[k][s]]:
        operation = Operation("opn", kind, "board", None, state, {}, {}, None, None, 1, False, "", 0, 0, None)
        wanted = failure_state(operation)
        assert may_move(kind, state, wanted), (kind, state, wanted)
        assert is_final(kind, wanted)
        assert wanted not in SUCCESS


def test_an_owner_that_has_changed_cannot_be_canceled_away() -> None:
    for kind in (Kind.PROMOTION, Kind.ROLLBACK):
        assert [s for s in MACHINES[kind] if may_cancel(kind, s)] == ["requested", "policy_check", "route_cas"]
    assert not any(may_cancel(kind, s) for kind in (Kind.HANDOVER, Kind.DRAIN, Kind.DESTROY) for s in MACHINES[kind])


def test_a_handover_cannot_be_called_off_after_the_cut() -> None:
    table = MACHINES[Kind.HANDOVER]
    assert [state for state in table if "failed" in table[state]] == ["planned", "refusing_new", "cutting"]
