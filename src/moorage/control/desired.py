"""What a runner should make true, derived from committed rows: allocations with their variables, stores with users."""

from __future__ import annotations

import hashlib
from typing import Any

from moorage.control.context import Control
from moorage.domain.allocation import Posture
from moorage.store import allocations, apps
from moorage.store.allocations import Allocation
from moorage.store.apps import Environment
from moorage.store.database import Tx
from moorage.wire.runner import Desired, DesiredAllocation, DesiredStore, StoreUser
from moorage_app import contract


def desired_state(control: Control, tx: Tx) -> Desired:
    """Everything that should run on the one host there is."""
    live = allocations.live(tx)
    return Desired(
        revision=allocations.desired_revision(tx),
        allocations=tuple(_allocation(control, tx, a) for a in live if not a.is_over),
        stores=tuple(_store(e, live) for e in apps.environments(tx) if e.store_port is not None),
    )


def _allocation(control: Control, tx: Tx, allocation: Allocation) -> DesiredAllocation:
    process: dict[str, Any] = apps.artifact(tx, allocation.artifact)["process"]
    environment = apps.environment(tx, allocation.environment)
    return DesiredAllocation(
        allocation=allocation.id,
        number=allocation.number,
        environment=allocation.environment,
        app=allocation.app,
        deployment_number=allocation.deployment_number,
        artifact=allocation.artifact,
        command=process["command"],
        environ=_environ(control, tx, allocation, environment),
        host=allocation.host,
        port=allocation.port,
        health=process["health"],
        ready_timeout_s=process["ready_timeout_s"],
        stop_grace_s=process["stop_grace_s"],
        want="run" if allocation.want == "run" else "stop",
    )


def _environ(control: Control, tx: Tx, allocation: Allocation, environment: Environment) -> dict[str, str]:
    """The app's variables: its runtime secrets, then what the platform says of it (which wins).

    Production allocations get the scope `runtime`, previews the scope `preview`: no production credential there.
    """
    given: dict[str, str] = {}
    scope = "runtime" if environment.kind == apps.PRODUCTION else "preview"
    for row in apps.secrets(tx, allocation.app):
        if row["scope"] == scope:
            given[row["name"]] = control.vault.open(allocation.app, row["name"], row["sealed"])
    given |= {
        contract.ENV_APP: allocation.app,
        contract.ENV_ENVIRONMENT: environment.kind,
        contract.ENV_ALLOCATION: allocation.id,
        contract.ENV_ALLOCATION_NUMBER: str(allocation.number),
        contract.ENV_DEPLOYMENT: str(allocation.deployment_number),
        contract.ENV_HOST: allocation.host,
        contract.ENV_PORT: str(allocation.port),
    }
    if environment.store_port is not None:
        user = f"{allocation.id}:{allocation.store_password}"
        url = f"redis://{user}@127.0.0.1:{environment.store_port}/0"
        given |= {contract.ENV_STORE_URL: url, "REDIS_URL": url}
    return given


def _store(environment: Environment, live: tuple[Allocation, ...]) -> DesiredStore:
    """The store's users: those of live allocations, switched on unless they are fenced (or over)."""
    assert environment.store_port is not None
    users = [
        StoreUser(
            name=a.id,
            password_sha256=hashlib.sha256(a.store_password.encode()).hexdigest(),
            enabled=a.store_enabled and a.posture not in (Posture.FENCED, Posture.GONE),
        )
        for a in live
        if a.environment == environment.id
    ]
    return DesiredStore(
        environment=environment.id,
        port=environment.store_port,
        admin_password=environment.store_password,
        users=tuple(users),
        want="run",
    )
