"""Two hundred people who type on the board while it moves, and the tally of what the move did to them.

Rules of this room: a tally is made of what the people saw on their own sockets, never of what a platform says. A
session is kept only when every welcome after the move gave it back with all that was acknowledged and the draft as it
was typed; everything else counts as lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.noise import quiet
from bench.numbers import percentile
from demo.ledger import marks
from demo.people import Person, Welcome, crowd

PEOPLE_COUNT = 200
TYPING_PERIOD_S = 0.5  # a change per person and period, as of somebody who types and pauses; 400 changes/s in all
WARM_UP_S = 2.0
BACK_PATIENCE_S = 60.0
STORED_PATIENCE_S = 20.0
NOT_BACK = "not back"


@dataclass(frozen=True, slots=True)
class Size:
    """How many people come, and how long they wait for a machine that is busy with other things."""

    people: int = PEOPLE_COUNT
    patience_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Fate:
    """What a move did to one person. `pause_s` is None when the person never lost a socket or never came back."""

    name: str
    kept: bool
    seen: str  # the outcome of the first welcome after the move, `attached`, or `not back`
    pause_s: float | None
    welcomes: int


@dataclass(frozen=True, slots=True)
class Tally:
    """The fates of a whole crowd in one move."""

    fates: tuple[Fate, ...]
    typed_count: int
    busy_cores: float = 0.0  # with other things, in the second before the people came

    @property
    def kept(self) -> int:
        """Sessions that came back whole."""
        return sum(fate.kept for fate in self.fates)

    @property
    def lost(self) -> int:
        """Sessions that did not."""
        return len(self.fates) - self.kept

    @property
    def pauses_s(self) -> list[float]:
        """One pause per person who came back."""
        return [fate.pause_s for fate in self.fates if fate.pause_s is not None]

    @property
    def outcomes(self) -> dict[str, int]:
        """How many saw what."""
        return dict(Counter(fate.seen for fate in self.fates))

    def __str__(self) -> str:
        pauses = self.pauses_s
        told = f"pause p50 {percentile(pauses, 0.5):.3f} s, p99 {percentile(pauses, 0.99):.3f} s" if pauses else ""
        return f"{self.kept} kept, {self.lost} lost {self.outcomes} {told}"


def judge(person: Person, mark: int) -> Fate:
    """What happened to a person since the welcome number `mark` (1 for the first)."""
    later = person.welcomes[mark:]
    whole = all(one.outcome == "resumed" and one.draft_kept and one.changes_lost == 0 for one in later)
    if not person.here:
        return Fate(person.name, False, NOT_BACK, None, len(later))
    if not later:
        return Fate(person.name, True, "attached", None, 0)
    heard = [at_s for at_s, notice in person.notices if notice == "reconnect"]
    previous = person.welcomes[mark - 1 : -1]
    pauses = [pause_s(one, before.at_s, heard) for before, one in zip(previous, later, strict=True)]
    return Fate(person.name, whole, later[0].outcome, sum(pauses), len(later))


def pause_s(welcome: Welcome, after_s: float, heard_s: Sequence[float]) -> float:
    """Seconds without a live session before a welcome: from the loss of the last socket, or from the notice to
    reconnect where that came first (the old process takes nothing more from then on)."""
    lost_s = welcome.at_s - (welcome.pause_s or 0.0)
    return welcome.at_s - min([lost_s, *(at_s for at_s in heard_s if after_s < at_s < welcome.at_s)])


async def _type_on(person: Person, delay_s: float) -> None:
    words = "the tide is coming in and every boat is still on its own mooring "
    await asyncio.sleep(delay_s)
    for turn in itertools.count(1):
        person.type(f"{person.name}: {words[: 1 + turn % len(words)]} ({turn})")
        await asyncio.sleep(TYPING_PERIOD_S)


@contextlib.asynccontextmanager
async def _typing(people: Sequence[Person]) -> AsyncIterator[None]:
    step_s = TYPING_PERIOD_S / len(people)  # evenly spread: a crowd does not type in step
    tasks = [asyncio.create_task(_type_on(person, turn * step_s)) for turn, person in enumerate(people)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _all_within(patience_s: float, people: Sequence[Person], condition: Callable[[Person], bool]) -> None:
    """Wait until it holds for all, or the time is over: whoever is still missing then is judged as missing."""
    waits = [person.until(functools.partial(condition, person), patience_s) for person in people]
    for result in await asyncio.gather(*waits, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, TimeoutError):
            raise result


@dataclass(frozen=True, slots=True)
class Moved:
    """A crowd after a move, and how many welcomes each had had before it."""

    people: Sequence[Person]
    before: Mapping[str, int]
    tally: Tally


@contextlib.asynccontextmanager
async def moved(
    address: tuple[str, int], host: str, move: Callable[[], Awaitable[None]], crowd_of: Size
) -> AsyncIterator[Moved]:
    """People join at `address`, type, and go on typing while `move` runs and until all are back.

    The people are still there in the body and leave at its end.
    """
    busy_cores = await quiet(crowd_of.patience_s)
    async with crowd(crowd_of.people, address, host) as people:
        async with _typing(people):
            await asyncio.sleep(WARM_UP_S)
            before = marks(people)
            await move()
            await _all_within(BACK_PATIENCE_S, people, lambda p: p.here and len(p.welcomes) > before[p.name])
        await _all_within(STORED_PATIENCE_S, people, lambda p: p.unacknowledged == 0)
        fates = tuple(judge(person, before[person.name]) for person in people)
        yield Moved(people, before, Tally(fates, sum(person.typed_count for person in people), busy_cores))
