"""The ASGI app of the control plane: routers, limits, problem details, OpenAPI 3.1."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moorage.control.api import auth
from moorage.control.api.agents import agents
from moorage.control.api.artifacts import artifacts
from moorage.control.api.bindings import bindings
from moorage.control.api.changes import changes
from moorage.control.api.description import document
from moorage.control.api.problems import answer, install
from moorage.control.api.reads import reads
from moorage.control.builds import Builds
from moorage.control.context import Control
from moorage.domain.errors import Problem, Refused
from moorage.domain.limits import API_BODY_MAX_BYTES
from moorage.wire.artifact import UploadKind

UPLOADS = "/v1/sources/"


def create_app(control: Control, builds: Builds) -> ASGIApp:
    """Everything under one ASGI app; `/openapi.json` and `/healthz` need no token."""
    app = FastAPI(title="Moorage control API", version=control.settings.version, docs_url=None, redoc_url=None)
    install(app)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    app.include_router(changes(control))
    app.include_router(reads(control))
    app.include_router(bindings(control))
    app.include_router(artifacts(control))
    app.include_router(agents(control, builds))

    @app.get("/healthz", tags=["health"])
    async def health() -> Response:
        await control.db.read(lambda tx: tx.one("meta", name="incarnation"))
        return JSONResponse({"status": "ok"})

    @app.get("/readyz/{what}", tags=["health"])
    async def ready(what: str) -> Response:
        known = {"edge": bool(control.live.live_edges()), "runner": bool(control.live.runners)}
        return JSONResponse({"ready": known.get(what, False)}, status_code=200 if known.get(what) else 503)

    @app.put(UPLOADS + "{sha256}", tags=["changes"], status_code=204)
    async def upload(sha256: str, request: Request, kind: UploadKind = "source") -> Response:
        auth.require_admin(request, control.settings.admin_token)
        await builds.upload(sha256, request.stream(), kind)
        return Response(status_code=204)

    return BodyLimit(app)


class BodyTooLarge(Refused):
    """A request body beyond API_BODY_MAX_BYTES."""

    def __init__(self) -> None:
        super().__init__(
            Problem(
                "request-too-large",
                "The request body is too large",
                f"At most {API_BODY_MAX_BYTES} bytes.",
                "Sources have an endpoint of their own: PUT /v1/sources/{sha256}.",
                status=413,
            )
        )


class BodyLimit:
    """Refuses request bodies that are too large before anything keeps them; uploads have a limit of their own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(UPLOADS):
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > API_BODY_MAX_BYTES:
            await answer(BodyTooLarge().problem)(scope, receive, send)
            return
        seen = 0

        async def bounded() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > API_BODY_MAX_BYTES:
                raise BodyTooLarge
            return message

        await self._app(scope, bounded, send)
