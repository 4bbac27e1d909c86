"""The store as the rest of the SDK sees it.

Rules of this room: texts in, texts out; meaning belongs to the callers. Every change of a session record is one atomic
step that checks what it replaces. "I could not find out" is StoreUnavailableError, never an answer. One contract suite
(tests/app/test_store_contract.py) runs over every implementation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Stored:
    """A record's text, and whether its id was ever given out (`traced`)."""

    text: bytes | None
    traced: bool


@dataclass(frozen=True, slots=True)
class Written:
    """The change is in the store."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Nothing was changed: somebody else holds the session, or its record is gone or unreadable."""

    reason: str  # taken_over | gone | unreadable


@dataclass(frozen=True, slots=True)
class Taking:
    """An entry to be written: `text` replaces exactly `expected` and moves the lease to `holder`."""

    session_id: str
    expected: bytes | None
    text: str
    holder: str
    previous_holder: str | None
    quarantine_ms: int | None = None  # set: keep `expected` aside, under this time if one is there already


@dataclass(frozen=True, slots=True)
class Announcement:
    """A message of a channel. `channel` is empty when the subscription was (re)made: re-read everything."""

    channel: str
    payload: str


class Store(Protocol):
    """All methods may raise StoreUnavailableError."""

    async def open(self) -> None:
        """Checks that the store answers."""

    async def close(self) -> None:
        """Lets go of connections."""

    async def load(self, session_id: str) -> Stored:
        """The record as it lies there."""

    async def take(self, taking: Taking) -> bool:
        """Writes an entry and moves the lease; False when the store no longer holds what was expected."""

    async def write(self, session_id: str, text: str, *, holder: str, lease: int, revision: int) -> Written | Lost:
        """Replaces revision `revision - 1` (or this very one, after an answer that was lost) of the lease's holder."""

    async def still_held(self, holder: str, session_ids: Sequence[str]) -> frozenset[str]:
        """Which of these ids the holder's set still contains."""

    async def refresh(self, holder: str, session_ids: Iterable[str]) -> None:
        """Gives records that are attached but idle a new time to live."""

    async def prune_held(self, holder: str) -> int:
        """Removes ids whose record has expired from the holder's set; gives their number."""

    async def load_shared(self, state_id: str) -> bytes | None:
        """A shared state's text."""

    async def swap_shared(
        self, state_id: str, text: str, *, expected: bytes | None, quarantine_ms: int | None = None
    ) -> bool:
        """Replaces exactly `expected`, keeping it aside on request; False when something else lies there."""

    async def register(self, allocation: str, text: str) -> None:
        """Writes the allocation's own key."""

    async def notice(self, allocation: str) -> bytes | None:
        """The platform's notice for this allocation."""

    async def report_handover(self, allocation: str, text: str) -> None:
        """Writes the counts of a hand-over."""

    async def show_people(self, allocation: str, text: str, *, now_ms: int, ttl_ms: int) -> None:
        """Says who is attached here; forgotten after `ttl_ms`. Empty text removes it."""

    async def people(self, now_ms: int) -> list[bytes]:
        """What all allocations that are not forgotten said last."""

    async def announce(self, channel: str, payload: str) -> None:
        """At most once, to whoever listens now."""

    def listen(self, channels: Sequence[str]) -> AsyncIterator[Announcement]:
        """Messages from now on; first an empty one. Ends by raising when the subscription breaks."""
