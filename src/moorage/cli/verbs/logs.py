"""`moorage logs`: what an app's allocations print, as the runner keeps it; with `-f` also what comes.

An app is named by its allocations: those that run in production (or of a deployment), else the newest that is gone.
A follower of an app goes on with the next allocation after a replacement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moorage.cli.call import Call, Exit, checked_app, is_passing
from moorage.domain.errors import Problem, Refused, Unavailable

if TYPE_CHECKING:
    from moorage.wire.api import AllocationView, LogChunk

POLL_WAIT_S = 20.0
LOOK_AGAIN_S = 1.0  # how soon a new allocation of a followed app is noticed
LOST_PAUSE_S = 1.0
TAIL_ONLY = -1


async def logs(
    call: Call,
    source: Annotated[str, typer.Argument(metavar="APP|NUMBER", help="An app or an allocation.", show_default=False)],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay and print what comes.")] = False,
    deployment: Annotated[
        int | None, typer.Option("--deployment", metavar="N", min=1, help="Of this deployment, its preview included.")
    ] = None,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", metavar="N", min=0, help="Only the last N lines.")
    ] = None,
) -> Exit | None:
    """Print the log of an app or an allocation."""
    number = int(source) if source.isascii() and source.isdigit() else None
    if number is not None:
        targets = [number]
    else:
        targets = [a.number for a in await _of_app(call, checked_app(source), deployment)]
    printer = _Printer(call, prefixed=len(targets) > 1)
    if not follow:
        chunks = [await call.api.logs(target) for target in targets]
        chunks = [_cut(chunk, lines) for chunk in chunks]
        call.screen.document({"items": chunks})
        for chunk in chunks:
            printer.show(chunk)
            printer.end(chunk.allocation)
        return None
    if number is not None:
        await _tail(call, number, printer, lines)
    else:
        await _tail_app(call, source, deployment, targets, printer, lines)
    return None


async def _of_app(call: Call, app: str, deployment: int | None, *, gone_too: bool = True) -> list[AllocationView]:
    """The allocations whose log an app's name means. Raises Refused (`no-allocation`)."""
    live = [a for a in await call.api.allocations(app) if _meant(a, deployment)]
    if live or not gone_too:
        return sorted(live, key=lambda a: a.number)
    gone = [a for a in await call.api.allocations(app, all=True) if _meant(a, deployment)]
    if not gone:
        raise Refused(
            Problem(
                "no-allocation",
                f"{app} has not run yet",
                "There is no allocation whose log could be shown.",
                f"See `moorage deployments {app}`, or name a deployment with --deployment.",
                status=404,
            )
        )
    return [max(gone, key=lambda a: a.number)]


def _meant(allocation: AllocationView, deployment: int | None) -> bool:
    if deployment is not None:
        return allocation.deployment == deployment
    return allocation.environment == "production"


def _cut(chunk: LogChunk, lines: int | None) -> LogChunk:
    """The chunk with its last lines alone."""
    if lines is None:
        return chunk
    kept = chunk.text.splitlines(keepends=True)[-lines:] if lines else []
    return chunk.model_copy(update={"text": "".join(kept)})


class _Printer:
    """Lines of several allocations: each is told from the others once there is more than one."""

    def __init__(self, call: Call, *, prefixed: bool) -> None:
        self._call, self.prefixed = call, prefixed
        self._begun: dict[int, bool] = {}

    def show(self, chunk: LogChunk) -> None:
        """Print a piece; a line that is not complete yet goes on with the next piece."""
        if not self.prefixed:
            self._call.screen.raw(chunk.text)
        for line in chunk.text.splitlines(keepends=True) if self.prefixed else ():
            begun = self._begun.get(chunk.allocation, False)
            self._call.screen.raw(line if begun else f"{chunk.allocation} | {line}")
            self._begun[chunk.allocation] = not line.endswith("\n")
        if chunk.text and not self.prefixed:
            self._begun[chunk.allocation] = not chunk.text.endswith("\n")

    def end(self, allocation: int) -> None:
        """End a line that was left open."""
        if self._begun.pop(allocation, False):
            self._call.screen.raw("\n")


async def _tail(call: Call, number: int, printer: _Printer, lines: int | None) -> None:
    """Print an allocation's log until it is over."""
    offset = TAIL_ONLY
    while True:
        chunk = await _chunk(call, number, offset)
        shown = _cut(chunk, lines) if offset == TAIL_ONLY else chunk
        if shown.text or chunk.over:
            call.screen.document(shown, line=True)
        printer.show(shown)
        if chunk.over:
            printer.end(number)
            call.screen.aside(f"Allocation {number} has ended.")
            return
        offset = chunk.next_offset


async def _chunk(call: Call, number: int, offset: int) -> LogChunk:
    """The next piece; a control plane that restarts is waited for."""
    from moorage.system.clock import pause

    warned = False
    while True:
        try:
            return await call.api.logs(number, offset=offset, wait_s=0 if offset == TAIL_ONLY else POLL_WAIT_S)
        except Unavailable as lost:
            if offset == TAIL_ONLY or not is_passing(lost):
                raise
            if not warned:
                call.screen.aside("The control plane does not answer; trying again ...")
            warned = True
            await pause(LOST_PAUSE_S)


async def _tail_app(
    call: Call, app: str, deployment: int | None, first: list[int], printer: _Printer, lines: int | None
) -> None:
    """Print the logs of an app's allocations, those that come later included, until interrupted."""
    import asyncio

    from moorage.system.clock import pause

    known: set[int] = set()
    async with asyncio.TaskGroup() as tasks:
        wanted = list(first)
        while True:
            for number in wanted:
                if number not in known:
                    known.add(number)
                    printer.prefixed = len(known) > 1
                    tasks.create_task(_tail(call, number, printer, lines))
            await pause(LOOK_AGAIN_S)
            try:
                wanted = [a.number for a in await _of_app(call, app, deployment, gone_too=False)]
            except Unavailable:
                wanted = []
