"""The bench of Vango apps, on made-up moves: when an account disagrees, what an age allows, what the figures say."""

from __future__ import annotations

from typing import Any

import pytest

from bench.numbers import missed
from bench.vango.account import (
    age_violations,
    ages_s,
    attached_count,
    counts,
    disagreements,
    medians,
    stages_ms,
    stored_after_cut_s,
)
from bench.vango.crowd import cut_before, losses_s
from bench.vango.figures import (
    GOALS,
    account_figures,
    crash_figures,
    drain_figures,
    frozen_figures,
    peer_figures,
    tally_figures,
    warm_figures,
)
from bench.vango.moves import Move
from bench.vango.swap import Swapped
from moorage.wire.api import OperationView, StageView
from tests.support.vango.client import Person, Welcome
from tests.support.vango.crowd import ATTACHED, CLOSED, FRESH, NOT_BACK, RESUMED, Fate, Tally


def fate(label: str, seen: str = RESUMED, *, lost: bool = False, pause_s: float | None = 1.2) -> Fate:
    """What one person saw."""
    return Fate(f"person {label}", label, seen, "", lost, pause_s, pause_s, None)


def account(rows: dict[str, str], ages_ms: dict[str, int] | None = None, /, **unnamed: int) -> dict[str, Any]:
    """An account as an operation has it: outcomes by label, and counts of what has no name."""
    ages = ages_ms or {}
    said = list(rows.values())
    aged = {label: {"age_ms": age} for label, age in ages.items()}
    outcomes = ("attached", "ended", "resumed", "fresh", "lost", "unknown")
    return {
        "rows": [{"label": label, "outcome": outcome, **aged.get(label, {})} for label, outcome in rows.items()],
        **{outcome: said.count(outcome) + unnamed.get(outcome, 0) for outcome in outcomes},
    }


# ---- the account and the people ---------------------------------------------------------------------------------
def test_who_says_the_same_does_not_disagree() -> None:
    """Every session by its label."""
    said = account({"a": "resumed", "b": "fresh"})
    assert disagreements(said, [fate("a"), fate("b", FRESH)]) == []


def test_each_untruth_is_a_line() -> None:
    """Another outcome, a session that the account does not know, one that nobody had."""
    said = account({"a": "fresh", "ghost": "unknown"})
    lines = disagreements(said, [fate("a"), fate("b")])
    assert [line.split(":")[0] for line in lines] == ["a", "b", "ghost"]


def test_a_count_without_a_name_stands_for_one_session_each() -> None:
    """Three were lost without a name; a fourth is one too many. What is unknown contradicts nobody."""
    seen = [fate(label, NOT_BACK) for label in "abcd"]
    assert len(disagreements(account({}, lost=3), seen)) == 1
    assert disagreements(account({}, lost=3, unknown=1), seen) == []
    assert disagreements(account({}, lost=3, unknown=1), [*seen[:3], fate("d")]) == []
    assert len(disagreements(account({}, lost=4), [*seen[:3], fate("d")])) == 1


def test_who_gave_up_was_lost_or_has_ended() -> None:
    """Nobody sees more of it from outside; to call it resumed is untrue."""
    for outcome in ("lost", "ended"):
        assert disagreements(account({}, **{outcome: 1}), [fate("a", CLOSED)]) == []
        assert disagreements(account({"a": outcome}), [fate("a", CLOSED)]) == []
    assert len(disagreements(account({"a": "resumed"}), [fate("a", CLOSED)])) == 1


def test_an_account_shows_what_occurs() -> None:
    """Named and unnamed sessions together."""
    assert counts(account({"a": "resumed"}, lost=2)) == {"resumed": 1, "lost": 2}


# ---- ages after a crash -----------------------------------------------------------------------------------------
def test_a_loss_within_the_age_is_no_violation() -> None:
    """Nor is one within the clocks' tolerance, or a session that lacks nothing."""
    said = account({"a": "resumed", "b": "resumed", "c": "resumed"}, {"a": 5000, "b": 5000, "c": 5000})
    assert ages_s(said) == {"a": 5.0, "b": 5.0, "c": 5.0}
    assert age_violations(said, {"a": 4.9, "b": 5.01}) == []


def test_an_older_loss_is_one_and_so_is_a_loss_without_an_age() -> None:
    """A session that started fresh has lost everything, and is called so: its age says nothing."""
    said = account({"a": "resumed", "b": "resumed", "c": "fresh"}, {"a": 5000})
    lines = age_violations(said, {"a": 5.1, "b": 0.2, "c": 99.0})
    assert [line.split(":")[0] for line in lines] == ["a", "b"]


# ---- what an operation recorded ---------------------------------------------------------------------------------
FACTS: dict[str, Any] = {
    "cut_ms": 1000,
    "baseline": {"one": {"sockets": 2}, "two": {"sockets": None}},
    "traces": {"one": {"stored": {"a": [1040, 9, 1050], "b": [1100, 9, 1120], "tick": [800, 9, 810]}}},
}


def operation(facts: dict[str, Any] | None = None, *stages: tuple[str, str, int]) -> OperationView:
    """A hand-over that began at 500 ms."""
    rows = [
        StageView(seq=seq, state=state, note=note, detail={}, actor="control", at_ms=at_ms)
        for seq, (state, note, at_ms) in enumerate(stages)
    ]
    return OperationView(
        id="op",
        kind="handover",
        app="vango-board",
        parent=None,
        state="settled",
        finished=True,
        succeeded=True,
        input={},
        facts=facts or {},
        problem=None,
        actor="control",
        created_ms=500,
        updated_ms=500,
        finished_ms=None,
        stages=tuple(rows),
    )


def test_only_what_was_stored_after_the_cut_counts() -> None:
    """By when it was seen at the store."""
    assert sorted(stored_after_cut_s(FACTS)) == [0.05, 0.12]
    assert attached_count(FACTS) == 2


def test_stages_count_from_the_beginning_of_the_hand_over() -> None:
    """The first record of each; two of them are told apart by their notes."""
    stages = (
        ("refusing_new", "reconnects are held", 510),
        ("refusing_new", "2 sessions", 520),
        ("cutting", "asking the app", 530),
        ("cutting", "the input of the old connections ends", 540),
        ("cutting", "cut", 600),
        ("storing", "2 of 2", 640),
    )
    expected = {"refusing_new": 10, "cutting": 30, "input_ends": 40, "cut": 100, "storing": 140}
    assert stages_ms(operation(None, *stages)) == expected
    assert medians([{"cut": 3, "fenced": 9}, {"cut": 1}, {"cut": 2}]) == {"cut": 2, "fenced": 9}


# ---- diaries ----------------------------------------------------------------------------------------------------
class Present(Person):
    """Somebody whose socket is open now."""

    @property
    def here(self) -> bool:
        return True


def welcome(
    at_s: float, label: str = "a", *, pause_s: float | None = None, lost_since_s: float | None = None
) -> Welcome:
    """An entry into a session."""
    return Welcome(at_s, RESUMED, "", label, label, pause_s, pause_s, None, None, lost_since_s)


def person(name: str, *later: Welcome, here: bool = True) -> Person:
    """Somebody who came at second 1, and what they saw since."""
    made = (Present if here else Person)(("127.0.0.1", 1), "board.localhost", name=name)
    made.welcomes += [welcome(1.0, name), *later]
    return made


def test_a_socket_was_cut_when_it_was_lost_and_not_when_it_was_replaced() -> None:
    """Lost at 9.5 and at 10.5, with the deadline at 10; and one that nobody ever cut."""
    people = [person("a", welcome(11.0, pause_s=1.5)), person("b", welcome(11.0, pause_s=0.5)), person("c")]
    assert cut_before(people, {"a": 1, "b": 1, "c": 1}, 10.0) == 1


def test_who_is_away_without_having_come_back_counts_as_cut() -> None:
    """Nobody knows since when."""
    assert cut_before([person("a", here=False)], {"a": 1}, 10.0) == 1


def test_a_loss_is_counted_back_from_the_crash() -> None:
    """For sessions that lack something; by the label from before."""
    people = [
        person("a", welcome(13.0, "new", pause_s=2.0, lost_since_s=7.0)),
        person("b", welcome(13.0, pause_s=2.0)),
        person("c"),
    ]
    assert losses_s(people, {"a": 1, "b": 1, "c": 1}, 10.0) == {"a": 3.0}


# ---- figures ----------------------------------------------------------------------------------------------------
def move(*fates: Fate, said: dict[str, Any] | None = None, lines: tuple[str, ...] = (), **facts: Any) -> Move:
    """A move as a scenario gives it."""
    rows = said or account({one.label: one.seen for one in fates})
    return Move(Tally(fates, 10), operation({**FACTS, "account": rows}), lines, 0, {}, 0.1, facts)


def test_sessions_are_added_up_and_pauses_pooled() -> None:
    """A single bad round cannot hide; what a pause has on top of the browser's own second is a figure of its own."""
    rounds = [
        Tally((fate("a"), fate("b", pause_s=1.5)), 5),
        Tally((fate("a", FRESH, lost=True, pause_s=3.0), fate("b", ATTACHED, pause_s=None)), 5),
    ]
    figures = tally_figures("", rounds)
    assert figures["resumed_share"] == pytest.approx(0.6667)
    assert figures["acknowledged_state_lost"] == 1
    assert figures["outcomes"] == {"resumed": 2, "fresh": 1, "attached": 1}
    assert (figures["pause_p50_s"], figures["pause_p99_s"], figures["pause_p99_s_by_round"]) == (1.5, 3.0, [1.5, 3.0])
    assert (figures["pause_beyond_retry_p50_s"], figures["pause_beyond_retry_p99_s"]) == (0.5, 2.0)


def test_a_share_is_never_rounded_up_to_all() -> None:
    """One of many thousands is not everybody."""
    fates = tuple(fate(str(number)) for number in range(30_000))
    assert tally_figures("", [Tally(fates, 1)])["resumed_share"] == 1.0
    assert tally_figures("", [Tally((*fates, fate("x", FRESH)), 1)])["resumed_share"] == 0.9999


def test_nobody_moved_is_no_loss_and_nobody_back_has_no_pause() -> None:
    """The shares of a crowd that stays and of one that gave up."""
    assert tally_figures("", [Tally((fate("a", ATTACHED, pause_s=None),), 1)])["resumed_share"] == 1.0
    closed = tally_figures("peer_", [Tally((fate("a", CLOSED, lost=True, pause_s=None),), 1)])
    assert (closed["peer_resumed_share"], closed["peer_acknowledged_state_lost"]) == (0.0, 1)
    assert not [name for name in closed if "pause" in name]


def test_the_headline_has_all_that_was_asked_for() -> None:
    """And meets its goals when all went well."""
    figures = warm_figures([move(fate("a"), fate("b"))])
    wanted = ("resumed_share", "acknowledged_state_lost", "pause_p50_s", "pause_p99_s", "stored_after_cut_p99_s")
    assert [figures[name] for name in wanted] == [1.0, 0, 1.2, 1.2, 0.12]
    assert (figures["attached_at_cut"], figures["stored_after_cut"]) == (2, 2)
    goals = [goal for goal in GOALS if goal.figure in figures]
    assert len(goals) == 6
    assert missed(goals, figures) == []


def test_a_slow_or_untrue_move_misses_its_goals() -> None:
    """Each bad figure is named."""
    bad = warm_figures(
        [move(fate("a", pause_s=2.5), fate("b", FRESH, lost=True, pause_s=2.5), lines=("b: said resumed",))]
    )
    assert missed([goal for goal in GOALS if goal.figure in bad], bad) == [
        "resumed_share",
        "acknowledged_state_lost",
        "pause_beyond_retry_p50_s",
        "pause_beyond_retry_p99_s",
        "account_disagreements",
    ]


def test_what_an_account_leaves_open_is_a_figure() -> None:
    """An account that says unknown of everybody contradicts nobody, and is not a good one."""
    figures = account_figures("frozen_", [move(fate("a"), said=account({}, unknown=1))])
    assert figures == {"frozen_disagreements": 0, "frozen_said": {"unknown": 1}, "frozen_said_unknown": 1}


def test_a_crash_has_an_age_by_both_sides() -> None:
    """The largest of all rounds, and of each."""
    first = move(fate("a"), said=account({"a": "resumed"}, {"a": 14_000}), losses_s={"a": 13.2}, age_violations=[])
    second = move(fate("a"), said=account({"a": "resumed"}, {"a": 28_500}), losses_s={"a": 29.0}, age_violations=["a"])
    figures = crash_figures([first, second])
    assert (figures["crash_loss_age_max_s"], figures["crash_loss_age_seen_max_s"]) == (28.5, 29.0)
    assert figures["crash_loss_age_max_s_by_round"] == [14.0, 28.5]
    assert (figures["crash_resumed_share"], figures["crash_age_violations"]) == (1.0, 1)


def test_who_started_fresh_has_lost_more_than_an_age_can_tell() -> None:
    """A frozen process: one resumed from an older record, one had none."""
    fates = (fate("a", lost=True), fate("b", FRESH, lost=True))
    said = account({"a": "resumed", "b": "fresh"}, {"a": 9_000})
    figures = frozen_figures([move(*fates, said=said, losses_s={"a": 8.9, "b": 44.0}, age_violations=[])])
    assert (figures["frozen_loss_age_max_s"], figures["frozen_loss_age_seen_max_s"]) == (9.0, 8.9)
    assert (figures["frozen_resumed_share"], figures["frozen_said"]) == (0.5, {"resumed": 1, "fresh": 1})


def test_a_drain_counts_who_was_cut_too_early() -> None:
    """By the clients."""
    figures = drain_figures([move(fate("a"), cut_before_deadline=2)])
    assert figures["sockets_cut_before_deadline"] == 2
    assert "sockets_cut_before_deadline" in missed(GOALS, figures)


def test_the_peer_is_told_before_and_after_loading_by_hand() -> None:
    """A page that was closed politely has given up; what it finds by hand is told apart."""
    gave_up = Tally((fate("a", CLOSED, lost=True, pause_s=None), fate("b", CLOSED, lost=True, pause_s=None)), 9)
    again = Tally((fate("a"), fate("b", FRESH, lost=True)), 9)
    figures = peer_figures([Swapped(gave_up, again, 0, {"status 503": 1}, 0.1)])
    assert (figures["peer_resumed_share"], figures["peer_acknowledged_state_lost"], figures["peer_gave_up"]) == (
        0.0,
        2,
        2,
    )
    assert figures["peer_after_reload_resumed_share"] == 0.5
    assert figures["peer_after_reload_acknowledged_state_lost"] == 1
    assert figures["peer_opens_in_vain"] == {"status 503": 1}
