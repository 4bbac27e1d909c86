"""Medians, percentiles and goals: a figure that was not measured is never a goal that was met."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.numbers import Goal, missed, percentile, spread, table

VALUES = st.lists(st.floats(0, 100), min_size=1, max_size=300)


@given(VALUES, st.floats(0.01, 1))
def test_a_percentile_was_measured_and_covers_its_share(values: list[float], share: float) -> None:
    """It is one of the values; at least that share of all lies at or below it."""
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


@given(VALUES)
def test_of_few_values_p99_is_the_largest(values: list[float]) -> None:
    """Nobody's long pause is left out of a small crowd."""
    assert percentile(values[:99], 0.99) == max(values[:99])


def test_spread() -> None:
    """Median, extremes and how often."""
    found = spread([3.0, 1.0, 2.0])
    assert (found.median, found.lowest, found.highest, found.count) == (2.0, 1.0, 3.0, 3)


@pytest.mark.parametrize("share", [0, -1, 1.01])
def test_what_has_no_percentile_is_refused(share: float) -> None:
    """No values, or a share that is none."""
    with pytest.raises(ValueError, match="percentile"):
        percentile([1.0], share)
    with pytest.raises(ValueError, match="percentile"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="median"):
        spread([])


def test_goals() -> None:
    """At most, at least, and not measured."""
    goals = (Goal("lost", 0), Goal("ratio", 0.95, at_most=False), Goal("pause", 1.0))
    assert missed(goals, {"lost": 0, "ratio": 0.95, "pause": 1.0}) == []
    assert missed(goals, {"lost": 1, "ratio": 0.94}) == ["lost", "ratio", "pause"]


def test_the_table_says_what_was_missed() -> None:
    """One line per number, with its goal."""
    text = table({"lost": 1, "ratio": 0.97, "parts": {"a": 1}}, (Goal("lost", 0), Goal("ratio", 0.95, at_most=False)))
    lost, ratio = text.splitlines()
    assert lost.endswith("goal at most 0: MISSED")
    assert ratio.endswith("goal at least 0.95: met")
