"""The plan: every situation of an allocation and of a store, and what follows from any plan."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.allocation import State
from moorage.runner.plan import (
    Action,
    CloseStore,
    Decline,
    Forget,
    ForgetStore,
    ObservedAllocation,
    ObservedStore,
    OpenStore,
    Start,
    Stop,
    UpdateStore,
    plan_changes,
)
from moorage.wire.runner import Desired, DesiredAllocation, DesiredStore
from tests.runner.kit import store_user, wish, wish_store

WANTED = wish("sha256:0", port=20001)
ENDING = WANTED.model_copy(update={"want": "stop"})
STORE = wish_store(20002, store_user("alc_1", "one"))
CLOSING = STORE.model_copy(update={"want": "stop"})
LIVE = ObservedAllocation("alc_1", "env_1", is_over=False, is_stopping=False)
STOPPING = ObservedAllocation("alc_1", "env_1", is_over=False, is_stopping=True)
OVER = ObservedAllocation("alc_1", "env_1", is_over=True, is_stopping=True)


def seen(**changes: Any) -> ObservedStore:
    base: dict[str, Any] = {
        "environment": "env_1",
        "desired": STORE,
        "is_confirmed": True,
        "is_ready": True,
        "is_closing": False,
        "is_closed": False,
        "users": frozenset({"alc_1"}),
    }
    return ObservedStore(**(base | changes))


READY, UNREADY = seen(), seen(is_ready=False)
CLOSED = seen(is_ready=False, is_closing=True, is_closed=True)
UNCONFIRMED = seen(is_confirmed=False)
NARROW = seen(users=frozenset())


@pytest.mark.parametrize(
    ("wanted", "store", "allocation", "observed", "expected"),
    [
        (WANTED, None, None, None, [Start(WANTED)]),
        (WANTED, None, LIVE, None, []),
        (WANTED, None, STOPPING, None, []),
        (WANTED, None, OVER, None, []),  # never started again
        (ENDING, None, LIVE, None, [Stop("alc_1")]),
        (ENDING, None, STOPPING, None, []),
        (ENDING, None, OVER, None, []),
        (ENDING, None, None, None, [Decline(ENDING, State.STOPPED, "", "It was stopped before it was started.")]),
        (None, None, LIVE, None, [Stop("alc_1")]),
        (None, None, STOPPING, None, []),
        (None, None, OVER, None, [Forget("alc_1")]),
        (WANTED, STORE, None, None, [OpenStore(STORE)]),  # the store comes first
        (WANTED, STORE, None, UNREADY, []),
        (WANTED, STORE, None, NARROW, []),  # its user is not there yet
        (WANTED, STORE, None, READY, [Start(WANTED)]),
        (WANTED, STORE, None, UNCONFIRMED, [UpdateStore(STORE), Start(WANTED)]),
        (WANTED, STORE, LIVE, CLOSED, [OpenStore(STORE)]),
        (None, STORE, None, seen(desired=wish_store(1)), [UpdateStore(STORE)]),
        (None, CLOSING, LIVE, READY, [Stop("alc_1")]),  # the store goes last
        (None, CLOSING, STOPPING, READY, []),
        (None, CLOSING, None, READY, [CloseStore("env_1")]),
        (None, CLOSING, None, CLOSED, []),
        (None, CLOSING, None, None, []),
        (None, None, None, READY, [CloseStore("env_1")]),
        (None, None, None, CLOSED, [ForgetStore("env_1")]),
    ],
)
def test_every_situation(
    wanted: DesiredAllocation | None,
    store: DesiredStore | None,
    allocation: ObservedAllocation | None,
    observed: ObservedStore | None,
    expected: list[Action],
) -> None:
    desired = Desired(revision=1, allocations=(wanted,) if wanted else (), stores=(store,) if store is not None else ())
    found = plan_changes(desired, {"alc_1": allocation} if allocation else {}, {"env_1": observed} if observed else {})
    assert list(found) == expected


@pytest.mark.parametrize("name", ["../etc", "", "a/b", ".hidden", "x" * 200])
def test_ids_that_cannot_name_a_folder_start_nothing(name: str) -> None:
    wanted = WANTED.model_copy(update={"allocation": name})
    store = STORE.model_copy(update={"environment": name})
    (only,) = plan_changes(Desired(revision=1, allocations=(wanted,), stores=(store,)), {}, {})
    assert isinstance(only, Decline)
    assert only.state is State.FAILED


NAMES = st.sampled_from(["alc_1", "alc_2", "alc_3"])


WISHES = st.builds(
    lambda name, want: WANTED.model_copy(update={"allocation": name, "want": want}),
    NAMES,
    st.sampled_from(["run", "stop"]),
)


@given(
    st.lists(WISHES, unique_by=lambda wish: wish.allocation),
    st.dictionaries(NAMES, st.tuples(st.booleans(), st.booleans())),
    st.sampled_from([None, READY, UNREADY, CLOSED, UNCONFIRMED]),
    st.sampled_from([None, STORE, CLOSING]),
)
def test_nothing_that_was_ever_seen_is_started(
    wanted: list[DesiredAllocation],
    known: dict[str, tuple[bool, bool]],
    observed: ObservedStore | None,
    store: DesiredStore | None,
) -> None:
    allocations = {name: ObservedAllocation(name, "env_1", *flags) for name, flags in known.items()}
    desired = Desired(revision=1, allocations=tuple(wanted), stores=(store,) if store else ())
    plan = plan_changes(desired, allocations, {"env_1": observed} if observed else {})
    started = {each.desired.allocation for each in plan if isinstance(each, Start)}
    assert not started & known.keys()
    if any(not each.is_over for each in allocations.values()):
        assert not [each for each in plan if isinstance(each, CloseStore)]
    if store is STORE and observed not in (READY, UNCONFIRMED):
        assert not started
