"""Resume: whether a stored session goes on at another allocation. A fact that was tried with a preview, never assumed.

The trial: open a session at the preview, cut it, see it stored, fence its allocation, start a second one, connect with
the session's id. What came of it is kept with the deployment; the mode of a promotion and the number of sessions that
it may keep follow from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from moorage.domain.artifact import Depth, Manifest
from moorage.domain.impact import ImpactReport, StateImpact

PROBE = "probe"  # the name of the trial among a deployment's facts


class Resume(StrEnum):
    """What a stored session did at a second allocation."""

    RESUMES = "resumes"
    WITH_CURE = "resumes_with_cure"  # only with the constant query that the edge can add to live paths
    FRESH = "fresh"
    UNTRIED = "untried"


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether sessions of the serving artifact go on at the candidate's, and why that is believed."""

    proven: bool
    why: str


def resume_of(facts: Mapping[str, object]) -> tuple[Resume, str]:
    """What the trial of a deployment has shown, and its reason in words; untried when there was none."""
    probe = facts.get(PROBE)
    if not isinstance(probe, Mapping):
        return Resume.UNTRIED, "it was not tried"
    verdict = probe.get("resume")
    return (Resume(str(verdict)) if verdict in set(Resume) else Resume.UNTRIED), str(probe.get("why", ""))


def is_cured(manifest: Manifest) -> bool:
    """Whether the artifact asks the edge for its cure."""
    vango = manifest.facts.get("vango")
    return isinstance(vango, Mapping) and vango.get("resume_cure") is True


def prove(serving: Manifest, candidate: Manifest, candidate_facts: Mapping[str, object]) -> Proof:
    """Whether the sessions of the serving artifact resume at the candidate's."""
    if serving.depth is Depth.PLAIN or candidate.depth is Depth.PLAIN:
        return Proof(False, "the app has not shown that its sessions resume elsewhere")
    if serving.depth is Depth.SDK:
        return Proof(True, "the app's sessions resume from the session store (sdk)")
    found, why = resume_of(candidate_facts)
    if found is Resume.RESUMES or (found is Resume.WITH_CURE and is_cured(candidate)):
        cure = ", with the edge's cure" if found is Resume.WITH_CURE else ""
        return Proof(True, f"its preview resumed a stored session on a second allocation{cure}")
    if found is Resume.WITH_CURE:
        return Proof(False, "its preview resumed a stored session only with the edge's cure, which is not switched on")
    if found is Resume.FRESH:
        return Proof(False, f"its preview started a stored session fresh ({why})")
    return Proof(False, f"its preview has not shown that a stored session resumes: {why}")


@dataclass(frozen=True, slots=True)
class Expected:
    """What a promotion would do to the live sessions, as numbers that add up to them, and on what grounds.

    `stay` with the old allocation until they end or the deadline comes; `resume` elsewhere with what was stored;
    `fresh`: they start at the defaults; `unknown`: nobody has shown anything.
    """

    resume: int = 0
    stay: int = 0
    fresh: int = 0
    unknown: int = 0
    how: str = ""


def expect(live: int, impact: ImpactReport | None, proof: Proof, depth: Depth, *, drains: bool) -> Expected:
    """What would become of `live` sessions of the serving artifact (whose depth this is)."""
    if drains:
        return Expected(stay=live, how="they drain in place; none is called kept")
    if impact is not None and impact.forward.impact is StateImpact.COLD:
        return Expected(fresh=live, how="the state impact is cold")
    if impact is not None and impact.forward.impact is StateImpact.REVIEW:
        return Expected(unknown=live, how="the state impact needs a person's look")
    if proof.proven:
        return Expected(resume=live, how=proof.why)
    if depth is Depth.PLAIN:
        return Expected(unknown=live, how=proof.why)
    return Expected(fresh=live, how=proof.why)
