"""Hundreds of people who type on the Vango board while it moves.

Rules of this room: a tally is made of what the people saw on their own wires, never of what a platform says. Everybody
changes what is kept once in a second; whoever was away goes on where the framework's script lets a browser go on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.crowd import Size
from bench.ground import tell
from bench.noise import quiet
from moorage.system.clock import monotonic_s, pause
from tests.support.vango.client import NotLetInError, Person
from tests.support.vango.crowd import RESUMED, Tally, all_back, crowd, marks, tally, typing

WARM_UP_S: Final = 3.0
BACK_PATIENCE_S: Final = 60.0
ANSWER_PATIENCE_S: Final = 10.0
AT_ONCE_COUNT: Final = 20
TICK_S: Final = 30.0  # the framework stores every session so often, counted from the start of its process
TICK_DONE_S: Final = 1.0  # one record after the other

Step = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where people go: the address of an edge, and the name of the route there."""

    address: tuple[str, int]
    host: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A crowd after a move. `before` counts the welcomes of each until then."""

    people: Sequence[Person]
    before: Mapping[str, int]
    tally: Tally
    unanswered_count: int  # sessions that were resumed and then did not answer what was typed
    failed_opens: Mapping[str, int]  # attempts to come back that came to nothing, by what was answered
    busy_cores: float  # with other things, in the second before the people came


async def _none() -> None:
    """Nothing to wait for."""


async def after_tick(age_s: float, phase_s: float) -> None:
    """Wait until so long after the next tick of a process that has run for `age_s`; may be negative: before it."""
    await pause(TICK_S - age_s % TICK_S + phase_s)


@contextlib.asynccontextmanager
async def moved(
    place: Place, move: Step, crowd_of: Size, *, late_count: int = 0, meanwhile: Step = _none
) -> AsyncIterator[Moved]:
    """People join, type, and go on typing while `move` runs and until all are back.

    The last `late_count` of them join only after `meanwhile`. All are still there in the body, and leave at its end.
    """
    busy_cores = await quiet(crowd_of.patience_s)
    async with contextlib.AsyncExitStack() as stack:
        people = await stack.enter_async_context(crowd(crowd_of.people - late_count, place.address, place.host))
        async with contextlib.AsyncExitStack() as at_work:
            await at_work.enter_async_context(typing(people))
            await meanwhile()
            if late_count:
                late = await stack.enter_async_context(crowd(late_count, place.address, place.host))
                for person in late:
                    person.name = f"late {person.name}"
                await at_work.enter_async_context(typing(late))
                people = [*people, *late]
            await pause(WARM_UP_S)
            before, since_s = marks(people), monotonic_s()
            await move()
            await all_back(people, before, BACK_PATIENCE_S)
            unanswered_count = await _unanswered(people, before)
            found = tally(people, before)
        failed_opens = Counter(why for person in people for at_s, why in person.failed_opens if at_s >= since_s)
        tell(f"  {describe(found)}" + (f", in vain: {dict(failed_opens)}" if failed_opens else ""))
        yield Moved(people, before, found, unanswered_count, failed_opens, busy_cores)


async def _unanswered(people: Sequence[Person], before: Mapping[str, int]) -> int:
    """How many of those who were resumed are not shown what they type afterwards."""
    back = [p for p in people if p.here and len(p.welcomes) > before[p.name] and p.welcomes[-1].outcome == RESUMED]
    waits = [person.until(lambda person=person: _is_answered(person), ANSWER_PATIENCE_S) for person in back]  # type: ignore[misc]
    results = await asyncio.gather(*waits, return_exceptions=True)
    return sum(isinstance(result, TimeoutError) for result in results)


def _is_answered(person: Person) -> bool:
    return bool(person.acks) and person.acks[-1].at_s > person.welcomes[-1].at_s


async def reload_pages(people: Sequence[Person]) -> None:
    """Whoever has given up loads the page anew by hand, in the same tab, and waits until it is live."""
    door = asyncio.Semaphore(AT_ONCE_COUNT)

    async def reload(person: Person) -> None:
        async with door:
            person.gone = ""
            with contextlib.suppress(TimeoutError, NotLetInError):
                await person.arrive(BACK_PATIENCE_S)

    await asyncio.gather(*(reload(person) for person in people if person.gone))


def cut_before(people: Sequence[Person], before: Mapping[str, int], until_s: float) -> int:
    """How many lost their socket after the marks and before a moment of the monotonic clock."""
    return sum(_is_cut_before(person, before[person.name], until_s) for person in people)


def _is_cut_before(person: Person, mark: int, until_s: float) -> bool:
    if len(person.welcomes) == mark:
        return bool(person.gone) or not person.here  # nobody knows when: counted against the move
    next_one = person.welcomes[mark]
    return next_one.at_s - (next_one.pause_s or 0.0) < until_s


def losses_s(people: Sequence[Person], before: Mapping[str, int], ended_s: float) -> dict[str, float]:
    """How long before `ended_s` (monotonic) the oldest change was acknowledged that a session lacks since, by its
    label; sessions that lack nothing are not there."""
    nexts = [(p.welcomes[before[p.name] - 1], p.welcomes[before[p.name]]) for p in people if _has_moved(p, before)]
    return {was.label: ended_s - now.lost_since_s for was, now in nexts if now.lost_since_s is not None}


def _has_moved(person: Person, before: Mapping[str, int]) -> bool:
    return len(person.welcomes) > before[person.name]


def describe(found: Tally) -> str:
    """A tally in one line."""
    pauses = sorted(found.pauses_s)
    told = f", pause {pauses[0]:.2f} to {pauses[-1]:.2f} s" if pauses else ""
    return f"{found.seen}, {found.acknowledged_state_lost} lost state{told}"
