"""What the proxy knows of a route in one integer: where its slots begin, how many there are, and its flags.

Pure. A request pays one string lookup and a few integer operations for its whole routing decision, so everything a
decision needs is packed here: bits 0-21 the first slot, 22 known, 23 held, 24 closed, 26-31 the number of slots.
"""

from __future__ import annotations

from dataclasses import dataclass

from moorage.domain.limits import SLOTS_PER_ROUTE_MAX_COUNT

SLOT_MASK = (1 << 22) - 1
KNOWN_FLAG = 1 << 22
HELD_FLAG = 1 << 23
CLOSED_FLAG = 1 << 24
COUNT_UNIT = 1 << 26  # packed // COUNT_UNIT is the number of slots

SLOTS_MAX_COUNT = SLOT_MASK + 1

assert SLOTS_PER_ROUTE_MAX_COUNT * COUNT_UNIT < 1 << 32, "the count must fit the 32-bit general purpose tag"


@dataclass(frozen=True, slots=True)
class HotEntry:
    """A route as the proxy has it. `environment` is checked by pins; a closed route has no slots."""

    base: int
    count: int
    held: bool
    closed: bool
    environment: int

    @property
    def slots(self) -> range:
        """The slot numbers of the route."""
        return range(self.base, self.base + self.count)


def pack(entry: HotEntry) -> int:
    """The entry (without its environment) as the proxy's 32-bit tag; never 0, which means an unknown route."""
    flags = KNOWN_FLAG | (HELD_FLAG if entry.held else 0) | (CLOSED_FLAG if entry.closed else 0)
    return entry.base | flags | entry.count * COUNT_UNIT


def unpack(packed: int, environment: int) -> HotEntry:
    """The reverse of `pack`."""
    return HotEntry(
        base=packed & SLOT_MASK,
        count=packed // COUNT_UNIT,
        held=bool(packed & HELD_FLAG),
        closed=bool(packed & CLOSED_FLAG),
        environment=environment,
    )
