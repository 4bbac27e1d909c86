"""Explaining a request: the same rules that the edge applies, said in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moorage.domain.allocation import Endpoint, Posture, honours_pins, is_pickable
from moorage.domain.route import RouteOwner


@dataclass(frozen=True, slots=True)
class CandidateReason:
    """Whether a new session could go to an allocation, and why (not)."""

    number: int
    picked: bool
    why: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a request goes: `served`, `unknown-host`, `no-ready-allocation` or `held`; with the reason in words."""

    outcome: str
    reason: str
    candidates: tuple[CandidateReason, ...]


def explain(owner: RouteOwner | None, endpoints: Sequence[Endpoint], pinned: int | None = None) -> Outcome:
    """Where a request without (or with) a pin to allocation number `pinned` goes."""
    if owner is None:
        return Outcome("unknown-host", "nobody owns this route key: the edge answers 404", ())
    reasons = tuple(_reason(owner, endpoint) for endpoint in endpoints)
    target = next((e for e in endpoints if e.number == pinned), None)
    if target and honours_pins(target) and target.environment == owner.environment:
        return Outcome("served", f"the pin keeps this session on allocation {target.number}", reasons)
    if not any(r.picked for r in reasons):
        return Outcome(
            "no-ready-allocation",
            "the owner has no ready allocation: the edge answers 503 and no other app's allocation is asked",
            reasons,
        )
    if owner.held:
        return Outcome("held", "a hand-over is under way: upgrades wait at the edge", reasons)
    numbers = ", ".join(str(r.number) for r in reasons if r.picked)
    return Outcome("served", f"a new session goes to one of the owner's ready allocations: {numbers}", reasons)


def _reason(owner: RouteOwner, endpoint: Endpoint) -> CandidateReason:
    if is_pickable(endpoint, environment=owner.environment, deployment=owner.deployment):
        return CandidateReason(endpoint.number, True, "ready, open, and of the owner's deployment")
    if endpoint.deployment != owner.deployment:
        why = "of another deployment: only sessions pinned to it reach it"
    elif not endpoint.ready:
        why = "not ready"
    elif endpoint.posture is Posture.OPEN:
        why = "of another environment"
    else:
        why = f"its posture is {endpoint.posture}"
    return CandidateReason(endpoint.number, False, why)
