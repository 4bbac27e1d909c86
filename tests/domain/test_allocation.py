"""Allocation: both tables, every pair; what an edge may send to one."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.allocation import (
    TERMINAL,
    TRANSITIONS,
    Posture,
    State,
    honours_pins,
    honours_upgrades,
    is_pickable,
    may_become,
    may_move,
)
from tests.support.nouns import endpoint

ORDER = list(Posture)
LOOSE = {Posture.OPEN, Posture.NO_PICKS, Posture.NO_UPGRADES}


def test_every_pair_of_states() -> None:
    for current, wanted in product(State, State):
        allowed = may_become(current, wanted)
        assert allowed is (wanted in TRANSITIONS[current])
        if current in TERMINAL:
            assert not allowed, "nothing comes after the end"
        elif wanted in TERMINAL:
            assert allowed, "an allocation may end at any time"
        elif wanted in (current, State.PLANNED):
            assert not allowed, "planned is where it begins, and staying is no transition"


def test_every_state_is_in_the_table_and_is_reached() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {state for state in State if not TRANSITIONS[state]} == TERMINAL
    reached = {State.PLANNED}
    while more := {after for state in reached for after in TRANSITIONS[state]} - reached:
        reached |= more
    assert reached == set(State)


def test_an_allocation_may_be_ready_before_anybody_saw_it_start() -> None:
    """Reports are level-triggered: a fast app is ready between two of them."""
    for state in (State.PLANNED, State.PULLING, State.STARTING):
        assert may_become(state, State.READY)


def test_every_pair_of_postures() -> None:
    for current, wanted in product(Posture, Posture):
        tightens = ORDER.index(wanted) >= ORDER.index(current)
        assert may_move(current, wanted) is (tightens or {current, wanted} <= LOOSE), (current, wanted)


@given(st.lists(st.sampled_from(Posture), max_size=30))
def test_no_way_leads_back_over_the_cut(wishes: list[Posture]) -> None:
    posture, worst = Posture.OPEN, Posture.OPEN
    for wanted in wishes:
        if may_move(posture, wanted):
            posture = wanted
        worst = max(worst, posture, key=ORDER.index)
        if ORDER.index(worst) >= ORDER.index(Posture.CUT):
            assert posture is worst


@pytest.mark.parametrize("posture", Posture)
@pytest.mark.parametrize("ready", [True, False])
def test_what_an_edge_may_send(posture: Posture, ready: bool) -> None:
    one = endpoint(posture=posture, ready=ready)
    pick = is_pickable(one, environment=1, deployment="dep_1")
    assert pick is (ready and posture is Posture.OPEN)
    assert honours_pins(one) is (ready and posture in {*LOOSE, Posture.LETTING_GO})
    assert honours_upgrades(one) is (ready and posture in {Posture.OPEN, Posture.NO_PICKS})
    assert not pick or honours_upgrades(one), "whoever takes new sessions keeps its old ones"
    assert not honours_upgrades(one) or honours_pins(one)


def test_no_pick_for_another_owner_or_environment() -> None:
    assert not is_pickable(endpoint(), environment=2, deployment="dep_1")
    assert not is_pickable(endpoint(), environment=1, deployment="dep_2")
