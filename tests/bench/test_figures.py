"""The figures that a run ends with, from made-up measurements: sums, pools and the strict reading of an overhead."""

from __future__ import annotations

import pytest

from bench.crowd import Fate, Tally
from bench.first_light import promotion_figures, tally_figures
from bench.promotions import Promotion


def tally(*pauses_s: float, lost: int = 0) -> Tally:
    """As many kept sessions as pauses, and some that were lost."""
    kept = [Fate(f"k{n}", True, "resumed", pause, 1) for n, pause in enumerate(pauses_s)]
    return Tally((*kept, *(Fate(f"l{n}", False, "fresh", 0.5, 1) for n in range(lost))), 10)


def test_sessions_are_added_up_and_pauses_pooled() -> None:
    """A single bad round cannot hide in a median over the rounds."""
    figures = tally_figures("", [tally(0.1, 0.2), tally(0.3, 2.0, lost=1)])
    assert (figures["sessions_kept"], figures["sessions_lost"]) == (4, 1)
    assert figures["outcomes"] == {"resumed": 4, "fresh": 1}
    assert (figures["pause_p50_s"], figures["pause_p99_s"]) == (0.3, 2.0)
    assert figures["pause_p99_s_by_round"] == [0.2, 2.0]


def test_the_peers_figures_have_their_own_names() -> None:
    """And a crowd of which nobody came back has no pause."""
    figures = tally_figures("peer_memory_", [Tally((Fate("a", False, "not back", None, 0),), 1)])
    assert (figures["peer_memory_kept"], figures["peer_memory_lost"]) == (0, 1)
    assert figures["peer_memory_outcomes"] == {"not back": 1}
    assert not [name for name in figures if "pause" in name]


def test_the_headline_leaves_only_the_apps_own_process_out() -> None:
    """A promotion of 2 s, of which the allocation took 1.2 and the process in it 1.0."""
    promotion = Promotion(total_s=2.0, start_s=1.2, process_s=1.0)
    figures = promotion_figures({"board": [promotion], "plain": [promotion]})
    assert figures["promote_overhead_s"] == pytest.approx(1.0)
    assert figures["promote_overhead_without_bake_s"] == pytest.approx(0.5)
    assert figures["promote_overhead_after_start_s"] == pytest.approx(0.8)
