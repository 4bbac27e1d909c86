"""What the SDK and the platform agree on: environment names, store keys, the session record.

Rules of this room: only the standard library, no I/O, no clock. The platform imports this module; it imports
nothing of the platform. A change that an older reader would misunderstand raises `FORMAT`.

**The record.** One JSON string under `session_key(id)`. Every change of it is one Lua script in the store that
first checks `lease` and `holder`; so the record never has two writers, and whoever lost the lease cannot change it.

- `revision` rises by one with every change, whoever makes it.
- `lease` rises by one whenever a connection takes the session (also the same allocation: a duplicated tab).
- `holder` is the allocation that took it. `previous_holder` is the one it was taken from.
- `born` says when the values in the record started at their defaults: lease, outcome, reason, allocation, time.
- `attached` / `parted`: a socket is open, or how it went: `handed_over`, `ended` (closed by the person),
  `dropped` (lost). A parted record stays under its last holder until somebody takes the lease, or its TTL ends.
- `outcome` / `reason` / `detail` are those of the latest entry (the detail names e.g. the retyped field). `seq` is the
  client's last change contained in the record.

**Evidence for the account of a hand-over.** Before the cut the platform reads `held_key(old)` and, for each id, the
record's `lease`. Afterwards `standing(record, old, lease_before)` says where the session is now:

- `attached`: still under `old` with an open socket (as the store knows; the edge counts sockets).
- `ended`: the person closed it while `old` held it.
- `parted`: `old` stored it and let go, nobody has taken it yet. Until somebody does it is *unknown*, later *lost*.
- `resumed`: another allocation took the lease and went on with the stored values.
- `fresh`: another allocation took the lease and started at the defaults; the reason is named. A fresh start keeps the
  presented id; where an id was not acceptable as a key, the new record names its digest in `replaces`.
- `missing` / `unreadable`: there is no record (expired), or it cannot be read (corrupt, newer format).

None of this is ever concluded from what the old allocation says about itself after the cut: `resumed` and `fresh`
need the lease to have left it, in the store.

**Notices.** The platform writes `notice_key(allocation)` and then publishes the allocation id on `NOTICES_CHANNEL`; the
SDK also polls the key every second. A notice is a latch: deleting the key changes nothing, `open` takes it back.
After a hand-over the SDK writes `handover_key(allocation)` as its very last write: the counts of what it stored.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, TypeGuard, TypeVar

_T = TypeVar("_T")
_E = TypeVar("_E", bound=StrEnum)

FORMAT: Final = 1
PROTOCOL: Final = 1

# ---- environment given by the platform -------------------------------------------------------------------------
ENV_APP: Final = "MOORAGE_APP"
ENV_ENVIRONMENT: Final = "MOORAGE_ENVIRONMENT"
ENV_ALLOCATION: Final = "MOORAGE_ALLOCATION"
ENV_ALLOCATION_NUMBER: Final = "MOORAGE_ALLOCATION_NUMBER"
ENV_DEPLOYMENT: Final = "MOORAGE_DEPLOYMENT"
ENV_STORE_URL: Final = "MOORAGE_SESSION_STORE_URL"
ENV_PORT: Final = "PORT"
ENV_HOST: Final = "HOST"

# ---- limits -----------------------------------------------------------------------------------------------------
SESSION_TTL_S: Final = 24 * 3600  # refreshed by every change and, while attached, every quarter of it
TRACE_TTL_S: Final = 7 * SESSION_TTL_S  # how long an expired id is still told from one never seen
QUARANTINE_TTL_S: Final = 7 * 24 * 3600
NOTICE_POLL_S: Final = 1.0
STORY_EVENTS_COUNT: Final = 20
RECORD_BYTES: Final = 256 * 1024
RECORD_SPARE_BYTES: Final = 32 * 1024  # beyond it: entering and leaving a full record must still fit
DEPTH_LEVELS: Final = 40  # nesting of JSON inside a record; Lua's decoder must follow

# ---- keys and channels of the environment's store --------------------------------------------------------------
NOTICES_CHANNEL: Final = "moorage:notices"  # payload: the allocation id whose notice key changed
SHARED_CHANNEL: Final = "moorage:shared"  # payload: {"state": id, "revision": n}; never the value
PRESENCE_CHANNEL: Final = "moorage:presence"  # payload: the allocation id whose people changed
PRESENCE_KEY: Final = "moorage:presence"  # sorted set: allocation id, score = expiry in ms
SESSION_PREFIX: Final = "moorage:session:"


def session_key(session_id: str) -> str:
    """The record of one session."""
    return f"{SESSION_PREFIX}{session_id}"


def trace_key(session_id: str) -> str:
    """Outlives the record: tells an expired id from one that was never given out."""
    return f"moorage:trace:{session_id}"


def quarantine_key(session_id: str) -> str:
    """A record that could not be read, kept aside; a second one gets `:<time in ms>` appended."""
    return f"moorage:quarantine:{session_id}"


def held_key(allocation: str) -> str:
    """Set of the session ids whose lease this allocation holds; changed in the same script as the lease."""
    return f"moorage:held:{allocation}"


def allocation_key(allocation: str) -> str:
    """JSON {"sdk", "schema_hash", "started_ms", ...}, written at start-up before the app becomes ready."""
    return f"moorage:allocation:{allocation}"


def notice_key(allocation: str) -> str:
    """JSON {"notice": drain | handover | open, "deadline_ms"}, written by the platform alone."""
    return f"moorage:notice:{allocation}"


def handover_key(allocation: str) -> str:
    """JSON {"at_ms", "stored", "unstored"}: the allocation's last write, when it has let go of its sessions."""
    return f"moorage:handover:{allocation}"


def lost_channel(allocation: str) -> str:
    """Announces to an allocation the ids whose lease was taken from it (a write would tell it anyway)."""
    return f"moorage:lost:{allocation}"


def shared_key(state_id: str) -> str:
    """JSON {"revision", "value", "applied"} of one shared state."""
    return f"moorage:shared:{state_id}"


def presence_key(allocation: str) -> str:
    """JSON list of the people attached to one allocation, with a TTL of seconds."""
    return f"moorage:presence:{allocation}"


# ---- words ------------------------------------------------------------------------------------------------------
class Outcome(StrEnum):
    """How a connection entered its session."""

    CREATED = "created"
    RESUMED = "resumed"
    FRESH = "fresh"


class FreshReason(StrEnum):
    """Why a client that presented an id started at the defaults."""

    EXPIRED = "expired"
    SCHEMA = "schema"
    CORRUPT = "corrupt"
    NEWER_FORMAT = "newer_format"
    UNKNOWN_ID = "unknown_id"


class Parted(StrEnum):
    """How the last socket of a session went."""

    HANDED_OVER = "handed_over"
    ENDED = "ended"
    DROPPED = "dropped"


class NoticeKind(StrEnum):
    """What the platform asks of an allocation."""

    OPEN = "open"
    DRAIN = "drain"
    HANDOVER = "handover"


class Standing(StrEnum):
    """Where a session that an allocation held is now (see the module's text)."""

    ATTACHED = "attached"
    ENDED = "ended"
    PARTED = "parted"
    RESUMED = "resumed"
    FRESH = "fresh"
    MISSING = "missing"
    UNREADABLE = "unreadable"


# ---- the record -------------------------------------------------------------------------------------------------
_SESSION_ID: Final = re.compile(r"[A-Za-z0-9_-]{22,64}\Z")  # 22 letters of base64url are 132 bits


def is_session_id(text: object) -> bool:
    """True for text that may be used as a session id (and so as part of a key)."""
    return isinstance(text, str) and _SESSION_ID.match(text) is not None


def tag(session_id: str) -> str:
    """A short name of a session that may be shown and logged: it cannot be turned back into the id."""
    return hashlib.sha256(f"moorage-tag:{session_id}".encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Born:
    """When the values in a record started at their defaults."""

    lease: int
    outcome: Outcome
    reason: str
    allocation: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Record:
    """One session as it lies in the store. `states` maps state id to field to JSON value; times are Unix ms."""

    id: str
    schema_hash: str
    schema_entries: tuple[Mapping[str, Any], ...]
    states: Mapping[str, Mapping[str, Any]]
    revision: int
    lease: int
    holder: str
    attached: bool
    parted: Parted | None
    outcome: Outcome
    reason: str
    created_ms: int
    updated_ms: int
    born: Born
    detail: str = ""
    seq: int = 0
    deployment: int = 0
    previous_holder: str | None = None
    replaces: str | None = None
    story: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A stored text that is no record this reader can use."""

    reason: FreshReason  # CORRUPT or NEWER_FORMAT
    detail: str


def encode_record(record: Record, *, spare: bool = False) -> str:
    """The record as the text that is stored.

    Raises ValueError when it exceeds RECORD_BYTES; `spare` allows RECORD_SPARE_BYTES more, for an entry or a parting.
    """
    document = {
        "format": FORMAT,
        "id": record.id,
        "schema": {"hash": record.schema_hash, "entries": list(record.schema_entries)},
        "states": record.states,
        "revision": record.revision,
        "lease": record.lease,
        "holder": record.holder,
        "previous_holder": record.previous_holder,
        "attached": record.attached,
        "parted": record.parted,
        "outcome": record.outcome,
        "reason": record.reason,
        "detail": record.detail,
        "deployment": record.deployment,
        "seq": record.seq,
        "created_ms": record.created_ms,
        "updated_ms": record.updated_ms,
        "replaces": record.replaces,
        "born": {
            "lease": record.born.lease,
            "outcome": record.born.outcome,
            "reason": record.born.reason,
            "allocation": record.born.allocation,
            "at_ms": record.born.at_ms,
        },
        "story": list(record.story[-STORY_EVENTS_COUNT:]),
    }
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    limit = RECORD_BYTES + RECORD_SPARE_BYTES if spare else RECORD_BYTES
    if len(text) > limit:
        raise ValueError(f"session record of {len(text)} bytes exceeds {limit}")
    return text


def decode_record(text: str | bytes) -> Record | BadRecord:
    """Reads a stored text. Total: any input gives a record or says why it is none."""
    if len(text) > RECORD_BYTES + RECORD_SPARE_BYTES:
        return BadRecord(FreshReason.CORRUPT, "larger than a record may be")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        return BadRecord(FreshReason.CORRUPT, f"not JSON: {type(error).__name__}")
    if not isinstance(document, dict):
        return BadRecord(FreshReason.CORRUPT, "not a JSON object")
    stored_format = document.get("format")
    if not _is_int(stored_format):
        return BadRecord(FreshReason.CORRUPT, "no format number")
    if stored_format > FORMAT:
        return BadRecord(FreshReason.NEWER_FORMAT, f"format {stored_format}, this SDK reads up to {FORMAT}")
    try:
        return _record_of(document)
    except _Wrong as wrong:
        return BadRecord(FreshReason.CORRUPT, str(wrong))


def standing(record: Record | BadRecord | None, old: str, lease_before: int | None = None) -> tuple[Standing, str]:
    """Where a session that `old` held is now, and the reason where there is one.

    `lease_before` is the record's lease read before the cut; with it a fresh start is recognised however often the
    session was resumed since. Without it the story is searched, and then the latest outcome decides.
    """
    if record is None:
        return Standing.MISSING, ""
    if isinstance(record, BadRecord):
        return Standing.UNREADABLE, record.reason
    if record.holder == old:
        return _standing_at_holder(record)
    if lease_before is not None:
        fresh, reason = record.born.lease > lease_before, record.born.reason
    else:
        fresh, reason = _first_entry_elsewhere(record, old)
    return (Standing.FRESH, reason) if fresh else (Standing.RESUMED, "")


def _standing_at_holder(record: Record) -> tuple[Standing, str]:
    if record.attached:
        return Standing.ATTACHED, ""
    if record.parted is Parted.ENDED:
        return Standing.ENDED, ""
    return Standing.PARTED, record.parted or ""


def _first_entry_elsewhere(record: Record, old: str) -> tuple[bool, str]:
    """The first entry after the old allocation's last event; the latest outcome when the story has lost it."""
    entries: list[Mapping[str, Any]] = []
    for event in record.story:
        if event.get("allocation") == old:
            entries = []
        elif event.get("event") in (Outcome.RESUMED, Outcome.FRESH):
            entries.append(event)
    if entries:
        first = entries[0]
        return first["event"] == Outcome.FRESH, str(first.get("reason", ""))
    return record.outcome is not Outcome.RESUMED, record.reason


@dataclass(frozen=True, slots=True)
class Notice:
    """What the platform asks of an allocation; `deadline_ms` is Unix ms, 0 for none."""

    kind: NoticeKind
    deadline_ms: int = 0


def encode_notice(notice: Notice) -> str:
    """The text for `notice_key`."""
    return json.dumps({"notice": notice.kind, "deadline_ms": notice.deadline_ms})


def decode_notice(text: str | bytes | None) -> Notice | None:
    """The notice in a stored text; None where there is none or it cannot be read (then nothing changes)."""
    if text is None:
        return None
    try:
        document = json.loads(text)
        kind, deadline = NoticeKind(document["notice"]), document.get("deadline_ms", 0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return Notice(kind, deadline if _is_int(deadline) else 0)


def with_event(record: Record, event: Mapping[str, Any]) -> Record:
    """The record with one more event in its story; details of older events are dropped to keep it small."""
    kept = [{k: v for k, v in old.items() if k not in ("restored", "defaults")} for old in record.story]
    return replace(record, story=tuple([*kept, event][-STORY_EVENTS_COUNT:]))


# ---- strict reading ---------------------------------------------------------------------------------------------
class _Wrong(ValueError):
    """A part of a stored record that is not what it must be; carries its path."""


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _part(document: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    value = document.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _Wrong(f"{name} is not {kind.__name__}")
    return value


def _part_or_none(document: Mapping[str, Any], name: str) -> str | None:
    return None if document.get(name) is None else _part(document, name, str)


def _word(words: type[_E], text: Any, name: str) -> _E:
    try:
        return words(text)
    except ValueError:
        raise _Wrong(f"{name} is no {words.__name__}") from None


def _objects(value: Sequence[Any], name: str) -> tuple[Mapping[str, Any], ...]:
    if not all(isinstance(item, dict) for item in value):
        raise _Wrong(f"{name} holds something that is not an object")
    return tuple(value)


def _record_of(document: Mapping[str, Any]) -> Record:
    schema, states = _part(document, "schema", dict), _part(document, "states", dict)
    if not all(isinstance(fields, dict) for fields in states.values()):
        raise _Wrong("states holds something that is not an object")
    if not is_session_id(document.get("id")):
        raise _Wrong("id is not a session id")
    parted = document.get("parted")
    return Record(
        id=_part(document, "id", str),
        schema_hash=_part(schema, "hash", str),
        schema_entries=_objects(_part(schema, "entries", list), "schema.entries"),
        states=states,
        revision=_part(document, "revision", int),
        lease=_part(document, "lease", int),
        holder=_part(document, "holder", str),
        previous_holder=_part_or_none(document, "previous_holder"),
        attached=_part(document, "attached", bool),
        parted=None if parted is None else _word(Parted, parted, "parted"),
        outcome=_word(Outcome, document.get("outcome"), "outcome"),
        reason=_part(document, "reason", str),
        detail=_part(document, "detail", str),
        deployment=_part(document, "deployment", int),
        seq=_part(document, "seq", int),
        created_ms=_part(document, "created_ms", int),
        updated_ms=_part(document, "updated_ms", int),
        replaces=_part_or_none(document, "replaces"),
        born=_born_of(_part(document, "born", dict)),
        story=_objects(_part(document, "story", list), "story"),
    )


def _born_of(document: Mapping[str, Any]) -> Born:
    return Born(
        lease=_part(document, "lease", int),
        outcome=_word(Outcome, document.get("outcome"), "born.outcome"),
        reason=_part(document, "reason", str),
        allocation=_part(document, "allocation", str),
        at_ms=_part(document, "at_ms", int),
    )
