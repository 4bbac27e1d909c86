"""The session store dies in the middle of a hand-over: before the cut it stops there, after the cut it waits."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from demo.ledger import marks
from moorage.domain.errors import Unavailable
from moorage.wire.api import AllocationView, OperationView
from tests.faults.town import APP, Town, begin_promote, check_calm, child_of, town
from tests.support.platform import Platform
from tests.support.stages import Moment, signals_at
from tests.support.truth import history, owner, rows
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

TRIES = 3  # a stage may pass in less than a millisecond


@dataclass
class Struck:
    """A promotion whose hand-over has lost the store, and how everything was before it."""

    promotion: str
    owner: dict[str, Any]
    serving: AllocationView


@asynccontextmanager
async def store_dies_at(board: Platform, people: Town, moment: Moment) -> AsyncIterator[Struck]:
    """Promote until a hand-over loses the store at the moment; nobody starts it again before the block ends."""
    runner = board.pid_of("runner")
    try:
        for _ in range(TRIES):
            dead = (await board.store(APP)).identity
            assert dead is not None
            signals = [(runner, signal.SIGSTOP), (dead.pid, signal.SIGKILL)]
            before, serving = owner(board, APP), await board.allocation(APP)
            async with signals_at(board, "handover", moment, signals) as watch:
                promotion = await begin_promote(board)
                met = await watch.met()
            if met:
                yield Struck(promotion, before, serving)
                return
            await board.finished(promotion)
            await people.all_back()
            people.before = marks(people.people)
        raise AssertionError(f"{TRIES} hand-overs passed {moment} unseen")
    finally:
        os.kill(runner, signal.SIGCONT)


async def is_store_up(board: Platform) -> bool:
    try:
        async with board.store_admin(APP) as admin:
            await admin.ping()
    except Unavailable:
        return False
    return True


async def settle(board: Platform, people: Town) -> None:
    """Wait until the store is back and has everything."""
    await wait_until(lambda: is_store_up(board), timeout_s=30, what="the store is back")
    await people.all_stored()


async def test_a_store_that_dies_before_the_cut_stops_the_hand_over(board: Platform) -> None:
    async with town(board) as people:
        async with store_dies_at(board, people, Moment("refusing_new", {"baseline": True})) as struck:
            done = await board.finished(struck.promotion)
            assert not await is_store_up(board), "it ended while there was no store"
        await settle(board, people)
        await people.still_typing()
        people.check_untouched()
    check_given_back(board, done, struck.owner)
    move = await child_of(board, done)
    assert (move.state, code(move)) == ("failed", "handover-called-off")
    assert (await check_calm(board)).number == struck.serving.number, "the same process serves on"


def check_given_back(board: Platform, done: OperationView, before: dict[str, Any]) -> None:
    """The promotion was rolled back, which is an owner of its own: the epoch goes on, the deployment is the old one."""
    assert (done.state, code(done)) == ("rolled_back", "handover-called-off")
    after = owner(board, APP)
    assert (after["deployment_number"], after["epoch"]) == (before["deployment_number"], before["epoch"] + 2)
    assert [row["deployment_number"] for row in history(board, APP)][-3:] == [
        before["deployment_number"],
        3 - before["deployment_number"],
        before["deployment_number"],
    ]


def code(view: OperationView) -> str:
    """The code of an operation's problem; empty when there is none."""
    return str((view.problem or {}).get("code", ""))


async def test_a_store_that_dies_between_cut_and_fence_is_waited_for(board: Platform) -> None:
    async with town(board) as people:
        async with store_dies_at(board, people, Moment("storing")) as struck:
            old = struck.serving
            await wait_until(lambda: is_off(board, old.number), what="the fence is decided, and cannot be proven yet")
            assert not await is_store_up(board)
            assert state_of_newest(board, "handover") == "storing"
            assert owner(board, APP)["held"] == 1, "nobody is let in before the fence"
        await settle(board, people)
        done = await board.finished(struck.promotion)
        await people.all_back()
        await people.still_typing()
    assert done.state == "healthy", done.problem
    move = await child_of(board, done)
    assert move.state == "settled", move.problem
    people.check_moved(move.facts["account"])
    assert owner(board, APP)["epoch"] == struck.owner["epoch"] + 1
    async with board.store_admin(APP) as admin:
        assert await admin.is_fenced(old.id), "also for the store that was started anew"
    assert (await check_calm(board)).number != old.number


def is_off(board: Platform, number: int) -> bool:
    return rows(board, "select store_enabled from allocations where number = ?", number) == [{"store_enabled": 0}]


def state_of_newest(board: Platform, kind: str) -> str:
    newest = "select state from operations where kind = ? order by created_ms desc, id desc limit 1"
    return str(rows(board, newest, kind)[0]["state"])
