"""The account of sessions is never shown kinder than it is."""

from __future__ import annotations

import pytest

from moorage.cli.account import OUTCOMES, account_table
from moorage.domain.session import Account, Fate, Outcome, summary
from tests.cli.views import account


def test_all_outcomes_stand_there_also_the_empty_ones() -> None:
    table = account_table(account(resumed=50))
    assert [row[:2] for row in table.rows] == [(name, 50 if name == "resumed" else 0) for name in OUTCOMES]
    assert table.remarks == ()


def test_the_outcomes_are_those_of_the_domain() -> None:
    assert tuple(Outcome) == OUTCOMES


def test_an_account_of_the_domain_is_shown_with_its_reasons() -> None:
    fates = (
        Fate("a", Outcome.RESUMED),
        Fate("b", Outcome.FRESH, "schema-cold"),
        Fate("c", Outcome.FRESH, "schema-cold"),
    )
    table = account_table(summary(Account(fates, {(Outcome.LOST, "not-returned"): 1})))
    rows = {name: (number, why) for name, number, why in table.rows}
    assert table.total == 4
    assert rows["fresh"] == (2, "2 schema-cold")
    assert rows["lost"] == (1, "1 not-returned")
    assert rows["resumed"][0] == 1


def test_counts_that_do_not_add_up_are_called_incomplete() -> None:
    (remark,) = account_table({**account(resumed=49), "total": 50}).remarks
    assert "49" in remark
    assert "50" in remark


def test_a_count_that_is_missing_is_not_zero() -> None:
    half = {name: value for name, value in account(resumed=3).items() if name != "lost"}
    table = account_table(half)
    assert "lost" not in {name for name, _, _ in table.rows}
    assert "lost" in table.remarks[0]


def test_what_may_change_is_said() -> None:
    assert account_table(account(resumed=1, unknown=1)).remarks
    assert not account_table(account(resumed=1)).remarks


def test_allocations_that_nobody_had_counted_are_named() -> None:
    (remark,) = account_table({**account(), "uncounted": [3, 5]}).remarks
    assert "3, 5" in remark
    assert account_table({**account(), "uncounted": []}).remarks == ()


@pytest.mark.parametrize("nested", [True, False])
def test_counts_may_stand_in_a_member_of_their_own(nested: bool) -> None:
    flat = account(lost=2)
    counts = {name: flat.pop(name) for name in OUTCOMES}
    table = account_table({**flat, "counts": counts} if nested else {**flat, **counts})
    assert dict(row[:2] for row in table.rows)["lost"] == 2


def test_the_age_of_what_a_crash_left_is_a_figure() -> None:
    fates = (
        Fate("a", Outcome.RESUMED, age_ms=12_340),
        Fate("b", Outcome.RESUMED, age_ms=900),
        Fate("c", Outcome.RESUMED),
    )
    table = account_table(summary(Account(fates)))
    assert "12.3 s" in table.age
    assert "of 1 session it is not known" in table.age
    assert account_table(summary(Account((Fate("a", Outcome.RESUMED),)))).age == ""
