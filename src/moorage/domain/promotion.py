"""Promotion and rollback policy: may this deployment become the owner, and what must a person accept first.

A cold promotion needs an acknowledgement that names the digest of what is accepted: both artifacts, the changes, the
expected epoch, the data impact. The number of live sessions stands beside it with its time:
were it part of the digest, each new browser tab would make every acknowledgement stale.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum

from moorage.domain.errors import Problem
from moorage.domain.impact import BLOCKS_ROLLBACK, ImpactReport, StateImpact
from moorage.domain.limits import LIVE_COUNT_FRESH_S
from moorage.domain.resume import Proof

PROMOTABLE = frozenset({"preview_ready"})


class Verdict(StrEnum):
    """What a policy says."""

    ALLOW = "allow"
    NEEDS_ACKNOWLEDGEMENT = "needs_acknowledgement"
    BLOCKED = "blocked"


class Mode(StrEnum):
    """What happens to the sessions that are attached to the old allocations."""

    HANDOVER = "handover"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class LiveCount:
    """How many sessions were live and when that was counted; `how` names the evidence (store or edge)."""

    sessions: int
    at_ms: int
    how: str


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with its reasons; `problem` is what the caller sees when it is not `allow`."""

    verdict: Verdict
    reasons: tuple[str, ...]
    problem: Problem | None = None


def acknowledgement_digest(report: ImpactReport, *, expected_epoch: int, backward: bool = False) -> str:
    """`ack:<16 hex>` over what a person accepts: artifacts, changes, epoch and data impact."""
    body = {
        "from": report.serving,
        "to": report.candidate,
        "direction": "backward" if backward else "forward",
        "changes": [[c.what, c.state, c.field, c.before, c.after] for c in report.forward.changes],
        "epoch": expected_epoch,
        "data": report.data,
    }
    return "ack:" + hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def decide_promotion(
    report: ImpactReport,
    *,
    deployment_state: str,
    expected_epoch: int,
    actual_epoch: int,
    acknowledged: str | None,
    live: LiveCount,
    now_ms: int,
    what: str = "cold deploy",
) -> Decision:
    """Whether the candidate may become the owner; `what` names a cold one."""
    if deployment_state not in PROMOTABLE:
        return _blocked("deployment-not-promotable", f"The deployment is {deployment_state}, not preview_ready")
    if expected_epoch != actual_epoch:
        return Decision(Verdict.BLOCKED, ("the route has changed",), _epoch_problem(expected_epoch, actual_epoch))
    is_same = report.serving == report.candidate
    if report.forward.impact in (StateImpact.COLD, StateImpact.REVIEW) and not is_same:
        return _acknowledge(report, expected_epoch, acknowledged, live, now_ms, what=what)
    if acknowledged not in (None, acknowledgement_digest(report, expected_epoch=expected_epoch)):
        return Decision(Verdict.BLOCKED, ("the acknowledgement names something else",), _something_else(acknowledged))
    if is_same:
        return Decision(Verdict.ALLOW, ("the same artifact",))
    return Decision(Verdict.ALLOW, (f"state impact {report.forward.impact}", f"data impact {report.data}"))


def decide_rollback(
    report: ImpactReport,
    *,
    migrations_since: ImpactReport | None,
    deployment_state: str,
    expected_epoch: int,
    actual_epoch: int,
    acknowledged: str | None,
    live: LiveCount,
    now_ms: int,
) -> Decision:
    """Whether an earlier deployment may own the route again.

    `report` goes from the serving artifact to the target; `migrations_since` goes from the target to the serving one,
    so that its data impact is the worst since the target. Data decides first: routes roll back, dropped columns do not.
    """
    since = migrations_since.data if migrations_since else report.data
    if since in BLOCKS_ROLLBACK:
        names = ", ".join(m.name for m in migrations_since.new_migrations) if migrations_since else ""
        return Decision(
            Verdict.BLOCKED,
            (f"data impact since the target: {since}",),
            Problem(
                "rollback-blocked-by-data",
                "The rollback is blocked: data has changed in a way the earlier version cannot read",
                f"Migrations since the target: {names} ({since}).",
                "Deploy a forward fix, or restore the data first and say so with a new deployment.",
                facts={"data_impact": str(since), "choices": ["forward-fix", "restore"]},
            ),
        )
    return decide_promotion(
        report,
        deployment_state=deployment_state,
        expected_epoch=expected_epoch,
        actual_epoch=actual_epoch,
        acknowledged=acknowledged,
        live=live,
        now_ms=now_ms,
        what="cold rollback",
    )


def _something_else(acknowledged: str | None) -> Problem:
    """Whoever accepted one thing is not given another without a word, not even a harmless one."""
    return Problem(
        "acknowledgement-unneeded",
        "The acknowledgement names something that would not happen",
        f"{acknowledged} was given; what would happen now needs none.",
        "Read the report, then repeat the command without --acknowledge.",
    )


def _acknowledge(
    report: ImpactReport, epoch: int, acknowledged: str | None, live: LiveCount, now_ms: int, *, what: str
) -> Decision:
    digest = acknowledgement_digest(report, expected_epoch=epoch)
    deciding = report.forward.deciding
    facts = {
        "acknowledge": digest,
        "impact": str(report.forward.impact),
        "deciding_change": str(deciding) if deciding else "",
        "changes": [str(c) for c in report.forward.changes],
        "data_impact": str(report.data),
        "live_sessions": live.sessions,
        "live_sessions_at_ms": live.at_ms,
        "expected_epoch": epoch,
    }
    what_then = "go on with it" if report.forward.impact is StateImpact.REVIEW else "start fresh when they move to it"
    cost = f"{live.sessions} live sessions will {what_then}. Deciding change: {deciding}."
    if acknowledged is None:
        return Decision(
            Verdict.NEEDS_ACKNOWLEDGEMENT,
            (f"{what} without an acknowledgement",),
            Problem(
                "acknowledgement-required",
                f"This is a {what}: it needs an acknowledgement",
                cost,
                f"Read the report, then repeat the command with --acknowledge {digest}",
                facts=facts,
            ),
        )
    if acknowledged != digest:
        return Decision(
            Verdict.NEEDS_ACKNOWLEDGEMENT,
            ("the acknowledgement names something else",),
            Problem(
                "acknowledgement-stale",
                "The acknowledgement does not name what would happen now",
                f"{acknowledged} is not {digest}. {cost}",
                f"Read the report again, then repeat the command with --acknowledge {digest}",
                facts=facts,
            ),
        )
    if now_ms - live.at_ms > LIVE_COUNT_FRESH_S * 1000:
        return _blocked("live-count-stale", "The number of live sessions is too old to be accepted")
    return Decision(Verdict.ALLOW, (f"{what} acknowledged as {digest}",))


def _epoch_problem(expected: int, actual: int) -> Problem:
    return Problem(
        "epoch-stale",
        "The route has another owner than the one you read",
        f"You expected epoch {expected}, the route is at epoch {actual}.",
        "Look at `moorage routes`, then promote again.",
        facts={"expected_epoch": expected, "actual_epoch": actual},
    )


def _blocked(code: str, title: str) -> Decision:
    return Decision(
        Verdict.BLOCKED, (title,), Problem(code, title, hint="See `moorage deployments` and `moorage ops`.")
    )


def choose_mode(asked: Mode | None, declared: Mode | None, proof: Proof) -> tuple[Mode, str]:
    """The way the old sessions go, and why: what was asked, then what the app declares, then what was proven."""
    if asked:
        return asked, "asked for"
    if declared:
        return declared, "declared in moorage.toml"
    return (Mode.HANDOVER if proof.proven else Mode.DRAIN), proof.why
