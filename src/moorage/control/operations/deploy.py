"""Deploy, after the build worker: register the artifact's preview, start it, give it its own route key.

The build worker has taken the operation from `queued` to `validating` and left the artifact's digest as a fact; what
follows belongs to the control plane.
"""

from __future__ import annotations

from typing import Any

from moorage.control import bindings
from moorage.control.operations.allocate import READY_MARGIN_S, plan_allocation, stop_allocations, wait_ready
from moorage.control.operations.engine import Ended, Work
from moorage.control.operations.report import manifest_of
from moorage.control.probe import probe
from moorage.domain.ids import Prefix
from moorage.domain.names import preview_key
from moorage.domain.resume import is_cured
from moorage.domain.route import RouteOwner
from moorage.store import apps, log, routes
from moorage.store.apps import Deployment
from moorage.store.database import Tx
from moorage.system.rand import new_id, new_secret


async def run(work: Work) -> None:
    """From a built artifact to `preview_ready`, or `failed` with the app's last lines."""
    deployment = await work.read(lambda tx: _deployment(work, tx))
    try:
        await _start_preview(work, deployment)
        await _open_route(work, deployment)
        await work.control.edges_reach(work.facts["preview_index"])
        await _try_out(work, deployment)
    except Ended as ended:
        await _give_up(work, deployment, ended)
        return
    await work.commit(
        "preview_ready",
        lambda tx: _settle(tx, deployment, "preview_ready"),
        f"preview at {work.control.url(work.facts['preview_key'])}",
    )


def _deployment(work: Work, tx: Tx) -> Deployment:
    return apps.require_deployment(tx, work.operation.app, work.input["deployment"])


async def _start_preview(work: Work, deployment: Deployment) -> None:
    control = work.control
    if "allocation" not in work.facts:

        def plan(tx: Tx) -> dict[str, Any]:
            environment = apps.open_environment(
                tx,
                app=deployment.app,
                kind=apps.PREVIEW,
                id=new_id(Prefix.ENVIRONMENT),
                store_password=new_secret(),
                deployment_number=deployment.number,
            )
            allocation = plan_allocation(
                control, tx, environment=environment, deployment=deployment, operation=work.operation.id
            )
            return {"environment": environment.id, "allocation": allocation.id}

        await work.commit("validating", plan, "starting a preview")
    process = await work.read(lambda tx: apps.artifact(tx, deployment.artifact or "")["process"])
    await wait_ready(
        work,
        work.facts["allocation"],
        timeout_s=process["ready_timeout_s"] + READY_MARGIN_S,
        failed_state="failed",
    )


async def _open_route(work: Work, deployment: Deployment) -> None:
    if "preview_index" in work.facts:
        return
    key = preview_key(deployment.app, deployment.number, work.control.settings.base_domain)

    def claim(tx: Tx) -> dict[str, Any]:
        environment = apps.environment(tx, work.facts["environment"])
        assert deployment.artifact is not None
        wanted = RouteOwner(
            key,
            0,
            deployment.app,
            environment.number,
            deployment.id,
            deployment.number,
            deployment.artifact,
            cure=is_cured(manifest_of(tx, deployment.artifact)),
        )
        epoch = routes.epoch_of(tx, key)  # not 0 when an app of this name was destroyed: epochs go on
        routes.claim(tx, wanted, expected_epoch=epoch, operation=work.operation.id)
        return {"preview_key": key, "preview_index": log.committed_index(tx)}

    await work.commit("validating", claim, "opening the preview's route")


async def _try_out(work: Work, deployment: Deployment) -> None:
    """What only the running app can show is seen before anybody relies on it."""
    if await work.read(lambda tx: bindings.is_vango(apps.artifact(tx, deployment.artifact or ""))):
        await probe(work, deployment)


async def _give_up(work: Work, deployment: Deployment, ended: Ended) -> None:
    def stop(tx: Tx) -> dict[str, Any]:
        started = [work.facts["allocation"], *work.facts.get("more", ())]
        stop_allocations(tx, started, "the preview did not become ready")
        owner = routes.owner(tx, work.facts.get("preview_key", ""))
        if owner and owner.deployment == deployment.id:
            routes.remove(tx, owner, expected_epoch=owner.epoch)
        apps.close_environment(tx, work.facts["environment"])
        return _settle(tx, deployment, ended.state)

    await work.commit(ended.state, stop, str(ended.problem or ""), problem=ended.problem)


def _settle(tx: Tx, deployment: Deployment, state: str) -> dict[str, Any]:
    apps.set_deployment_state(tx, deployment.id, state)
    return {}
