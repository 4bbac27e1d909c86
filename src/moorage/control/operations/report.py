"""What a promotion or rollback would do now: impacts, policy, mode, live sessions. The API and the work share it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import TypeAdapter

from moorage.control.context import Control
from moorage.control.operations.evidence import live_count, production_of
from moorage.domain.artifact import Depth, Manifest
from moorage.domain.impact import ImpactReport, impact_report, nothing_built
from moorage.domain.promotion import (
    Decision,
    LiveCount,
    Mode,
    acknowledgement_digest,
    choose_mode,
    decide_promotion,
    decide_rollback,
)
from moorage.domain.resume import Expected, Proof, expect, prove
from moorage.domain.route import RouteOwner
from moorage.store import apps, routes
from moorage.store.apps import Deployment
from moorage.store.database import Tx
from moorage.system.clock import now_ms
from moorage.vango.notes import framework_notes

_MANIFEST = TypeAdapter(Manifest)


@dataclass(frozen=True, slots=True)
class Assessment:
    """Everything a promotion is decided on, and the decision."""

    deployment: Deployment
    owner: RouteOwner | None
    epoch: int
    impact: ImpactReport | None
    decision: Decision
    acknowledge: str | None
    live: LiveCount
    mode: Mode
    mode_reason: str
    resumes: bool
    expected: Expected
    notes: tuple[str, ...] = ()


def manifest_of(tx: Tx, digest: str) -> Manifest:
    """The manifest of a registered artifact."""
    return _MANIFEST.validate_python(apps.artifact(tx, digest))


async def assess(
    control: Control,
    app: str,
    number: int,
    *,
    rollback: bool,
    expected_epoch: int | None = None,
    acknowledged: str | None = None,
    asked: Mode | None = None,
) -> Assessment:
    """Assess making deployment `number` the owner. `expected_epoch` None: the epoch as it is now.

    Raises Refused (`app-unknown`, `deployment-unknown`).
    """
    live = await live_count(control, await production_of(control, app))

    def decide(tx: Tx) -> Assessment:
        apps.require_app(tx, app)
        deployment = apps.require_deployment(tx, app, number)
        owner, epoch = control.owner(tx, app), routes.epoch_of(tx, control.production_key(app))
        impact = _impact(tx, owner, deployment)
        expected = epoch if expected_epoch is None else expected_epoch
        decision = _decide(tx, owner, deployment, impact, rollback, expected, epoch, acknowledged, live)
        decision = _name_winner(decision, owner)
        proof = _proof(tx, owner, deployment)
        mode, why = _mode(tx, owner, asked, proof)
        depth = manifest_of(tx, owner.artifact).depth if owner else Depth.PLAIN
        expected_fates = expect(live.sessions, impact, proof, depth, drains=mode is Mode.DRAIN)
        notes = _notes(tx, owner, deployment)
        acknowledge = acknowledgement_digest(impact, expected_epoch=expected) if impact else None
        return Assessment(
            deployment,
            owner,
            epoch,
            impact,
            decision,
            acknowledge,
            live,
            mode,
            why,
            proof.proven,
            expected_fates,
            notes,
        )

    return await control.db.read(decide)


def _impact(tx: Tx, owner: RouteOwner | None, deployment: Deployment) -> ImpactReport | None:
    if deployment.artifact is None:
        return None
    serving = (owner.artifact, manifest_of(tx, owner.artifact)) if owner else None
    return impact_report(serving, (deployment.artifact, manifest_of(tx, deployment.artifact)))


def _decide(
    tx: Tx,
    owner: RouteOwner | None,
    deployment: Deployment,
    impact: ImpactReport | None,
    rollback: bool,
    expected: int,
    actual: int,
    acknowledged: str | None,
    live: LiveCount,
) -> Decision:
    report = impact or nothing_built()
    # Data does not ask for the verb: an earlier deployment is a way back, also when it is called a promotion.
    backwards = rollback or (owner is not None and deployment.number < owner.deployment_number)
    if backwards and owner and deployment.artifact:
        target = (deployment.artifact, manifest_of(tx, deployment.artifact))
        since = impact_report(target, (owner.artifact, manifest_of(tx, owner.artifact)))
        return decide_rollback(
            report,
            migrations_since=since,
            deployment_state=deployment.state,
            expected_epoch=expected,
            actual_epoch=actual,
            acknowledged=acknowledged,
            live=live,
            now_ms=now_ms(),
        )
    return decide_promotion(
        report,
        deployment_state=deployment.state,
        expected_epoch=expected,
        actual_epoch=actual,
        acknowledged=acknowledged,
        live=live,
        now_ms=now_ms(),
    )


def _name_winner(decision: Decision, owner: RouteOwner | None) -> Decision:
    """Whoever read an old epoch is told who owns the route now."""
    problem = decision.problem
    if problem is None or problem.code != "epoch-stale":
        return decision
    winner = f"It belongs to deployment {owner.deployment_number}." if owner else "It belongs to nobody."
    facts = {**problem.facts, "winner_deployment": owner.deployment_number if owner else None}
    return replace(decision, problem=replace(problem, detail=f"{problem.detail} {winner}", facts=facts))


def _mode(tx: Tx, owner: RouteOwner | None, asked: Mode | None, proof: Proof) -> tuple[Mode, str]:
    """What the app declares is declared by the app whose sessions move: the serving artifact."""
    if owner is None:
        return asked or Mode.DRAIN, "nothing serves yet"
    declared = manifest_of(tx, owner.artifact).facts.get("promotion_mode")
    return choose_mode(asked, Mode(str(declared)) if declared else None, proof)


def _proof(tx: Tx, owner: RouteOwner | None, deployment: Deployment) -> Proof:
    """Whether the sessions of the serving artifact were shown to go on at the candidate's."""
    if owner is None or deployment.artifact is None:
        return Proof(False, "nothing is known of its sessions")
    return prove(manifest_of(tx, owner.artifact), manifest_of(tx, deployment.artifact), deployment.facts)


def _notes(tx: Tx, owner: RouteOwner | None, deployment: Deployment) -> tuple[str, ...]:
    """What else a person should read before deciding."""
    if deployment.artifact is None:
        return ()
    if owner and deployment.number < owner.deployment_number:
        return ()  # nobody acknowledges a way back in advance
    serving = manifest_of(tx, owner.artifact) if owner else None
    return framework_notes(serving, manifest_of(tx, deployment.artifact))


def proof_for(tx: Tx, deployment: Deployment) -> Proof:
    """Whether sessions of a deployment go on at a new allocation of the same artifact."""
    manifest = manifest_of(tx, deployment.artifact or "")
    return prove(manifest, manifest, deployment.facts)
