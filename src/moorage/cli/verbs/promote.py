"""`moorage promote` and `moorage rollback`: read the report, name deployment and epoch, ask, follow.

Nothing here decides whether a promotion is allowed: the report says so, and the server decides again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from moorage.cli.call import (
    ACKNOWLEDGEMENT_CODES,
    AppArgument,
    Call,
    Exit,
    KeyFlag,
    NoWaitFlag,
    checked_app,
    new_key,
)
from moorage.cli.words import command, spaced
from moorage.domain.errors import Problem, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moorage.wire.api import AppView, DeploymentView, PromotionReport

DrainFlag = Annotated[bool, typer.Option("--drain", help="Earlier sessions stay where they are until they end.")]
HandoverFlag = Annotated[bool, typer.Option("--handover", help="Earlier sessions are handed over at once.")]
DeadlineFlag = Annotated[
    float | None, typer.Option("--drain-deadline", metavar="SECONDS", min=0, help="How long a drain may take.")
]
AcknowledgeFlag = Annotated[
    str | None, typer.Option("--acknowledge", metavar="DIGEST", help="What you have read and accept, from the report.")
]
EpochFlag = Annotated[
    int | None, typer.Option("--epoch", metavar="E", min=0, help="The epoch you expect, instead of the one read now.")
]


@dataclass(frozen=True, slots=True)
class Wish:
    """The flags of a promotion or rollback. `mode` None leaves the choice to the platform."""

    mode: Literal["handover", "drain"] | None
    acknowledge: str | None
    epoch: int | None
    drain_deadline_s: float | None
    wait: bool
    key: str
    rollback: bool = False

    def repeated(self, app: str, number: int, digest: str) -> str:
        """The command that does the same with an acknowledgement."""
        words: list[object] = ["moorage", "rollback" if self.rollback else "promote", app]
        words += ["--to" if self.rollback else "--deployment", number]
        words += [f"--{self.mode}"] if self.mode else []
        words += ["--epoch", self.epoch] if self.epoch is not None else []
        words += ["--drain-deadline", f"{self.drain_deadline_s:g}"] if self.drain_deadline_s is not None else []
        return command(*words, "--acknowledge", digest)


async def promote(
    call: Call,
    app: AppArgument,
    deployment: Annotated[
        int | None,
        typer.Option("--deployment", metavar="N", min=1, help="Deployment to promote; the newest one with a preview."),
    ] = None,
    drain: DrainFlag = False,
    handover: HandoverFlag = False,
    drain_deadline: DeadlineFlag = None,
    acknowledge: AcknowledgeFlag = None,
    epoch: EpochFlag = None,
    no_wait: NoWaitFlag = False,
    idempotency_key: KeyFlag = None,
) -> Exit | None:
    """Make a deployment the owner of the app's production route."""
    mode, key = mode_of(drain, handover, drain_deadline), new_key(idempotency_key)
    wish = Wish(mode, acknowledge, epoch, drain_deadline, not no_wait, key)
    number = deployment if deployment is not None else await _newest(call, checked_app(app))
    return await carry_out(call, checked_app(app), number, wish)


async def rollback(
    call: Call,
    app: AppArgument,
    to: Annotated[
        int | None,
        typer.Option("--to", metavar="N", min=1, help="Deployment to go back to; the previous owner."),
    ] = None,
    drain: DrainFlag = False,
    handover: HandoverFlag = False,
    drain_deadline: DeadlineFlag = None,
    acknowledge: AcknowledgeFlag = None,
    epoch: EpochFlag = None,
    no_wait: NoWaitFlag = False,
    idempotency_key: KeyFlag = None,
) -> Exit | None:
    """Make an earlier deployment the owner again."""
    mode, key = mode_of(drain, handover, drain_deadline), new_key(idempotency_key)
    wish = Wish(mode, acknowledge, epoch, drain_deadline, not no_wait, key, rollback=True)
    number = to if to is not None else await _previous_owner(call, checked_app(app))
    return await carry_out(call, checked_app(app), number, wish)


def mode_of(drain: bool, handover: bool, deadline_s: float | None = None) -> Literal["handover", "drain"] | None:
    """The mode that the flags ask for."""
    if drain and handover:
        raise typer.BadParameter("choose one of --drain and --handover")
    if handover and deadline_s is not None:
        raise typer.BadParameter("a hand-over does not wait: --drain-deadline goes with --drain")
    return "drain" if drain else "handover" if handover else None


async def carry_out(call: Call, app: str, number: int, wish: Wish) -> Exit:
    """Report, acknowledgement, promotion, account. Raises Refused (`promotion-blocked` or the report's own problem)."""
    from moorage.cli.account import show_report
    from moorage.system.clock import now_ms
    from moorage.wire.api import PromoteRequest

    report = await call.api.promotion_report(app, number, rollback=wish.rollback, mode=wish.mode)
    show_report(call.screen, report, rollback=wish.rollback, asked_mode=wish.mode, now=now_ms())
    if wish.drain_deadline_s is not None and (wish.mode or report.mode) != "drain":
        call.screen.aside(
            "Nothing drains, so the --drain-deadline has no effect. To let earlier sessions stay: --drain"
        )
    # The report speaks about the epoch as it is now. Another expectation is the server's to judge: it may be stale, or
    # the repetition of a request that has been granted.
    if wish.epoch in (None, report.epoch):
        if report.verdict == "blocked":
            raise Refused(_blocked(report))
        if report.verdict == "needs_acknowledgement" and wish.acknowledge is None:
            return _ask_acknowledgement(call, report, wish)
    request = PromoteRequest(
        deployment=number,
        expected_epoch=report.epoch if wish.epoch is None else wish.epoch,
        mode=wish.mode,
        acknowledge=wish.acknowledge,
        drain_deadline_s=wish.drain_deadline_s,
    )
    send = call.api.rollback if wish.rollback else call.api.promote
    started = await call.change(lambda: send(app, request, key=wish.key))
    if not wish.wait:
        call.screen.document(started)
        call.screen.say(f"Started: {command('moorage', 'ops', started.operation, '--follow')}")
        return Exit.OK
    return await _follow(call, started.operation, report, wish)


async def _follow(call: Call, id: str, report: PromotionReport, wish: Wish) -> Exit:
    """Follow to the end, then tell what became of the sessions."""
    from moorage.cli.follow import follow, problem_of, show_moves
    from moorage.cli.screen import as_json

    call.screen.say()
    operation = await follow(call, id)
    moves = await show_moves(call, operation)
    call.screen.document({**as_json(operation), "moves": moves, "report": report}, line=True)
    if not operation.succeeded:
        problem = problem_of(operation)
        call.screen.remark(problem)
        if problem.code in ACKNOWLEDGEMENT_CODES:
            return Exit.ACKNOWLEDGEMENT
        return Exit.REFUSED if operation.state == "rejected" else Exit.ENDED  # rejected: nothing was changed
    url = next((found.url for found in await call.api.apps() if found.name == report.app), "")
    call.screen.say()
    behind = operation.facts.get("edges_behind") or ()
    if behind:
        call.screen.say(f"Deployment {report.deployment} owns the route of {report.app}, but is not served yet:")
        call.screen.say(f"{', '.join(behind)} has not acknowledged. See: moorage status")
    else:
        call.screen.say(f"{report.app} is served by deployment {report.deployment}: {url}")
    unwell = [child for child in moves if child.finished and not child.succeeded]
    for child in unwell:
        call.screen.aside(f"The {child.kind} {child.id} ended as {spaced(child.state)}.")
    return Exit.ENDED if unwell else Exit.OK


def _ask_acknowledgement(call: Call, report: PromotionReport, wish: Wish) -> Exit:
    """Show what must be accepted and the command that accepts it."""
    from moorage.wire.problem import problem_document

    digest = report.acknowledge or ""
    again = wish.repeated(report.app, report.deployment, digest)
    found = problem_from(report.problem) or Problem("acknowledgement-required", "This needs an acknowledgement")
    call.screen.document({**problem_document(found), "report": report, "command": again})
    call.screen.remark(Problem(found.code, found.title, found.detail, f"After reading the report: {again}"))
    return Exit.ACKNOWLEDGEMENT


def problem_from(document: dict[str, object] | None) -> Problem | None:
    """A problem that came as a document."""
    if not document or not document.get("code"):
        return None
    known = {"code", "title", "detail", "hint", "status", "type"}
    status = document.get("status", 409)
    return Problem(
        str(document["code"]),
        str(document.get("title", "")),
        str(document.get("detail", "")),
        str(document.get("hint", "")),
        status if isinstance(status, int) else 409,
        {name: value for name, value in document.items() if name not in known},
    )


def _blocked(report: PromotionReport) -> Problem:
    return problem_from(report.problem) or Problem(
        "promotion-blocked",
        "This is blocked",
        "; ".join(report.reasons),
        "See `moorage deployments` and `moorage ops`.",
    )


async def _newest(call: Call, app: str) -> int:
    """The newest deployment with a preview, said by its number."""
    found = await call.api.deployments(app)
    candidate = max((d for d in found if d.state == "preview_ready"), key=lambda d: d.number, default=None)
    if candidate is None:
        raise Refused(_nothing_to_promote(app, found))
    if candidate.serving:
        raise Refused(_serves_already(candidate))
    later = [d for d in found if d.number > candidate.number]
    if later:
        states = ", ".join(f"{d.number} is {spaced(d.state)}" for d in sorted(later, key=lambda d: d.number))
        call.screen.say(f"Deployment {candidate.number} is the newest with a preview ({states}).")
    return candidate.number


async def _previous_owner(call: Call, app: str) -> int:
    """The deployment that owned the route before the one that does now, and is older than it."""
    view = await find_app(call, app)
    if view.serving is None:
        raise Refused(
            Problem(
                "app-not-promoted",
                f"{app} serves nothing yet",
                hint=f"Promote a deployment first: moorage promote {app}",
            )
        )
    history = (await call.api.explain(view.url)).history
    earlier = [
        (int(entry["epoch"]), int(entry["deployment_number"]))
        for entry in history
        if int(entry["deployment_number"]) < view.serving
    ]
    if not earlier:
        raise Refused(_no_previous_owner(app, view.serving))
    return max(earlier)[1]


async def find_app(call: Call, app: str) -> AppView:
    """The app. Raises Refused (`app-unknown`)."""
    for view in await call.api.apps():
        if view.name == app:
            return view
    raise Refused(
        Problem("app-unknown", f"There is no app {app!r}", hint="See `moorage apps`.", status=404, facts={"app": app})
    )


def _nothing_to_promote(app: str, found: Sequence[DeploymentView]) -> Problem:
    states = ", ".join(f"{d.number} is {spaced(d.state)}" for d in found[:5])
    return Problem(
        "nothing-to-promote",
        f"{app} has no deployment with a preview",
        states or "It has no deployment at all.",
        "Deploy one first: moorage deploy",
        facts={"app": app},
    )


def _serves_already(newest: DeploymentView) -> Problem:
    return Problem(
        "already-owner",
        f"Deployment {newest.number} owns the route already",
        "It is the newest deployment with a preview.",
        f"Name another one with --deployment, or start it afresh: {command('moorage', 'restart', newest.app)}",
        facts={"deployment": newest.number},
    )


def _no_previous_owner(app: str, serving: int) -> Problem:
    return Problem(
        "no-previous-owner",
        f"Nothing older has owned the route of {app}",
        f"Deployment {serving} owns it.",
        f"Name a deployment: {command('moorage', 'rollback', app, '--to')} N (see `moorage deployments {app}`)",
        facts={"serving": serving},
    )
