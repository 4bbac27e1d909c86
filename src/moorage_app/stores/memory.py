"""The in-memory store: for `uvicorn board:app` on a desk and for tests. Its values end with the process.

Rules of this room: several stores may share one `MemoryServer`, as allocations share a Valkey; it behaves like one,
time to live included, and is held to it by the contract suite.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from moorage_app import contract
from moorage_app.place import tick_s

from .port import Announcement, Lost, Stored, Taking, Written


class MemoryServer:
    """Keys with a time to live, sets and channels of one process."""

    def __init__(self, clock: Callable[[], float] = tick_s) -> None:
        self._clock = clock
        self._values: dict[str, tuple[bytes, float | None]] = {}
        self.sets: dict[str, set[str]] = {}
        self.listeners: set[tuple[frozenset[str], asyncio.Queue[Announcement]]] = set()

    def get(self, key: str) -> bytes | None:
        """The value, unless its time is over."""
        value, until = self._values.get(key, (None, None))
        if until is not None and until <= self._clock():
            del self._values[key]
            return None
        return value

    def put(self, key: str, value: str | bytes, ttl_s: float | None = None) -> None:
        """Sets the value and its time to live."""
        data = value.encode() if isinstance(value, str) else value
        self._values[key] = (data, None if ttl_s is None else self._clock() + ttl_s)

    def expire(self, key: str, ttl_s: float) -> None:
        """A new time to live for a key that exists."""
        value = self.get(key)
        if value is not None:
            self.put(key, value, ttl_s)

    def drop(self, key: str) -> None:
        """Removes the key."""
        self._values.pop(key, None)

    def keys(self, prefix: str) -> list[str]:
        """The live keys that begin like this."""
        return [key for key in list(self._values) if key.startswith(prefix) and self.get(key) is not None]


class MemoryStore:
    """`Store` over a `MemoryServer`; no method awaits between its check and its change."""

    def __init__(self, server: MemoryServer | None = None) -> None:
        self.server = server or MemoryServer()

    async def open(self) -> None:
        """Always there."""

    async def close(self) -> None:
        """Nothing to let go."""

    async def load(self, session_id: str) -> Stored:
        """See Store.load."""
        traced = self.server.get(contract.trace_key(session_id)) is not None
        return Stored(self.server.get(contract.session_key(session_id)), traced)

    async def take(self, taking: Taking) -> bool:
        """See Store.take."""
        server, key = self.server, contract.session_key(taking.session_id)
        current = server.get(key)
        if current != taking.expected:
            return False
        if taking.quarantine_ms is not None and current is not None:
            self._set_aside(taking.session_id, current, taking.quarantine_ms)
        server.put(key, taking.text, contract.SESSION_TTL_S)
        server.put(contract.trace_key(taking.session_id), "1", contract.TRACE_TTL_S)
        if taking.previous_holder is not None:
            server.sets.get(contract.held_key(taking.previous_holder), set()).discard(taking.session_id)
        server.sets.setdefault(contract.held_key(taking.holder), set()).add(taking.session_id)
        return True

    async def write(self, session_id: str, text: str, *, holder: str, lease: int, revision: int) -> Written | Lost:
        """See Store.write."""
        current = self.server.get(contract.session_key(session_id))
        if current is None:
            return Lost("gone")
        record = _json_object(current)
        if record is None:
            return Lost("unreadable")
        if record.get("lease") != lease or record.get("holder") != holder:
            return Lost("taken_over")
        if record.get("revision") not in (revision - 1, revision):
            return Lost("taken_over")
        self.server.put(contract.session_key(session_id), text, contract.SESSION_TTL_S)
        return Written()

    async def still_held(self, holder: str, session_ids: Sequence[str]) -> frozenset[str]:
        """See Store.still_held."""
        return frozenset(session_ids) & self.server.sets.get(contract.held_key(holder), set())

    async def refresh(self, holder: str, session_ids: Iterable[str]) -> None:
        """See Store.refresh."""
        for session_id in session_ids:
            self.server.expire(contract.session_key(session_id), contract.SESSION_TTL_S)
            self.server.expire(contract.trace_key(session_id), contract.TRACE_TTL_S)

    async def prune_held(self, holder: str) -> int:
        """See Store.prune_held."""
        held = self.server.sets.get(contract.held_key(holder), set())
        gone = {one for one in held if self.server.get(contract.session_key(one)) is None}
        held -= gone
        return len(gone)

    async def load_shared(self, state_id: str) -> bytes | None:
        """See Store.load_shared."""
        return self.server.get(contract.shared_key(state_id))

    async def swap_shared(
        self, state_id: str, text: str, *, expected: bytes | None, quarantine_ms: int | None = None
    ) -> bool:
        """See Store.swap_shared."""
        current = self.server.get(contract.shared_key(state_id))
        if current != expected:
            return False
        if quarantine_ms is not None and current is not None:
            self._set_aside(state_id, current, quarantine_ms)
        self.server.put(contract.shared_key(state_id), text)
        return True

    async def register(self, allocation: str, text: str) -> None:
        """See Store.register."""
        self.server.put(contract.allocation_key(allocation), text)

    async def notice(self, allocation: str) -> bytes | None:
        """See Store.notice."""
        return self.server.get(contract.notice_key(allocation))

    async def report_handover(self, allocation: str, text: str) -> None:
        """See Store.report_handover."""
        self.server.put(contract.handover_key(allocation), text)

    async def show_people(self, allocation: str, text: str, *, now_ms: int, ttl_ms: int) -> None:
        """See Store.show_people."""
        if text:
            self.server.put(contract.presence_key(allocation), text, ttl_ms / 1000)
        else:
            self.server.drop(contract.presence_key(allocation))

    async def people(self, now_ms: int) -> list[bytes]:
        """See Store.people."""
        found = (self.server.get(key) for key in self.server.keys(contract.presence_key("")))
        return [text for text in found if text is not None]

    async def announce(self, channel: str, payload: str) -> None:
        """See Store.announce."""
        for channels, queue in list(self.server.listeners):
            if channel in channels:
                queue.put_nowait(Announcement(channel, payload))

    async def listen(self, channels: Sequence[str]) -> AsyncIterator[Announcement]:
        """See Store.listen."""
        mine: tuple[frozenset[str], asyncio.Queue[Announcement]] = (frozenset(channels), asyncio.Queue())
        self.server.listeners.add(mine)
        try:
            yield Announcement("", "")
            while True:
                yield await mine[1].get()
        finally:
            self.server.listeners.discard(mine)

    def _set_aside(self, name: str, text: bytes, at_ms: int) -> None:
        key = contract.quarantine_key(name)
        if self.server.get(key) is not None:
            key = f"{key}:{at_ms}"
        self.server.put(key, text, contract.QUARANTINE_TTL_S)


def _json_object(text: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
