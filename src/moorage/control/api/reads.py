"""Routes that only tell: apps, deployments, routes, allocations, operations, logs, sessions, explanations, status."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import JSONResponse, Response

from moorage.control.api import auth, views
from moorage.control.context import Control
from moorage.control.operations.report import assess
from moorage.control.operations.sessions import sessions_view
from moorage.domain.allocation import State
from moorage.domain.errors import Problem, Refused
from moorage.domain.explain import explain
from moorage.domain.limits import LONG_POLL_MAX_S, OPERATIONS_LISTED_MAX_COUNT
from moorage.domain.promotion import Mode
from moorage.store import allocations, apps, log, operations, routes
from moorage.store.database import Tx
from moorage.system.clock import monotonic_s
from moorage.wire.api import (
    Candidate,
    DeploymentView,
    Explanation,
    Listing,
    LogChunk,
    OperationView,
    ProcessView,
    PromotionReport,
    SecretView,
    SessionsView,
    StatusView,
    StoreView,
)
from moorage.wire.message import Message

Wait = Annotated[float, Query(ge=0, le=LONG_POLL_MAX_S, description="seconds to wait for news")]
LOG_CHUNK_BYTES = 64 << 10
_PINNED = re.compile(r"([0-9]{1,18})-")  # a pin begins with the number of its allocation


def reads(control: Control) -> APIRouter:
    """The reading routes of the public API."""

    async def admin(request: Request) -> None:
        auth.require_admin(request, control.settings.admin_token)

    router = APIRouter(prefix="/v1", tags=["reads"], dependencies=[Depends(admin)])
    _apps(router, control)
    _app_parts(router, control)
    _routes(router, control)
    _operations(router, control)
    _logs(router, control)
    _status(router, control)
    return router


def _json(message: Message) -> Response:
    return Response(message.model_dump_json(), media_type="application/json")


def _listing(items: list[Any]) -> Response:
    return JSONResponse({"items": [item.model_dump(mode="json") for item in items]})


def _apps(router: APIRouter, control: Control) -> None:
    @router.get("/apps", response_model=Listing)
    async def list_apps() -> Response:
        found = await control.db.read(lambda tx: [views.app_view(control, tx, row) for row in apps.apps(tx)])
        return _listing(found)

    @router.get("/apps/{app}/deployments", response_model=Listing)
    async def list_deployments(app: str) -> Response:
        def load(tx: Tx) -> list[DeploymentView]:
            apps.require_app(tx, app)
            return [views.deployment_view(control, tx, d) for d in apps.deployments(tx, app)]

        return _listing(await control.db.read(load))

    @router.get("/apps/{app}/deployments/{number}", response_model=DeploymentView)
    async def one_deployment(app: str, number: int) -> Response:
        def load(tx: Tx) -> DeploymentView:
            apps.require_app(tx, app)
            return views.deployment_view(control, tx, apps.require_deployment(tx, app, number))

        return _json(await control.db.read(load))

    @router.get("/apps/{app}/deployments/{number}/report", response_model=PromotionReport)
    async def promotion_report(app: str, number: int, rollback: bool = False, mode: Mode | None = None) -> Response:
        return _json(views.report_view(await assess(control, app, number, rollback=rollback, asked=mode)))


def _app_parts(router: APIRouter, control: Control) -> None:
    @router.get("/apps/{app}/sessions", response_model=SessionsView)
    async def live_sessions(app: str) -> Response:
        await control.db.read(lambda tx: apps.require_app(tx, app))
        return _json(await sessions_view(control, app))

    @router.get("/apps/{app}/secrets", response_model=Listing)
    async def list_secrets(app: str) -> Response:
        def load(tx: Tx) -> list[SecretView]:
            apps.require_app(tx, app)
            names = SecretView.model_fields
            return [SecretView(**{name: row[name] for name in names}) for row in apps.secrets(tx, app)]

        return _listing(await control.db.read(load))


def _routes(router: APIRouter, control: Control) -> None:
    @router.get("/routes", response_model=Listing)
    async def list_routes() -> Response:
        found = await control.db.read(lambda tx: [views.route_view(control, tx, o) for o in routes.owners(tx)])
        return _listing(found)

    @router.get("/allocations", response_model=Listing)
    async def list_allocations(app: str | None = None, all: bool = False) -> Response:
        def load(tx: Tx) -> list[Any]:
            if app is not None:
                apps.require_app(tx, app)
            found = allocations.newest(tx, OPERATIONS_LISTED_MAX_COUNT) if all else allocations.live(tx)
            return [views.allocation_view(control, tx, a) for a in found if app in (None, a.app)]

        return _listing(await control.db.read(load))

    @router.get("/explain", response_model=Explanation)
    async def explain_url(url: str, pin: str | None = None) -> Response:
        return _json(await control.db.read(lambda tx: _explanation(control, tx, url, pin)))


def _host(url: str) -> str:
    """The route key of a URL. Raises Refused (`url-invalid`)."""
    try:
        key = (urlsplit(url if "//" in url else f"//{url}").hostname or "").lower()
    except ValueError:
        key = ""
    if not key:
        raise Refused(Problem("url-invalid", "This is not a URL", url, "For example http://board.localhost:7080/", 422))
    return key


def _explanation(control: Control, tx: Tx, url: str, pin: str | None) -> Explanation:
    key = _host(url)
    owner = routes.owner(tx, key)
    found = [a for a in allocations.live(tx) if owner and a.environment_number == owner.environment]
    pinned = _PINNED.match(pin or "")
    number = int(pinned[1]) if pinned else None
    told = explain(owner, [a.endpoint for a in found], number)
    reasons = {c.number: c for c in told.candidates}
    environment = apps.environment_numbered(tx, owner.environment) if owner else None
    return Explanation(
        url=url,
        route_key=key,
        outcome=told.outcome,
        reason=told.reason,
        epoch=owner.epoch if owner else None,
        app=owner.app if owner else None,
        environment=views.environment_name(environment) if environment else None,
        deployment=owner.deployment_number if owner else None,
        artifact=owner.artifact if owner else None,
        request_class="direct",
        pin="none" if number is None else f"names allocation {number}; the edge checks its signature",
        candidates=tuple(
            Candidate(
                number=a.number,
                state=a.state,
                posture=a.posture,
                picked=reasons[a.number].picked,
                why=reasons[a.number].why,
            )
            for a in found
        ),
        edges=views.edge_views(control, tx),
        history=tuple(routes.history(tx, key)),
    )


def _operations(router: APIRouter, control: Control) -> None:
    @router.get("/operations", response_model=Listing)
    async def list_operations(app: str | None = None, limit: int = 50) -> Response:
        count = max(1, min(limit, OPERATIONS_LISTED_MAX_COUNT))
        found = await control.db.read(
            lambda tx: [views.operation_view(tx, o, whole=False) for o in operations.newest(tx, app, count)]
        )
        return _listing(found)

    @router.get("/operations/{operation}", response_model=OperationView)
    async def one_operation(operation: str, after: int = -1, wait_s: Wait = 0) -> Response:
        deadline = monotonic_s() + wait_s
        while True:
            seen = control.db.changes.version
            view = await control.db.read(
                lambda tx: views.operation_view(tx, operations.require(tx, operation), whole=True)
            )
            newest = view.stages[-1].seq if view.stages else 0
            left = deadline - monotonic_s()
            if newest > after or view.finished or left <= 0:
                return _json(view)
            await control.db.changes.wait(seen, left)


def _logs(router: APIRouter, control: Control) -> None:
    @router.get("/allocations/{number}/logs", response_model=LogChunk)
    async def logs(number: int, offset: int = -1, wait_s: Wait = 0) -> Response:
        deadline = monotonic_s() + wait_s
        while True:
            allocation = await control.db.read(lambda tx: tx.one("allocation_numbered", number=number))
            if allocation is None:
                raise Refused(
                    Problem(
                        "allocation-unknown", f"There is no allocation {number}", "", "See `moorage allocations`.", 404
                    )
                )
            path = control.settings.allocations / allocation["id"] / "app.log"
            text, following = await asyncio.to_thread(_piece, path, offset)
            over = allocation["state"] in (State.STOPPED, State.FAILED, State.LOST) and not text
            if text or over or monotonic_s() >= deadline:
                return _json(LogChunk(allocation=number, text=text, next_offset=following, over=over))
            await control.db.changes.wait(control.db.changes.version, min(0.25, wait_s))


def _piece(path: Path, offset: int) -> tuple[str, int]:
    try:
        size = path.stat().st_size
        start = max(0, size - LOG_CHUNK_BYTES) if offset < 0 else offset if offset <= size else 0
        with path.open("rb") as handle:
            handle.seek(start)
            data = whole_characters(handle.read(LOG_CHUNK_BYTES))
    except FileNotFoundError:
        return "", max(offset, 0)
    return data.decode(errors="replace"), start + len(data)


def whole_characters(data: bytes) -> bytes:
    """The bytes without a UTF-8 character that is cut off at their end (at most 3 bytes; RFC 3629)."""
    for cut in range(1, min(4, len(data))):
        lead = data[-cut]
        if lead & 0xC0 == 0xC0:
            needed = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return data[:-cut] if needed > cut else data
        if lead < 0x80:
            return data
    return data


def _status(router: APIRouter, control: Control) -> None:
    @router.get("/status", response_model=StatusView)
    async def status() -> Response:
        processes = await asyncio.to_thread(_processes, control.settings.processes_file)
        return _json(await control.db.read(lambda tx: _status_view(control, tx, processes)))


def _processes(path: Path) -> tuple[ProcessView, ...]:
    """The supervisor's own state file; empty when control runs without one."""
    try:
        document = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return ()
    return tuple(
        ProcessView(
            name=row["name"],
            pid=row["pid"],
            state=row["state"],
            restarts=row["restarts"],
            since_ms=row["since_ms"],
            last_exit=row["last_reason"],
        )
        for row in document["processes"]
    )


def _status_view(control: Control, tx: Tx, processes: tuple[ProcessView, ...]) -> StatusView:
    settings = control.settings
    edges = views.edge_views(control, tx)
    live = allocations.live(tx)
    stores = [
        StoreView(
            app=e.app,
            environment=views.environment_name(e),
            port=e.store_port,
            state=control.live.store_state(e.id),
        )
        for e in apps.environments(tx)
        if e.store_port is not None
    ]
    versions: dict[str, str] = dict(settings.binaries)
    for seen in control.live.runners.values():
        versions.update(seen.report.versions)
    return StatusView(
        version=settings.version,
        home=str(settings.home),
        api=f"http://{settings.bind}:{settings.api_port}",
        http=f"http://{settings.bind}:{settings.http_port}",
        base_domain=settings.base_domain,
        isolation=versions.pop("isolation", "none"),
        ready=any(e.live for e in edges) and bool(control.live.runners),
        log_index=log.committed_index(tx),
        incarnation=log.incarnation(tx),
        apps=len(apps.apps(tx)),
        routes=len(routes.owners(tx)),
        allocations_ready=sum(a.state is State.READY for a in live),
        operations_open=len(operations.unfinished(tx)),
        edges=edges,
        processes=processes,
        stores=tuple(stores),
        binaries=versions,
    )
