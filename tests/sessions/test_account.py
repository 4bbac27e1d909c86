"""What became of a session: one row per place a record can be in and phase of the hand-over."""

from __future__ import annotations

import itertools

import pytest

from moorage.domain.session import Before, Fate, Outcome
from moorage.sessions.account import Phase, fate_of, fates_of
from moorage_app.contract import BadRecord, Born, FreshReason, Parted, Record, tag
from moorage_app.contract import Outcome as Entered
from tests.sessions.kit import fresh, parted, record, resumed, session_id

BEFORE = Before(tag(session_id(1)), 3, 7)
ANY = tuple(Phase)

# name, record now, phases, outcome, reason
ROWS: list[tuple[str, Record | BadRecord | None, tuple[Phase, ...], Outcome, str]] = [
    ("attached", record(), (Phase.SERVING,), Outcome.ATTACHED, ""),
    ("attached, cut", record(), (Phase.CUT,), Outcome.UNKNOWN, "not-let-go"),
    ("attached, settled", record(), (Phase.SETTLED,), Outcome.LOST, "not-let-go"),
    ("taken by a second tab of the old one", record(lease=9), (Phase.SERVING,), Outcome.ATTACHED, ""),
    ("closed by the person", parted(how=Parted.ENDED), ANY, Outcome.ENDED, ""),
    ("handed over", parted(), (Phase.SERVING,), Outcome.UNKNOWN, "may-return"),
    ("handed over, cut", parted(), (Phase.CUT,), Outcome.UNKNOWN, "not-taken-yet"),
    ("handed over, settled", parted(), (Phase.SETTLED,), Outcome.LOST, "not-returned"),
    ("dropped", parted(how=Parted.DROPPED), (Phase.SERVING,), Outcome.UNKNOWN, "may-return"),
    ("dropped, cut", parted(how=Parted.DROPPED), (Phase.CUT,), Outcome.UNKNOWN, "not-taken-yet"),
    ("dropped, settled", parted(how=Parted.DROPPED), (Phase.SETTLED,), Outcome.LOST, "not-returned"),
    ("resumed", resumed(), ANY, Outcome.RESUMED, ""),
    ("fresh, schema", fresh(), ANY, Outcome.FRESH, "schema"),
    ("fresh, newer", fresh(reason="newer_format"), ANY, Outcome.FRESH, "newer-format"),
    ("no record", None, ANY, Outcome.LOST, "record-missing"),
    (
        "unreadable",
        BadRecord(FreshReason.CORRUPT, "x"),
        (Phase.SERVING, Phase.CUT),
        Outcome.UNKNOWN,
        "record-unreadable",
    ),
    ("unreadable, settled", BadRecord(FreshReason.CORRUPT, "x"), (Phase.SETTLED,), Outcome.LOST, "record-unreadable"),
]
CASES = [(name, now, phase, outcome, why) for name, now, phases, outcome, why in ROWS for phase in phases]


@pytest.mark.parametrize(("name", "now", "phase", "outcome", "why"), CASES, ids=[f"{c[0]}-{c[2]}" for c in CASES])
def test_every_place_and_phase(
    name: str, now: Record | BadRecord | None, phase: Phase, outcome: Outcome, why: str
) -> None:
    fate = fate_of(BEFORE, now, old="alc_old", phase=phase, successors={"alc_new"})
    assert (fate.outcome, fate.reason, fate.label) == (outcome, why, BEFORE.label)
    assert (fate.evidence is not None) == isinstance(now, Record)


def test_the_old_allocation_can_never_say_resumed_or_fresh() -> None:
    """Whatever it writes about itself: while it is the holder, nothing was resumed and nothing is fresh."""
    for attached, how, outcome, phase in itertools.product(
        (True, False), (None, *Parted), (Entered.RESUMED, Entered.FRESH), Phase
    ):
        born = Born(9, Entered.FRESH, "schema", "alc_old", 5)
        said = record(attached=attached, parted=how, outcome=outcome, lease=9, born=born)
        assert fate_of(BEFORE, said, old="alc_old", phase=phase).outcome not in (Outcome.RESUMED, Outcome.FRESH)


def test_fresh_stays_fresh_however_often_it_was_resumed_since() -> None:
    later = fresh()
    again = record(holder="alc_third", previous_holder="alc_new", lease=6, outcome=Entered.RESUMED, born=later.born)
    assert fate_of(BEFORE, again, old="alc_old", phase=Phase.SETTLED).outcome is Outcome.FRESH


def test_holder_that_nobody_started_is_unknown() -> None:
    fate = fate_of(BEFORE, resumed(), old="alc_old", phase=Phase.SETTLED, successors={"alc_other"})
    assert (fate.outcome, fate.reason) == (Outcome.UNKNOWN, "holder-unknown")


def test_every_session_of_the_baseline_has_one_fate() -> None:
    baseline = [Before(tag(session_id(n)), 3, 7) for n in range(4)]
    records = {baseline[0].label: resumed(0), baseline[1].label: parted(1), baseline[2].label: None}
    fates = fates_of(baseline, records, old="alc_old", phase=Phase.SETTLED)
    assert [fate.label for fate in fates] == [before.label for before in baseline]
    assert [fate.outcome for fate in fates] == [Outcome.RESUMED, Outcome.LOST, Outcome.LOST, Outcome.LOST]


def test_neither_ids_nor_values_are_shown() -> None:
    fate: Fate = fate_of(BEFORE, resumed(), old="alc_old", phase=Phase.SETTLED)
    assert session_id(1) not in repr(fate)
    assert "secret text" not in repr(fate)
