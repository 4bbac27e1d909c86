"""Sessions: an account always adds up, and nothing unknown is called by a kinder word."""

from __future__ import annotations

from itertools import product

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

FATES = st.lists(
    st.builds(Fate, st.text("abcdef", min_size=1, max_size=3), st.sampled_from(Outcome), st.sampled_from(["", "why"])),
    max_size=12,
    unique_by=lambda f: f.label,
)
SOCKETS = st.none() | st.integers(0, 30)


@given(FATES, SOCKETS)
def test_an_account_adds_up(fates: list[Fate], sockets: int | None) -> None:
    account = open_account(fates, attached_sockets=sockets)
    assert account.total == max(len(fates), sockets or 0)
    assert sum(account.counts.values()) == sum(account.reasons.values()) == account.total
    assert set(account.counts) == set(Outcome)
    assert account.is_settled == all(n == 0 for o, n in account.counts.items() if o not in SETTLED)
    told = summary(account)
    assert sum(int(str(told[str(outcome)])) for outcome in Outcome) == told["total"]


@given(FATES, st.integers(0, 30))
def test_sockets_that_nobody_can_name_are_unknown(fates: list[Fate], sockets: int) -> None:
    account = open_account(fates, attached_sockets=sockets)
    beyond = max(0, sockets - len(fates))
    named = sum(fate.outcome is Outcome.UNKNOWN for fate in fates)
    assert account.counts[Outcome.UNKNOWN] == named + beyond


@given(st.lists(st.tuples(FATES, SOCKETS), max_size=4))
def test_merged_accounts_count_a_session_once(parts: list[tuple[list[Fate], int | None]]) -> None:
    accounts = [open_account(fates, attached_sockets=sockets) for fates, sockets in parts]
    whole = merge(accounts)
    labels = {fate.label for fates, _ in parts for fate in fates}
    unnamed = sum(sum(account.unnamed.values()) for account in accounts)
    assert whole.total == len(labels) + unnamed
    later = {fate.label: fate for fates, _ in parts for fate in fates}
    assert {fate.label: fate for fate in whole.fates} == later


def test_an_empty_account_is_settled() -> None:
    assert Account().is_settled
    assert Account().total == 0


def test_every_case_of_continuity() -> None:
    for record, fits, here, state, fenced in product(
        RecordState, [True, False], [True, False], [None, *State], [True, False]
    ):
        said = decide_continuity(
            record, schema_fits=fits, holder_is_here=here, holder_state=state, holder_fenced=fenced
        )
        assert said.reason
        lives = state is not None and state not in TERMINAL and not fenced
        if record is not RecordState.PRESENT:
            assert said.verdict is Continuity.FRESH
        elif here or lives:
            assert said.verdict is Continuity.STAY, "two allocations never write one session"
        else:
            assert said.verdict is (Continuity.RESUME if fits else Continuity.FRESH)
