"""Replacement: a new allocation of the same artifact, after a crash or on request. Never shown as a deploy.

After a crash the dead allocation is fenced first (its process may only seem dead), then the new one starts; the
sessions that it held are accounted for from the store, with nothing called saved that did not come back.
"""

from __future__ import annotations

from typing import Any

from moorage.control.operations import sessions
from moorage.control.operations.allocate import READY_MARGIN_S, plan_allocation, stop_allocations, wait_ready
from moorage.control.operations.engine import Ended, Work
from moorage.control.operations.handover import is_called_off, why_called_off
from moorage.control.operations.promotion import HANDOVER_PATIENCE_S
from moorage.control.operations.report import proof_for
from moorage.control.operations.trail import Trail
from moorage.domain.allocation import Posture
from moorage.domain.errors import Problem, Unavailable
from moorage.domain.ids import Prefix
from moorage.domain.limits import DRAIN_DEADLINE_S, SETTLE_WAIT_S, STORED_SETTLE_WAIT_S
from moorage.domain.operation import Kind, is_final
from moorage.domain.promotion import Mode, choose_mode
from moorage.domain.session import Account
from moorage.sessions.account import Phase
from moorage.store import allocations, apps, log, operations, routes
from moorage.store.database import Tx
from moorage.system.clock import monotonic_s, now_ms, pause
from moorage.system.rand import new_id

FENCE_PATIENCE_S = 20.0
SETTLE_POLL_S = 0.25
CRASH_SETTLE_S = 20.0  # clients of a crashed allocation come back by their own back-off


async def run(work: Work) -> None:
    """From `requested` to `settled`: fence the dead, start the new, account for the sessions."""
    async with Trail(work) as trail:
        await _replace(work, trail)


async def _replace(work: Work, trail: Trail) -> None:
    if "environment" not in work.facts:
        await work.commit("requested", lambda tx: _target(work, tx))
    if work.input["dead"]:
        await _bury(work, trail)
    await _start(work)
    if work.input.get("restart"):
        await _move(work)
    else:
        await _settle(work, trail)


def _target(work: Work, tx: Tx) -> dict[str, Any]:
    owner = routes.owner(tx, work.input["route_key"])
    if owner is None:
        raise Ended("failed", Problem("route-removed", "Nobody owns the route any more"))
    environment = apps.environment_numbered(tx, owner.environment)
    return {"environment": environment.id, "deployment": owner.deployment, "epoch": owner.epoch}


async def _bury(work: Work, trail: Trail) -> None:
    """Baseline, then fence, of allocations whose process is gone (or only seems to be)."""
    dead = list(work.input["dead"])
    if work.operation.state == "requested":
        await work.stage("fencing", work.input["why"])
    deadline = monotonic_s() + FENCE_PATIENCE_S
    while work.operation.state == "fencing" and "fence" not in work.facts:
        try:
            if "baseline" not in work.facts:
                await work.stage("fencing", "", **await sessions.read_baseline(work, dead, work.input.get("sockets")))
            proof = await sessions.fence(work, dead)
            await trail.begin(await sessions.environment_of(work))
            if trail.followed:
                await trail.find_all()
            note = "the dead allocation can write nothing any more"
            await work.stage("fencing", note, **proof, **trail.facts())
        except Unavailable as down:
            if monotonic_s() >= deadline:
                raise Ended("failed", down.problem) from down
            await pause(SETTLE_POLL_S)


async def _start(work: Work) -> None:
    if "allocations" not in work.facts:

        def plan(tx: Tx) -> dict[str, Any]:
            deployment = apps.deployment(tx, work.facts["deployment"])
            assert deployment is not None
            environment = apps.environment(tx, work.facts["environment"])
            old = [
                a.id
                for a in allocations.live(tx, environment.number)
                if not a.is_over and a.posture in (Posture.OPEN, Posture.NO_PICKS) and a.deployment == deployment.id
            ]
            for id in work.input["dead"]:
                allocations.set_posture(tx, id, Posture.GONE, reason="replaced")
            planned = plan_allocation(
                work.control, tx, environment=environment, deployment=deployment, operation=work.operation.id
            )
            return {"allocations": [planned.id], "old": old}

        await work.commit("starting", plan, "starting a new allocation of the same artifact")
    process = await work.read(lambda tx: _process(work, tx))
    try:
        await wait_ready(
            work,
            work.facts["allocations"][0],
            timeout_s=process["ready_timeout_s"] + READY_MARGIN_S,
            failed_state="failed",
        )
    except Ended as ended:
        await work.commit("starting", lambda tx: _withdraw(work, tx))
        raise ended
    if work.operation.state == "starting":
        await work.stage("admitting", "ready", admitted_ms=now_ms())


def _process(work: Work, tx: Tx) -> dict[str, Any]:
    deployment = apps.deployment(tx, work.facts["deployment"])
    assert deployment is not None
    return dict(apps.artifact(tx, deployment.artifact or "")["process"])


def _withdraw(work: Work, tx: Tx) -> dict[str, Any]:
    stop_allocations(tx, work.facts["allocations"], "did not become ready")
    return {}


def _give_back(work: Work, tx: Tx) -> dict[str, Any]:
    """The hand-over was called off before its cut: the old allocations take new sessions again."""
    for id in work.facts["old"]:
        allocations.set_posture(tx, id, Posture.OPEN, reason="the restart was called off")
    return _withdraw(work, tx)


async def _settle(work: Work, trail: Trail) -> None:
    """The account of a crash: sessions come back by themselves, each is shown by the store."""
    if "baseline" not in work.facts:
        await work.stage("settled", "nothing was running before", account=sessions.empty_account())
        return
    deadline = monotonic_s() + (STORED_SETTLE_WAIT_S if trail.followed else CRASH_SETTLE_S)
    account = await _look(work, trail)
    if "account" not in work.facts:
        known = "nobody had counted who was attached" if sessions.uncounted(work) else f"{account.total} were attached"
        note = f"{known}; who comes back is seen at the store"
        await work.stage("admitting", note, account=sessions.account_facts(account, work))
    while not account.is_settled and monotonic_s() < deadline:
        if "settles_ms" not in work.facts and trail.settles_ms():
            await work.stage(
                "admitting",
                sessions.not_yet(account, trail),
                account=sessions.account_facts(account, work),
                settles_ms=trail.settles_ms(),
                **trail.facts(),
            )
        await pause(SETTLE_POLL_S)
        account = await _look(work, trail)
    final = await sessions.account_now(work, Phase.SETTLED, trail)
    state, note = sessions.closing(final, work)
    await work.stage(state, note, account=sessions.account_facts(final, work), **trail.facts())


async def _look(work: Work, trail: Trail) -> Account:
    await sessions.follow(work, trail)
    return await sessions.account_now(work, Phase.CUT, trail)


async def _move(work: Work) -> None:
    """A restart on request: the old allocation's sessions are handed over or drain, by an operation of their own."""
    if not work.facts["old"]:
        await work.stage("settled", "nothing was running before", account=sessions.empty_account())
        return
    if "child" not in work.facts:
        await work.commit("admitting", lambda tx: _start_child(work, tx))
    if work.facts["mode"] == Mode.DRAIN:
        await work.control.edges_reach(work.facts["log_index"])  # until then the old one is still picked
        await work.stage("settled", f"earlier sessions drain in place ({work.facts['mode_reason']})")
        return
    await work.wait(lambda tx: _over(tx, work.facts["child"]), timeout_s=HANDOVER_PATIENCE_S)
    child = await work.read(lambda tx: operations.require(tx, work.facts["child"]))
    if is_called_off(child):
        await work.commit("admitting", lambda tx: _give_back(work, tx))
        raise Ended("failed", why_called_off(child))
    await work.stage(
        "settled_with_losses" if child.state == "settled_with_losses" else "settled",
        f"hand-over {child.state}",
        account=child.facts.get("account"),
    )


def _over(tx: Tx, id: str) -> bool:
    child = operations.require(tx, id)
    return is_final(child.kind, child.state) or is_called_off(child)


def _start_child(work: Work, tx: Tx) -> dict[str, Any]:
    deployment = apps.deployment(tx, work.facts["deployment"])
    assert deployment is not None
    asked, proof = work.input.get("mode"), proof_for(tx, deployment)
    mode, why = choose_mode(Mode(asked) if asked else None, None, proof)
    for id in work.facts["old"]:
        allocations.set_posture(tx, id, Posture.NO_PICKS, reason="restart")
    child = operations.create(
        tx,
        id=new_id(Prefix.OPERATION),
        kind=Kind.HANDOVER if mode is Mode.HANDOVER else Kind.DRAIN,
        app=work.operation.app,
        parent=work.operation.id,
        input={
            "route_key": work.input["route_key"],
            "old": work.facts["old"],
            "new": work.facts["allocations"],
            "environment": work.facts["environment"],
            "deadline_s": DRAIN_DEADLINE_S,
            "settle_s": SETTLE_WAIT_S,
            "resumes": proof.proven,
        },
    )
    return {"child": child.id, "mode": mode, "mode_reason": why, "log_index": log.committed_index(tx)}
