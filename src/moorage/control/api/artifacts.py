"""Routes about artifacts: what is stored, the archive of one to carry elsewhere, and what runs here."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from moorage.artifacts.archive import MEDIA_TYPE
from moorage.artifacts.foreign import this_machine
from moorage.control.api import auth
from moorage.control.artifacts import artifact_detail, artifact_views, outgoing
from moorage.control.context import Control
from moorage.store import apps
from moorage.store.database import Tx
from moorage.wire.api import Listing
from moorage.wire.artifact import ArtifactDetail, ArtifactView, MachineView

_ARCHIVE = {"description": "The archive", "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}


def artifacts(control: Control) -> APIRouter:
    """The routes about artifacts."""

    async def admin(request: Request) -> None:
        auth.require_admin(request, control.settings.admin_token)

    router = APIRouter(prefix="/v1", tags=["reads"], dependencies=[Depends(admin)])

    @router.get("/artifacts", response_model=Listing)
    async def list_artifacts(app: str | None = None) -> Response:
        def load(tx: Tx) -> list[ArtifactView]:
            if app is not None:
                apps.require_app(tx, app)
            return artifact_views(tx, app)

        found = await control.db.read(load)
        return JSONResponse({"items": [view.model_dump(mode="json") for view in found]})

    @router.get("/artifacts/{digest}", response_model=ArtifactDetail)
    async def one_artifact(digest: str) -> Response:
        view = await control.db.read(lambda tx: artifact_detail(control, tx, digest))
        return Response(view.model_dump_json(), media_type="application/json")

    @router.get("/artifacts/{digest}/archive", response_class=Response, responses={200: _ARCHIVE})
    async def archive(digest: str) -> Response:
        found = await outgoing(control, digest)
        headers = {"Content-Length": str(found.size_bytes)}  # so that a stream that broke off is seen to be short
        return StreamingResponse(found.pieces, media_type=MEDIA_TYPE, headers=headers)

    @router.get("/machine", response_model=MachineView)
    async def machine() -> Response:
        here = this_machine()
        return JSONResponse(MachineView(native=here.native, python=here.python).model_dump(mode="json"))

    return router
