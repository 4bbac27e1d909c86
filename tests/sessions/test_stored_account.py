"""Sessions that only their store knows: what may be concluded from who wrote, touched and read which record."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.session import Outcome
from moorage.sessions.account import Phase
from moorage.sessions.stored_account import (
    RESUME_SHOWN_WITHIN_MS,
    Deed,
    Did,
    Moved,
    Stored,
    Trace,
    account_of_stored,
    age_ms,
    see_records,
    see_returns,
    see_stored,
    see_written,
    settles_ms,
)

OLD, NEW = "alc_old", "alc_new"
CUT_MS = 1_000_000
RECORDS = {"a": Stored(CUT_MS + 2, CUT_MS + 120_002), "b": Stored(CUT_MS + 3, CUT_MS + 120_003)}
BACK_MS = CUT_MS + 1500
LATE_MS = BACK_MS + RESUME_SHOWN_WITHIN_MS


def stored() -> Trace:
    deeds = [Deed(OLD, Did.WROTE, label, CUT_MS + 5) for label in "ab"]
    return see_stored(Trace(), deeds, RECORDS, old=OLD)


def outcomes(
    trace: Trace, *, sockets: int | None = 2, phase: Phase = Phase.CUT, now_ms: int = BACK_MS
) -> dict[str, str]:
    account = account_of_stored(trace, Moved(sockets), phase, now_ms=now_ms)
    return {fate.label: f"{fate.outcome} {fate.reason}".strip() for fate in account.fates}


def test_only_what_the_old_allocation_wrote_counts_as_stored_by_it() -> None:
    deeds = [
        Deed(OLD, Did.WROTE, "a", CUT_MS + 5),
        Deed(NEW, Did.WROTE, "b", CUT_MS + 5),  # a new visitor of the new allocation
        Deed(OLD, Did.TOUCHED, "b", CUT_MS + 5),
        Deed("", Did.WROTE, "b", CUT_MS + 6),
    ]
    assert list(see_stored(Trace(), deeds, RECORDS, old=OLD).stored) == ["a"]


def test_reading_is_no_resume_and_not_yet_fresh() -> None:
    trace = see_returns(stored(), [Deed(NEW, Did.READ, "a", BACK_MS)], old=[OLD])
    assert outcomes(trace) == {"a": "unknown not-shown-yet", "b": "unknown not-returned-yet"}
    assert settles_ms(trace) == LATE_MS


def test_a_write_or_touch_of_a_successor_is_a_resume() -> None:
    for did in (Did.WROTE, Did.TOUCHED):
        trace = see_returns(stored(), [Deed(NEW, Did.READ, "a", BACK_MS), Deed(NEW, did, "a", BACK_MS + 9)], old=[OLD])
        assert outcomes(trace)["a"] == "resumed"
        assert settles_ms(trace) is None


def test_a_deed_of_the_old_allocation_shows_nothing_however_late() -> None:
    trace = see_returns(stored(), [Deed(OLD, did, "a", LATE_MS) for did in Did], old=[OLD])
    assert outcomes(trace)["a"] == "unknown not-returned-yet"


def test_a_deed_without_a_user_shows_nothing() -> None:
    trace = see_returns(stored(), [Deed("", did, "a", BACK_MS) for did in Did], old=[OLD])
    assert outcomes(trace)["a"] == "unknown not-returned-yet"


def test_a_shown_resume_is_named_before_a_mere_reading() -> None:
    older = {"a": Stored(CUT_MS - 9, CUT_MS + 99_000), "z": Stored(CUT_MS - 9, CUT_MS + 99_000)}
    deeds = [Deed(NEW, Did.READ, "a", BACK_MS), Deed(NEW, Did.READ, "z", BACK_MS), Deed(NEW, Did.WROTE, "z", BACK_MS)]
    trace = see_returns(Trace(older=older), deeds, old=[OLD])
    (fate,) = account_of_stored(trace, Moved(1, cut_ms=CUT_MS), Phase.SETTLED, now_ms=LATE_MS).fates
    assert (fate.label, fate.outcome) == ("z", Outcome.RESUMED)


def test_read_and_then_left_alone_for_longer_than_the_tick_is_fresh() -> None:
    trace = see_returns(stored(), [Deed(NEW, Did.READ, "a", BACK_MS)], old=[OLD])
    assert outcomes(trace, now_ms=LATE_MS - 1)["a"] == "unknown not-shown-yet"
    assert outcomes(trace, now_ms=LATE_MS)["a"] == "fresh not-resumed"


def test_who_asks_again_is_given_the_time_again() -> None:
    again_ms = LATE_MS - 1
    trace = see_returns(stored(), [Deed(NEW, Did.READ, "a", at) for at in (BACK_MS, again_ms)], old=[OLD])
    assert outcomes(trace, now_ms=LATE_MS)["a"] == "unknown not-shown-yet"
    assert outcomes(trace, now_ms=again_ms + RESUME_SHOWN_WITHIN_MS)["a"] == "fresh not-resumed"


def test_a_record_that_changed_since_the_fence_shows_a_resume_without_any_witness() -> None:
    written = {"a": Stored(BACK_MS, BACK_MS + 120_000)}
    touched = {"a": Stored(RECORDS["a"].written_ms, BACK_MS + 120_000)}
    same = {"a": RECORDS["a"]}
    assert outcomes(see_records(stored(), written, now_ms=BACK_MS))["a"] == "resumed"
    assert outcomes(see_records(stored(), touched, now_ms=BACK_MS))["a"] == "resumed"
    assert outcomes(see_records(stored(), same, now_ms=BACK_MS))["a"] == "unknown not-returned-yet"


def test_who_did_not_come_back_is_lost_when_the_time_is_over_and_unknown_when_nobody_watched() -> None:
    assert outcomes(stored(), phase=Phase.SETTLED)["a"] == "lost not-returned"
    unwatched = Trace(stored().stored, watched=False)
    assert outcomes(unwatched, phase=Phase.SETTLED)["a"] == "unknown not-watched"


def test_sockets_beyond_the_records_are_a_count_and_those_who_ask_for_them_start_fresh() -> None:
    trace = see_returns(stored(), [Deed(NEW, Did.READ, "c", BACK_MS), Deed(NEW, Did.READ, "a", BACK_MS)], old=[OLD])
    account = account_of_stored(trace, Moved(4), Phase.SETTLED, now_ms=LATE_MS)
    assert account.total == 4
    assert account.unnamed == {(Outcome.LOST, "not-stored"): 1}
    assert [f.reason for f in account.of(Outcome.FRESH)] == ["not-resumed", "not-stored"]


def test_a_look_that_began_too_late_goes_by_the_time_of_writing() -> None:
    earlier = {**RECORDS, "z": Stored(CUT_MS - 1, CUT_MS + 119_999)}
    assert sorted(see_written(Trace(), earlier, since_ms=CUT_MS).stored) == ["a", "b"]


def test_after_a_crash_those_who_never_came_back_are_no_more_than_were_attached() -> None:
    trace = Trace(older={**RECORDS, "gone-before": Stored(CUT_MS - 9, CUT_MS + 9)}, resumed={"a": BACK_MS})
    account = account_of_stored(trace, Moved(2, ended_ms=CUT_MS + 10), Phase.SETTLED, now_ms=LATE_MS)
    assert {o: n for o, n in account.counts.items() if n} == {Outcome.RESUMED: 1, Outcome.LOST: 1}
    assert account.unnamed == {(Outcome.LOST, "not-returned"): 1}


def test_after_a_crash_that_nobody_had_counted_who_comes_back_is_named_and_the_other_records_are_unknown() -> None:
    dead = Moved(None, ended_ms=CUT_MS + 10)
    nobody_yet = account_of_stored(Trace(older=RECORDS), dead, Phase.CUT, now_ms=BACK_MS)
    assert (nobody_yet.unnamed, nobody_yet.is_settled) == ({(Outcome.UNKNOWN, "not-counted"): 2}, False)
    one_back = account_of_stored(Trace(older=RECORDS, resumed={"a": BACK_MS}), dead, Phase.SETTLED, now_ms=LATE_MS)
    assert [(fate.label, fate.outcome) for fate in one_back.fates] == [("a", Outcome.RESUMED)]
    assert one_back.unnamed == {(Outcome.UNKNOWN, "not-counted"): 1}
    assert account_of_stored(Trace(), dead, Phase.SETTLED, now_ms=LATE_MS).total == 0


def test_after_a_crash_sockets_without_a_record_are_lost_as_not_stored() -> None:
    trace = Trace(older=RECORDS, resumed={"a": BACK_MS, "b": BACK_MS})
    account = account_of_stored(trace, Moved(5, ended_ms=CUT_MS + 10), Phase.SETTLED, now_ms=LATE_MS)
    assert account.unnamed == {(Outcome.LOST, "not-stored"): 3}
    assert account.total == 5


def test_after_a_crash_who_asks_for_a_record_that_never_was_started_fresh_however_many_others_lie_there() -> None:
    others = {f"gone-{number}": Stored(CUT_MS - 9, CUT_MS + 99_000) for number in range(11)}
    trace = see_returns(Trace(older=others), [Deed(NEW, Did.READ, label, BACK_MS) for label in "xy"], old=[OLD])
    account = account_of_stored(trace, Moved(2, ended_ms=CUT_MS + 10), Phase.SETTLED, now_ms=LATE_MS)
    assert {(f.label, f.outcome, f.reason) for f in account.fates} == {
        ("x", Outcome.FRESH, "not-stored"),
        ("y", Outcome.FRESH, "not-stored"),
    }
    assert account.total == 2


def test_the_age_of_what_came_back_is_counted_from_the_last_time_it_was_known_to_be_current() -> None:
    died = Moved(1, ended_ms=CUT_MS, window_ms=120_000)

    def age(stored: Stored, moved: Moved = died) -> int | None:
        return age_ms("a", Trace(older={"a": stored}), moved)

    assert age(Stored(CUT_MS - 29_000, CUT_MS + 91_000)) == 29_000
    assert age(Stored(CUT_MS - 59_000, CUT_MS - 4_000 + 120_000)) == 4_000, "touched at the last tick"
    assert age(Stored(0, 0)) is None, "an unreadable record says nothing of its age"
    assert age(Stored(CUT_MS - 7_000, 0), Moved(1, cut_ms=CUT_MS)) == 7_000, "a frozen one did not store at the cut"
    assert age_ms("a", stored(), Moved(2, cut_ms=CUT_MS)) is None, "nothing is lost of what was stored after the cut"


def test_who_was_not_stored_after_the_cut_may_still_go_on_from_an_older_record_and_its_age_is_said() -> None:
    """A frozen process stores nothing; what it had stored before is resumed elsewhere."""
    old_records = {"a": Stored(CUT_MS - 20_000, CUT_MS + 100_000), "z": Stored(CUT_MS - 50_000, CUT_MS + 70_000)}
    frozen = see_stored(Trace(), [], old_records, old=OLD)
    asked = see_returns(frozen, [Deed(NEW, Did.READ, "a", BACK_MS)], old=[OLD])
    moved = Moved(1, cut_ms=CUT_MS)
    assert [f.reason for f in account_of_stored(asked, moved, Phase.CUT, now_ms=BACK_MS).fates] == ["not-shown-yet"]
    assert settles_ms(asked) == LATE_MS
    back = see_returns(asked, [Deed(NEW, Did.WROTE, "a", BACK_MS + 9)], old=[OLD])
    (fate,) = account_of_stored(back, moved, Phase.SETTLED, now_ms=LATE_MS).fates
    assert (fate.label, fate.outcome, fate.age_ms) == ("a", Outcome.RESUMED, 20_000)


def test_a_session_that_the_successor_had_from_its_beginning_is_nobodys_return() -> None:
    trace = see_stored(Trace(), [], {"n": Stored(CUT_MS - 5, CUT_MS + 119_000)}, old=OLD)
    trace = see_returns(trace, [Deed(NEW, Did.TOUCHED, "n", BACK_MS)], old=[OLD])
    trace = see_records(trace, {"n": Stored(BACK_MS, BACK_MS + 120_000)}, now_ms=BACK_MS)
    assert trace.resumed == {}
    assert account_of_stored(trace, Moved(1), Phase.SETTLED, now_ms=LATE_MS).unnamed == {
        (Outcome.LOST, "not-stored"): 1
    }


DEEDS = st.lists(
    st.builds(
        Deed,
        st.sampled_from([OLD, NEW, ""]),
        st.sampled_from(list(Did)),
        st.sampled_from("abcd"),
        st.integers(CUT_MS, LATE_MS),
    ),
    max_size=12,
)


@given(DEEDS, st.integers(0, 6), st.sampled_from([Phase.CUT, Phase.SETTLED]), st.booleans(), st.booleans())
def test_every_socket_has_one_outcome_and_nobody_resumed_without_a_deed_of_a_successor(
    deeds: list[Deed], sockets: int, phase: Phase, crashed: bool, watched: bool
) -> None:
    base = stored()
    trace = see_returns(Trace(base.stored, watched=watched), deeds, old=[OLD])
    account = account_of_stored(trace, Moved(sockets, ended_ms=CUT_MS if crashed else None), phase, now_ms=LATE_MS)
    labels = [fate.label for fate in account.fates]
    assert len(labels) == len(set(labels))
    assert account.total == max(sockets, len(base.stored))
    assert account.total >= sockets
    shown = {d.label for d in deeds if d.user == NEW and d.did in (Did.WROTE, Did.TOUCHED)} & base.stored.keys()
    assert {fate.label for fate in account.of(Outcome.RESUMED)} == shown


@given(DEEDS)
def test_in_two_looks_the_same_is_seen_as_in_one(deeds: list[Deed]) -> None:
    half = len(deeds) // 2
    twice = see_returns(see_returns(stored(), deeds[:half], old=[OLD]), deeds[half:], old=[OLD])
    assert twice == see_returns(stored(), deeds, old=[OLD])
