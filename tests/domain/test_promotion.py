"""Promotion and rollback policy: every combination of its inputs, and what an acknowledgement names."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.impact import BLOCKS_ROLLBACK, Change, DataImpact, ImpactReport, StateImpact, StateReport
from moorage.domain.limits import LIVE_COUNT_FRESH_S
from moorage.domain.operation import MACHINES, Kind
from moorage.domain.promotion import (
    PROMOTABLE,
    Decision,
    LiveCount,
    Mode,
    Verdict,
    acknowledgement_digest,
    choose_mode,
    decide_promotion,
    decide_rollback,
)
from moorage.domain.resume import Proof

NOW_MS = 1_000_000_000
LIVE = LiveCount(7, NOW_MS, "sockets at the edges")
CHANGES = {
    StateImpact.NEUTRAL: (),
    StateImpact.WARM: (Change("added", "board:draft:v1", "colour", after="str"),),
    StateImpact.COLD: (Change("removed", "board:draft:v1", "draft", before="str"),),
    StateImpact.REVIEW: (Change("unreadable", "", ""),),
}
STATES = [*MACHINES[Kind.DEPLOY]]
ACKNOWLEDGED = ["none", "wrong", "right", "of another epoch"]


def report(forward: StateImpact, data: DataImpact = DataImpact.NONE, *, same: bool = False) -> ImpactReport:
    there = StateReport(forward, CHANGES[forward])
    return ImpactReport("sha256:1" if same else "sha256:0", "sha256:1", there, there, data)


def acknowledgement(of: ImpactReport, how: str, epoch: int) -> str | None:
    match how:
        case "none":
            return None
        case "right":
            return acknowledgement_digest(of, expected_epoch=epoch)
        case "of another epoch":
            return acknowledgement_digest(of, expected_epoch=epoch + 1)
        case _:
            return "ack:0000000000000000"


def decide(
    of: ImpactReport,
    *,
    state: str = "preview_ready",
    expected: int = 3,
    actual: int = 3,
    how: str = "none",
    age_s: float = 0,
) -> Decision:
    return decide_promotion(
        of,
        deployment_state=state,
        expected_epoch=expected,
        actual_epoch=actual,
        acknowledged=acknowledgement(of, how, expected),
        live=replace(LIVE, at_ms=NOW_MS - int(age_s * 1000)),
        now_ms=NOW_MS,
    )


def expected_code(impact: StateImpact, state: str, epoch_fits: bool, same: bool, how: str, fresh: bool) -> str:
    """The policy as a decision table, first row that fits."""
    needs = impact in (StateImpact.COLD, StateImpact.REVIEW) and not same
    rows = [
        (state != "preview_ready", "deployment-not-promotable"),
        (not epoch_fits, "epoch-stale"),
        (needs and how == "none", "acknowledgement-required"),
        (needs and how != "right", "acknowledgement-stale"),
        (needs and not fresh, "live-count-stale"),
        (not needs and how not in ("none", "right"), "acknowledgement-unneeded"),
        (True, ""),
    ]
    return next(code for fits, code in rows if fits)


COMBINATIONS = list(product(StateImpact, DataImpact, STATES, [True, False], [True, False], ACKNOWLEDGED, [True, False]))


def test_every_combination_of_a_promotion() -> None:
    for impact, data, state, epoch_fits, same, how, fresh in COMBINATIONS:
        of = report(impact, data, same=same)
        said = decide(
            of, state=state, actual=3 if epoch_fits else 4, how=how, age_s=0 if fresh else LIVE_COUNT_FRESH_S + 1
        )
        wanted = expected_code(impact, state, epoch_fits, same, how, fresh)
        told = said.problem.code if said.problem else ""
        assert told == wanted, (impact, data, state, epoch_fits, same, how, fresh)
        assert (said.verdict is Verdict.ALLOW) == (not wanted)
        asks = wanted in ("acknowledgement-required", "acknowledgement-stale")
        assert (said.verdict is Verdict.NEEDS_ACKNOWLEDGEMENT) == asks
        assert said.reasons, "every decision says why"


def test_every_combination_of_a_rollback() -> None:
    """Data decides first; then a rollback is decided like a promotion in the direction it goes."""
    for impact, data, state, epoch_fits, same, how, fresh in COMBINATIONS:
        of = report(impact, DataImpact.NONE, same=same)
        since = report(StateImpact.NEUTRAL, data)
        said = decide_rollback(
            of,
            migrations_since=since,
            deployment_state=state,
            expected_epoch=3,
            actual_epoch=3 if epoch_fits else 4,
            acknowledged=acknowledgement(of, how, 3),
            live=replace(LIVE, at_ms=NOW_MS - (0 if fresh else int(LIVE_COUNT_FRESH_S + 1) * 1000)),
            now_ms=NOW_MS,
        )
        blocked = data in BLOCKS_ROLLBACK
        wanted = "rollback-blocked-by-data" if blocked else expected_code(impact, state, epoch_fits, same, how, fresh)
        assert (said.problem.code if said.problem else "") == wanted
        if blocked:
            assert said.verdict is Verdict.BLOCKED
            assert said.problem is not None
            assert said.problem.facts["choices"] == ["forward-fix", "restore"]
            assert said.problem.facts["data_impact"] == data


def test_a_rollback_whose_migrations_nobody_knows_takes_its_own_report() -> None:
    said = decide_rollback(
        report(StateImpact.NEUTRAL, DataImpact.UNKNOWN),
        migrations_since=None,
        deployment_state="preview_ready",
        expected_epoch=1,
        actual_epoch=1,
        acknowledged=None,
        live=LIVE,
        now_ms=NOW_MS,
    )
    assert said.verdict is Verdict.BLOCKED


def test_only_a_ready_preview_is_promotable() -> None:
    assert {
        state for state in STATES if decide(report(StateImpact.NEUTRAL), state=state).verdict is Verdict.ALLOW
    } == PROMOTABLE


def test_the_report_of_a_cold_promotion_says_what_it_costs() -> None:
    said = decide(report(StateImpact.COLD, DataImpact.ADDITIVE))
    assert said.problem is not None
    facts = said.problem.facts
    assert facts["acknowledge"] in said.problem.hint
    assert (facts["live_sessions"], facts["live_sessions_at_ms"]) == (7, NOW_MS)
    assert facts["deciding_change"] == "board:draft:v1 draft removed"
    assert facts["data_impact"] == "additive"
    assert "7 live sessions will start fresh" in said.problem.detail


def test_a_refusal_by_epoch_says_both() -> None:
    said = decide(report(StateImpact.NEUTRAL), expected=2, actual=9)
    assert said.problem is not None
    assert said.problem.facts == {"expected_epoch": 2, "actual_epoch": 9}


REPORTS = st.builds(
    lambda serving, candidate, forward, data: ImpactReport(
        serving, candidate, StateReport(forward, CHANGES[forward]), StateReport(forward, CHANGES[forward]), data
    ),
    st.sampled_from(["sha256:a", "sha256:b"]),
    st.sampled_from(["sha256:c", "sha256:d"]),
    st.sampled_from(StateImpact),
    st.sampled_from(DataImpact),
)


@given(REPORTS, REPORTS, st.integers(0, 3), st.integers(0, 3), st.booleans(), st.booleans())
def test_an_acknowledgement_is_the_same_only_for_the_same(
    one: ImpactReport, two: ImpactReport, epoch: int, other: int, back: bool, forth: bool
) -> None:
    def named(of: ImpactReport, at: int, backward: bool) -> tuple[object, ...]:
        return (of.serving, of.candidate, of.forward.changes, of.data, at, backward)

    first = acknowledgement_digest(one, expected_epoch=epoch, backward=back)
    second = acknowledgement_digest(two, expected_epoch=other, backward=forth)
    assert (first == second) == (named(one, epoch, back) == named(two, other, forth))


@given(st.integers(0, 10_000), st.integers(0, int(LIVE_COUNT_FRESH_S)))
def test_live_sessions_do_not_make_an_acknowledgement_stale(sessions: int, age_s: int) -> None:
    """Each new browser tab would."""
    of = report(StateImpact.COLD)
    said = decide_promotion(
        of,
        deployment_state="preview_ready",
        expected_epoch=1,
        actual_epoch=1,
        acknowledged=acknowledgement_digest(of, expected_epoch=1),
        live=LiveCount(sessions, NOW_MS - age_s * 1000, "edge"),
        now_ms=NOW_MS,
    )
    assert said.verdict is Verdict.ALLOW


def test_the_mode_is_asked_then_declared_then_proven() -> None:
    for asked, declared, proven in product([None, *Mode], [None, *Mode], [True, False]):
        mode, why = choose_mode(asked, declared, Proof(proven, "seen"))
        shown = Mode.HANDOVER if proven else Mode.DRAIN
        assert mode is (asked or declared or shown), (asked, declared, proven)
        assert why
