"""`moorage restart` and `moorage destroy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moorage.cli.call import AppArgument, Call, Exit, KeyFlag, NoWaitFlag, checked_app, new_key
from moorage.cli.verbs.promote import DrainFlag, HandoverFlag, find_app, mode_of
from moorage.cli.words import command, count_of
from moorage.domain.errors import Problem, Refused

if TYPE_CHECKING:
    from moorage.wire.api import OperationRef


async def restart(
    call: Call,
    app: AppArgument,
    drain: DrainFlag = False,
    handover: HandoverFlag = False,
    no_wait: NoWaitFlag = False,
    idempotency_key: KeyFlag = None,
) -> Exit | None:
    """Replace the running allocations by fresh ones of the same artifact."""
    from moorage.wire.api import RestartRequest

    request = RestartRequest(mode=mode_of(drain, handover))
    key = new_key(idempotency_key)
    started = await call.change(lambda: call.api.restart(checked_app(app), request, key=key))
    return await _finish(call, started, wait=not no_wait, done=f"{app} runs on fresh allocations.")


async def destroy(
    call: Call,
    app: AppArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    no_wait: NoWaitFlag = False,
    idempotency_key: KeyFlag = None,
) -> Exit | None:
    """Remove an app: routes, processes, sessions, deployments, secrets."""
    key = new_key(idempotency_key)
    if not yes:
        await _confirm(call, checked_app(app))
    started = await call.change(lambda: call.api.destroy(checked_app(app), key=key))
    return await _finish(call, started, wait=not no_wait, done=f"{app} is gone.")


async def _confirm(call: Call, app: str) -> None:
    """Ask a person. Raises Refused (`confirmation-required`) when there is none, or when the answer is no."""
    if not call.may_ask:
        raise Refused(_unconfirmed(app))
    view = await find_app(call, app)
    serving = "serves nothing" if view.serving is None else f"is served by deployment {view.serving}"
    sockets = count_of(view.attached_sockets, "attached socket")
    typer.echo(f"{app} {serving}, with {sockets}. Its deployments, sessions and secrets will be removed.", err=True)
    if not typer.confirm(f"Destroy {app}?", default=False, err=True):
        raise Refused(_unconfirmed(app))


async def _finish(call: Call, started: OperationRef, *, wait: bool, done: str) -> Exit:
    """Follow an operation that was started, and say how it ended."""
    from moorage.cli.follow import follow, problem_of, show_moves
    from moorage.cli.screen import as_json

    if not wait:
        call.screen.document(started)
        call.screen.say(f"Started: {command('moorage', 'ops', started.operation, '--follow')}")
        return Exit.OK
    operation = await follow(call, started.operation)
    moves = await show_moves(call, operation)
    call.screen.document({**as_json(operation), "moves": moves}, line=True)
    if not operation.succeeded:
        call.screen.remark(problem_of(operation))
        return Exit.ENDED
    call.screen.say(done)
    return Exit.OK


def _unconfirmed(app: str) -> Problem:
    return Problem(
        "confirmation-required",
        f"Destroying {app} was not confirmed",
        "Nothing was changed.",
        f"Say so on the command line: {command('moorage', 'destroy', app, '--yes')}",
        facts={"app": app},
    )
