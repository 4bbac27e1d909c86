"""Who has to be told that a session was taken: pure, one case per way the last holder can have left it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorage_app.contract import Parted
from moorage_app.resume import Arrival, decide_entry
from tests.app.test_resume import ID, NEW_ID, NOW, Retyped, house, record, stored


@pytest.mark.parametrize("how", list(Parted))
def test_a_holder_that_let_go_is_not_told(how: Parted) -> None:
    """It wrote that into the record itself, and can write nothing there any more."""
    left = replace(record(), attached=False, parted=how)
    entry = decide_entry(stored(left), house(), NOW, NEW_ID)
    assert (entry.previous_holder, entry.displaces) == ("alloc-old", False)


def test_a_holder_that_did_not_let_go_is_told() -> None:
    """A duplicated tab, a frozen process: it still believes that the session is its own."""
    assert decide_entry(stored(record()), house(), NOW, NEW_ID).displaces
    assert decide_entry(stored(record()), house("alloc-a", Retyped), NOW, NEW_ID).displaces


def test_where_nobody_held_it_nobody_is_told() -> None:
    """New, unknown and unreadable sessions displace nobody that is known."""
    for arrival in (Arrival(None), Arrival(ID), stored("no record")):
        assert not decide_entry(arrival, house(), NOW, NEW_ID).displaces
