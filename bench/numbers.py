"""Numbers of a bench, pure: medians, percentiles, goals, tables.

Rules of this room: no clock, no I/O. A percentile is a value that was measured (nearest rank), never one in between;
with few samples p99 is therefore the largest.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and extremes of repeated measurements, in the unit of the values."""

    median: float
    lowest: float
    highest: float
    count: int

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.lowest:.3g} to {self.highest:.3g}, {self.count} times)"


def spread(values: Iterable[float]) -> Spread:
    """The spread of at least one value. Raises ValueError without one."""
    known = sorted(values)
    if not known:
        raise ValueError("there is nothing to take a median of")
    return Spread(statistics.median(known), known[0], known[-1], len(known))


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of all values do not exceed. Raises ValueError without one."""
    known = sorted(values)
    if not known or not 0 < share <= 1:
        raise ValueError("a percentile needs values and a share above 0 and at most 1")
    return known[math.ceil(share * len(known)) - 1]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should reach: at most, or at least, `bound`."""

    figure: str
    bound: float
    at_most: bool = True

    def is_met(self, figures: Mapping[str, Any]) -> bool:
        """Whether the figure was measured and reaches the goal."""
        value = figures.get(self.figure)
        if not isinstance(value, int | float):
            return False
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        return f"{'at most' if self.at_most else 'at least'} {self.bound:g}"


def missed(goals: Sequence[Goal], figures: Mapping[str, Any]) -> list[str]:
    """The figures that miss their goal, or were not measured."""
    return [goal.figure for goal in goals if not goal.is_met(figures)]


def table(figures: Mapping[str, Any], goals: Sequence[Goal]) -> str:
    """The figures as lines of text, each with its goal and whether it was met."""
    known = {goal.figure: goal for goal in goals}
    width = max((len(name) for name in figures), default=0)
    lines = []
    for name, value in figures.items():
        if isinstance(value, Mapping | list):
            continue
        goal = known.get(name)
        verdict = f"   goal {goal}: {'met' if goal.is_met(figures) else 'MISSED'}" if goal else ""
        lines.append(f"{name:<{width}}  {value!s:>10}{verdict}")
    return "\n".join(lines)
