"""One live session: its declared states, what of them is stored, who holds it.

Rules of this room: a change is visible at once in this process and acknowledged to the client only when the store has
it. Changes made meanwhile travel together. When the store says that another connection holds the session, this object
is dead: every later change raises SessionLostError.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from moorage_app import contract
from moorage_app.contract import Outcome, Parted, Record
from moorage_app.errors import DeclarationError, SessionLostError, ValueRefusedError
from moorage_app.place import now_ms
from moorage_app.resume import Entry, House
from moorage_app.state import SessionState, SharedState, State
from moorage_app.stores.port import Lost, Store, Written

if TYPE_CHECKING:
    from .service import Service

S = TypeVar("S", bound=SessionState)
G = TypeVar("G", bound=SharedState)
T = TypeVar("T")

SHOWN_BYTES: Final = 512  # what one person may show to the others


class Session:
    """What the author's actions get. `session[Draft]` is the draft; set its fields and they are kept."""

    def __init__(self, entry: Entry, house: House, store: Store, service: Service) -> None:
        self._record = entry.record
        self._store, self._service = store, service
        self._states: dict[type[State], State] = {}
        for state in house.states:
            values = entry.record.states.get(state.declaration.id, {})
            self._states[state] = state(values, changed=self._note_change)
        self._by_id = {state.declaration.id: self._states[state] for state in house.states}
        self._changed: dict[str, dict[str, Any]] = {}  # by the server, not yet told to the client
        self._dirty = asyncio.Event()
        self._storing = asyncio.Lock()
        self._over: str | None = None  # why nothing can be written here any more
        self._setting_for_client = False
        self._shown: dict[str, Any] = {}
        self._send: Callable[[Mapping[str, Any]], None] | None = None
        self._changes_in_action, self._acting = 0, False
        self.seq = entry.record.seq  # of the client's message that is being applied, or was applied last
        self._applied = entry.record.seq  # of the last one whose effects are complete: what may be acknowledged
        self.outcome: Outcome = entry.record.outcome
        self.reason, self.detail = entry.record.reason, entry.record.detail
        self.restored, self.defaults = entry.restored, entry.defaults

    def __repr__(self) -> str:
        return f"<Session {self.tag}>"  # never the id: it is a secret

    # ---- for authors ------------------------------------------------------------------------------------------
    def __getitem__(self, state: type[S]) -> S:
        """This session's own instance of a declared session state."""
        found = self._states.get(state)
        if found is None:
            raise DeclarationError(getattr(state, "__name__", str(state)), "it is not a session state of this app")
        return cast(S, found)

    @property
    def tag(self) -> str:
        """A short public name of this session; it cannot be turned back into its id."""
        return contract.tag(self._record.id)

    @property
    def story(self) -> list[dict[str, Any]]:
        """What happened to this session, oldest first, as the store has it."""
        return [dict(event) for event in self._record.story]

    @property
    def shown(self) -> Mapping[str, Any]:
        """What the others see of this person."""
        return self._shown

    def show(self, **about: Any) -> None:
        """Says something about this person to the others (name, colour): small, and forgotten when they leave."""
        text = json.dumps(about, allow_nan=False)
        if len(text) > SHOWN_BYTES:
            raise ValueRefusedError("show()", f"at most {SHOWN_BYTES} bytes", f"{len(text)}")
        if about != self._shown:
            self._shown = about
            self._service.people.wake()

    def send(self, name: str, data: Any = None) -> None:
        """A message to this client alone; at most once."""
        if self._send is not None:
            self._send({"type": "message", "name": name, "data": data})

    def read(self, state: type[G]) -> G:
        """The shared state as this allocation knows it now (read only)."""
        return self._service.cell(state).view

    async def change(self, state: type[G], function: Callable[[G], T]) -> T | None:
        """Changes shared state by compare-and-swap.

        `function(value)` sets fields; it runs again when somebody else was faster. A change made in answer to a
        client's message happens once, even when the client has to send it again after a hand-over or a crash (then
        `function` does not run and None comes back).
        """
        key = None
        if self._acting:  # what an app does by itself has no number to be recognised by
            self._changes_in_action += 1
            key = f"{self.tag}:{self.seq}:{self._changes_in_action}"
        return await self._service.cell(state).change(function, key)

    # ---- for the connection -----------------------------------------------------------------------------------
    @property
    def record(self) -> Record:
        """The record as this process stored it last."""
        return self._record

    @property
    def over(self) -> str | None:
        """Why this object can write nothing any more, if so."""
        return self._over

    def bind(self, send: Callable[[Mapping[str, Any]], None]) -> None:
        """Gives the session its way to the client."""
        self._send = send

    def values(self) -> dict[str, dict[str, Any]]:
        """The states the client may see."""
        return {i: s._dump() for i, s in self._by_id.items() if not s.declaration.private}

    @property
    def applied(self) -> int:
        """The number of the client's last message whose effects are complete here."""
        return self._applied

    def begin(self, seq: int) -> None:
        """The client's message number `seq` is being applied now."""
        self.seq, self._changes_in_action, self._acting = seq, 0, True

    def finish(self, *, applied: bool) -> None:
        """That is over. If it was applied the record says so from now on, and then it is acknowledged."""
        self._acting = False
        if applied:
            self._applied = self.seq
            self._dirty.set()

    def set_for_client(self, state_id: str, field: str, value: Any) -> None:
        """A field set by the client. Raises like an assignment; private states do not exist for it."""
        state = self._by_id.get(state_id)
        if state is None or state.declaration.private or field not in state.declaration.fields:
            raise ValueRefusedError(f"{state_id}.{field}", "no value from a client", "one")
        self._setting_for_client = True
        try:
            setattr(state, field, value)
        finally:
            self._setting_for_client = False

    def take_changes(self) -> dict[str, dict[str, Any]]:
        """What the server changed since the last call, for the client."""
        changed, self._changed = self._changed, {}
        return changed

    async def wait_dirty(self) -> None:
        """Returns when something is to be stored."""
        await self._dirty.wait()

    def mark_over(self, reason: str) -> None:
        """From now on nothing is written here."""
        if self._over is None:
            self._over = reason
        self._dirty.set()

    async def store(self, parted: Parted | None = None, reason: str = "") -> int:
        """Stores every change made so far; gives the last `seq` that is in the store.

        With `parted` the record also says how the socket went, and nothing is written afterwards. Raises
        SessionLostError when the lease is gone, StoreUnavailableError when it is not known.
        """
        async with self._storing:
            if self._over is not None:
                raise SessionLostError(self._over)
            if parted is None and not self._dirty.is_set():
                return self._record.seq
            self._dirty.clear()
            record = self._next_record(parted, reason)
            try:
                await self._put(record)
            except BaseException:
                self._dirty.set()  # not known to be stored: the next try writes it again
                raise
            self._record = record
            if parted is not None:
                self._over = f"parted: {parted}"
            return record.seq

    async def _put(self, record: Record) -> None:
        try:
            text = contract.encode_record(record, spare=record.parted is not None)
        except ValueError as error:
            self._revert()
            raise ValueRefusedError("this session", f"at most {contract.RECORD_BYTES} bytes", "more") from error
        answer = await self._store.write(
            record.id, text, holder=record.holder, lease=record.lease, revision=record.revision
        )
        match answer:
            case Written():
                return
            case Lost(reason):
                self.mark_over(reason)
                raise SessionLostError(reason)

    def _revert(self) -> None:
        """Back to what is stored; the client is told all values again."""
        for state_id, state in self._by_id.items():
            object.__setattr__(state, "_values", {**state.declaration.defaults(), **self._record.states[state_id]})
            if not state.declaration.private:
                self._changed[state_id] = state._dump()

    def _next_record(self, parted: Parted | None, reason: str) -> Record:
        at_ms = now_ms()
        record = replace(
            self._record,
            states={state_id: state._dump() for state_id, state in self._by_id.items()},
            revision=self._record.revision + 1,
            seq=self._applied,
            updated_ms=at_ms,
        )
        if parted is None:
            return record
        event = {
            "at_ms": at_ms,
            "event": str(parted),
            "allocation": record.holder,
            "deployment": record.deployment,
            "reason": reason,
        }
        return contract.with_event(replace(record, attached=False, parted=parted), event)

    def _note_change(self, state_id: str, field: str, value: Any) -> None:
        if self._over is not None:
            raise SessionLostError(self._over)
        if not self._setting_for_client and not self._by_id[state_id].declaration.private:
            self._changed.setdefault(state_id, {})[field] = value
        self._dirty.set()
