"""Two hundred people who type on the Vango board while it moves.

Rules of this room: a tally is made of what the people saw on their own wires, never of what a platform says. Everybody
changes what is kept once in a second; whoever was away goes on where the framework's script lets a browser go on.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.noise import quiet
from moorage.system.clock import monotonic_s, pause
from tests.support.vango.client import Person
from tests.support.vango.crowd import Tally, all_back, crowd, marks, tally, typing

PEOPLE_COUNT: Final = 200
WARM_UP_S: Final = 3.0
BACK_PATIENCE_S: Final = 60.0
AFTER_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Moved:
    """A crowd after a move. `before` counts the welcomes of each until then; the move itself took `move_s`."""

    people: Sequence[Person]
    before: Mapping[str, int]
    tally: Tally
    move_s: float
    busy_cores: float  # with other things, in the second before the people came


@contextlib.asynccontextmanager
async def moved(
    address: tuple[str, int],
    host: str,
    move: Callable[[], Awaitable[None]],
    *,
    people_count: int = PEOPLE_COUNT,
    patience_s: float = 0.0,
    all_move: bool = True,
) -> AsyncIterator[Moved]:
    """People join at `address` (the edge), type, and go on typing while `move` runs and until all are back.

    `patience_s` is how long to wait for a machine that is busy with other things. `all_move` is False for a move that
    leaves sockets where they are: then nobody is waited for. The people are still there in the body.
    """
    busy_cores = await quiet(patience_s)
    async with crowd(people_count, address, host) as people:
        async with typing(people):
            await pause(WARM_UP_S)
            before, started_s = marks(people), monotonic_s()
            await move()
            move_s = monotonic_s() - started_s
            if all_move:
                await all_back(people, before, BACK_PATIENCE_S)
            await pause(AFTER_S)  # also what is typed after the move is kept, or is seen to be lost
        yield Moved(people, before, tally(people, before), move_s, busy_cores)
