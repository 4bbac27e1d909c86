"""Hundreds of people on one Vango board, and the tally of what a move did to them.

Rules of this room: a tally is made of what the people saw on their own wires, never of what a platform says. The
framework allows 100 sessions and 64 handshakes at a time per address, so a crowd comes from many local addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from moorage.system.clock import monotonic_s, pause
from tests.support.vango.client import Person, Welcome

PER_ADDRESS_COUNT: Final = 25  # leaves room for sessions that start fresh while their old ones are still counted
FIRST_ADDRESS: Final = 2  # 127.0.0.2
TYPING_PERIOD_S: Final = 1.0
AT_ONCE_COUNT: Final = 20
ARRIVAL_PATIENCE_S: Final = 60.0
BACK_PATIENCE_S: Final = 60.0
ATTACHED, RESUMED, FRESH, CLOSED, NOT_BACK = "attached", "resumed", "fresh", "closed", "not back"


def source_of(index: int) -> str:
    """The local address that the person with this index comes from."""
    return f"127.0.0.{FIRST_ADDRESS + index // PER_ADDRESS_COUNT}"


@contextlib.asynccontextmanager
async def crowd(
    count: int, address: tuple[str, int], host: str, *, path: str = "/", at_once: int = AT_ONCE_COUNT
) -> AsyncIterator[list[Person]]:
    """`count` people who have all arrived; they leave at the end. At most 253 times PER_ADDRESS_COUNT of them."""
    people = [Person(address, host, path, source_of(index), name=f"person {index}") for index in range(count)]
    door = asyncio.Semaphore(at_once)

    async def arrive(person: Person) -> None:
        async with door:
            await person.arrive(ARRIVAL_PATIENCE_S)

    try:
        await asyncio.gather(*(arrive(person) for person in people))
        yield people
    finally:
        await asyncio.gather(*(person.leave() for person in people))


@contextlib.asynccontextmanager
async def typing(people: Sequence[Person], period_s: float = TYPING_PERIOD_S) -> AsyncIterator[None]:
    """Everybody changes what is kept once in every period, evenly spread: a crowd does not type in step."""
    step_s = period_s / max(1, len(people))

    async def type_on(person: Person, delay_s: float) -> None:
        await pause(delay_s)
        for turn in itertools.count(1):
            if not person.gone:
                person.change()
            await pause(max(0.0, started_s + delay_s + turn * period_s - monotonic_s()))

    started_s = monotonic_s()
    tasks = [asyncio.create_task(type_on(person, turn * step_s)) for turn, person in enumerate(people)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result


def marks(people: Iterable[Person]) -> dict[str, int]:
    """How many welcomes each person has had so far: a move is judged by the welcomes after it."""
    return {person.name: len(person.welcomes) for person in people}


async def all_back(people: Iterable[Person], before: Mapping[str, int], patience_s: float = BACK_PATIENCE_S) -> None:
    """Wait until everybody had a welcome after the marks, or gave up, or the time is over: the rest is not back."""

    def settled(person: Person) -> bool:
        return bool(person.gone) or (person.here and len(person.welcomes) > before[person.name])

    waits = [person.until(lambda person=person: settled(person), patience_s) for person in people]  # type: ignore[misc]
    for result in await asyncio.gather(*waits, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, TimeoutError):
            raise result


@dataclass(frozen=True, slots=True)
class Fate:
    """What a move did to one person's session. `label` is that of the session before the move."""

    name: str
    label: str
    seen: str  # attached | resumed | fresh | closed | not back
    reason: str
    state_lost: bool  # something that was acknowledged before is gone
    pause_s: float | None  # None when the socket was never lost, or nothing came after it
    felt_s: float | None
    loss_age_s: float | None  # how long before the loss of the socket the oldest lost change had been acknowledged


def fate_of(person: Person, mark: int) -> Fate:
    """What happened to a person since the welcome number `mark` (1 for the first)."""
    session, later = person.welcomes[mark - 1], person.welcomes[mark:]
    if not later:
        held = person.here and not person.gone
        seen = ATTACHED if held else CLOSED if person.gone else NOT_BACK
        reason = person.gone.removeprefix("closed ")
        return Fate(person.name, session.label, seen, reason, not held and bool(person.acks), None, None, None)
    first = later[0]
    return Fate(
        person.name,
        session.label,
        first.outcome,
        first.reason,
        any(one.state_lost for one in later),
        first.pause_s,
        first.felt_s,
        _loss_age_s(first),
    )


def _loss_age_s(welcome: Welcome) -> float | None:
    if welcome.lost_since_s is None or welcome.pause_s is None:
        return None
    return welcome.at_s - welcome.pause_s - welcome.lost_since_s


@dataclass(frozen=True, slots=True)
class Tally:
    """The fates of a whole crowd in one move."""

    fates: tuple[Fate, ...]
    typed_count: int

    @property
    def seen(self) -> dict[str, int]:
        """How many saw what; the reason stands behind a fresh start and a closed door."""
        return dict(Counter(f"{fate.seen} {fate.reason}".rstrip() for fate in self.fates))

    @property
    def resumed_share(self) -> float:
        """Sessions that came back, of those that were moved; 1.0 when none was moved."""
        moved = [fate for fate in self.fates if fate.seen != ATTACHED]
        return sum(fate.seen == RESUMED for fate in moved) / len(moved) if moved else 1.0

    @property
    def acknowledged_state_lost(self) -> int:
        """Sessions that lack something which their person was shown to be kept."""
        return sum(fate.state_lost for fate in self.fates)

    @property
    def pauses_s(self) -> list[float]:
        """From the lost socket to the full page (or, for a fresh start, to the new session)."""
        return [fate.pause_s for fate in self.fates if fate.pause_s is not None]

    @property
    def felt_s(self) -> list[float]:
        """The same, from the oldest change that went unanswered."""
        return [fate.felt_s for fate in self.fates if fate.felt_s is not None]

    @property
    def loss_ages_s(self) -> list[float]:
        """How old the oldest lost change was, for those who lost one."""
        return [fate.loss_age_s for fate in self.fates if fate.loss_age_s is not None]


def tally(people: Iterable[Person], before: Mapping[str, int]) -> Tally:
    """What a move did to everybody, from the marks made before it."""
    people = list(people)
    fates = tuple(fate_of(person, before[person.name]) for person in people)
    return Tally(fates, sum(person.typed_count for person in people))


def differences(said: Mapping[str, str], fates: Iterable[Fate]) -> list[str]:
    """Where a platform's account (label to outcome) says something else than the people saw, one line each.

    `unknown` in an account is no difference but an unanswered question: count it apart. Whoever gave up or is not back
    was lost by the move, or ended: nobody sees more of it from outside.
    """
    seen = {fate.label: fate.seen for fate in fates}
    told = [f"{label}: said {said.get(label, 'nothing')}, seen {one}" for label, one in seen.items()]
    wrong = [line for line, (label, one) in zip(told, seen.items(), strict=True) if said.get(label) not in _same(one)]
    return wrong + [f"{label}: said {outcome}, seen by nobody" for label, outcome in said.items() if label not in seen]


def _same(seen: str) -> tuple[str, ...]:
    return {CLOSED: ("lost", "ended", "unknown"), NOT_BACK: ("lost", "unknown")}.get(seen, (seen, "unknown"))
