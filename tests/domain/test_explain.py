"""Explain says what the edge does, by the same rules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.allocation import Endpoint, Posture, honours_pins, is_pickable
from moorage.domain.explain import explain
from moorage.domain.route import RouteOwner
from tests.support.nouns import endpoint, owner

ENDPOINTS = st.lists(
    st.builds(
        endpoint,
        number=st.integers(1, 9),
        deployment=st.sampled_from(["dep_1", "dep_2"]),
        environment=st.sampled_from([1, 2]),
        posture=st.sampled_from(Posture),
        ready=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda e: e.number,
)
OWNERS = st.none() | st.builds(owner, deployment=st.sampled_from(["dep_1", "dep_2"]), held=st.booleans())


@given(OWNERS, ENDPOINTS, st.none() | st.integers(1, 9))
def test_every_case(who: RouteOwner | None, endpoints: list[Endpoint], pinned: int | None) -> None:
    said = explain(who, endpoints, pinned)
    if who is None:
        assert (said.outcome, said.candidates) == ("unknown-host", ())
        return
    assert [c.number for c in said.candidates] == [e.number for e in endpoints], "each candidate has its reason"
    picks = [e.number for e in endpoints if is_pickable(e, environment=who.environment, deployment=who.deployment)]
    assert [c.number for c in said.candidates if c.picked] == picks
    target = next((e for e in endpoints if e.number == pinned), None)
    kept = target is not None and honours_pins(target) and target.environment == who.environment
    if kept:
        assert said.outcome == "served"
        assert str(pinned) in said.reason
    elif not picks:
        assert said.outcome == "no-ready-allocation"
    else:
        assert said.outcome == ("held" if who.held else "served")


@given(ENDPOINTS)
def test_a_pin_to_another_environment_is_not_honoured(endpoints: list[Endpoint]) -> None:
    mine = owner(environment=1)
    for each in endpoints:
        said = explain(mine, endpoints, each.number)
        if each.environment != 1:
            assert "pin keeps" not in said.reason


def test_the_reason_of_each_candidate() -> None:
    said = explain(
        owner("dep_1", environment=1),
        [
            endpoint(1),
            endpoint(2, deployment="dep_2"),
            endpoint(3, ready=False),
            endpoint(4, environment=2),
            endpoint(5, posture=Posture.CUT),
        ],
    )
    assert [(c.number, c.picked, c.why) for c in said.candidates] == [
        (1, True, "ready, open, and of the owner's deployment"),
        (2, False, "of another deployment: only sessions pinned to it reach it"),
        (3, False, "not ready"),
        (4, False, "of another environment"),
        (5, False, "its posture is cut"),
    ]
