"""Planning allocations and waiting for them: what promotions, previews and replacements share."""

from __future__ import annotations

from typing import Any

from moorage.control import bindings
from moorage.control.context import Control
from moorage.control.operations.engine import Ended, Work
from moorage.domain.allocation import State
from moorage.domain.errors import Problem
from moorage.domain.ids import Prefix
from moorage.store import allocations, apps
from moorage.store.allocations import Allocation
from moorage.store.apps import Deployment, Environment
from moorage.store.database import Tx
from moorage.system.rand import new_id, new_secret

STATIC_KIND = "static"
READY_MARGIN_S = 15.0  # beyond the app's own limit: verifying files, starting the store


def plan_allocation(
    control: Control, tx: Tx, *, environment: Environment, deployment: Deployment, operation: str
) -> Allocation:
    """Plan one allocation of the deployment's exact artifact; its environment gets its store and secrets before it."""
    assert deployment.artifact is not None
    acked = control.acked_index(tx)
    artifact = apps.artifact(tx, deployment.artifact)
    if artifact["kind"] != STATIC_KIND:
        apps.ensure_store(tx, environment.id, acked, control.port_is_usable)
    if bindings.is_vango(artifact):
        bindings.ensure_secrets(control, tx, environment.id)
    return allocations.plan(
        tx,
        id=new_id(Prefix.ALLOCATION),
        app=deployment.app,
        environment=environment.id,
        environment_number=environment.number,
        deployment=deployment.id,
        deployment_number=deployment.number,
        artifact=deployment.artifact,
        host=control.settings.app_host,
        store_password=new_secret(),
        operation=operation,
        acked_index=acked,
        usable=control.port_is_usable,
    )


async def wait_ready(work: Work, allocation: str, *, timeout_s: float, failed_state: str) -> Allocation:
    """Wait until the allocation is ready. Raises Ended with `failed_state` and the app's last lines when it is not."""
    found: dict[str, Allocation] = {}

    def settled(tx: Tx) -> bool:
        current = allocations.get(tx, allocation)
        assert current is not None
        found["now"] = current
        return current.state is State.READY or current.is_over

    if not await work.wait(settled, timeout_s=timeout_s) or found["now"].state is not State.READY:
        raise Ended(failed_state, not_ready(found["now"], work.control.live.store_detail(found["now"].environment)))
    return found["now"]


def not_ready(allocation: Allocation, store: str = "") -> Problem:
    """Why an allocation did not become ready, with the app's last lines; `store` is what its session store lacks."""
    reason = allocation.reason or "ready-timeout"
    facts: dict[str, Any] = {
        "allocation": allocation.number,
        "reason": reason,
        "exit_code": allocation.exit_code,
        "log_tail": list(allocation.log_tail),
    }
    return Problem(
        f"allocation-{reason}" if not reason.startswith("artifact") else reason,
        "The app did not become ready",
        allocation.detail or f"Allocation {allocation.number} is {allocation.state}. {store}".strip(),
        f"Look at its log: moorage logs {allocation.number}",
        facts=facts,
    )


def stop_allocations(tx: Tx, ids: list[str], reason: str) -> None:
    """Take allocations out of use at once: no store, no route, no process. For ones that never served."""
    for id in ids:
        allocations.disable_store_user(tx, id, reason=reason)
        allocations.set_want(tx, id, "stop", reason=reason)
