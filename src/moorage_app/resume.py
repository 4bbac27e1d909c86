"""The decision how a connection enters its session: created, resumed, or fresh with the reason.

Rules of this room: pure and total; whatever lies in the store, one entry comes out. The caller then writes
`entry.record` on the condition that the store still holds what the decision saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .contract import (
    BadRecord,
    Born,
    FreshReason,
    Outcome,
    Record,
    decode_record,
    is_session_id,
    tag,
    with_event,
)
from .declared import Schema, cold_change, schema_of
from .errors import ValueRefusedError
from .place import Place
from .state import State, load_values


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a client presented and what the store holds for it. `traced`: the id was given out before."""

    presented: str | None
    stored: bytes | None = None
    traced: bool = False


@dataclass(frozen=True, slots=True)
class House:
    """What this allocation declares, and who it is."""

    states: tuple[type[State], ...]
    schema: Schema
    place: Place

    def defaults(self) -> dict[str, dict[str, Any]]:
        """All session states at their defaults."""
        return {state.declaration.id: state.declaration.defaults() for state in self.states}


def house_of(states: Sequence[type[State]], place: Place) -> House:
    """The session states among these, with their schema."""
    own = tuple(state for state in states if state.declaration.scope == "session")
    return House(own, schema_of(own), place)


@dataclass(frozen=True, slots=True)
class Entry:
    """How to go on. `record` is to be written; `quarantine` says that what is stored must be kept aside first.

    `displaces`: the previous holder has not let go, so it must be told that it lost the session.
    """

    record: Record
    previous_holder: str | None
    displaces: bool
    quarantine: bool
    restored: tuple[str, ...]  # fields that came back, as "state id.field"
    defaults: tuple[str, ...]  # fields, and unpersisted attributes, that are at their defaults


def decide_entry(arrival: Arrival, house: House, now_ms: int, new_id: str) -> Entry:
    """How this connection enters. `new_id` is used where the client presented none that can be a key."""
    if arrival.presented is None:
        return _start(house, now_ms, new_id, Outcome.CREATED, "")
    if not is_session_id(arrival.presented):
        entry = _start(house, now_ms, new_id, Outcome.FRESH, FreshReason.UNKNOWN_ID)
        return replace(entry, record=replace(entry.record, replaces=tag(arrival.presented)))
    if arrival.stored is None:
        reason = FreshReason.EXPIRED if arrival.traced else FreshReason.UNKNOWN_ID
        return _start_unreadable(arrival.presented, house, now_ms, reason, "", quarantine=False)
    record = decode_record(arrival.stored)
    if isinstance(record, Record) and record.id != arrival.presented:
        record = BadRecord(FreshReason.CORRUPT, "it carries another session's id")
    if isinstance(record, BadRecord):
        return _start_unreadable(arrival.presented, house, now_ms, record.reason, record.detail, quarantine=True)
    cold = cold_change(record.schema_entries, house.schema.entries)
    if cold is not None:
        return _start_over(record, house, now_ms, cold)
    try:
        values = _stored_values(record, house)
    except ValueRefusedError as error:
        detail = f"{error.where} holds {error.found} instead of {error.expected}"
        return _start_unreadable(record.id, house, now_ms, FreshReason.CORRUPT, detail, quarantine=True)
    return _resume(record, house, now_ms, values)


def _resume(record: Record, house: House, now_ms: int, values: Mapping[str, Mapping[str, Any]]) -> Entry:
    restored = tuple(f"{state}.{name}" for state, fields in record.states.items() for name in fields)
    back = set(restored)
    defaults = tuple(name for name in _all_names(house) if name not in back)
    next_record = replace(
        record,
        **_entered(house, now_ms, Outcome.RESUMED, "", ""),
        states=values,
        revision=record.revision + 1,
        lease=record.lease + 1,
        previous_holder=record.holder,
    )
    return _told(next_record, record, False, restored, defaults)


def _start(house: House, now_ms: int, session_id: str, outcome: Outcome, reason: str, lease: int = 1) -> Entry:
    record = Record(
        id=session_id,
        **_entered(house, now_ms, outcome, reason, ""),
        states=house.defaults(),
        revision=1,
        lease=lease,
        created_ms=now_ms,
        born=Born(lease, outcome, reason, house.place.allocation, now_ms),
    )
    return _told(record, None, False, (), tuple(_all_names(house)))


def _start_unreadable(
    session_id: str, house: House, now_ms: int, reason: FreshReason, detail: str, *, quarantine: bool
) -> Entry:
    """The last lease of this id is not known, so the clock in ms is taken: above any count of resumes."""
    entry = _start(house, now_ms, session_id, Outcome.FRESH, reason, lease=now_ms)
    told = replace(entry.record, detail=detail, story=({**entry.record.story[-1], "detail": detail},))
    return replace(entry, record=told, quarantine=quarantine)


def _start_over(record: Record, house: House, now_ms: int, cold: str) -> Entry:
    lease = record.lease + 1
    next_record = replace(
        record,
        **_entered(house, now_ms, Outcome.FRESH, FreshReason.SCHEMA, cold),
        states=house.defaults(),
        revision=record.revision + 1,
        lease=lease,
        previous_holder=record.holder,
        born=Born(lease, Outcome.FRESH, FreshReason.SCHEMA, house.place.allocation, now_ms),
    )
    return _told(next_record, record, False, (), tuple(_all_names(house)))


def _entered(house: House, now_ms: int, outcome: Outcome, reason: str, detail: str) -> dict[str, Any]:
    return {
        "schema_hash": house.schema.hash,
        "schema_entries": house.schema.entries,
        "holder": house.place.allocation,
        "deployment": house.place.deployment,
        "attached": True,
        "parted": None,
        "outcome": outcome,
        "reason": str(reason),
        "detail": detail,
        "updated_ms": now_ms,
    }


def _told(
    record: Record, previous: Record | None, quarantine: bool, restored: tuple[str, ...], defaults: tuple[str, ...]
) -> Entry:
    event: dict[str, Any] = {
        "at_ms": record.updated_ms,
        "event": str(record.outcome),
        "allocation": record.holder,
        "deployment": record.deployment,
        "reason": record.reason,
        "restored": list(restored),
        "defaults": list(defaults),
    }
    if record.detail:
        event["detail"] = record.detail
    holder, displaces = (previous.holder, previous.attached) if previous else (None, False)
    return Entry(with_event(record, event), holder, displaces, quarantine, restored, defaults)


def _stored_values(record: Record, house: House) -> dict[str, dict[str, Any]]:
    return {
        state.declaration.id: load_values(state.declaration, record.states.get(state.declaration.id, {}))
        for state in house.states
    }


def _all_names(house: House) -> list[str]:
    return [
        f"{state.declaration.id}.{name}"
        for state in house.states
        for name in (*state.declaration.fields, *state.declaration.unpersisted)
    ]
