"""What a trial with a preview proves, and what a promotion may expect of the live sessions."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from moorage.domain.artifact import Depth, Manifest, Process
from moorage.domain.impact import ImpactReport, StateImpact, StateReport, impact_report
from moorage.domain.resume import Proof, Resume, expect, prove, resume_of


def manifest(depth: Depth, *, cure: bool = False, script: str = "") -> Manifest:
    vango = {"resume_cure": cure, "client_script": script}
    return Manifest("board", "vango", Process("./server"), (), depth=depth, facts={"vango": vango})


STORED = manifest(Depth.STORE_AWARE)


def tried(verdict: str, why: str = "seen") -> dict[str, object]:
    return {"probe": {"resume": verdict, "why": why}}


@pytest.mark.parametrize(
    ("verdict", "cure", "proven"),
    [
        ("resumes", False, True),
        ("resumes", True, True),
        ("resumes_with_cure", False, False),
        ("resumes_with_cure", True, True),
        ("fresh", True, False),
        ("untried", True, False),
        ("nonsense", True, False),
    ],
)
def test_only_a_resume_that_was_seen_as_it_will_be_served_proves_one(verdict: str, cure: bool, proven: bool) -> None:
    found = prove(STORED, manifest(Depth.STORE_AWARE, cure=cure), tried(verdict))
    assert found.proven is proven
    assert found.why


def test_without_a_trial_nothing_is_proven() -> None:
    assert resume_of({}) == (Resume.UNTRIED, "it was not tried")
    assert resume_of({"probe": "odd"})[0] is Resume.UNTRIED
    assert not prove(STORED, STORED, {}).proven


def test_a_plain_app_on_either_side_proves_nothing() -> None:
    for serving, candidate in product(Depth, Depth):
        found = prove(manifest(serving), manifest(candidate), tried("resumes"))
        assert found.proven is (Depth.PLAIN not in (serving, candidate))


def report(impact: StateImpact) -> ImpactReport:
    there = StateReport(impact)
    return replace(impact_report(("sha256:0", STORED), ("sha256:1", STORED)), forward=there, backward=there)


def test_what_is_expected_adds_up_and_only_a_proof_calls_a_session_kept() -> None:
    for impact, proven, depth, drains in product(StateImpact, (True, False), Depth, (True, False)):
        found = expect(7, report(impact), Proof(proven, "why"), depth, drains=drains)
        assert found.resume + found.stay + found.fresh + found.unknown == 7
        assert found.how
        if found.resume:
            assert proven
            assert impact in (StateImpact.NEUTRAL, StateImpact.WARM)
            assert not drains


def test_another_client_script_is_cold_for_every_open_tab_both_ways() -> None:
    old, new = manifest(Depth.STORE_AWARE, script="aa"), manifest(Depth.STORE_AWARE, script="bb")
    found = impact_report(("sha256:0", old), ("sha256:1", new))
    assert (found.forward.impact, found.backward.impact) == (StateImpact.COLD, StateImpact.COLD)
    assert "every open tab" in str(found.forward.deciding)
    same = impact_report(("sha256:0", old), ("sha256:1", old))
    assert same.forward.impact is StateImpact.NEUTRAL
    unknown = impact_report(("sha256:0", manifest(Depth.STORE_AWARE)), ("sha256:1", new))
    assert unknown.forward.impact is StateImpact.NEUTRAL
