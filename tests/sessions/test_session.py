"""The account's own rules: one outcome per session, counts that add up, continuity by table."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.allocation import TERMINAL, State
from moorage.domain.session import (
    SETTLED,
    Account,
    Continuity,
    Fate,
    Outcome,
    RecordState,
    decide_continuity,
    merge,
    open_account,
    summary,
)

fates = st.lists(
    st.builds(
        Fate, st.integers(0, 40).map("label-{}".format), st.sampled_from(Outcome), st.sampled_from(["", "a", "b"])
    ),
    unique_by=lambda fate: fate.label,
)
accounts = st.builds(
    lambda named, sockets: open_account(named, attached_sockets=sockets), fates, st.none() | st.integers(0, 80)
)


@given(accounts)
def test_counts_add_up(account: Account) -> None:
    assert sum(account.counts.values()) == sum(account.reasons.values()) == account.total
    assert set(account.counts) == set(Outcome)
    assert account.is_settled == all(outcome in SETTLED for outcome, n in account.counts.items() if n)


@given(accounts)
def test_summary_is_json_and_adds_up(account: Account) -> None:
    found = json.loads(json.dumps(summary(account)))
    assert sum(found[outcome] for outcome in Outcome) == found["total"] == account.total


@given(fates, st.integers(0, 80))
def test_sockets_beyond_the_names_are_unknown_and_never_kinder(named: list[Fate], sockets: int) -> None:
    account = open_account(named, attached_sockets=sockets)
    beyond = max(sockets - len(named), 0)
    assert account.total == len(named) + beyond
    assert account.unnamed.get((Outcome.UNKNOWN, "not-named"), 0) == beyond


@given(st.lists(accounts, max_size=4))
def test_merged_accounts_add_up_and_name_each_once(several: list[Account]) -> None:
    one = merge(several)
    labels = {fate.label for account in several for fate in account.fates}
    assert len(one.fates) == len(labels)
    assert one.total == len(labels) + sum(sum(account.unnamed.values()) for account in several)


def test_two_outcomes_for_one_session_are_a_bug() -> None:
    with pytest.raises(AssertionError):
        open_account([Fate("x", Outcome.RESUMED), Fate("x", Outcome.LOST)])


def test_continuity_is_total_and_keeps_two_writers_apart() -> None:
    states = (None, *State)
    for record, fits, here, state, fenced in itertools.product(
        RecordState, (True, False), (True, False), states, (True, False)
    ):
        found = decide_continuity(
            record, schema_fits=fits, holder_is_here=here, holder_state=state, holder_fenced=fenced
        )
        assert found.reason
        if record is not RecordState.PRESENT:
            assert found.verdict is Continuity.FRESH
        elif here:
            assert found.verdict is Continuity.STAY
        elif state is not None and state not in TERMINAL and not fenced:
            assert found.verdict is Continuity.STAY  # it may still write
        else:
            assert found.verdict is (Continuity.RESUME if fits else Continuity.FRESH)
