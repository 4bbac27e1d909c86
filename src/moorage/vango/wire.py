"""Vango's live protocol 2.2, both ways: frames, the two hellos, events, controls, acknowledgements.

Rules of this room: bytes in, values out, and back; no socket, no clock. What cannot be read is a `WireError` with the
offset, never a half-read value. Integers are big-endian; text and counts carry their length as a LEB128 number.

A socket begins with a ClientHello and its answer, a ServerHello. Status OK and the id that was sent is a resume; OK and
another id is a new session, whatever the client had asked for; any other status is a refusal, and the socket closes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeVar
from urllib.parse import quote

VERSION: Final = (2, 2)  # the framework refuses any other, older and newer
FRAME_HEADER_BYTES: Final = 6
PAYLOAD_MAX_BYTES: Final = 16 << 20
CLIENT_FRAME_MAX_BYTES: Final = 64 << 10  # what a server reads in one message
TEXT_MAX_BYTES: Final = 4 << 20  # the framework's limit for one text
NUMBER_BITS: Final = 64
LIVE_PATH: Final = "/_vango/live"
CSRF_COOKIE: Final = "__vango_csrf"

_FRAME: Final = struct.Struct(">BBI")
_HELLO_NUMBERS: Final = struct.Struct(">IHHh")
_HELLO_TAIL: Final = struct.Struct(">IQH")
_FORGET: Final = 0x01
_Kind = TypeVar("_Kind", bound=IntEnum)


class WireError(ValueError):
    """Bytes that are not of the protocol: what was read, and at which offset of its payload it failed."""

    def __init__(self, what: str, at: int = 0) -> None:
        super().__init__(f"{what} (at byte {at})")
        self.what, self.at = what, at


class FrameKind(IntEnum):
    """What a frame carries."""

    HANDSHAKE = 0
    EVENT = 1
    PATCHES = 2
    CONTROL = 3
    ACK = 4
    ERROR = 5


class Status(IntEnum):
    """How a server answers a ClientHello."""

    OK = 0x00
    VERSION_MISMATCH = 0x01
    INVALID_CSRF = 0x02
    SESSION_EXPIRED = 0x03
    SERVER_BUSY = 0x04
    UPGRADE_REQUIRED = 0x05
    INVALID_FORMAT = 0x06
    NOT_AUTHORIZED = 0x07
    INTERNAL_ERROR = 0x08
    LIMIT_EXCEEDED = 0x09
    SCHEMA_MISMATCH = 0x0A


class Recovery(IntEnum):
    """What a refused client is told to do."""

    UNKNOWN = 0
    RETRY = 1
    RELOAD_ONCE = 2
    STOP = 3

    @classmethod
    def _missing_(cls, value: object) -> Recovery:
        return cls.UNKNOWN


class SchemaReason(IntEnum):
    """Why stored state does not fit the running app."""

    UNKNOWN = 0
    ID_REMOVED = 1
    ID_TYPE_CHANGED = 2
    COLD_DEPLOY = 3
    HASH_MISMATCH = 4
    RUNTIME_VIOLATION = 5

    @classmethod
    def _missing_(cls, value: object) -> SchemaReason:
        return cls.UNKNOWN


class ControlKind(IntEnum):
    """Messages about the connection rather than the page."""

    PING = 0x01
    PONG = 0x02
    RESYNC_REQUEST = 0x10
    RESYNC_PATCHES = 0x11
    RESYNC_FULL = 0x12
    CLOSE = 0x20
    HOOK_REVERT = 0x30
    AUTH_COMMAND = 0x31
    SESSION_REFRESH = 0x32
    SESSION_REFRESH_ACK = 0x33
    SHELL_RELAY = 0x40


class EventKind(IntEnum):
    """The events of a page that this room can send."""

    CLICK = 0x01
    INPUT = 0x10
    CHANGE = 0x11


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of the socket."""

    kind: FrameKind
    payload: bytes
    flags: int = 0


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client says first. `session_id` is empty for a new session, `last_seq` the last patches it has applied."""

    csrf: str
    client_hash: str
    session_id: str = ""
    last_seq: int = 0
    width: int = 1280
    height: int = 800
    offset_min: int = 0
    version: tuple[int, int] = VERSION


@dataclass(frozen=True, slots=True)
class Banner:
    """What a page shows its user after a schema mismatch; all empty or 0 where the app set nothing."""

    message: str = ""
    detail: str = ""
    dismiss_ms: int = 0
    css: str = ""


@dataclass(frozen=True, slots=True)
class ServerHello:
    """The answer to a ClientHello. What stands behind `flags` comes with refusals only; None = was not sent."""

    status: Status
    session_id: str = ""
    next_seq: int = 0
    server_ms: int = 0
    flags: int = 0
    auth_reason: int | None = None
    schema_reason: SchemaReason | None = None
    banner: Banner | None = None
    recovery: Recovery | None = None
    forget: bool = False  # the client must forget its session id

    @property
    def ok(self) -> bool:
        """Whether the socket is a live session now."""
        return self.status is Status.OK


@dataclass(frozen=True, slots=True)
class Event:
    """Something a user did to an element, named by its hydration id."""

    seq: int
    kind: EventKind
    hid: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Control:
    """A control message; which fields say something depends on the kind.

    `stamp_ms` of ping and pong, `text` the page of RESYNC_FULL or the message of CLOSE and SESSION_REFRESH, `reason` of
    the latter two, `seq` of RESYNC_REQUEST. Other kinds are told by their kind alone.
    """

    kind: ControlKind
    stamp_ms: int = 0
    text: str = ""
    reason: int = 0
    seq: int = 0


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """An error frame: the server could not do what an event asked."""

    code: int
    message: str
    fatal: bool


# ---- reading and writing ----------------------------------------------------------------------------------------
class Reader:
    """Takes values off a payload from its start; every method raises WireError where the payload ends early."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def at(self) -> int:
        """Bytes taken so far."""
        return self._at

    @property
    def left(self) -> int:
        """Bytes not taken yet."""
        return len(self._data) - self._at

    def take(self, count: int, what: str = "bytes") -> bytes:
        """The next bytes."""
        if self.left < count:
            raise WireError(f"{what} ends early: {count} bytes wanted, {self.left} left", self._at)
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int, what: str = "number") -> int:
        """An unsigned number of so many bytes."""
        return int.from_bytes(self.take(size, what), "big")

    def uvarint(self, what: str = "number") -> int:
        """A LEB128 number below 2**64."""
        value, start = 0, self._at
        for shift in range(0, NUMBER_BITS, 7):
            byte = self.number(1, what)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        else:
            raise WireError(f"{what} does not end", start)
        if value >> NUMBER_BITS:
            raise WireError(f"{what} needs more than {NUMBER_BITS} bits", start)
        return value

    def text(self, what: str = "text") -> str:
        """A text with its length in front."""
        start, length = self._at, self.uvarint(what)
        if length > TEXT_MAX_BYTES:
            raise WireError(f"{what} of {length} bytes is over the limit", start)
        try:
            return self.take(length, what).decode()
        except UnicodeDecodeError as wrong:
            raise WireError(f"{what} is not UTF-8", start) from wrong


def uvarint(value: int) -> bytes:
    """A number as LEB128. Raises ValueError outside 0 .. 2**64 - 1."""
    if not 0 <= value < 1 << NUMBER_BITS:
        raise ValueError(f"{value} does not fit into {NUMBER_BITS} bits")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def text(value: str) -> bytes:
    """A text with its length in front."""
    raw = value.encode()
    return uvarint(len(raw)) + raw


# ---- frames -----------------------------------------------------------------------------------------------------
def encode_frame(frame: Frame) -> bytes:
    """A frame as one message of the socket."""
    return _FRAME.pack(frame.kind, frame.flags, len(frame.payload)) + frame.payload


def decode_frame(message: bytes | str) -> Frame:
    """The frame in one message of the socket. Raises WireError (a text message is none)."""
    if isinstance(message, str):
        raise WireError("a text message is no frame")
    if len(message) < FRAME_HEADER_BYTES:
        raise WireError("frame header ends early", len(message))
    kind, flags, length = _FRAME.unpack_from(message)
    if length > PAYLOAD_MAX_BYTES:
        raise WireError(f"payload of {length} bytes is over the limit", 2)
    if len(message) != FRAME_HEADER_BYTES + length:
        raise WireError(f"frame says {length} bytes and has {len(message) - FRAME_HEADER_BYTES}", 2)
    return Frame(_member(FrameKind, kind, "frame kind"), message[FRAME_HEADER_BYTES:], flags)


def _member(kinds: type[_Kind], code: int, what: str, at: int = 0) -> _Kind:
    try:
        return kinds(code)
    except ValueError:
        raise WireError(f"unknown {what} {code:#04x}", at) from None


# ---- the hellos -------------------------------------------------------------------------------------------------
def encode_client_hello(hello: ClientHello) -> bytes:
    """The payload of a handshake frame from the client."""
    numbers = _HELLO_NUMBERS.pack(hello.last_seq, hello.width, hello.height, hello.offset_min)
    return bytes(hello.version) + text(hello.csrf) + text(hello.session_id) + numbers + text(hello.client_hash)


def decode_client_hello(payload: bytes) -> ClientHello:
    """What a client says first. Raises WireError. A hello without a client hash is of an older client: empty."""
    read = Reader(payload)
    version = (read.number(1, "version"), read.number(1, "version"))
    csrf, session_id = read.text("csrf token"), read.text("session id")
    last_seq, width, height, offset_min = _HELLO_NUMBERS.unpack(read.take(_HELLO_NUMBERS.size, "hello"))
    client_hash = read.text("client hash") if read.left else ""
    return ClientHello(csrf, client_hash, session_id, last_seq, width, height, offset_min, version)


def encode_server_hello(hello: ServerHello) -> bytes:
    """The payload of a handshake frame from the server."""
    out = bytes([hello.status]) + text(hello.session_id)
    out += _HELLO_TAIL.pack(hello.next_seq, hello.server_ms, hello.flags)
    if hello.status is Status.NOT_AUTHORIZED and hello.auth_reason is not None:
        out += bytes([hello.auth_reason])
    if hello.status is Status.SCHEMA_MISMATCH and hello.schema_reason is not None:
        out += bytes([hello.schema_reason])
        if hello.banner is not None:
            banner = hello.banner
            out += text(banner.message) + text(banner.detail) + struct.pack(">H", banner.dismiss_ms) + text(banner.css)
    if not hello.ok and hello.recovery is not None:
        out += bytes([hello.recovery, _FORGET if hello.forget else 0])
    return out


def decode_server_hello(payload: bytes) -> ServerHello:
    """What a server answers. Raises WireError, also for a status that version 2.2 does not have."""
    read = Reader(payload)
    status = _member(Status, read.number(1, "status"), "status")
    session_id = read.text("session id")
    next_seq, server_ms, flags = _HELLO_TAIL.unpack(read.take(_HELLO_TAIL.size, "server hello"))
    auth_reason = read.number(1) if status is Status.NOT_AUTHORIZED and read.left else None
    schema_reason, banner = _schema_part(read) if status is Status.SCHEMA_MISMATCH else (None, None)
    recovery, forget = _recovery_part(read) if status is not Status.OK else (None, False)
    return ServerHello(
        status, session_id, next_seq, server_ms, flags, auth_reason, schema_reason, banner, recovery, forget
    )


def _schema_part(read: Reader) -> tuple[SchemaReason | None, Banner | None]:
    if not read.left:
        return None, None
    reason = SchemaReason(read.number(1))
    if not read.left:
        return reason, None
    message, detail = read.text("banner"), read.text("banner detail")
    return reason, Banner(message, detail, read.number(2, "banner"), read.text("banner style"))


def _recovery_part(read: Reader) -> tuple[Recovery | None, bool]:
    if not read.left:
        return None, False
    recovery = Recovery(read.number(1))
    return recovery, bool(read.number(1) & _FORGET) if read.left else False


# ---- after the hellos -------------------------------------------------------------------------------------------
def encode_event(event: Event) -> bytes:
    """The payload of an event frame."""
    payload = text(event.value) if event.kind is not EventKind.CLICK else b""
    return uvarint(event.seq) + bytes([event.kind]) + text(event.hid) + payload


def decode_event(payload: bytes) -> Event:
    """A click, an input or a change. Raises WireError, also for any other event."""
    read = Reader(payload)
    seq, code = read.uvarint("event number"), read.number(1, "event kind")
    kind, hid = _member(EventKind, code, "event kind", read.at - 1), read.text("element")
    return Event(seq, kind, hid, read.text("value") if kind is not EventKind.CLICK else "")


def encode_control(control: Control) -> bytes:
    """The payload of a control frame. Raises ValueError for the kinds whose fields are not read here."""
    kind, head = control.kind, bytes([control.kind])
    if kind in (ControlKind.PING, ControlKind.PONG):
        return head + struct.pack(">Q", control.stamp_ms)
    if kind is ControlKind.RESYNC_REQUEST:
        return head + uvarint(control.seq)
    if kind is ControlKind.RESYNC_FULL:
        return head + text(control.text)
    if kind is ControlKind.CLOSE:
        return head + bytes([control.reason]) + text(control.text)
    if kind is ControlKind.SESSION_REFRESH:
        return head + bytes([control.reason, 0]) + text(control.text) + text("") + bytes(2) + text("")
    raise ValueError(f"control {kind.name} is not written here")


def decode_control(payload: bytes) -> Control:
    """A control message. Raises WireError, also for a kind that version 2.2 does not have."""
    read = Reader(payload)
    kind = _member(ControlKind, read.number(1, "control kind"), "control kind")
    if kind in (ControlKind.PING, ControlKind.PONG):
        return Control(kind, stamp_ms=read.number(8, "time"))
    if kind is ControlKind.RESYNC_REQUEST:
        return Control(kind, seq=read.uvarint("patches number"))
    if kind is ControlKind.RESYNC_FULL:
        return Control(kind, text=read.text("page"))
    if kind is ControlKind.CLOSE:
        return Control(kind, reason=read.number(1, "reason"), text=read.text("message"))
    if kind is ControlKind.SESSION_REFRESH:
        reason, _ = read.number(1, "reason"), read.number(1, "flags")
        return Control(kind, reason=reason, text=read.text("message"))
    return Control(kind)


def encode_ack(last_seq: int, window: int = 100) -> bytes:
    """The payload of an acknowledgement: the last patches that were applied, and how many more may come."""
    return uvarint(last_seq) + uvarint(window)


def decode_ack(payload: bytes) -> tuple[int, int]:
    """The last patches that were applied, and how many more may come. Raises WireError."""
    read = Reader(payload)
    return read.uvarint("patches number"), read.uvarint("window")


def decode_patches_head(payload: bytes) -> tuple[int, int]:
    """Number of a batch of patches and how many it holds; what they change is the page's own business."""
    read = Reader(payload)
    return read.uvarint("patches number"), read.uvarint("count")


def decode_error(payload: bytes) -> ErrorMessage:
    """An error frame. Raises WireError."""
    read = Reader(payload)
    return ErrorMessage(read.number(2, "code"), read.text("message"), bool(read.number(1, "fatal")))


def live_target(page_path: str, *, live_path: str = LIVE_PATH, extra_query: str = "") -> str:
    """Path and query of the live socket of a page.

    `page_path` is the page's path with its query, as the browser shows it. `extra_query` (`name=value`) is appended to
    it, as the edge does for an app that cannot resume without a query.
    """
    if extra_query:
        page_path += ("&" if "?" in page_path else "?") + extra_query
    return f"{live_path}?path={quote(page_path, safe='')}"
