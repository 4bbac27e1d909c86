"""Moves on the platform: a warm promotion, the same with the old process frozen, a crash, a drain.

Rules of this room: each scenario waits for the settled account and holds it against what the people saw, session by
session. The framework stores on its own every 30 s from the start of its process; scenarios that need such a record,
or need none, say so and wait for the tick.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bench.crowd import Size
from bench.ground import finished, tell
from bench.vango.account import age_violations, disagreements, stages_ms
from bench.vango.board import Board
from bench.vango.crowd import TICK_DONE_S, WARM_UP_S, Moved, after_tick, cut_before, losses_s, moved
from moorage.system.clock import monotonic_s, now_ms
from moorage.wire.api import AllocationView, OperationView
from tests.support.vango.crowd import Tally

WORST_PHASE_S: Final = 28.0  # a crash that comes just before the next tick
DRAIN_DEADLINE_S: Final = 10.0
TOLD_COUNT: Final = 10


@dataclass(frozen=True, slots=True)
class Move:
    """One move: what the people saw, the platform's settled account, and where the two differ."""

    tally: Tally
    operation: OperationView  # the one that has the account
    disagreements: Sequence[str]
    unanswered_count: int
    failed_opens: Mapping[str, int]
    busy_cores: float
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def account(self) -> dict[str, Any]:
        """What the platform says has become of each session."""
        return dict(self.operation.facts["account"])


def _judged(seen: Moved, operation: OperationView, **facts: Any) -> Move:
    lines = disagreements(operation.facts["account"], seen.tally.fates)
    tell(f"  {operation.kind} {operation.state}: {operation.stages[-1].note}; {stages_ms(operation)}")
    for line in lines[:TOLD_COUNT]:
        tell(f"  DISAGREEMENT {line}")
    return Move(seen.tally, operation, lines, seen.unanswered_count, seen.failed_opens, seen.busy_cores, facts)


def _aged(seen: Moved, operation: OperationView, ended_s: float) -> Move:
    """The same where a process came to an end that it could not foresee: also what is lacking since, and for how long
    back."""
    losses = losses_s(seen.people, seen.before, ended_s)
    violations = age_violations(operation.facts["account"], losses)
    for line in violations[:TOLD_COUNT]:
        tell(f"  AGE {line}")
    return _judged(seen, operation, losses_s=losses, age_violations=violations)


async def warm(board: Board, crowd_of: Size) -> Move:
    """Version 1 to version 2, handed over; the platform chooses that by itself."""
    await board.serve("v1")
    promotions: list[OperationView] = []

    async def promote() -> None:
        promotions.append(await board.promote("v2"))

    async with moved(board.place, promote, crowd_of) as seen:
        return _judged(seen, await finished(board.api, promotions[0].children[0]))


async def frozen(board: Board, crowd_of: Size) -> Move:
    """The same, while the old process can do nothing. Half of the people have been there for a tick, half have not."""
    old = await board.serve("v1")
    promotions: list[OperationView] = []
    stopped_s: list[float] = []

    async def tick() -> None:
        await _after_tick(old, TICK_DONE_S)

    async def promote() -> None:
        stopped_s.append(monotonic_s())
        os.kill(_pid(old), signal.SIGSTOP)
        promotions.append(await board.promote("v2"))

    late_count = crowd_of.people // 2
    async with moved(board.place, promote, crowd_of, late_count=late_count, meanwhile=tick) as seen:
        return _aged(seen, await finished(board.api, promotions[0].children[0]), stopped_s[0])


async def crash(board: Board, crowd_of: Size, *, phase_s: float) -> Move:
    """kill -9 of the only allocation, this long after a tick that everybody has lived through."""
    old = await board.serve("v2")
    killed: list[tuple[float, int]] = []

    async def tick() -> None:
        await _after_tick(old, phase_s - WARM_UP_S)

    async def kill() -> None:
        killed.append((monotonic_s(), now_ms()))
        os.kill(_pid(old), signal.SIGKILL)

    async with moved(board.place, kill, crowd_of, meanwhile=tick) as seen:
        killed_s, killed_ms = killed[0]
        return _aged(seen, await finished(board.api, await board.newest("replacement", since_ms=killed_ms)), killed_s)


async def drain(board: Board, crowd_of: Size) -> Move:
    """Version 1 to version 2, with everybody left where they are for some seconds; the rest is handed over then."""
    await board.serve("v1")
    children: list[str] = []
    deadlines_s: list[float] = []

    async def promote() -> None:
        view = await board.promote("v2", mode="drain", drain_deadline_s=DRAIN_DEADLINE_S)
        children.extend(view.children)
        started_ms = (await _told(board, children[0], "started_ms")).facts["started_ms"]
        deadlines_s.append(monotonic_s() + (started_ms - now_ms()) / 1000 + DRAIN_DEADLINE_S)
        await _told(board, children[0], "deadline_reached")

    async with moved(board.place, promote, crowd_of) as seen:
        cut_count = cut_before(seen.people, seen.before, deadlines_s[0])
        operation = await finished(board.api, children[0])
        return _judged(seen, operation, cut_before_deadline=cut_count)


async def _told(board: Board, operation: str, fact: str) -> OperationView:
    """An operation once it has recorded a fact. Raises RuntimeError when it ends without."""
    view = await board.api.operation(operation)
    while not view.facts.get(fact):
        if view.finished:
            raise RuntimeError(f"{operation} ended as {view.state} without {fact}: {view.problem}")
        view = await board.api.operation(operation, after_seq=view.stages[-1].seq if view.stages else -1, wait_s=2)
    return view


async def _after_tick(allocation: AllocationView, phase_s: float) -> None:
    assert allocation.ready_ms is not None, "an allocation that serves was ready"
    await after_tick((now_ms() - allocation.ready_ms) / 1000, phase_s)


def _pid(allocation: AllocationView) -> int:
    assert allocation.pid is not None, "an allocation that serves has a process"
    return allocation.pid
