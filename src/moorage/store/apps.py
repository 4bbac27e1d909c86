"""Apps, environments, deployments, artifacts' facts and secrets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moorage.domain.errors import Problem, Refused
from moorage.store import allocations
from moorage.store.database import Tx, to_json

PRODUCTION, PREVIEW = "production", "preview"


@dataclass(frozen=True, slots=True)
class Environment:
    """Where an app's deployments run; a preview has one of its own. `store_port` None: no session store."""

    number: int
    id: str
    app: str
    kind: str
    deployment_number: int | None
    store_port: int | None
    store_password: str
    created_ms: int
    closed_ms: int | None


@dataclass(frozen=True, slots=True)
class Deployment:
    """A numbered deployment of an app; `source` are facts of its source, `facts` what was tried with its preview."""

    id: str
    app: str
    number: int
    state: str
    artifact: str | None
    source: dict[str, Any]
    operation: str
    facts: dict[str, Any]
    created_ms: int


@dataclass(frozen=True, slots=True)
class EnvironmentSecret:
    """A secret that the platform made for an environment, sealed; `previous` is the value before the last rotation."""

    environment: str
    name: str
    sealed: bytes
    previous: bytes | None
    version: int
    updated_ms: int


def create_app(tx: Tx, name: str, id: str) -> None:
    """Create the app unless its name exists (app names are unique in an installation)."""
    tx.run("insert_app", id=id, name=name, created_ms=tx.now_ms)


def require_app(tx: Tx, name: str) -> dict[str, Any]:
    """The app. Raises Refused (`app-unknown`)."""
    row = tx.one("app", name=name)
    if row is None:
        raise Refused(
            Problem(
                "app-unknown",
                f"There is no app named {name!r}",
                hint="See `moorage apps`; `moorage deploy` creates an app.",
                status=404,
            )
        )
    return row


def apps(tx: Tx) -> list[dict[str, Any]]:
    """All apps by name."""
    return tx.all("apps")


def delete_app(tx: Tx, name: str) -> None:
    """Remove an app with its deployments and secrets; its environments must be closed and stay as history."""
    tx.run("delete_app", name=name)


def open_environment(
    tx: Tx, *, app: str, kind: str, id: str, store_password: str, deployment_number: int | None = None
) -> Environment:
    """The app's production environment, or the preview of this deployment; created when it does not exist."""
    for found in environments(tx, app):
        if found.kind == kind and found.deployment_number == deployment_number:
            return found
    tx.run(
        "insert_environment",
        number=tx.next("environment_number"),
        id=id,
        app=app,
        kind=kind,
        deployment_number=deployment_number,
        store_port=None,
        store_password=store_password,
        created_ms=tx.now_ms,
    )
    return environment(tx, id)


def environment(tx: Tx, id: str) -> Environment:
    """One environment by id, closed ones included."""
    row = tx.one("environment", id=id)
    assert row is not None, f"environment {id} is referred to and does not exist"
    return Environment(**row)


def environment_numbered(tx: Tx, number: int) -> Environment:
    """One environment by number, closed ones included."""
    row = tx.one("environment_numbered", number=number)
    assert row is not None, f"environment {number} is referred to and does not exist"
    return Environment(**row)


def environments(tx: Tx, app: str | None = None) -> tuple[Environment, ...]:
    """Open environments, of one app or of all."""
    rows = tx.all("environments") if app is None else tx.all("environments_of_app", app=app)
    return tuple(Environment(**row) for row in rows)


def ensure_store(
    tx: Tx, environment_id: str, acked_index: int, usable: Callable[[int], bool] = lambda _port: True
) -> Environment:
    """Give the environment a session store (a port for it) unless it has one."""
    found = environment(tx, environment_id)
    if found.store_port is None:
        tx.run("give_store_port", id=environment_id, port=allocations.free_port(tx, acked_index, usable))
        tx.next(allocations.DESIRED_COUNTER)
    return environment(tx, environment_id)


def close_environment(tx: Tx, id: str) -> None:
    """End an environment; its store stops with it, the secrets made for it are gone."""
    tx.run("close_environment", id=id, now_ms=tx.now_ms)
    tx.run("delete_environment_secrets", environment=id)
    tx.next(allocations.DESIRED_COUNTER)


def register_artifact(tx: Tx, digest: str, app: str, manifest: dict[str, Any], size_bytes: int) -> None:
    """Remember an artifact's manifest; the artifact itself lies in the artifact store."""
    tx.run(
        "insert_artifact",
        digest=digest,
        app=app,
        manifest=to_json(manifest),
        size_bytes=size_bytes,
        created_ms=tx.now_ms,
    )


def artifact(tx: Tx, digest: str) -> dict[str, Any]:
    """An artifact's manifest as JSON."""
    row = tx.one("artifact", digest=digest)
    assert row is not None, f"artifact {digest} is referred to and not registered"
    return dict(json.loads(row["manifest"]))


def unused_artifacts(tx: Tx) -> tuple[str, ...]:
    """Digests that no deployment names and no allocation needs any more."""
    return tuple(row["digest"] for row in tx.all("artifacts_unused"))


def forget_artifact(tx: Tx, digest: str) -> None:
    """Forget an artifact's facts, once its files are gone."""
    tx.run("delete_artifact", digest=digest)


def create_deployment(tx: Tx, *, id: str, app: str, source: dict[str, Any], operation: str) -> Deployment:
    """The next deployment of the app; numbers count per app."""
    last = tx.one("last_deployment_number", app=app)
    assert last is not None
    number = last["number"] + 1
    tx.run(
        "insert_deployment",
        id=id,
        app=app,
        number=number,
        source=to_json(source),
        operation=operation,
        created_ms=tx.now_ms,
    )
    return require_deployment(tx, app, number)


def require_deployment(tx: Tx, app: str, number: int) -> Deployment:
    """A deployment by number. Raises Refused (`deployment-unknown`)."""
    row = tx.one("deployment", app=app, number=number)
    if row is None:
        raise Refused(
            Problem(
                "deployment-unknown",
                f"{app} has no deployment {number}",
                hint=f"See `moorage deployments {app}`.",
                status=404,
            )
        )
    return _deployment(row)


def deployment(tx: Tx, id: str) -> Deployment | None:
    """A deployment by id."""
    row = tx.one("deployment_by_id", id=id)
    return _deployment(row) if row else None


def deployments(tx: Tx, app: str, limit: int = 50) -> tuple[Deployment, ...]:
    """The app's deployments, newest first."""
    return tuple(map(_deployment, tx.all("deployments_of_app", app=app, limit=limit)))


def set_deployment_state(tx: Tx, id: str, state: str, artifact: str | None = None) -> None:
    """Follow the deploy operation."""
    tx.run("set_deployment_state", id=id, state=state, artifact=artifact)


def set_deployment_facts(tx: Tx, id: str, facts: dict[str, Any]) -> None:
    """Remember what was tried with the deployment's preview; what was there before is replaced."""
    tx.run("set_deployment_facts", id=id, facts=to_json(facts))


def put_secret(tx: Tx, app: str, name: str, scope: str, sealed: bytes) -> None:
    """Set a secret (already sealed)."""
    tx.run("put_secret", app=app, name=name, scope=scope, sealed=sealed, now_ms=tx.now_ms)


def delete_secret(tx: Tx, app: str, name: str, scope: str) -> bool:
    """Unset a secret; False when there is none of that name in the scope."""
    return bool(tx.run("delete_secret", app=app, name=name, scope=scope))


def secrets(tx: Tx, app: str) -> list[dict[str, Any]]:
    """The app's secrets, sealed."""
    return tx.all("secrets_of_app", app=app)


def create_environment_secret(tx: Tx, environment: str, name: str, sealed: bytes) -> None:
    """Keep a secret (already sealed) that was made for the environment, unless it has one of this name."""
    tx.run("insert_environment_secret", environment=environment, name=name, sealed=sealed, now_ms=tx.now_ms)


def environment_secrets(tx: Tx, environment: str) -> dict[str, EnvironmentSecret]:
    """The secrets that were made for an environment, by name."""
    rows = tx.all("environment_secrets", environment=environment)
    return {row["name"]: EnvironmentSecret(**row) for row in rows}


def rotate_environment_secret(tx: Tx, environment: str, name: str, sealed: bytes, *, expected_version: int) -> bool:
    """Replace the value, which becomes the previous one; False when it is of another version by now."""
    changed = tx.run(
        "rotate_environment_secret",
        environment=environment,
        name=name,
        sealed=sealed,
        expected_version=expected_version,
        now_ms=tx.now_ms,
    )
    if changed:
        tx.next(allocations.DESIRED_COUNTER)
    return bool(changed)


def _deployment(row: dict[str, Any]) -> Deployment:
    return Deployment(**{**row, "source": json.loads(row["source"]), "facts": json.loads(row["facts"])})
