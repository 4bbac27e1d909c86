"""What a runner should make true, derived from committed rows: allocations with their variables, stores with users."""

from __future__ import annotations

import hashlib
from typing import Any

from moorage.control import bindings
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
    artifact = apps.artifact(tx, allocation.artifact)
    process: dict[str, Any] = artifact["process"]
    environment = apps.environment(tx, allocation.environment)
    return DesiredAllocation(
        allocation=allocation.id,
        number=allocation.number,
        environment=allocation.environment,
        app=allocation.app,
        deployment_number=allocation.deployment_number,
        artifact=allocation.artifact,
        command=process["command"],
        environ=_environ(control, tx, allocation, environment, artifact),
        host=allocation.host,
        port=allocation.port,
        health=process["health"],
        ready_timeout_s=process["ready_timeout_s"],
        stop_grace_s=process["stop_grace_s"],
        want="run" if allocation.want == "run" else "stop",
        let_go=allocation.posture is Posture.LETTING_GO,
    )


def _environ(
    control: Control, tx: Tx, allocation: Allocation, environment: Environment, artifact: dict[str, Any]
) -> dict[str, str]:
    """The app's variables: its own secrets of the environment's scope, then what the platform says (which wins)."""
    given = bindings.own_secrets(control, tx, allocation.app, environment.kind)
    url = ""
    if environment.store_port is not None:
        user = f"{allocation.id}:{allocation.store_password}"
        url = f"redis://{user}@127.0.0.1:{environment.store_port}/0"
    if bindings.is_vango(artifact):
        secrets = bindings.secrets_of(control, tx, environment.id)
        given = bindings.variables(control, given, secrets, environment, url)
    given |= {
        contract.ENV_APP: allocation.app,
        contract.ENV_ENVIRONMENT: environment.kind,
        contract.ENV_ALLOCATION: allocation.id,
        contract.ENV_ALLOCATION_NUMBER: str(allocation.number),
        contract.ENV_DEPLOYMENT: str(allocation.deployment_number),
        contract.ENV_HOST: allocation.host,
        contract.ENV_PORT: str(allocation.port),
    }
    return given | ({contract.ENV_STORE_URL: url, "REDIS_URL": url} if url else {})


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
