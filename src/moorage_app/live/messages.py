"""What a client may say, read strictly.

Rules of this room: pure and total; a text is a message or a reason why it is none. What the server says is listed in
docs/sdk.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

MESSAGE_BYTES: Final = 64 * 1024
NAME_LETTERS: Final = 120
SEQ_MAX: Final = 2**53 - 1

# Why the server closes a socket; a client that sees another code has lost the connection and backs off.
CLOSE_TAKEN_OVER: Final = 4001  # another tab or allocation has the session: do not come back by yourself
CLOSE_PROTOCOL: Final = 4002  # what was said cannot be understood
CLOSE_RECONNECT: Final = 1012  # come back at once: the session is stored, somebody else will serve it
CLOSE_FAILED: Final = 1011  # a fault in this process
CLOSE_TRY_LATER: Final = 1013  # the store does not answer, or this client reads too slowly


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message. `session` is what the client presents as its id, whatever it is."""

    session: str | None


@dataclass(frozen=True, slots=True)
class SetField:
    """A change of a session field."""

    seq: int
    state: str
    field: str
    value: Any


@dataclass(frozen=True, slots=True)
class Act:
    """A call of one of the app's actions."""

    seq: int
    name: str
    data: Any


@dataclass(frozen=True, slots=True)
class Pulse:
    """A sign of life."""


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """Not a message of this protocol."""

    reason: str


Message = Hello | SetField | Act | Pulse | NotUnderstood


def read_message(text: str | None, size_limit: int = MESSAGE_BYTES) -> Message:
    """The message in a text frame."""
    if text is None:
        return NotUnderstood("a binary frame")
    if len(text) > size_limit:
        return NotUnderstood(f"more than {size_limit} bytes")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return NotUnderstood("not JSON")
    kind = document.get("type") if isinstance(document, dict) else None
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    return NotUnderstood("an unknown type") if reader is None else reader(document)


def _hello(document: dict[str, Any]) -> Message:
    protocol, session = document.get("protocol"), document.get("session")
    if protocol != 1:
        return NotUnderstood("another protocol version; reload the page")
    if session is not None and (not isinstance(session, str) or len(session) > NAME_LETTERS):
        return NotUnderstood("session is no text")
    return Hello(session or None)


def _set(document: dict[str, Any]) -> Message:
    seq, state, field = document.get("seq"), document.get("state"), document.get("field")
    if not _is_seq(seq) or not _is_name(state) or not _is_name(field) or "value" not in document:
        return NotUnderstood("set needs seq, state, field and value")
    return SetField(int(seq or 0), str(state), str(field), document["value"])


def _act(document: dict[str, Any]) -> Message:
    seq, name = document.get("seq"), document.get("name")
    if not _is_seq(seq) or not _is_name(name):
        return NotUnderstood("send needs seq and name")
    return Act(int(seq or 0), str(name), document.get("data"))


def _is_seq(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= SEQ_MAX


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= NAME_LETTERS


_READERS: Final[dict[str, Callable[[dict[str, Any]], Message]]] = {
    "hello": _hello,
    "set": _set,
    "send": _act,
    "beat": lambda document: Pulse(),
}
