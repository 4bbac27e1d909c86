"""What counts as kept, and from when to when a pause lasts: on people with a made-up past."""

from __future__ import annotations

from typing import Any

import pytest

from bench.crowd import Moved, Tally, judge, pause_s
from bench.handover import disagreements
from demo.people import Person, Welcome


def welcome(at_s: float, outcome: str = "resumed", **changes: Any) -> Welcome:
    """An entry that went well: the draft is the one that was typed."""
    usual: dict[str, Any] = {
        "reason": "",
        "detail": "",
        "session_tag": "tag",
        "allocation": "alc",
        "allocation_number": 1,
        "deployment": 1,
        "pause_s": None,
        "notice": False,
        "draft": "typed",
        "draft_expected": "typed",
        "changes_lost": 0,
    }
    return Welcome(at_s=at_s, outcome=outcome, **{**usual, **changes})


class Present(Person):
    """Somebody whose socket is open now."""

    @property
    def here(self) -> bool:
        return True


def person(*later: Welcome, notices: tuple[float, ...] = (), here: bool = True) -> Person:
    """Somebody who came at second 1; what they saw since."""
    made = (Present if here else Person)(("127.0.0.1", 1), "board.localhost", name="somebody")
    made.welcomes += [welcome(1.0, "created"), *later]
    made.notices += [(at_s, "reconnect") for at_s in notices]
    return made


def test_a_session_that_came_back_whole_is_kept() -> None:
    """Its pause is the one that the person saw."""
    fate = judge(person(welcome(10.0, pause_s=0.25)), 1)
    assert (fate.kept, fate.seen, fate.pause_s) == (True, "resumed", 0.25)


@pytest.mark.parametrize(
    "later",
    [
        welcome(10.0, "fresh", reason="unknown_id", pause_s=0.1),
        welcome(10.0, pause_s=0.1, changes_lost=1),
        welcome(10.0, pause_s=0.1, draft="type"),
    ],
    ids=["fresh", "an acknowledged change is gone", "another draft"],
)
def test_anything_less_is_lost(later: Welcome) -> None:
    """Also when a later welcome looks fine again."""
    assert not judge(person(later), 1).kept
    assert not judge(person(later, welcome(11.0, pause_s=0.1)), 1).kept


def test_who_did_not_come_back_is_lost() -> None:
    """However well the last welcome went."""
    fate = judge(person(welcome(10.0, pause_s=0.1), here=False), 1)
    assert (fate.kept, fate.seen, fate.pause_s) == (False, "not back", None)


def test_who_never_lost_a_socket_stays_attached() -> None:
    """Kept, and without a pause."""
    fate = judge(person(), 1)
    assert (fate.kept, fate.seen, fate.pause_s) == (True, "attached", None)


def test_a_pause_begins_with_the_notice_to_reconnect() -> None:
    """The old process takes nothing more from then on, although the socket closes later."""
    assert pause_s(welcome(10.0, pause_s=0.25), 1.0, [9.5]) == pytest.approx(0.5)
    assert pause_s(welcome(10.0, pause_s=0.25), 1.0, [9.9]) == pytest.approx(0.25)
    assert pause_s(welcome(10.0, pause_s=0.25), 9.6, [9.5]) == pytest.approx(0.25)  # of an earlier move


def test_two_pauses_in_one_move_are_added_up() -> None:
    """Somebody who was thrown out twice waited twice."""
    fate = judge(person(welcome(10.0, pause_s=0.2), welcome(11.0, pause_s=0.3), notices=(9.7,)), 1)
    assert fate.pause_s == pytest.approx(0.6)
    assert fate.welcomes == 2


def test_a_disagreement_is_named_by_session() -> None:
    """Another outcome, and a session that only one side knows."""
    seen = person(welcome(10.0, "fresh", reason="schema", pause_s=0.1))
    moved = Moved([seen], {"somebody": 1}, Tally((judge(seen, 1),), 0))
    agreed = {"rows": [{"label": "tag", "outcome": "fresh"}]}
    assert disagreements(agreed, moved) == {}
    account = {"rows": [{"label": "tag", "outcome": "resumed"}, {"label": "other", "outcome": "lost"}]}
    assert disagreements(account, moved) == {"tag": ("resumed", "fresh"), "other": ("lost", "-")}
