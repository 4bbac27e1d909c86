"""Records that Vango keeps in a Redis-protocol store: their keys, and what a host may read of them without the secret.

Rules of this room: a fact of the framework, no decision; total functions over bytes and text. A record is signed, not
encrypted, but the signature cannot be checked here (the secret is the environment's): a header is what the record
says of itself. A session id opens the session, so nothing but its label is ever shown.

One record: "VNGO", format u8, schema version u16, schema hash 32 bytes, time of writing u64 (Unix ms), payload length
u32, the payload (CBOR), HMAC-SHA256 over all before it. Numbers are big-endian.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

SESSION_PREFIX: Final = "vango:session:"
GLOBAL_KEY_PREFIX: Final = "vango:session:vango:global:"  # state shared by all; kept by the same store, no session
CHANNEL_PREFIX: Final = "vango:global:"  # announcements of shared state; the rest of the name as in its key

MAGIC: Final = b"VNGO"
FORMAT: Final = 1
SIGNATURE_BYTES: Final = 32
TIMES_WITHIN_BYTES: Final = 512  # the first entries of a payload (id, user, times) lie in here
_HEADER: Final = struct.Struct(">4sBH32sQI")
HEADER_BYTES: Final = _HEADER.size

_SESSION_ID: Final = re.compile(r"[0-9a-f]{32}\Z")
_LABEL_CHARS: Final = 12


class Bad(StrEnum):
    """Why stored bytes are no session record that this reader knows."""

    TRUNCATED = "truncated"  # shorter than it says, or than any record
    OVERLONG = "overlong"  # more bytes than the record says it has
    FOREIGN = "foreign"  # another magic: not of this framework, or of an older one
    UNKNOWN_FORMAT = "unknown_format"
    UNREADABLE = "unreadable"  # a payload whose first entries are not what they must be


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """What a record says of itself. `written_ms` is Unix ms by the clock of the process that wrote it."""

    written_ms: int
    schema_hash_hex: str
    payload_bytes: int
    schema_version: int = 1

    @property
    def schema_hash(self) -> str:
        """The hash as it stands in a schema file."""
        return f"sha256:{self.schema_hash_hex}"


@dataclass(frozen=True, slots=True)
class BadRecord:
    """Bytes under a session's key that the framework will refuse, and so will this reader."""

    reason: Bad


@dataclass(frozen=True, slots=True)
class Times:
    """Times within a payload, Unix ms with the precision of a second."""

    created_ms: int
    active_ms: int


def read_header(first_bytes: bytes, total_length: int) -> RecordHeader | BadRecord:
    """The header in a record's first HEADER_BYTES bytes (more do no harm); `total_length` is that of the whole value.

    The signature is not checked: a record of another secret has a good header.
    """
    if len(first_bytes) < len(MAGIC) or len(first_bytes) > total_length:
        return BadRecord(Bad.TRUNCATED)
    if not first_bytes.startswith(MAGIC):
        return BadRecord(Bad.FOREIGN)
    if len(first_bytes) < HEADER_BYTES:
        return BadRecord(Bad.TRUNCATED)
    _, stored_format, version, schema_hash, written_ms, payload_bytes = _HEADER.unpack_from(first_bytes)
    if stored_format != FORMAT:
        return BadRecord(Bad.UNKNOWN_FORMAT)
    missing = HEADER_BYTES + payload_bytes + SIGNATURE_BYTES - total_length
    if missing:
        return BadRecord(Bad.TRUNCATED if missing > 0 else Bad.OVERLONG)
    return RecordHeader(written_ms, schema_hash.hex(), payload_bytes, version)


def read_times(first_bytes: bytes) -> Times | BadRecord:
    """When the session of a record was created and last active, from its first TIMES_WITHIN_BYTES bytes.

    Reads the first entries of the payload and no more: a map in canonical order whose keys are small numbers; 1 is
    the id, 2 a user (may be missing), 3 and 4 the times, all text.
    """
    entries = _Entries(first_bytes[HEADER_BYTES:])
    texts: dict[int, str] = {}
    try:
        count = entries.map_header()
        for _ in range(min(count, 4)):
            key = entries.small_number()
            texts[key] = entries.text()
            if key >= 4:
                break
        return Times(_unix_ms(texts[3]), _unix_ms(texts[4]))
    except (ValueError, KeyError, IndexError, OverflowError):
        return BadRecord(Bad.UNREADABLE)


def is_session_key(key: str) -> bool:
    """Whether a key of the store is that of one session; those of shared state begin with the same words."""
    return key.startswith(SESSION_PREFIX) and is_session_id(key[len(SESSION_PREFIX) :])


def is_session_id(text: str) -> bool:
    """Whether a text has the form in which the framework makes session ids."""
    return _SESSION_ID.match(text) is not None


def key_of(session_id: str) -> str:
    """The key of a session's record."""
    return f"{SESSION_PREFIX}{session_id}"


def session_id_of(key: str) -> str:
    """The session whose record lies under this key; empty for a key that is none of a session."""
    return key[len(SESSION_PREFIX) :] if is_session_key(key) else ""


def label_of(session_id: str) -> str:
    """A short name of a session that may be shown and logged: it cannot be turned back into the id."""
    return hashlib.sha256(f"moorage-tag:{session_id}".encode()).hexdigest()[:_LABEL_CHARS]


def label_of_key(key: str) -> str:
    """The label of the session whose record lies under this key; empty for a key that is none of a session."""
    session_id = session_id_of(key)
    return label_of(session_id) if session_id else ""


def is_global_key(key: str) -> bool:
    """Whether a key of the store holds state that all sessions share."""
    return key.startswith(GLOBAL_KEY_PREFIX)


def channel_of(global_key: str) -> str:
    """The channel on which changes of the state under this key are announced; empty for another key."""
    return global_key[len(SESSION_PREFIX) :] if is_global_key(global_key) else ""


def _unix_ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return round(moment.timestamp() * 1000)


class _Entries:
    """Reads the few shapes of CBOR that begin a payload; ValueError or IndexError for any other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def map_header(self) -> int:
        head = self._byte()
        if not 0xA0 <= head <= 0xB7:  # a map of up to 23 entries
            raise ValueError("no small map")
        return head & 0x1F

    def small_number(self) -> int:
        head = self._byte()
        if head > 0x17:
            raise ValueError("no small number")
        return head

    def text(self) -> str:
        head = self._byte()
        length = self._byte() if head == 0x78 else head & 0x1F
        if head != 0x78 and not 0x60 <= head <= 0x77:  # up to 255 bytes
            raise ValueError("no short text")
        raw = self._data[self._at : self._at + length]
        if len(raw) < length:
            raise IndexError("text ends early")
        self._at += length
        return raw.decode()

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]
