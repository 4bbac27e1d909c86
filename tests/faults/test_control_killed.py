"""kill -9 of the control plane in the middle of a hand-over: the next one goes on, and the account is right."""

from __future__ import annotations

import signal

import pytest

from moorage.wire.api import OperationView
from tests.faults.town import APP, begin_restart, check_calm, child_of, town
from tests.support.platform import Platform
from tests.support.processes import back
from tests.support.stages import Moment, signals_at
from tests.support.truth import owner, rows

pytestmark = pytest.mark.servers

TRIES = 3  # a stage may last less than a millisecond: the kill may come too late
MOMENTS = {
    "refusing_new": Moment("refusing_new", {"baseline": False}),
    "cutting": Moment("cutting", {"cut_ms": False}),
    "cut": Moment("cutting", {"cut_ms": True}),
    "storing": Moment("storing"),
    "fenced": Moment("fenced"),
    "admitting": Moment("admitting"),
}


@pytest.mark.parametrize("stage", MOMENTS)
async def test_a_hand_over_survives_the_death_of_its_control_plane(board: Platform, stage: str) -> None:
    before, serving = owner(board, APP), await board.allocation(APP)
    async with town(board) as people:
        for _ in range(TRIES):
            people.before = {p.name: len(p.welcomes) for p in people.people}
            killed, done = await restart_and_kill(board, MOMENTS[stage])
            await people.all_back()
            if killed:
                break
        await people.all_stored()
    assert killed, f"the control plane was killed at {stage}"
    assert done.state == "settled", done.problem
    move = await child_of(board, done)
    assert (move.id, move.state) == (killed, "settled"), move.problem
    people.check_moved(move.facts["account"])
    assert owner(board, APP)["epoch"] == before["epoch"]
    assert (await check_calm(board)).number != serving.number
    tokens = [row["token"] for row in rows(board, "select token from operation_stages where operation = ?", killed)]
    assert tokens == sorted(tokens)
    assert tokens[-1] >= 2, "another control plane has finished it"


async def restart_and_kill(board: Platform, moment: Moment) -> tuple[str | None, OperationView]:
    """Restart the app and kill the control plane at a moment of its hand-over; which one, if so, and the end."""
    control = board.pid_of("control")
    async with signals_at(board, "handover", moment, [(control, signal.SIGKILL)]) as watch:
        restart = await begin_restart(board)
        killed = await watch.met()
    if killed:
        await back(board, "control", control)
    return killed, await board.finished(restart)
