"""What the proxy knows of a route in one integer: where its slots begin, how many there are, and its flags.

Pure. A request pays one string lookup and a few integer operations for its whole routing decision, so everything a
decision needs is packed here: bits 0-21 the first slot, 22 known, 23 held, 24 closed, 25 cured, 26-31 the number of
slots.
"""

from __future__ import annotations

from dataclasses import dataclass

from moorage.domain.limits import SLOTS_PER_ROUTE_MAX_COUNT

SLOT_MASK = (1 << 22) - 1
KNOWN_FLAG = 1 << 22
HELD_FLAG = 1 << 23
CLOSED_FLAG = 1 << 24
CURED_FLAG = 1 << 25
COUNT_UNIT = 1 << 26  # packed // COUNT_UNIT is the number of slots

SLOTS_MAX_COUNT = SLOT_MASK + 1

assert SLOTS_PER_ROUTE_MAX_COUNT * COUNT_UNIT < 1 << 32, "the count must fit the 32-bit general purpose tag"


@dataclass(frozen=True, slots=True)
class HotEntry:
    """A route as the proxy has it. `environment` (from 1; 0: none) is what its pins are checked for; a closed route has
    no slots and no environment; the live paths of a cured one get a constant query."""

    base: int
    count: int
    held: bool
    closed: bool
    environment: int
    cured: bool = False

    @property
    def slots(self) -> range:
        """The slot numbers of the route."""
        return range(self.base, self.base + self.count)


def pack(entry: HotEntry) -> int:
    """The entry (without its environment) as the proxy's 32-bit tag; never 0, which means an unknown route."""
    flags = ((HELD_FLAG, entry.held), (CLOSED_FLAG, entry.closed), (CURED_FLAG, entry.cured))
    return entry.base | KNOWN_FLAG | sum(flag for flag, is_set in flags if is_set) | entry.count * COUNT_UNIT


def unpack(packed: int, environment: int) -> HotEntry:
    """The reverse of `pack`."""
    return HotEntry(
        base=packed & SLOT_MASK,
        count=packed // COUNT_UNIT,
        held=bool(packed & HELD_FLAG),
        closed=bool(packed & CLOSED_FLAG),
        environment=environment,
        cured=bool(packed & CURED_FLAG),
    )
