"""What an environment gives its allocations beyond a port: stores, and secrets that the platform makes.

Rules: secrets are made in the transaction that plans an allocation, once per environment, and read afterwards; reading
never makes one. They end with their environment. A rotation keeps the value so far as the previous one, and is
refused while an allocation runs that knows only the value before that: its sessions could be read by nobody.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from moorage.control.context import Control
from moorage.domain.errors import Problem, Refused
from moorage.domain.names import preview_key
from moorage.domain.secrets import CSRF_SECRET, PERSISTENCE_SECRET, STORE_URLS
from moorage.store import allocations, apps, log
from moorage.store.allocations import Allocation
from moorage.store.apps import Deployment, Environment, EnvironmentSecret
from moorage.store.database import Tx
from moorage.system.rand import new_secret
from moorage.vango.bindings import PROVIDER, Service, services
from moorage.vango.variables import KIND, Secrets, Source, StoreBinding, host_variables, store_binding, without_sealed
from moorage.wire.bindings import BindingView, RotatedSecret, RotationView

OWN_STORE_WHY = "a store of your own: a promotion asks whether it answers, no session is tried there"
SECRET_BYTES = 32  # the framework refuses to start with less
AUDIT_LOOKED_AT_COUNT = 200  # newest records of an app: more changes than that since an allocation began are unheard of


def scope_of(kind: str) -> str:
    """The scope of the secrets that a kind of environment is given: no production credential in a preview."""
    return "runtime" if kind == apps.PRODUCTION else "preview"


def own_secrets(control: Control, tx: Tx, app: str, kind: str) -> dict[str, str]:
    """The app's own secrets for its environments of a kind, opened."""
    scope = scope_of(kind)
    return {
        row["name"]: control.vault.open(app, row["name"], row["sealed"])
        for row in apps.secrets(tx, app)
        if row["scope"] == scope
    }


def is_vango(artifact: Mapping[str, Any]) -> bool:
    """Whether an artifact (its manifest as JSON) is an app of the framework."""
    return bool(artifact["kind"] == KIND)


# --- secrets that the platform makes


def ensure_secrets(control: Control, tx: Tx, environment: str) -> None:
    """Give an environment its secrets unless it has them; in the transaction that plans its first allocation."""
    if _made().keys() <= apps.environment_secrets(tx, environment).keys():
        return
    for name, value in _made().items():
        apps.create_environment_secret(tx, environment, name, control.vault.seal(environment, name, value))


def secrets_of(control: Control, tx: Tx, environment: str) -> Secrets | None:
    """The environment's secrets, opened; None when it has none (any more)."""
    kept = apps.environment_secrets(tx, environment)
    if not {PERSISTENCE_SECRET, CSRF_SECRET} <= kept.keys():
        return None
    persistence, csrf = kept[PERSISTENCE_SECRET], kept[CSRF_SECRET]
    previous = persistence.previous
    return Secrets(
        control.vault.open(environment, persistence.name, persistence.sealed),
        control.vault.open(environment, csrf.name, csrf.sealed),
        None if previous is None else control.vault.open(environment, persistence.name, previous),
    )


def _made() -> dict[str, str]:
    return {PERSISTENCE_SECRET: os.urandom(SECRET_BYTES).hex(), CSRF_SECRET: new_secret(SECRET_BYTES)}


def rotate(control: Control, tx: Tx, app: str, *, csrf: bool, signed_anew: int | None) -> RotationView:
    """Make new secrets for the app's production environment; `csrf` also for its forms and open pages. `signed_anew`
    records were saved from the value that this drops (None: nobody could look).

    Raises Refused: `app-unknown`, `nothing-to-rotate`, `rotation-unfinished`.
    """
    apps.require_app(tx, app)
    environment = production(tx, app)
    kept = apps.environment_secrets(tx, environment.id) if environment else {}
    if environment is None or not kept:
        raise Refused(_nothing_to_rotate(app))
    if late := behind(tx, environment, kept):
        raise Refused(_unfinished(app, late))
    made = _made()
    names = [PERSISTENCE_SECRET, CSRF_SECRET] if csrf else [PERSISTENCE_SECRET]
    for name in names:
        sealed = control.vault.seal(environment.id, name, made[name])
        version = kept[name].version
        assert apps.rotate_environment_secret(tx, environment.id, name, sealed, expected_version=version)
    log.audit(tx, "secret.rotate", app, "rotated", environment=environment.id, names=names)
    now = apps.environment_secrets(tx, environment.id)
    return RotationView(
        app=app,
        rotated=tuple(RotatedSecret(name=n, version=now[n].version, updated_ms=now[n].updated_ms) for n in names),
        running=tuple(a.number for a in _running(tx, environment)),
        dropped=kept[PERSISTENCE_SECRET].previous is not None,
        signed_anew=signed_anew,
    )


def behind(tx: Tx, environment: Environment, kept: Mapping[str, EnvironmentSecret]) -> list[int]:
    """Allocations that were planned before the last rotation: they may know only the value that it replaced."""
    persistence = kept[PERSISTENCE_SECRET]
    if persistence.previous is None:
        return []
    return [a.number for a in _running(tx, environment) if a.created_ms <= persistence.updated_ms]


def _running(tx: Tx, environment: Environment) -> list[Allocation]:
    return [a for a in allocations.live(tx) if a.environment == environment.id and not a.is_over]


def production(tx: Tx, app: str) -> Environment | None:
    """The app's production environment, once something was promoted."""
    return next((e for e in apps.environments(tx, app) if e.kind == apps.PRODUCTION), None)


def _nothing_to_rotate(app: str) -> Problem:
    return Problem(
        "nothing-to-rotate",
        f"The platform has made no secrets for {app}",
        "It makes them for Vango apps, when the first allocation of production is planned.",
        "For a secret of your own: moorage secret set",
        facts={"app": app},
    )


def _unfinished(app: str, behind: list[int]) -> Problem:
    return Problem(
        "rotation-unfinished",
        "The last rotation has not reached every allocation",
        f"Allocation {', '.join(map(str, behind))} still stores with the value before it; another rotation would make "
        "those sessions unreadable.",
        f"First: moorage restart {app} --handover",
        facts={"allocations": behind},
    )


# --- stores


def binding_in_force(control: Control, tx: Tx, app: str, kind: str = apps.PRODUCTION) -> StoreBinding:
    """Whose stores the next Vango allocation of the app's production environment (or of a preview) uses, without the
    URL of a managed one."""
    return store_binding(own_secrets(control, tx, app, kind))


def has_changed(tx: Tx, allocation: Allocation, kind: str = apps.PRODUCTION) -> bool:
    """Whether a store URL was set or unset since the allocation was planned: it may use another store than the next
    one will, and then no session can move between them."""
    return any(
        row["action"] in ("secret.set", "secret.unset")
        and row["at_ms"] >= allocation.created_ms
        and row["detail"].get("name") in STORE_URLS
        and row["detail"].get("scope") == scope_of(kind)
        for row in log.audit_of(tx, allocation.app, AUDIT_LOOKED_AT_COUNT)
    )


def binding_views(control: Control, tx: Tx, app: str) -> list[BindingView]:
    """The services that the app's next production allocation is given; none when it is no Vango app.

    What was seen of them comes from the preview of the serving deployment, or of the newest when nothing serves.
    """
    deployment = _deployment(control, tx, app)
    if deployment is None or deployment.artifact is None or not is_vango(apps.artifact(tx, deployment.artifact)):
        return []
    probe = deployment.facts.get("probe", {})
    probed = {name: bool(worked) for name, worked in probe.get("bindings", {}).items()}
    return [
        _view(service, str(probe.get("why", ""))) for service in services(binding_in_force(control, tx, app), probed)
    ]


def _view(service: Service, why: str) -> BindingView:
    own = service.source is Source.OWN
    state = replace(service, probed=None).state if own else service.state  # the preview's store was another one
    return BindingView(
        service_class=service.service_class,
        provider=PROVIDER,
        source=service.source,
        variable=service.variable,
        state=state,
        why=OWN_STORE_WHY if own else why if service.probed is None else "",
    )


def _deployment(control: Control, tx: Tx, app: str) -> Deployment | None:
    owner = control.owner(tx, app)
    if owner is not None:
        return apps.deployment(tx, owner.deployment)
    return next((d for d in apps.deployments(tx, app) if d.artifact is not None), None)


# --- variables


def variables(
    control: Control, own: Mapping[str, str], secrets: Secrets | None, environment: Environment, managed_url: str
) -> dict[str, str]:
    """What a Vango app sees of its own secrets and of the platform; the latter wins."""
    public_url = control.url(_route_key(control, environment))
    return without_sealed(own) | host_variables(public_url, store_binding(own, managed_url), secrets)


def _route_key(control: Control, environment: Environment) -> str:
    if environment.deployment_number is None:
        return control.production_key(environment.app)
    return preview_key(environment.app, environment.deployment_number, control.settings.base_domain)
