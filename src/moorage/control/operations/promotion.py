"""Promotion and rollback: policy, ready allocations of the exact artifact, one compare-and-swap, propagation, bake.

The code takes a deployment whose artifact exists; nothing here can build (the arrows forbid it), so what was seen at
the preview is what is served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NoReturn

from moorage.control.operations.allocate import READY_MARGIN_S, plan_allocation, stop_allocations, wait_ready
from moorage.control.operations.engine import Ended, Finished, Work
from moorage.control.operations.handover import is_called_off, why_called_off
from moorage.control.operations.report import Assessment, assess, manifest_of
from moorage.control.probe import require_own_store
from moorage.domain.allocation import Posture, State
from moorage.domain.errors import Problem, Refused
from moorage.domain.ids import Prefix
from moorage.domain.impact import ImpactReport
from moorage.domain.limits import DRAIN_DEADLINE_S, SETTLE_WAIT_S
from moorage.domain.operation import Kind, is_final
from moorage.domain.promotion import Mode, Verdict
from moorage.domain.resume import is_cured
from moorage.domain.route import Granted, RouteOwner
from moorage.store import allocations, apps, log, operations, routes
from moorage.store.apps import Deployment
from moorage.store.database import Tx
from moorage.system.clock import pause
from moorage.system.rand import new_id, new_secret

_RIVALS = frozenset({Kind.PROMOTION, Kind.ROLLBACK})
HANDOVER_PATIENCE_S = 120.0  # a hand-over's own limits end it long before


async def run(work: Work) -> None:
    """From `requested` to `healthy`, `rejected`, `rolled_back` or `failed`; resumable at every line."""
    if "epoch" not in work.facts:
        try:
            await _become_owner(work)
        except (Ended, Refused):
            await _withdraw(work)
            raise
    await _propagate(work)
    await _bake(work)
    await _move_sessions(work)
    behind = await work.control.edges_reach(work.facts["log_index"], timeout_s=0)
    await work.stage("healthy", _summary(work, behind), edges_behind=list(behind))


# --- before the compare-and-swap: nothing has changed yet


async def _become_owner(work: Work) -> None:
    """Up to the compare-and-swap. Raises Ended or Refused with the owner unchanged."""
    if "lost" not in work.facts:
        assessment = await _check_policy(work)
        await _ensure_allocations(work, assessment)
        await require_own_store(work, work.operation.app)
        await _swap_owner(work, assessment)
    if "lost" in work.facts:
        raise Ended("rejected", race_lost(work.input["expected_epoch"], work.facts["lost"]))


async def _withdraw(work: Work) -> None:
    """What was started for a promotion that does not happen is stopped, also after a crash in between."""
    if "allocations" not in work.facts:
        return

    def stop(tx: Tx) -> dict[str, Any]:
        stop_allocations(tx, work.facts["allocations"], "the promotion did not happen")
        return {}

    await work.commit(work.operation.state, stop)


async def _check_policy(work: Work) -> Assessment:
    assessment = await assess(
        work.control,
        work.operation.app,
        work.input["deployment"],
        rollback=work.operation.kind is Kind.ROLLBACK,
        expected_epoch=work.input["expected_epoch"],
        acknowledged=work.input["acknowledge"],
        asked=Mode(work.input["mode"]) if work.input["mode"] else None,
    )
    await work.stage(
        "policy_check",
        "; ".join(assessment.decision.reasons),
        impact=impact_facts(assessment.impact),
        live_sessions=assessment.live.sessions,
        live_sessions_at_ms=assessment.live.at_ms,
        **await work.read(lambda tx: _declared(work, tx, assessment)),
        mode=assessment.mode,
        mode_reason=assessment.mode_reason,
        resumes=assessment.resumes,
        expected=asdict(assessment.expected),
    )
    if assessment.decision.verdict is not Verdict.ALLOW:
        raise Ended("rejected", assessment.decision.problem)
    if assessment.owner and assessment.owner.deployment == assessment.deployment.id:
        raise Ended(
            "rejected",
            Problem(
                "already-owner",
                f"Deployment {assessment.deployment.number} owns the route already",
                hint=f"To start it afresh: moorage restart {work.operation.app}",
            ),
        )
    return assessment


def _declared(work: Work, tx: Tx, assessment: Assessment) -> dict[str, Any]:
    """What the apps declare in moorage.toml: the candidate how long to bake, the serving one how long to drain."""
    candidate = _facts_of(tx, assessment.deployment.artifact)
    serving = _facts_of(tx, assessment.owner.artifact if assessment.owner else None)
    return {
        "bake_s": float(candidate.get("promotion_bake_s", work.control.settings.bake_s)),
        "drain_deadline_s": float(serving.get("promotion_drain_deadline_s", DRAIN_DEADLINE_S)),
    }


def _facts_of(tx: Tx, artifact: str | None) -> dict[str, Any]:
    return dict(manifest_of(tx, artifact).facts) if artifact else {}


def impact_facts(impact: ImpactReport | None) -> dict[str, Any]:
    """An impact report as JSON values."""
    if impact is None:
        return {}
    return {
        "forward": impact.forward.impact,
        "forward_changes": [str(c) for c in impact.forward.changes],
        "backward": impact.backward.impact,
        "backward_changes": [str(c) for c in impact.backward.changes],
        "data": impact.data,
    }


async def _ensure_allocations(work: Work, assessment: Assessment) -> None:
    deployment = assessment.deployment
    if "allocations" not in work.facts:
        await work.commit("policy_check", lambda tx: _plan(work, tx, deployment), "starting the exact artifact")
    process = await work.read(lambda tx: manifest_of(tx, deployment.artifact or "").process)
    for allocation in work.facts["allocations"]:
        await wait_ready(work, allocation, timeout_s=process.ready_timeout_s + READY_MARGIN_S, failed_state="failed")


def _plan(work: Work, tx: Tx, deployment: Deployment) -> dict[str, Any]:
    environment = apps.open_environment(
        tx,
        app=deployment.app,
        kind=apps.PRODUCTION,
        id=new_id(Prefix.ENVIRONMENT),
        store_password=new_secret(),
    )
    planned = plan_allocation(
        work.control, tx, environment=environment, deployment=deployment, operation=work.operation.id
    )
    return {"environment": environment.id, "allocations": [planned.id]}


# --- the compare-and-swap


async def _swap_owner(work: Work, assessment: Assessment) -> None:
    """The atomic moment: owner, stage, audit, log entry, and the old allocations' posture in one transaction."""
    app, deployment = work.operation.app, assessment.deployment
    key = work.control.production_key(app)
    expected = work.input["expected_epoch"]

    def swap(tx: Tx) -> dict[str, Any]:
        environment = apps.environment(tx, work.facts["environment"])
        artifact = deployment.artifact or ""
        cure = is_cured(manifest_of(tx, artifact))
        wanted = RouteOwner(key, 0, app, environment.number, deployment.id, deployment.number, artifact, cure=cure)
        outcome = routes.claim(tx, wanted, expected_epoch=expected, operation=work.operation.id)
        if not isinstance(outcome, Granted):
            actual = outcome.actual
            return {"lost": {"epoch": actual.epoch, "deployment": actual.deployment_number} if actual else None}
        old = _leave_picks(tx, environment.number, work.operation.id)
        previous = assessment.owner
        return {
            "route_key": key,
            "epoch": outcome.owner.epoch,
            "log_index": log.committed_index(tx),
            "old_allocations": old,
            "previous": {"deployment": previous.deployment, "number": previous.deployment_number} if previous else None,
        }

    await work.check_cancel()
    await work.commit("route_cas", swap, f"expecting epoch {expected}")


def race_lost(expected: int, winner: dict[str, int] | None) -> Problem:
    """The loser of a compare-and-swap is told who won: `epoch` and `deployment` (None: the route was removed)."""
    name = f"deployment {winner['deployment']} at epoch {winner['epoch']}" if winner else "nobody (it was removed)"
    return Problem(
        "epoch-stale",
        "Another promotion was faster",
        f"You expected epoch {expected}; the route now belongs to {name}.",
        "Look at `moorage routes`, then promote again if you still want to.",
        facts={
            "expected_epoch": expected,
            "actual_epoch": winner["epoch"] if winner else None,
            "winner_deployment": winner["deployment"] if winner else None,
        },
    )


def _leave_picks(tx: Tx, environment: int, winner: str) -> list[str]:
    """Old allocations leave the picks and stay in the pins; what a rival is just starting is the rival's to stop, and
    what left the picks earlier is another operation's to drain."""
    theirs = {winner} | {o.id for o in operations.unfinished(tx) if o.kind in _RIVALS and "epoch" not in o.facts}
    live = allocations.live(tx, environment)
    old = [a for a in live if a.posture is Posture.OPEN and a.operation not in theirs and not a.is_over]
    for allocation in old:
        allocations.set_posture(tx, allocation.id, Posture.NO_PICKS, reason="a new owner takes the new sessions")
    return [a.id for a in old]


# --- after it


async def _propagate(work: Work) -> None:
    if work.operation.state == "route_cas":
        await work.stage("propagating", f"epoch {work.facts['epoch']} at log index {work.facts['log_index']}")
    if work.operation.state == "propagating":
        behind = await work.control.edges_reach(work.facts["log_index"])
        note = f"not acknowledged by {', '.join(behind)}" if behind else "acknowledged by every edge"
        if not work.control.live.live_edges():
            note = "no edge is live: nobody routes to this owner yet"
        await work.stage("baking", note, edges_behind=list(behind))


async def _bake(work: Work) -> None:
    """Watch the new owner serve before anything of the old is given up."""
    if "baked" in work.facts:
        return
    await pause(work.facts["bake_s"])

    def unwell(tx: Tx) -> tuple[list[str], bool]:
        return [id for id in work.facts["allocations"] if not _is_ready(tx, id)], _is_overtaken(work, tx)

    broken, overtaken = await work.read(unwell)
    if broken and overtaken:
        await _end_overtaken(work)
    if broken:
        await _roll_back(work, Problem("bake-failed", "The new allocations did not stay ready", ", ".join(broken)))
    await work.stage("baking", "stayed ready", baked=True)


def _is_ready(tx: Tx, id: str) -> bool:
    found = allocations.get(tx, id)
    return found is not None and found.state is State.READY


def _is_overtaken(work: Work, tx: Tx) -> bool:
    """Whether another promotion owns the route by now: then there is nothing to give back."""
    return bool(routes.epoch_of(tx, work.facts["route_key"]) != work.facts["epoch"])


class _OvertakenError(Exception):
    """The route is another's by now: found inside the transaction that would have given it back."""


async def _end_overtaken(work: Work) -> NoReturn:
    """Nothing is given back; the sessions that were put aside for this promotion still go to whoever owns the route.

    Raises Ended.
    """

    def leave(tx: Tx) -> dict[str, Any]:
        stop_allocations(tx, work.facts["allocations"], "another promotion took the route")
        old = [id for id in work.facts["old_allocations"] if _still_runs(tx, id)]
        started = _start_child(work, tx, old) if old and "child" not in work.facts else {}
        return {"gave_back": False, **started}

    await work.commit(work.operation.state, leave)
    raise Ended(
        "failed",
        Problem(
            "promotion-overtaken",
            "Another promotion became the owner while this one was watched",
            "It has stopped this one's allocations; nothing was given back, as the route is the other's.",
            "Look at `moorage routes` and `moorage ops`.",
        ),
    )


async def _roll_back(work: Work, why: Problem) -> None:
    """Give the route back with another compare-and-swap; the old allocations serve again. Raises Ended."""
    facts = work.facts

    def back(tx: Tx) -> dict[str, Any]:
        current = routes.owner(tx, facts["route_key"])
        previous = apps.deployment(tx, facts["previous"]["deployment"]) if facts["previous"] else None
        stop_allocations(tx, facts["allocations"], why.title)
        if current is None or current.epoch != facts["epoch"]:
            raise _OvertakenError
        if previous is None or previous.artifact is None:
            routes.remove(tx, current, expected_epoch=facts["epoch"])
            return {"gave_back": True}
        owner = RouteOwner(
            current.route_key,
            0,
            current.app,
            current.environment,
            previous.id,
            previous.number,
            previous.artifact,
            cure=is_cured(manifest_of(tx, previous.artifact)),
        )
        routes.claim(tx, owner, expected_epoch=facts["epoch"], operation=work.operation.id)
        for id in facts["old_allocations"]:
            allocations.set_posture(tx, id, Posture.OPEN, reason="the owner was given back")
        return {"gave_back": True, "log_index": log.committed_index(tx)}

    try:
        await work.commit("rolled_back", back, str(why), problem=why)
    except _OvertakenError:
        await _end_overtaken(work)
    raise Finished


async def _move_sessions(work: Work) -> None:
    """Hand the old sessions over now, or let them drain in place; either is an operation of its own."""
    old = await work.read(lambda tx: [id for id in work.facts["old_allocations"] if _still_runs(tx, id)])
    if not old:
        return
    if "child" not in work.facts:
        await work.commit("baking", lambda tx: _start_child(work, tx, old))
    if work.facts["mode"] == Mode.DRAIN:
        return
    ended = await work.wait(lambda tx: _child_settled(tx, work.facts["child"]), timeout_s=HANDOVER_PATIENCE_S)
    child = await work.read(lambda tx: operations.require(tx, work.facts["child"]))
    if is_called_off(child):
        await _roll_back(work, why_called_off(child))
    await work.stage("baking", f"hand-over {child.state}", account=child.facts.get("account"), settled=ended)


def _still_runs(tx: Tx, id: str) -> bool:
    found = allocations.get(tx, id)
    return found is not None and not found.is_over


def _start_child(work: Work, tx: Tx, old: list[str]) -> dict[str, Any]:
    kind = Kind.HANDOVER if work.facts["mode"] == Mode.HANDOVER else Kind.DRAIN
    asked = work.input.get("drain_deadline_s")
    child = operations.create(
        tx,
        id=new_id(Prefix.OPERATION),
        kind=kind,
        app=work.operation.app,
        parent=work.operation.id,
        input={
            "route_key": work.facts["route_key"],
            "old": old,
            "new": work.facts["allocations"],
            "environment": work.facts["environment"],
            "deadline_s": work.facts["drain_deadline_s"] if asked is None else asked,
            "settle_s": SETTLE_WAIT_S,
            "impact": work.facts["impact"].get("forward"),
            "resumes": work.facts.get("resumes", False),
        },
    )
    return {"child": child.id}


def _child_settled(tx: Tx, id: str) -> bool:
    """The sessions have been let in again and most of them are accounted for, or the hand-over is over."""
    child = operations.require(tx, id)
    return is_final(child.kind, child.state) or is_called_off(child) or bool(child.facts.get("nearly_settled"))


def _summary(work: Work, behind: Sequence[str]) -> str:
    told = _moved(work)
    return f"{told}; NOT YET SERVED by {', '.join(behind)}: it has not acknowledged" if behind else told


def _moved(work: Work) -> str:
    epoch, mode = work.facts["epoch"], work.facts["mode"]
    if not work.facts["old_allocations"]:
        return f"owner since epoch {epoch}; no earlier sessions"
    if mode == Mode.DRAIN:
        return f"owner since epoch {epoch}; earlier sessions drain in place ({work.facts['mode_reason']})"
    return f"owner since epoch {epoch}; sessions handed over"
