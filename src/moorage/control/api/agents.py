"""Routes of edges, runners and the build worker: each with its own token; reports are idempotent by nature."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BeforeValidator
from starlette.responses import Response

from moorage.control.api import auth
from moorage.control.builds import Builds
from moorage.control.context import Control
from moorage.control.desired import desired_state
from moorage.domain.allocation import State
from moorage.domain.limits import LOG_PAGE_MAX_COUNT, LONG_POLL_MAX_S
from moorage.store import allocations, log, routes
from moorage.store.database import Tx
from moorage.system.clock import monotonic_s, now_ms
from moorage.wire.build import BuildJob, BuildReply, BuildReport
from moorage.wire.edge import EdgeReply, EdgeReport, LogPage
from moorage.wire.log import SignedSnapshot, Snapshot, endpoint_event, owner_event, sign_snapshot
from moorage.wire.message import Message
from moorage.wire.runner import Desired, RunnerReport

Wait = Annotated[float, Query(ge=0, le=LONG_POLL_MAX_S)]


def _read_as_json(kind: type[Message]) -> BeforeValidator:
    """Read a body by the rules of JSON: strict messages take an array as a tuple and a text as an enum only there."""

    def read(value: Any) -> Any:
        return kind.model_validate_json(json.dumps(value)) if isinstance(value, dict) else value

    return BeforeValidator(read)


EdgeBody = Annotated[EdgeReport, _read_as_json(EdgeReport)]
RunnerBody = Annotated[RunnerReport, _read_as_json(RunnerReport)]
BuildBody = Annotated[BuildReport, _read_as_json(BuildReport)]


class Claim(Message):
    """A build worker asks for work."""

    worker: str


def agents(control: Control, builds: Builds) -> APIRouter:
    """The routes of all agents."""
    router = APIRouter(prefix="/v1", tags=["agents"])
    _edges(router, control)
    _runners(router, control)
    _builds(router, control, builds)
    return router


def _edges(router: APIRouter, control: Control) -> None:
    tokens = control.settings.edge_tokens

    @router.get("/edges/{edge}/snapshot", response_model=SignedSnapshot)
    async def snapshot(edge: str, request: Request) -> SignedSnapshot:
        auth.require_agent(request, tokens, edge)
        return sign_snapshot(await control.db.read(lambda tx: current_snapshot(control, tx)), control.signing_key)

    @router.get("/edges/{edge}/log", response_model=LogPage)
    async def log_page(edge: str, request: Request, after: Annotated[int, Query(ge=0)]) -> LogPage:
        auth.require_agent(request, tokens, edge)

        def page(tx: Tx) -> LogPage:
            complete = log.reaches_back_to(tx, after)
            return LogPage(
                incarnation=log.incarnation(tx),
                committed_index=log.committed_index(tx),
                complete=complete,
                entries=log.entries(tx, after, LOG_PAGE_MAX_COUNT) if complete else (),
            )

        return await control.db.read(page)

    @router.post("/edges/{edge}/report", response_model=EdgeReply)
    async def report(edge: str, body: EdgeBody, request: Request) -> EdgeReply:
        auth.require_agent(request, tokens, edge)
        incarnation, committed = await control.db.read(lambda tx: (log.incarnation(tx), log.committed_index(tx)))
        if body.incarnation != incarnation or body.applied_index > committed:
            body = body.model_copy(update={"applied_index": 0})  # of another log, or of one that this is a copy of
        known = control.live.edges.get(edge)
        if known is None or known.report.applied_index != body.applied_index:
            await control.db.write(
                lambda tx: tx.run("put_edge", id=edge, acked_index=body.applied_index, seen_ms=tx.now_ms), actor=edge
            )
        control.live.edge_reported(body.model_copy(update={"edge": edge}))
        return await control.db.read(
            lambda tx: EdgeReply(incarnation=log.incarnation(tx), committed_index=log.committed_index(tx))
        )


def current_snapshot(control: Control, tx: Tx) -> Snapshot:
    """The fold of the log as it is committed now."""
    return Snapshot(
        incarnation=log.incarnation(tx),
        index=log.committed_index(tx),
        issued_ms=now_ms(),
        pin_key=control.settings.pin_key,
        routes=tuple(owner_event(owner) for owner in routes.owners(tx)),
        allocations=tuple(endpoint_event(a.endpoint) for a in allocations.live(tx)),
    )


def _runners(router: APIRouter, control: Control) -> None:
    tokens = control.settings.runner_tokens

    @router.get("/runners/{runner}/desired", response_model=Desired)
    async def desired(runner: str, request: Request, after: int = -1, wait_s: Wait = 0) -> Desired:
        auth.require_agent(request, tokens, runner)
        deadline = monotonic_s() + wait_s
        while True:
            seen = control.db.changes.version
            revision = await control.db.read(allocations.desired_revision)
            left = deadline - monotonic_s()
            if revision > after or left <= 0:
                return await control.db.read(lambda tx: desired_state(control, tx))
            await control.db.changes.wait(seen, left)

    @router.post("/runners/{runner}/report", status_code=204)
    async def report(runner: str, body: RunnerBody, request: Request) -> Response:
        auth.require_agent(request, tokens, runner)
        if await control.db.read(lambda tx: _news(tx, body)):
            await control.db.write(lambda tx: _observe(tx, body), actor=runner)
        control.live.runner_reported(body.model_copy(update={"runner": runner}))
        return Response(status_code=204)


def _news(tx: Tx, report: RunnerReport) -> bool:
    """Whether a report says anything that the rows do not: most reports are heartbeats."""
    for seen in report.allocations:
        row = allocations.get(tx, seen.allocation)
        if row and not row.is_over and (row.state is not seen.state or row.pid != seen.pid):
            return True
    return any(a.state not in (State.PLANNED,) and not a.is_over for a in _unmentioned(tx, report))


def _unmentioned(tx: Tx, report: RunnerReport) -> list[allocations.Allocation]:
    """Allocations that the runner should have and does not mention, once it knows the revision that made them."""
    told = {seen.allocation for seen in report.allocations}
    if report.revision < allocations.desired_revision(tx):
        return []
    return [a for a in allocations.live(tx) if a.id not in told]


def _observe(tx: Tx, report: RunnerReport) -> None:
    for seen in report.allocations:
        allocations.observe(
            tx,
            seen.allocation,
            seen.state,
            reason=seen.reason,
            detail=seen.detail,
            exit_code=seen.exit_code,
            pid=seen.pid,
            log_tail=seen.log_tail,
            ready_ms=seen.ready_ms,
        )
    for absent in _unmentioned(tx, report):
        if absent.state is not State.PLANNED and not absent.is_over:
            allocations.observe(tx, absent.id, State.LOST, reason="lost", detail="The runner no longer knows it.")


def _builds(router: APIRouter, control: Control, builds: Builds) -> None:
    tokens = control.settings.runner_tokens

    @router.post("/builds/claim", response_model=BuildJob | None)
    async def claim(body: Claim, request: Request, wait_s: Wait = 0) -> Response:
        auth.require_agent(request, tokens, body.worker)
        job = await builds.claim(body.worker, wait_s)
        if job is None:
            return Response(status_code=204)
        return Response(job.model_dump_json(), media_type="application/json")

    @router.post("/builds/{operation}/report", response_model=BuildReply)
    async def report(operation: str, body: BuildBody, request: Request) -> BuildReply:
        _require_any(request, tokens)
        return await builds.report(operation, body)

    @router.get("/sources/{sha256}")
    async def source(sha256: str, request: Request) -> Response:
        _require_any(request, tokens)
        return builds.source(sha256)


def _require_any(request: Request, tokens: dict[str, str]) -> None:
    """Any runner's token."""
    given = auth.bearer(request)
    name = next((name for name, token in tokens.items() if auth.is_same(token, given)), "a runner")
    auth.require_agent(request, tokens, name)
