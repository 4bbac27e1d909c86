"""Rows and live reports as the messages of the public API."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from moorage.control.context import Control
from moorage.control.operations.report import Assessment, manifest_of
from moorage.domain.allocation import State
from moorage.domain.impact import Change
from moorage.domain.names import preview_key
from moorage.domain.operation import SUCCESS
from moorage.domain.route import RouteOwner
from moorage.store import allocations, apps, log, operations, routes
from moorage.store.allocations import Allocation
from moorage.store.apps import Deployment, Environment
from moorage.store.database import Tx
from moorage.store.operations import Operation
from moorage.wire.api import (
    AllocationView,
    AppView,
    ChangeView,
    DeploymentView,
    EdgeView,
    ExpectedSessions,
    OperationView,
    PromotionReport,
    RouteView,
    StageView,
)
from moorage.wire.problem import problem_document


def environment_name(environment: Environment) -> str:
    """What people call an environment: production, or the preview of a deployment."""
    number = environment.deployment_number
    return environment.kind if number is None else f"{environment.kind} {number}"


def app_view(control: Control, tx: Tx, row: dict[str, Any]) -> AppView:
    """An app with its production route."""
    name = row["name"]
    owner, newest = control.owner(tx, name), next(iter(apps.deployments(tx, name, 1)), None)
    serving = [a for a in allocations.live(tx) if a.app == name]
    return AppView(
        name=name,
        url=control.url(control.production_key(name)),
        epoch=routes.epoch_of(tx, control.production_key(name)),
        serving=owner.deployment_number if owner else None,
        ready_allocations=sum(_serves(a, owner) for a in serving),
        attached_sockets=sum(control.live.attached(a.number) or 0 for a in serving),
        newest_deployment=newest.number if newest else None,
        newest_state=newest.state if newest else None,
        created_ms=row["created_ms"],
    )


def _serves(allocation: Allocation, owner: RouteOwner | None) -> bool:
    return (
        owner is not None
        and allocation.state is State.READY
        and allocation.deployment == owner.deployment
        and allocation.environment_number == owner.environment
    )


def deployment_view(control: Control, tx: Tx, deployment: Deployment) -> DeploymentView:
    """A deployment with its preview."""
    owner = control.owner(tx, deployment.app)
    key = preview_key(deployment.app, deployment.number, control.settings.base_domain)
    operation = operations.require(tx, deployment.operation)
    return DeploymentView(
        app=deployment.app,
        number=deployment.number,
        state=deployment.state if operation.finished_ms else operation.state,
        artifact=deployment.artifact,
        source=deployment.source,
        serving=owner is not None and owner.deployment == deployment.id,
        preview_url=control.url(key) if routes.owner(tx, key) else None,
        depth=str(manifest_of(tx, deployment.artifact).depth) if deployment.artifact else None,
        operation=deployment.operation,
        created_ms=deployment.created_ms,
        problem=operation.problem,
    )


def route_view(control: Control, tx: Tx, owner: RouteOwner) -> RouteView:
    """A route owner and how far the edges are with the log."""
    index = log.committed_index(tx)
    live = control.live.live_edges()
    behind = [name for name, report in live.items() if report.applied_index < index]
    behind += [row["id"] for row in tx.all("edges") if row["id"] not in live]
    return RouteView(
        route_key=owner.route_key,
        url=control.url(owner.route_key),
        epoch=owner.epoch,
        app=owner.app,
        environment=environment_name(apps.environment_numbered(tx, owner.environment)),
        deployment=owner.deployment_number,
        artifact=owner.artifact,
        held=owner.held,
        edges_behind=tuple(sorted(behind)),
        ready_allocations=sum(_serves(a, owner) for a in allocations.live(tx, owner.environment)),
    )


def allocation_view(control: Control, tx: Tx, allocation: Allocation) -> AllocationView:
    """An allocation with its live sockets."""
    return AllocationView(
        number=allocation.number,
        id=allocation.id,
        app=allocation.app,
        environment=environment_name(apps.environment(tx, allocation.environment)),
        deployment=allocation.deployment_number,
        artifact=allocation.artifact,
        address=f"{allocation.host}:{allocation.port}",
        state=allocation.state,
        posture=allocation.posture,
        want=allocation.want,
        pid=allocation.pid,
        attached_sockets=control.live.attached(allocation.number),
        reason=allocation.reason,
        detail=allocation.detail,
        exit_code=allocation.exit_code,
        log_tail=allocation.log_tail,
        created_ms=allocation.created_ms,
        ready_ms=allocation.ready_ms,
        ended_ms=allocation.ended_ms,
    )


def operation_view(tx: Tx, operation: Operation, *, whole: bool) -> OperationView:
    """An operation; with `whole` its stages and children."""
    stages = operations.stages(tx, operation.id) if whole else []
    return OperationView(
        id=operation.id,
        kind=operation.kind,
        app=operation.app,
        parent=operation.parent,
        state=operation.state,
        finished=operation.finished_ms is not None,
        succeeded=operation.state in SUCCESS,
        input=operation.input,
        facts=operation.facts,
        problem=operation.problem,
        actor=operation.actor,
        created_ms=operation.created_ms,
        updated_ms=operation.updated_ms,
        finished_ms=operation.finished_ms,
        stages=tuple(_stage(row) for row in stages),
        children=tuple(child.id for child in operations.children(tx, operation.id)) if whole else (),
    )


def _stage(row: dict[str, Any]) -> StageView:
    return StageView(**{name: row[name] for name in StageView.model_fields})


def report_view(assessment: Assessment) -> PromotionReport:
    """What a promotion would do now."""
    impact, decision = assessment.impact, assessment.decision
    return PromotionReport(
        app=assessment.deployment.app,
        deployment=assessment.deployment.number,
        serving=assessment.owner.deployment_number if assessment.owner else None,
        epoch=assessment.epoch,
        verdict=decision.verdict,
        reasons=decision.reasons,
        forward=impact.forward.impact if impact else "unknown",
        forward_changes=_changes(impact.forward.changes if impact else ()),
        backward=impact.backward.impact if impact else "unknown",
        backward_changes=_changes(impact.backward.changes if impact else ()),
        data_impact=impact.data if impact else "unknown",
        mode=assessment.mode,
        mode_reason=assessment.mode_reason,
        expected=ExpectedSessions(**asdict(assessment.expected)),
        notes=assessment.notes,
        live_sessions=assessment.live.sessions,
        live_sessions_at_ms=assessment.live.at_ms,
        live_sessions_how=assessment.live.how,
        acknowledge=assessment.acknowledge if decision.verdict == "needs_acknowledgement" else None,
        problem=problem_document(decision.problem) if decision.problem else None,
    )


def _changes(changes: tuple[Change, ...]) -> tuple[ChangeView, ...]:
    return tuple(
        ChangeView(what=c.what, state=c.state, field=c.field, before=c.before, after=c.after, text=str(c))
        for c in changes
    )


def edge_views(control: Control, tx: Tx) -> tuple[EdgeView, ...]:
    """All known edges, live ones with what they last reported."""
    index = log.committed_index(tx)
    live = control.live.live_edges()
    views = []
    for row in tx.all("edges"):
        seen = control.live.edges.get(row["id"])
        report = seen.report if seen else None
        applied = report.applied_index if report else row["acked_index"]
        names = ("applied", "duplicates", "gaps", "stale")
        views.append(
            EdgeView(
                id=row["id"],
                live=row["id"] in live,
                applied_index=applied,
                behind=max(0, index - applied),
                seen_ms=seen.at_ms if seen else row["seen_ms"],
                catch_up=report.catch_up.model_dump() if report and report.catch_up else None,
                counters={name: getattr(report, name) for name in names} if report else {},
                proxy=report.proxy_version if report else "",
            )
        )
    return tuple(views)
