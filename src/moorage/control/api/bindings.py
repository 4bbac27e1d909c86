"""Routes about what the platform binds to an app: its services, and the secrets that the platform makes."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from moorage.control import bindings as bound
from moorage.control.api import auth
from moorage.control.api.idempotency import HEADER, change
from moorage.control.context import Control
from moorage.control.signatures import sign_anew
from moorage.store import apps
from moorage.store.database import Tx
from moorage.wire.api import Listing
from moorage.wire.bindings import BindingView, RotationRequest, RotationView

_KEY_PARAMETER = {
    "parameters": [{"name": HEADER, "in": "header", "required": True, "schema": {"type": "string", "maxLength": 128}}]
}


def bindings(control: Control) -> APIRouter:
    """The routes of bindings and of rotation."""
    router = APIRouter(prefix="/v1")

    @router.post("/apps/{app}/rotations", response_model=RotationView, openapi_extra=_KEY_PARAMETER, tags=["changes"])
    async def rotate(app: str, body: RotationRequest, request: Request) -> Response:
        actor = auth.require_admin(request, control.settings.admin_token)
        count = await sign_anew(control, app)
        return await change(
            control,
            request,
            actor,
            lambda tx: bound.rotate(control, tx, app, csrf=body.csrf, signed_anew=count),
            status=200,
        )

    @router.get("/apps/{app}/bindings", response_model=Listing, tags=["reads"])
    async def list_bindings(app: str, request: Request) -> Response:
        auth.require_admin(request, control.settings.admin_token)

        def load(tx: Tx) -> list[BindingView]:
            apps.require_app(tx, app)
            return bound.binding_views(control, tx, app)

        items = await control.db.read(load)
        return JSONResponse({"items": [item.model_dump(mode="json") for item in items]})

    return router
