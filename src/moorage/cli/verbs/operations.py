"""`moorage ops`: the newest operations, one with its stages, following one, canceling one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moorage.cli.call import Call, Exit, KeyFlag, checked_app, new_key
from moorage.cli.words import ago, command, lasted, spaced
from moorage.domain.errors import Problem, Refused
from moorage.domain.ids import Prefix, is_id

if TYPE_CHECKING:
    from moorage.wire.api import OperationView


async def ops(
    call: Call,
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One operation.", show_default=False)] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until it is over.")] = False,
    app: Annotated[str | None, typer.Option("--app", metavar="APP", help="Operations of this app alone.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Ask it to stop; what is committed stays.")] = False,
    idempotency_key: KeyFlag = None,
) -> Exit | None:
    """List operations, or show, follow or cancel one."""
    if id is None:
        if follow or cancel:
            raise typer.BadParameter("--follow and --cancel need the ID of an operation")
        await _list(call, checked_app(app) if app else None)
        return None
    if not is_id(id, Prefix.OPERATION):
        raise Refused(
            Problem("operation-unknown", f"There is no operation {id}", hint="See `moorage ops`.", status=404)
        )
    if cancel:
        key = new_key(idempotency_key)
        started = await call.change(lambda: call.api.cancel(id, key=key))
        call.screen.say("Asked to stop; what has been committed stays.")
        if not follow:
            call.screen.document(started)
            call.screen.say(f"Watch it: {command('moorage', 'ops', id, '--follow')}")
            return None
    return await (_follow(call, id) if follow else _one(call, id))


async def _list(call: Call, app: str | None) -> None:
    from moorage.cli.table import Column
    from moorage.system.clock import now_ms

    found, now = await call.api.operations(app), now_ms()
    call.screen.document({"items": found})
    columns = [Column("OPERATION"), Column("KIND"), Column("APP", spare=True), Column("STATE", state=True)]
    columns += [Column("STARTED", right=True), Column("TOOK", right=True, spare=True), Column("PROBLEM", flexible=True)]
    rows = [
        (
            o.id,
            o.kind,
            o.app,
            o.state,
            ago(o.created_ms, now),
            lasted((o.finished_ms or now) - o.created_ms),
            (o.problem or {}).get("code", ""),
        )
        for o in found
    ]
    call.screen.table(columns, rows, empty="There was no operation yet.")


async def _one(call: Call, id: str) -> Exit:
    """One operation as it is now."""
    from moorage.cli.account import account_of, show_account
    from moorage.cli.follow import kind_name, problem_of
    from moorage.cli.table import Column
    from moorage.system.clock import now_ms

    operation, now = await call.api.operation(id), now_ms()
    call.screen.document(operation)
    until = operation.finished_ms or now
    call.screen.say(
        f"{kind_name(operation.kind)} of {operation.app}: {spaced(operation.state)}, started "
        f"{ago(operation.created_ms, now)} by {operation.actor}, took {lasted(until - operation.created_ms)}"
        + ("" if operation.finished else " so far")
    )
    columns = [Column("AT", right=True), Column("STAGE", state=True), Column("BY"), Column("NOTE", flexible=True)]
    rows = [(lasted(s.at_ms - operation.created_ms), s.state, s.actor, s.note) for s in operation.stages]
    call.screen.table(columns, rows)
    for child in operation.children:
        call.screen.say(f"Started {child}")
    account = account_of(operation)
    if account is not None:
        show_account(call.screen, account)
    if operation.problem:
        call.screen.remark(problem_of(operation))
    return Exit.OK


async def _follow(call: Call, id: str) -> Exit:
    """Stay until it is over; the exit code tells how it ended."""
    from moorage.cli.account import account_of, show_account
    from moorage.cli.follow import follow, kind_name, problem_of

    first = await call.api.operation(id)
    call.screen.say(f"{kind_name(first.kind)} of {first.app}")
    operation: OperationView = await follow(call, id)
    account = account_of(operation)
    if account is not None:
        show_account(call.screen, account)
    call.screen.document(operation, line=True)
    if operation.succeeded:
        return Exit.OK
    call.screen.remark(problem_of(operation))
    return Exit.ENDED
