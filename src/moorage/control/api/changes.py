"""Routes that change something: each starts an operation (or writes a secret) in one transaction with its key."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request, Response

from moorage.control.api import auth
from moorage.control.api.idempotency import HEADER, change
from moorage.control.artifacts import facts_of_import
from moorage.control.builds import cancel_unbuilt
from moorage.control.context import Control
from moorage.domain.appkeys import DRAIN_DEADLINE_MAX_S
from moorage.domain.errors import Problem, Refused
from moorage.domain.ids import Prefix
from moorage.domain.limits import SECRET_VALUE_MAX_BYTES
from moorage.domain.names import check_name
from moorage.domain.operation import Kind
from moorage.domain.secrets import check_secret_name, check_secret_value
from moorage.store import apps, log, operations
from moorage.store.database import Tx
from moorage.system.rand import new_id
from moorage.wire.api import DeployRequest, OperationRef, PromoteRequest, RestartRequest, SecretRequest, SecretView
from moorage.wire.artifact import ImportRequest, UploadKind

_KEY_PARAMETER = {
    "parameters": [{"name": HEADER, "in": "header", "required": True, "schema": {"type": "string", "maxLength": 128}}]
}


def changes(control: Control) -> APIRouter:
    """The mutating routes of the public API."""
    router = APIRouter(prefix="/v1", tags=["changes"])
    _deploys(router, control)
    _promotions(router, control)
    _others(router, control)
    _secrets(router, control)
    return router


def _admin(control: Control, request: Request) -> str:
    return auth.require_admin(request, control.settings.admin_token)


def _deploys(router: APIRouter, control: Control) -> None:
    @router.post("/apps/{app}/deployments", response_model=OperationRef, status_code=202, openapi_extra=_KEY_PARAMETER)
    async def deploy(app: str, body: DeployRequest, request: Request) -> Response:
        actor = _admin(control, request)
        _refuse(check_name(app, what="app name"))
        facts = {**body.facts, "archive": body.source}

        def start(tx: Tx) -> OperationRef:
            # In here, as a retry gets its answer also when the source has been cleared away since.
            _refuse(_never_uploaded(control, body.source))
            return _start_deploy(tx, app, "source", body.source, facts)

        return await change(control, request, actor, start)

    @router.post("/apps/{app}/imports", response_model=OperationRef, status_code=202, openapi_extra=_KEY_PARAMETER)
    async def import_artifact(app: str, body: ImportRequest, request: Request) -> Response:
        actor = _admin(control, request)
        facts = await facts_of_import(control, app, body)

        def start(tx: Tx) -> OperationRef:
            if isinstance(facts, Problem):  # in here, for the same reason
                raise Refused(facts)
            return _start_deploy(tx, app, "artifact", body.archive, facts)

        return await change(control, request, actor, start)


def _never_uploaded(control: Control, source: str) -> Problem | None:
    if (control.settings.sources / f"{source}.tar.gz").is_file():
        return None
    hint = "Upload it with PUT /v1/sources/{sha256} first."
    return Problem("source-unknown", "This source was never uploaded", source, hint, status=404)


def _start_deploy(tx: Tx, app: str, kind: UploadKind, uploaded: str, facts: dict[str, Any]) -> OperationRef:
    apps.create_app(tx, app, new_id(Prefix.APP))
    operation_id, deployment_id = new_id(Prefix.OPERATION), new_id(Prefix.DEPLOYMENT)
    deployment = apps.create_deployment(tx, id=deployment_id, app=app, source=facts, operation=operation_id)
    given = {"deployment": deployment.number, "deployment_id": deployment.id, "source": uploaded, "facts": facts}
    operations.create(tx, id=operation_id, kind=Kind.DEPLOY, app=app, input={**given, "kind": kind})
    what = "deploy" if kind == "source" else "import"
    log.audit(tx, what, app, "started", deployment=deployment.number, operation=operation_id)
    return OperationRef(operation=operation_id, app=app, deployment=deployment.number)


def _promotions(router: APIRouter, control: Control) -> None:
    @router.post("/apps/{app}/promotions", response_model=OperationRef, status_code=202, openapi_extra=_KEY_PARAMETER)
    async def promote(app: str, body: PromoteRequest, request: Request) -> Response:
        actor = _admin(control, request)
        return await change(control, request, actor, lambda tx: _start_promotion(tx, app, body, Kind.PROMOTION))

    @router.post("/apps/{app}/rollbacks", response_model=OperationRef, status_code=202, openapi_extra=_KEY_PARAMETER)
    async def roll_back(app: str, body: PromoteRequest, request: Request) -> Response:
        actor = _admin(control, request)
        return await change(control, request, actor, lambda tx: _start_promotion(tx, app, body, Kind.ROLLBACK))


def _start_promotion(tx: Tx, app: str, body: PromoteRequest, kind: Kind) -> OperationRef:
    _refuse(_no_deadline(body))
    apps.require_app(tx, app)
    deployment = apps.require_deployment(tx, app, body.deployment)
    return _start(tx, kind, app, body.model_dump(mode="json"), deployment.number)


def _no_deadline(body: PromoteRequest) -> Problem | None:
    """What is no time to wait is refused at once: later it would stop a drain. A hand-over has none."""
    seconds = body.drain_deadline_s
    if seconds is None or (0 <= seconds <= DRAIN_DEADLINE_MAX_S and body.mode != "handover"):
        return None
    expected = f"between 0 and {DRAIN_DEADLINE_MAX_S:g} seconds, and of a drain"
    return Problem(
        "request-invalid",
        "The request is not what this endpoint takes",
        f"body.drain_deadline_s: {expected}",
        status=422,
        facts={"fields": [{"field": "body.drain_deadline_s", "expected": expected}]},
    )


def _start(tx: Tx, kind: Kind, app: str, input: dict[str, Any], deployment: int | None = None) -> OperationRef:
    operation = operations.create(tx, id=new_id(Prefix.OPERATION), kind=kind, app=app, input=input)
    log.audit(tx, str(kind), app, "started", operation=operation.id, deployment=deployment)
    return OperationRef(operation=operation.id, app=app, deployment=deployment)


def _others(router: APIRouter, control: Control) -> None:
    @router.post("/apps/{app}/restarts", response_model=OperationRef, status_code=202, openapi_extra=_KEY_PARAMETER)
    async def restart(app: str, body: RestartRequest, request: Request) -> Response:
        actor = _admin(control, request)
        return await change(control, request, actor, lambda tx: _start_restart(control, tx, app, body))

    @router.delete("/apps/{app}", response_model=OperationRef, status_code=202, openapi_extra=_KEY_PARAMETER)
    async def destroy(app: str, request: Request) -> Response:
        actor = _admin(control, request)

        def start(tx: Tx) -> OperationRef:
            apps.require_app(tx, app)
            return _start(tx, Kind.DESTROY, app, {})

        return await change(control, request, actor, start)

    @router.post(
        "/operations/{operation}/cancel", response_model=OperationRef, status_code=202, openapi_extra=_KEY_PARAMETER
    )
    async def cancel(operation: str, request: Request) -> Response:
        actor = _admin(control, request)

        def ask(tx: Tx) -> OperationRef:
            found = operations.request_cancel(tx, operation)
            if found.kind is Kind.DEPLOY and found.lease_owner is None:
                cancel_unbuilt(tx, found)
            return OperationRef(operation=found.id, app=found.app)

        return await change(control, request, actor, ask)


def _start_restart(control: Control, tx: Tx, app: str, body: RestartRequest) -> OperationRef:
    apps.require_app(tx, app)
    key = control.production_key(app)
    owner = control.owner(tx, app)
    if owner is None:
        raise Refused(
            Problem(
                "app-not-promoted",
                f"{app} serves nothing yet",
                hint=f"Promote a deployment first: moorage promote {app}",
            )
        )
    return _start(
        tx,
        Kind.REPLACEMENT,
        app,
        {"route_key": key, "dead": [], "why": "restart asked for", "restart": True, "mode": body.mode},
        owner.deployment_number,
    )


def _secrets(router: APIRouter, control: Control) -> None:
    @router.put("/apps/{app}/secrets/{name}", response_model=SecretView, openapi_extra=_KEY_PARAMETER)
    async def set_secret(app: str, name: str, body: SecretRequest, request: Request) -> Response:
        actor = _admin(control, request)
        _refuse(check_name(app, what="app name"))
        _refuse(check_secret_name(name))
        _refuse(check_secret_value(name, body.value))
        _refuse(_too_large(body.value))
        sealed = control.vault.seal(app, name, body.value)

        def put(tx: Tx) -> SecretView:
            apps.create_app(tx, app, new_id(Prefix.APP))  # a first deploy may need its secrets already
            apps.put_secret(tx, app, name, body.scope, sealed)
            log.audit(tx, "secret.set", app, "set", name=name, scope=body.scope)
            return _secret(tx, app, name, body.scope)

        return await change(control, request, actor, put, status=200)

    @router.delete("/apps/{app}/secrets/{name}", response_model=SecretView, openapi_extra=_KEY_PARAMETER)
    async def unset_secret(
        app: str, name: str, request: Request, scope: Literal["runtime", "preview", "build"] = "runtime"
    ) -> Response:
        actor = _admin(control, request)

        def delete(tx: Tx) -> SecretView:
            apps.require_app(tx, app)
            view = _secret(tx, app, name, scope)
            apps.delete_secret(tx, app, name, scope)
            log.audit(tx, "secret.unset", app, "unset", name=name, scope=scope)
            return view

        return await change(control, request, actor, delete, status=200)


def _secret(tx: Tx, app: str, name: str, scope: str) -> SecretView:
    for row in apps.secrets(tx, app):
        if (row["name"], row["scope"]) == (name, scope):
            return SecretView(name=name, scope=row["scope"], version=row["version"], updated_ms=row["updated_ms"])
    title = f"{app} has no secret {name} of scope {scope}"
    raise Refused(Problem("secret-unknown", title, hint="See `moorage secret list`.", status=404))


def _too_large(value: str) -> Problem | None:
    size = len(value.encode())
    if size <= SECRET_VALUE_MAX_BYTES:
        return None
    return Problem("secret-too-large", f"The value has {size} bytes; {SECRET_VALUE_MAX_BYTES} are allowed", status=413)


def _refuse(problem: Problem | None) -> None:
    if problem:
        raise Refused(problem)
