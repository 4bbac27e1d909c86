"""The report of a conformance run in the shape `vango.conformance.report.v1`, pure: results in, JSON values out.

Rules of this room: a summary is never kinder than its parts. A tier passes when every required result of it passed or
warned and at least one did; what was not tried makes no tier pass. Nothing in a report differs between two runs on the
same code but the durations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

SCHEMA_VERSION: Final = "vango.conformance.report.v1"
PREFIX: Final = "VANGO.CONFORMANCE."


class Status(StrEnum):
    """What a check came to; `blocked` is a check that could not be carried out, which is no fault of the host."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_APPLICABLE = "not_applicable"
    BLOCKED = "blocked"
    WARNING = "warning"


GOOD: Final = frozenset({Status.PASSED, Status.WARNING})
BAD: Final = frozenset({Status.FAILED, Status.BLOCKED})


@dataclass(frozen=True, slots=True)
class Tier:
    """A tier of the host contract: its number, its name in a report, what it is about."""

    number: int
    name: str
    about: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """Something to know of a result: `severity` is error, warning or info."""

    severity: str
    message: str


@dataclass(frozen=True, slots=True)
class Result:
    """What one id came to. `evidence` is what was seen, line by line; `duration_ms` as measured."""

    id: str
    tier: int
    status: Status
    required: bool
    evidence: tuple[str, ...] = ()
    duration_ms: int = 0
    diagnostics: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run. `toolchain`, `target` and `manifest` are JSON values; `required_tier` is the highest that must
    pass."""

    toolchain: Mapping[str, Any]
    target: Mapping[str, Any]
    manifest: Mapping[str, Any]
    tiers: tuple[Tier, ...]
    results: tuple[Result, ...]
    required_tier: int


@dataclass(slots=True)
class Seen:
    """What a check has seen so far; it fails with the first expectation that does not hold, and goes on."""

    evidence: list[str] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    status: Status = Status.PASSED

    def note(self, fact: str) -> None:
        """Something that was seen."""
        self.evidence.append(fact)

    def expect(self, holds: bool, fact: str, got: object = "") -> bool:
        """Something that must hold: evidence when it does, an error with what was seen instead when it does not."""
        if holds:
            self.evidence.append(fact)
            return True
        seen = f"; seen: {got}" if got != "" else ""
        self.diagnostics.append(Diagnostic("error", f"expected: {fact}{seen}"))
        self.status = Status.FAILED
        return False

    def warn(self, message: str) -> None:
        """Something that keeps this from being a full pass without being a fault."""
        self.diagnostics.append(Diagnostic("warning", message))
        if self.status is Status.PASSED:
            self.status = Status.WARNING

    def set_aside(self, status: Status, why: str) -> None:
        """The check does not apply, or cannot be carried out: `why` says what that rests on."""
        self.status = status
        self.diagnostics.append(Diagnostic("info" if status is not Status.BLOCKED else "error", why))


_WORST: Final = (
    Status.NOT_APPLICABLE,
    Status.SKIPPED,
    Status.PASSED,
    Status.WARNING,
    Status.BLOCKED,
    Status.FAILED,
)


def merged(parts: Mapping[str, Seen]) -> Seen:
    """One check that was made in several places: the worst status, each line with its place in front."""
    if len(parts) == 1:
        return next(iter(parts.values()))
    whole = Seen(status=max((part.status for part in parts.values()), key=_WORST.index))
    for place, part in parts.items():
        whole.evidence += [f"{place}: {line}" for line in part.evidence]
        whole.diagnostics += [Diagnostic(d.severity, f"{place}: {d.message}") for d in part.diagnostics]
    return whole


# ---- what differs between runs ----------------------------------------------------------------------------------
_SECRETS: Final = (
    (re.compile(r"\b[0-9a-f]{32}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<uuid>"),
    (re.compile(r"\b[a-z]{2,6}_[0-9a-z]{20,}\b"), "<id>"),
    (re.compile(r"rediss?://\S+"), "<store url>"),
    (re.compile(r"(?<![\w:.])/(?:tmp|home|root|var|Users|private|opt)/[\w./@+-]+"), "<path>"),
)


@dataclass(frozen=True, slots=True)
class Cleaner:
    """Takes out of a line what is secret or differs from run to run: ids, addresses of stores, paths of this machine,
    and the ports and folders of the run."""

    ports: tuple[int, ...] = ()
    folders: tuple[str, ...] = ()

    def clean(self, text: str) -> str:
        """The line without all that."""
        for port in self.ports:
            text = re.sub(rf":{port}\b", "", text)
        for folder in self.folders:
            text = re.sub(rf"{re.escape(folder)}[\w./@+-]*", "<path>", text)
        for pattern, instead in _SECRETS:
            text = pattern.sub(instead, text)
        return text


def result_of(id: str, tier: int, required: bool, seen: Seen, duration_ms: int, cleaner: Cleaner) -> Result:
    """A result out of what a check has seen, cleaned. What does not apply, or was not tried, is not required."""
    diagnostics = tuple(Diagnostic(d.severity, cleaner.clean(d.message)) for d in seen.diagnostics)
    evidence = tuple(dict.fromkeys(cleaner.clean(line) for line in seen.evidence))
    is_required = required and seen.status not in (Status.NOT_APPLICABLE, Status.SKIPPED)
    return Result(id, tier, seen.status, is_required, evidence, duration_ms, diagnostics)


# ---- summary ----------------------------------------------------------------------------------------------------
def tier_status(results: Sequence[Result]) -> Status:
    """What a tier came to, from its results."""
    if any(result.required and result.status in BAD for result in results):
        return Status.FAILED if any(r.required and r.status is Status.FAILED for r in results) else Status.BLOCKED
    if not any(result.status in GOOD for result in results):
        aside = {result.status for result in results}
        return Status.NOT_APPLICABLE if aside == {Status.NOT_APPLICABLE} else Status.SKIPPED
    return Status.WARNING if any(result.status is Status.WARNING for result in results) else Status.PASSED


def counts(results: Iterable[Result]) -> dict[str, int]:
    """How many results have each status."""
    found = dict.fromkeys((str(status) for status in Status), 0)
    for result in results:
        found[str(result.status)] += 1
    return found


def capability_tiers(report: Report) -> list[dict[str, Any]]:
    """Each tier with its status and counts."""
    told = []
    for tier in report.tiers:
        own = [result for result in report.results if result.tier == tier.number]
        told.append(
            {
                "tier": tier.number,
                "name": tier.name,
                "status": str(tier_status(own)),
                "required": tier.number <= report.required_tier and any(result.required for result in own),
                "counts": counts(own),
            }
        )
    return told


def summary(report: Report) -> dict[str, Any]:
    """The report in a few words. `highest_passed_tier` is the last of the unbroken row of passed tiers from 0 on, None
    when tier 0 did not pass; later tiers that passed by themselves stand in `capability_tiers`."""
    tiers = capability_tiers(report)
    row: list[int] = []
    for tier in tiers:
        if tier["status"] not in (str(Status.PASSED), str(Status.WARNING)):
            break
        row.append(tier["tier"])
    bad = [result for result in report.results if result.required and result.status in BAD]
    return {
        "overall_status": str(Status.FAILED if bad else Status.PASSED),
        "highest_passed_tier": row[-1] if row else None,
        "required_tier": report.required_tier,
        "required_failed": len(bad),
        "counts": counts(report.results),
    }


def to_json(report: Report) -> dict[str, Any]:
    """The report as JSON values."""
    return {
        "schema_version": SCHEMA_VERSION,
        "toolchain": dict(report.toolchain),
        "target": dict(report.target),
        "manifest": dict(report.manifest),
        "capability_tiers": capability_tiers(report),
        "results": [
            {
                "id": result.id,
                "tier": result.tier,
                "status": str(result.status),
                "required": result.required,
                "evidence": list(result.evidence),
                "duration_ms": result.duration_ms,
                "diagnostics": [{"severity": d.severity, "message": d.message} for d in result.diagnostics],
            }
            for result in report.results
        ],
        "summary": summary(report),
    }
