"""How long a promotion takes beyond the app's own start.

Rules of this room: the promotion's time runs from the request to the record of `healthy`, bake included. Two
readings of "the app's own start" are taken of the same promotion: from the allocation's record to ready (what the
platform calls a start, with verifying the files and switching on the store's user), and from the process's start to
its first healthy answer (what the app itself needs); the second leaves more to the platform and is the stricter one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.ground import Ground, finished, platform, tell
from bench.noise import quiet
from examples.board.materialise import materialise
from moorage.client.api import Api
from moorage.domain.limits import BAKE_S
from moorage.runner.record import Place, read_record
from moorage.wire.api import AllocationView, OperationView, PromoteRequest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
ROUNDS_COUNT = 7


@dataclass(frozen=True, slots=True)
class Promotion:
    """The times of one promotion, in seconds."""

    total_s: float
    start_s: float  # allocation recorded to ready
    process_s: float  # process started to ready

    @property
    def overhead_s(self) -> float:
        """Beyond the app's own process, bake included: the strictest reading."""
        return self.total_s - self.process_s

    @property
    def overhead_after_start_s(self) -> float:
        """Beyond what the platform calls a start, bake included."""
        return self.total_s - self.start_s


async def measure(*, rounds: int = ROUNDS_COUNT, patience_s: float = 0.0) -> dict[str, list[Promotion]]:
    """Promotions of an app that nobody is attached to: `board` (SDK, hand-over) and `plain` (drain), by app.

    Each waits up to `patience_s` for a quiet machine.
    """
    async with platform() as ground:
        with tempfile.TemporaryDirectory(prefix="moorage-bench-") as work:
            board = materialise("v1", Path(work) / "board")
            plain = shutil.copytree(EXAMPLES / "plain", Path(work) / "plain")
            return {
                source.name: await _promote_in_turns(ground, source, rounds, patience_s) for source in (board, plain)
            }


async def _promote_in_turns(ground: Ground, source: Path, rounds: int, patience_s: float) -> list[Promotion]:
    """The first promotion, which has nothing to replace, is not counted."""
    numbers = [(await ground.deploy(source))[1] for _ in range(2)]
    app, found = source.name, []
    async with ground.api() as api:
        for turn in range(rounds + 1):
            await quiet(patience_s)
            view = await _promote(api, app, numbers[turn % 2], epoch=turn)
            allocation = await _allocation(api, app, view)
            if turn:
                found.append(times(ground.home, view, allocation))
                tell(f"  {app}: {found[-1].total_s:.3f} s, {found[-1].overhead_s:.3f} s beyond the app's process")
    return found


async def _promote(api: Api, app: str, number: int, *, epoch: int) -> OperationView:
    request = PromoteRequest(deployment=number, expected_epoch=epoch)
    asked = await api.promote(app, request, key=f"bench-{app}-{epoch}")
    view = await finished(api, asked.operation)
    if view.state != "healthy":
        raise RuntimeError(f"a promotion of {app} ended as {view.state}: {view.problem}")
    return view


async def _allocation(api: Api, app: str, promotion: OperationView) -> AllocationView:
    wanted: Sequence[str] = promotion.facts["allocations"]
    return next(found for found in await api.allocations(app, all=True) if found.id == wanted[0])


def times(home: Path, promotion: OperationView, allocation: AllocationView) -> Promotion:
    """The times as they were recorded: by the control plane, and by the runner in the allocation's folder."""
    record = read_record(Place(home / "allocations" / allocation.id))
    assert record is not None, f"the runner kept no record of {allocation.id}"
    marks = (promotion.created_ms, promotion.finished_ms, allocation.created_ms, allocation.ready_ms)
    asked, ended, planned, ready = (_known(mark) for mark in marks)
    return Promotion(
        (ended - asked) / 1000,
        (ready - planned) / 1000,
        (_known(record.ready_ms) - _known(record.started_ms)) / 1000,
    )


def _known(at_ms: int | None) -> int:
    assert at_ms is not None, "a healthy promotion has all its times"
    return at_ms


def without_bake_s(overhead_s: float) -> float:
    """The overhead without the pause in which the new owner is watched."""
    return overhead_s - BAKE_S
