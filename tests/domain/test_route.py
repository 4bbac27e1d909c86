"""Routes: the log's gate, the epoch's gate, the compare-and-swap."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.route import Applied, Granted, RouteOwner, Stale, decide_claim, decide_epoch, decide_log_entry
from tests.support.nouns import owner

INDEX = st.integers(min_value=0, max_value=1 << 62)


@given(INDEX, INDEX, st.booleans())
def test_the_log_gate_opens_for_exactly_the_next_index(applied: int, incoming: int, same: bool) -> None:
    said = decide_log_entry(applied_index=applied, incoming_index=incoming, same_incarnation=same)
    assert (said is Applied.APPLY) == (same and incoming == applied + 1)
    if not same:
        assert said is Applied.FOREIGN
    elif incoming <= applied:
        assert said is Applied.DUPLICATE
    elif incoming > applied + 1:
        assert said is Applied.GAP


@given(st.lists(st.integers(min_value=1, max_value=12), max_size=60))
def test_replayed_reordered_and_lost_entries_never_skip_one(arriving: list[int]) -> None:
    applied: list[int] = []
    for index in arriving:
        last = applied[-1] if applied else 0
        if decide_log_entry(applied_index=last, incoming_index=index, same_incarnation=True) is Applied.APPLY:
            applied.append(index)
    assert applied == list(range(1, len(applied) + 1))


@given(st.lists(INDEX, max_size=40))
def test_an_epoch_never_falls_and_never_stays(arriving: list[int]) -> None:
    table = 0
    for epoch in arriving:
        said = decide_epoch(applied_epoch=table, incoming_epoch=epoch)
        assert (said is Applied.APPLY) == (epoch > table)
        if said is Applied.APPLY:
            assert epoch > table
            table = epoch
        else:
            assert said is Applied.STALE
    assert table == max(arriving, default=0)


OWNERS = st.builds(owner, deployment=st.sampled_from(["dep_1", "dep_2"]), epoch=st.integers(1, 20), held=st.booleans())


@given(st.none() | OWNERS, OWNERS, st.integers(-1, 21))
def test_a_claim_is_granted_only_from_the_epoch_that_was_read(
    current: RouteOwner | None, wanted: RouteOwner, expected: int
) -> None:
    said = decide_claim(current, wanted, expected_epoch=expected)
    actual = current.epoch if current else 0
    match said:
        case Granted(owner=granted):
            assert expected == actual
            assert granted == replace(wanted, epoch=actual + 1)
        case Stale(actual=told):
            assert expected != actual
            assert told == current


@given(st.lists(st.tuples(st.sampled_from(["dep_1", "dep_2", "dep_3"]), st.integers(0, 6)), max_size=40))
def test_of_claims_from_one_epoch_one_wins(claims: list[tuple[str, int]]) -> None:
    current: RouteOwner | None = None
    won: list[int] = []
    for deployment, expected in claims:
        said = decide_claim(current, owner(deployment), expected_epoch=expected)
        if isinstance(said, Granted):
            current = said.owner
            won.append(expected)
    assert won == list(range(len(won))), "one winner per epoch, none skipped"
