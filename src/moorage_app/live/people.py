"""Who is here: the people attached to any allocation of the environment. Ephemeral, bounded, at most seconds old.

Rules of this room: each allocation says who is attached to it under a key that is forgotten by itself; everyone reads
all of them. Nothing here decides anything.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from moorage_app import contract
from moorage_app.place import now_ms
from moorage_app.stores.port import Store

PEOPLE_COUNT: Final = 60  # as many are named; all are counted
FORGET_AFTER_MS: Final = 15_000
SAY_AGAIN_S: Final = 5.0
GAP_S: Final = 0.5  # changes within it travel together


class People:
    """This allocation's part of the list, and the merged list of all."""

    def __init__(self, store: Store, allocation: str, here: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        self._store, self._allocation, self._here = store, allocation, here
        self._said = ""
        self._wake = asyncio.Event()
        self.everyone: dict[str, Any] = {"count": 0, "people": []}

    def wake(self) -> None:
        """Somebody came, went or changed what they show."""
        self._wake.set()

    async def wait(self, timeout_s: float) -> None:
        """Returns when there is something to say, or after the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def say(self) -> None:
        """Stores who is here, and announces it if it changed."""
        here = list(self._here())
        text = json.dumps({"count": len(here), "people": here[:PEOPLE_COUNT]}, separators=(",", ":"))
        await self._store.show_people(self._allocation, text, now_ms=now_ms(), ttl_ms=FORGET_AFTER_MS)
        if text != self._said:
            self._said = text
            await self._store.announce(contract.PRESENCE_CHANNEL, self._allocation)

    async def look(self) -> bool:
        """Reads who is anywhere; True when that changed."""
        merged = merge_people(await self._store.people(now_ms()))
        changed = merged != self.everyone
        self.everyone = merged
        return changed

    async def leave(self) -> None:
        """Nobody is here any more."""
        self._said = ""
        await self._store.show_people(self._allocation, "", now_ms=now_ms(), ttl_ms=FORGET_AFTER_MS)
        await self._store.announce(contract.PRESENCE_CHANNEL, self._allocation)


def merge_people(said: Iterable[bytes]) -> dict[str, Any]:
    """One list of what all allocations said: a person seen at two of them (during a hand-over) is one."""
    people: dict[str, Mapping[str, Any]] = {}
    unnamed = 0
    for text in said:
        try:
            document = json.loads(text)
            named = {str(person["tag"]): person for person in document["people"]}
            unnamed += max(0, int(document["count"]) - len(named))
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        people |= named
    ordered = [people[key] for key in sorted(people)]
    return {"count": len(ordered) + unnamed, "people": ordered[:PEOPLE_COUNT]}
