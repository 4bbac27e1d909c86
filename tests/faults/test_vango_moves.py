"""Faults while people use a Vango app: a crash, an app that resumes only with the edge's cure, a control plane that is
killed in the middle of a hand-over. What the platform says of each session is what its person saw."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from tests.support.deeds import deploy
from tests.support.platform import Platform, start_platform, stop_platform
from tests.support.processes import back
from tests.support.stages import Moment, signals_at
from tests.support.vango.client import Person
from tests.support.vango.crowd import ATTACHED, FRESH, RESUMED, all_back, marks, typing
from tests.support.vango_stage import (
    PEOPLE_COUNT,
    Shelf,
    Stage,
    Stories,
    Story,
    asked_for,
    at_board,
    attached,
    begin_restart,
    check_account,
    check_ages,
    check_kept,
    check_not_kinder,
    child_of,
    come_and_leave,
    fates,
    goes_with_the_next_loss,
    killed,
    needs_go,
    promote,
    serve,
    set_secret,
    settled,
    source,
    store_everybody,
    type_once,
)

pytestmark = [
    pytest.mark.servers,
    needs_go,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]

TYPING_S: Final = 0.2
TYPED_COUNT: Final = 8
TRIES_COUNT: Final = 3  # a stage may last less than a millisecond: the kill may come too late


# ---- crash ------------------------------------------------------------------------------------------------------
async def crash(stage: Stage) -> None:
    """kill -9: everybody comes back with what was stored, and how old that was at the end is a true upper bound."""
    platform, app = stage.platform, "vango-crash"
    await serve(platform, stage.shelf, app)
    async with at_board(platform, app) as people:
        await type_once(people)
        await store_everybody(platform, app, people)
        people[0].press("scratch-inc")
        await people[0].until(lambda: people[0].screen.text("scratch") == "1")
        await attached(platform, app, PEOPLE_COUNT)
        async with typing(people, TYPING_S):
            await typed_on(people)
            before = marks(people)
            view = await killed(platform, app)
            await all_back(people, before)
        await type_once(people)
        seen = fates(people, before)
        assert {fate.seen for fate in seen} == {RESUMED}, seen
        assert any(fate.state_lost for fate in seen), "the loss is real: nothing was stored since"
        assert people[0].screen.text("scratch") == "0", "what is not kept is at its default"
        done = await settled(platform, view.id)
        assert done.state == "settled", done.facts["account"]
        check_account(done.facts["account"], seen, resumed=PEOPLE_COUNT)
        check_ages(done.facts["account"], seen)


async def crash_before_anything_was_stored(stage: Stage) -> None:
    """Nobody's session was stored yet: each starts fresh without a word to its page, and the account says so."""
    platform, app = stage.platform, "vango-crash-early"
    await serve(platform, stage.shelf, app)
    await come_and_leave(platform, app)
    async with at_board(platform, app) as people:
        await type_once(people)
        await attached(platform, app, PEOPLE_COUNT)
        before = marks(people)
        view = await killed(platform, app)
        await all_back(people, before)
        seen = fates(people, before)
        assert {(fate.seen, fate.reason, fate.state_lost) for fate in seen} == {(FRESH, "silent", True)}, seen
        done = await settled(platform, view.id)
        check_account(done.facts["account"], seen, fresh=PEOPLE_COUNT)
        assert done.facts["account"]["reasons"] == {"fresh": {"not-stored": PEOPLE_COUNT}}


async def typed_on(people: Sequence[Person]) -> None:
    """Wait until everybody has seen that the server has some more changes."""
    typed = {person.name: person.typed_count for person in people}
    await asyncio.gather(
        *(p.until(lambda p=p: p.acks and p.acks[-1].turn >= typed[p.name] + TYPED_COUNT) for p in people)  # type: ignore[misc]
    )


# ---- cure -------------------------------------------------------------------------------------------------------
async def cure(stage: Stage) -> None:
    """An app that resumes only with the edge's cure drains by default; with the cure it is handed over and resumes."""
    platform, app = stage.platform, "vango-cure"
    await set_secret(platform, app, "BOARD_RESUME_HOOK", "off", "preview", "runtime")
    folder = source("v1", stage.folder / app, name=app)
    first = await probed(platform, folder, "resumes_with_cure")
    assert (await promote(platform, app, first)).state == "healthy"
    async with at_board(platform, app) as people:
        await type_once(people)
        before = marks(people)
        view = await promote(platform, app, await probed(platform, folder, "resumes_with_cure"))
        assert (view.state, view.facts["mode"]) == ("healthy", "drain"), view.facts["mode_reason"]
        assert "cure" in view.facts["mode_reason"]
        assert {fate.seen for fate in fates(people, before)} == {ATTACHED}
    with (folder / "moorage.toml").open("a") as appfile:
        appfile.write("\n[vango]\nresume_cure = true\n")
    cured = await probed(platform, folder, "resumes_with_cure", "switched on")
    async with at_board(platform, app) as people:
        await type_once(people)
        await attached(platform, app, PEOPLE_COUNT)
        before = marks(people)
        async with typing(people, TYPING_S):
            view = await promote(platform, app, cured)
            assert (view.state, view.facts["mode"]) == ("healthy", "handover"), view.facts["mode_reason"]
            await all_back(people, before)
        await type_once(people)
        check_kept(people, before)
        move = await settled(platform, view.children[0])
        check_account(move.facts["account"], fates(people, before), resumed=PEOPLE_COUNT)


async def probed(platform: Platform, folder: Path, resume: str, why: str = "") -> int:
    """Deploy; the preview's number, once what its probe has seen of a resume is this."""
    app, number = await deploy(platform, folder)
    async with platform.api() as api:
        view = await api.operation((await api.deployment(app, number)).operation)
    assert view.facts["probe"]["resume"] == resume, view.facts["probe"]
    assert why in view.facts["probe"]["why"]
    return number


# ---- the control plane is killed --------------------------------------------------------------------------------
MOMENTS: Final = {
    "admitting": Moment("admitting"),
    "refusing_new": Moment("refusing_new", {"baseline": False}),
    "cut": Moment("cutting", {"cut_ms": True}),
    "fenced": Moment("fenced"),
}
SOMEBODY_GOES_AT: Final = "admitting"  # from then on nobody watches for a while who comes back


class Ring:
    """Several apps on one platform, whose control plane is killed once for each of them, one after the other."""

    def __init__(self, moments: Sequence[str]) -> None:
        self._prepared, self._over = asyncio.Barrier(len(moments)), asyncio.Barrier(len(moments))
        self._turns = {moment: asyncio.Event() for moment in moments}
        self._following = dict(itertools.pairwise(moments))
        self._turns[moments[0]].set()

    @asynccontextmanager
    async def turn(self, moment: str) -> AsyncIterator[None]:
        """Wait until all are prepared (nobody asks a control plane that is away), and for one's turn."""
        await self._prepared.wait()
        await self._turns[moment].wait()
        yield
        if moment in self._following:
            self._turns[self._following[moment]].set()

    async def over(self) -> None:
        """Wait until it was killed for the last time."""
        await self._over.wait()

    async def break_up(self) -> None:
        """One of them has failed: the others need not wait for it."""
        await self._prepared.abort()
        await self._over.abort()
        for turn in self._turns.values():
            turn.set()


async def killed_control(moment: str, ring: Ring, stage: Stage) -> None:
    """The hand-over goes on where it was, nobody loses anything, and the account is what the people saw."""
    try:
        await _killed_control(moment, ring, stage)
    except BaseException:
        await ring.break_up()
        raise


async def _killed_control(moment: str, ring: Ring, stage: Stage) -> None:
    platform, app = stage.platform, f"vango-{moment.replace('_', '-')}"
    await serve(platform, stage.shelf, app)
    old = await platform.allocation(app)
    async with at_board(platform, app) as people:
        await type_once(people)
        await attached(platform, app, PEOPLE_COUNT)
        staying = people[:-1] if moment == SOMEBODY_GOES_AT else people
        async with ring.turn(moment), typing(people, TYPING_S):
            for person in people[len(staying) :]:
                goes_with_the_next_loss(person)
            operation, before = await hand_over_and_kill(platform, app, MOMENTS[moment], people, staying)
            await all_back(staying, before)
        await type_once(staying)
        await ring.over()
        done = await settled(platform, operation)
        move = await settled(platform, await child_of(platform, operation))
        check_kept(staying, before)
        assert (await platform.allocation(app)).number > old.number
        assert done.state == move.state == ("settled" if staying == people else "settled_with_losses"), done.problem
        account, seen = move.facts["account"], fates(people, before)
        if staying == people:
            check_account(account, seen, resumed=PEOPLE_COUNT)
        else:
            check_not_kinder(account, seen)
            assert (account["resumed"], account["reasons"]) == (len(staying), {"unknown": {"not-watched": 1}})


async def hand_over_and_kill(
    platform: Platform, app: str, moment: Moment, people: Sequence[Person], staying: Sequence[Person]
) -> tuple[str, dict[str, int]]:
    """Restart with a hand-over and kill the control plane at this moment of it: the restart, and the marks before."""
    for _ in range(TRIES_COUNT):
        before, control = marks(people), platform.pid_of("control")
        async with signals_at(platform, "handover", moment, [(control, signal.SIGKILL)]) as watch:
            operation = await begin_restart(platform, app)
            met = await watch.met()
        if met:
            await back(platform, "control", control)
            return operation, before
        await all_back(staying, before)
    raise AssertionError(f"{moment} went by unseen {TRIES_COUNT} times")


# ---- tests ------------------------------------------------------------------------------------------------------
MOVES: dict[str, Story] = {
    "crash": crash,
    "crash_before_anything_was_stored": crash_before_anything_was_stored,
    "cure": cure,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stories(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stories]:
    """Everything that is asked for, side by side; the control planes that are killed are those of another platform."""
    asked = asked_for(request)
    moves = {name: story for name, story in MOVES.items() if name in asked}
    kills = [moment for moment in MOMENTS if moment in asked]
    homes = [tmp_path_factory.mktemp("home") for needed in (moves, kills) if needed]
    platforms = await asyncio.gather(*(asyncio.to_thread(start_platform, home) for home in homes))
    shelf, folder = Shelf(), tmp_path_factory.mktemp("source")
    going = Stories(Stage(platforms[0], shelf, folder), moves)
    if kills:
        ring = Ring(kills)
        there = {moment: partial(killed_control, moment, ring) for moment in kills}
        going.begin(Stage(platforms[-1], shelf, folder), there)
    try:
        yield going
    finally:
        await going.close()
        await asyncio.gather(*(asyncio.to_thread(stop_platform, each) for each in platforms))


@pytest.mark.parametrize("story", MOVES)
async def test_what_is_said_of_sessions_is_what_people_saw(stories: Stories, story: str) -> None:
    await stories.end_of(story)


@pytest.mark.parametrize("story", MOMENTS)
async def test_a_hand_over_survives_the_death_of_its_control_plane(stories: Stories, story: str) -> None:
    await stories.end_of(story)
