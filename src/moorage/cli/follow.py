"""Following an operation to its end: its stages as they are recorded, live in a terminal, as lines elsewhere.

A follower only watches. It may lose the connection, wait and go on; leaving it (Ctrl-C) leaves the operation alone.
Stages come by long poll; how long a stage took is told by the server's own times.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.text import Text

from moorage.cli.account import account_of, show_account
from moorage.cli.call import is_passing
from moorage.cli.screen import Screen
from moorage.cli.words import command, lasted, plain, spaced
from moorage.domain.errors import Problem, Unavailable
from moorage.system.clock import monotonic_s, pause
from moorage.system.rand import jitter

if TYPE_CHECKING:
    from moorage.cli.call import Call
    from moorage.wire.api import OperationView, StageView

POLL_WAIT_S = 20.0
SILENCE_MAX_S = 60.0  # a control plane that does not answer for this long has to be looked at by a person
SILENCE_PAUSE_S = 0.5
FRAMES_PER_S = 8
_STATE_WIDTH_CHARS = 14


async def follow(call: Call, id: str) -> OperationView:
    """Show the stages of an operation until it is over, and return it. Raises Refused, or Unavailable after a long
    silence; the operation goes on without a follower."""
    view = await _operation(call, id, after=-1, wait_s=0)
    try:
        with _Stages(call.screen, view).watching() as stages:
            stages.take(view)
            while not view.finished:
                after = view.stages[-1].seq if view.stages else -1
                view = await _operation(call, id, after=after, wait_s=POLL_WAIT_S)
                stages.take(view)
    finally:
        if not view.finished:
            call.screen.aside(f"The operation goes on: {command('moorage', 'ops', id, '--follow')}")
    return view


async def show_moves(call: Call, parent: OperationView) -> list[OperationView]:
    """Show what an operation has started (a hand-over, a drain), as far as it is, and the account of the sessions.

    Nothing is waited for here: the parent has waited as long as it is worth, and a drain may take hours.
    """
    found = []
    for id in parent.children:
        child = await _operation(call, id, after=-1, wait_s=0)
        call.screen.say()
        call.screen.say(Text(kind_name(child.kind), style="bold"), f" {child.id}: {spaced(child.state)}")
        show_stages(call.screen, child)
        account = account_of(child)
        if account is not None:
            show_account(call.screen, account)
        if not child.finished:
            call.screen.say(f"It goes on: {command('moorage', 'ops', id, '--follow')}")
        found.append(child)
    own = account_of(parent)
    if own is not None and not any(account_of(child) for child in found):  # the same one is not shown twice
        show_account(call.screen, own)
    return found


def show_stages(screen: Screen, operation: OperationView) -> None:
    """The recorded stages, one line each."""
    for stage in operation.stages:
        screen.say(_stage_line(stage, operation))


def kind_name(kind: str) -> str:
    """An operation's kind at the beginning of a line."""
    return {"handover": "Hand-over"}.get(kind, spaced(kind).capitalize())


def problem_of(operation: OperationView) -> Problem:
    """Why an operation ended without success."""
    said = dict(operation.problem or {})
    known = {name: str(said.pop(name, "")) for name in ("code", "title", "detail", "hint")}
    status = said.pop("status", 409)
    said.pop("type", None)
    if known["code"]:
        return Problem(**known, status=status if isinstance(status, int) else 409, facts=said)
    note = operation.stages[-1].note if operation.stages else ""
    return Problem(
        f"operation-{operation.state.replace('_', '-')}",
        f"The {operation.kind} ended as {spaced(operation.state)}",
        note,
        f"Look at {command('moorage', 'ops', operation.id)}",
        facts=said,
    )


async def _operation(call: Call, id: str, *, after: int, wait_s: float) -> OperationView:
    """The operation; a control plane that does not answer is asked again for a while."""
    deadline = monotonic_s() + SILENCE_MAX_S
    warned = False
    while True:
        try:
            return await call.api.operation(id, after_seq=after, wait_s=wait_s)
        except Unavailable as lost:
            if monotonic_s() > deadline or not is_passing(lost):
                raise
            if not warned:
                call.screen.aside("The control plane does not answer; trying again ...")
            warned = True
            await pause(jitter(SILENCE_PAUSE_S))


class _Stages:
    """The stages of one operation on the screen."""

    def __init__(self, screen: Screen, operation: OperationView) -> None:
        self._screen, self._operation = screen, operation
        self._seen = -1
        self._current: StageView | None = None
        self._since_s = monotonic_s()
        self._spinner = Spinner("dots", style="cyan")
        self._live: Live | None = None

    @contextmanager
    def watching(self) -> Iterator[_Stages]:
        """While watching, the current stage moves in a terminal."""
        if not self._screen.live:
            yield self
            return
        self._live = Live(
            self, console=self._screen.console, refresh_per_second=FRAMES_PER_S, transient=True, redirect_stderr=False
        )
        with self._live:
            yield self

    def take(self, operation: OperationView) -> None:
        """Show the stages that are new."""
        self._operation = operation
        for stage in operation.stages:
            if stage.seq > self._seen:
                self._seen = stage.seq
                self._show(stage)
        if operation.finished and self._live and self._current:
            self._done(self._current, operation.finished_ms or operation.updated_ms, last=True)
            self._current = None

    def _show(self, stage: StageView) -> None:
        if self._live is None:
            self._line(stage)
            return
        if self._current is not None and self._current.state != stage.state:
            self._done(self._current, stage.at_ms, last=False)
        started = self._current if self._current and self._current.state == stage.state else None
        # A note within a stage replaces the text; the stage's own time goes on.
        self._current = stage.model_copy(update={"at_ms": started.at_ms}) if started else stage
        self._since_s = self._since_s if started else monotonic_s()

    def _line(self, stage: StageView) -> None:
        """A stage for programs and logs: seconds since the operation began, state, note."""
        document: dict[str, Any] = {"operation": self._operation.id, "kind": self._operation.kind, "stage": stage}
        self._screen.document(document, line=True)
        self._screen.say(_stage_line(stage, self._operation))

    def _done(self, stage: StageView, until_ms: int, *, last: bool) -> None:
        """A finished stage in a terminal; the last one tells how the operation ended and how long all of it took."""
        failed = last and not self._operation.succeeded
        mark = Text("✗", style="red") if failed else Text("✓", style="green")
        passed = lasted(until_ms - (self._operation.created_ms if last else stage.at_ms))
        total = " in all" if last else ""
        name = Text(f" {spaced(stage.state):<{_STATE_WIDTH_CHARS}} ", style="bold" if last else "")
        line = Text("  ") + mark + name + Text(f"{passed:>8}{total}", style="dim")
        if stage.note:
            line.append(f"  {_one_line(stage.note)}", style="dim")
        if not last:  # how it ended is told whole; `moorage ops` has the rest
            line.truncate(self._screen.console.width, overflow="ellipsis")
        self._screen.say(line)

    def __rich__(self) -> Padding | Text:
        """The current stage with its time so far."""
        if self._current is None:
            return Text("")
        passed = lasted((monotonic_s() - self._since_s) * 1_000)
        text = Text(f"{spaced(self._current.state):<{_STATE_WIDTH_CHARS}} ", style="bold", no_wrap=True)
        text.append(f"{passed:>8}", style="dim not bold")
        text.append(f"  {_one_line(self._current.note)}", style="dim not bold")
        text.truncate(max(self._screen.console.width - 5, 10), overflow="ellipsis")
        self._spinner.update(text=text)
        return Padding(self._spinner, (0, 0, 0, 2))


def _stage_line(stage: StageView, operation: OperationView) -> str:
    passed = lasted(stage.at_ms - operation.created_ms)
    return f"  {passed:>8}  {spaced(stage.state):<{_STATE_WIDTH_CHARS}} {_one_line(stage.note)}".rstrip()


def _one_line(note: str) -> str:
    return " ".join(plain(note).split())
