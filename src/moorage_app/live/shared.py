"""Shared state of all allocations: the value lives in the store, an announcement only says that it changed.

Rules of this room: every change is a compare-and-swap on the stored text; whoever missed every announcement is right
again after the next re-read (`REREAD_S`). Fields this version does not declare are carried along unchanged, so that
two versions can share a value during a hand-over.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

from moorage_app import contract
from moorage_app.errors import MoorageAppError, StoreUnavailableError, ValueRefusedError
from moorage_app.place import jitter, now_ms
from moorage_app.state import SharedState, load_values
from moorage_app.stores.port import Store

log = logging.getLogger("moorage_app")

G = TypeVar("G", bound=SharedState)
T = TypeVar("T")

REREAD_S: Final = 5.0
SHARED_BYTES: Final = 512 * 1024
APPLIED_KEYS_COUNT: Final = 512  # how many changes back a repeated one is recognised
CHANGE_TRIES_COUNT: Final = 64
ANNOUNCEMENT_BYTES: Final = 512


class SharedContendedError(MoorageAppError):
    """Others changed the value so often that this change found no gap; nothing was changed."""

    code = "shared-contended"


class SharedCell(Generic[G]):
    """This allocation's copy of one shared state."""

    def __init__(self, state: type[G], store: Store, changed: Callable[[SharedCell[Any]], None]) -> None:
        self._state, self._store, self._changed = state, store, changed
        self._text: bytes | None = None
        self._known = False  # the store was read at least once
        self._document: Mapping[str, Any] = {}
        self._lock = asyncio.Lock()
        self.revision = 0
        self.view: G = state()

    @property
    def id(self) -> str:
        """The state's id."""
        return self._state.declaration.id

    @property
    def private(self) -> bool:
        """Whether clients do not see it."""
        return self._state.declaration.private

    def values(self) -> dict[str, Any]:
        """The value as JSON."""
        return self.view._dump()

    async def refresh(self) -> bool:
        """Reads the store; True when the value here was another."""
        async with self._lock:
            return await self._read()

    async def change(self, function: Callable[[G], T], key: str | None = None) -> T | None:
        """See Session.change. Raises SharedContendedError, StoreUnavailableError, ValueRefusedError."""
        async with self._lock:
            if not self._known:
                await self._read()
            for attempt in range(CHANGE_TRIES_COUNT):
                if key is not None and key in self._applied():
                    return None
                draft = self._state(self.view._values, changed=lambda *_: None)
                result = function(draft)
                if draft._values == self.view._values:
                    return result
                if await self._swap(draft, key):
                    break
                if attempt > 1:
                    await asyncio.sleep(jitter(0, 0.002 * attempt))
                await self._read()
            else:
                raise SharedContendedError(f"{self.id} is being changed too often; try again")
        await self._announce()
        return result

    def _applied(self) -> list[Any]:
        applied = self._document.get("applied")
        return applied if isinstance(applied, list) else []

    async def _swap(self, draft: G, key: str | None) -> bool:
        carried = self._document.get("value")
        applied = [*self._applied(), key] if key is not None else self._applied()
        document = {
            "revision": self.revision + 1,
            "value": {**(carried if isinstance(carried, dict) else {}), **draft._dump()},
            "applied": applied[-APPLIED_KEYS_COUNT:],
        }
        text = json.dumps(document, allow_nan=False, separators=(",", ":"))
        if len(text) > SHARED_BYTES:
            raise ValueRefusedError(self.id, f"at most {SHARED_BYTES} bytes", f"{len(text)}")
        if not await self._store.swap_shared(self.id, text, expected=self._text):
            return False
        self._adopt(text.encode(), document, draft._values)
        return True

    async def _read(self) -> bool:
        text = await self._store.load_shared(self.id)
        self._known = True
        if text == self._text:
            return False
        if text is None:
            self._adopt(None, {}, {})
            return True
        try:
            document = _document_of(text)
            values = load_values(self._state.declaration, document["value"])
        except (ValueError, ValueRefusedError, RecursionError) as error:
            await self._set_aside(text, error)
            return True
        self._adopt(text, document, values)
        return True

    async def _set_aside(self, text: bytes, error: Exception) -> None:
        """Keeps a value that this version cannot read under a quarantine key; the state starts at its defaults."""
        log.error("shared state %s cannot be read (%s): kept aside, starting at its defaults", self.id, error)
        revision = _revision_in(text) + 1
        document = {"revision": revision, "value": self._state.declaration.defaults(), "applied": []}
        fresh = json.dumps(document, separators=(",", ":"))
        if await self._store.swap_shared(self.id, fresh, expected=text, quarantine_ms=now_ms()):
            self._adopt(fresh.encode(), document, {})

    def _adopt(self, text: bytes | None, document: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        self._text, self._document = text, document
        revision = document.get("revision", 0)
        self.revision = revision if isinstance(revision, int) else 0
        self.view = self._state(values)
        self._changed(self)

    async def _announce(self) -> None:
        payload = json.dumps({"state": self.id, "revision": self.revision})
        assert len(payload) <= ANNOUNCEMENT_BYTES, "a state id is bounded, so is this"
        try:
            await self._store.announce(contract.SHARED_CHANNEL, payload)
        except StoreUnavailableError as error:
            log.warning("a change of %s was stored but not announced: %s", self.id, error)


def announced_state(payload: str) -> str | None:
    """The state id in an announcement; None for anything else."""
    try:
        document = json.loads(payload)
        state = document["state"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return state if isinstance(state, str) else None


def _document_of(text: bytes) -> dict[str, Any]:
    document = json.loads(text)
    if not isinstance(document, dict) or not isinstance(document.get("value"), dict):
        raise ValueError("it is not an object with a value")
    if not isinstance(document.get("revision"), int):
        raise ValueError("it has no revision")
    return document


def _revision_in(text: bytes) -> int:
    try:
        return int(json.loads(text)["revision"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return 0
