"""What a batch of patches changes of a page, as far as a person reads it: texts, values, new elements.

Rules of this room: pure; every operation of version 2.2 is read to its end, so that what follows it is read too. Raises
WireError for a batch that is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from moorage.vango.wire import Reader, WireError

_ELEMENT, _TEXT, _FRAGMENT, _COMPONENT, _RAW, _NOTHING = 1, 2, 3, 4, 5, 0xFF
_DEPTH_MAX: Final = 64

# What follows the element's id, one letter a field: s text, u number, i signed number, b one byte, n a node, m a map.
_FIELDS: Final = {
    0x01: "s",
    0x02: "ss",
    0x03: "s",
    0x04: "sun",
    0x05: "",
    0x06: "su",
    0x07: "n",
    0x08: "s",
    0x09: "b",
    0x0A: "b",
    0x0B: "",
    0x0C: "",
    0x0D: "iib",
    0x10: "s",
    0x11: "s",
    0x12: "s",
    0x13: "ss",
    0x14: "s",
    0x15: "ss",
    0x16: "sus",
    0x17: "su",
    0x18: "sun",
    0x20: "ss",
    0x30: "m",
    0x31: "m",
    0x32: "sb",
    0x33: "sb",
}


@dataclass(frozen=True, slots=True)
class Words:
    """The text of the element with this hydration id is this now."""

    hid: str
    text: str


@dataclass(frozen=True, slots=True)
class Value:
    """The value of the input with this hydration id is this now."""

    hid: str
    text: str


@dataclass(frozen=True, slots=True)
class Appeared:
    """An element with an id came into the page."""

    element_id: str
    hid: str
    text: str


@dataclass(frozen=True, slots=True)
class Batch:
    """One frame of patches."""

    seq: int
    changes: tuple[Words | Value | Appeared, ...]


@dataclass(frozen=True, slots=True)
class _Node:
    element_id: str = ""
    hid: str = ""
    text: str = ""
    children: tuple[_Node, ...] = ()


def read_batch(payload: bytes) -> Batch:
    """The batch in the payload of a patches frame."""
    read = Reader(payload)
    seq, count = read.uvarint(), read.uvarint()
    changes: list[Words | Value | Appeared] = []
    for _ in range(count):
        changes += _change(read)
    return Batch(seq, tuple(changes))


def _change(read: Reader) -> Iterator[Words | Value | Appeared]:
    operation, hid = read.number(1), read.text()
    if operation not in _FIELDS:
        raise WireError(f"unknown patch {operation:#04x}", read.at)
    found = [_field(read, kind) for kind in _FIELDS[operation]]
    match operation, found:
        case (0x01, [str(text)]):
            yield Words(hid, text)
        case (0x16, [str(parent), _, str(text)]):
            yield Words(parent, text)
        case (0x08, [str(text)]) | (0x02, ["value", str(text)]):
            yield Value(hid, text)
        case (_, [*_, _Node() as node]):
            yield from _appeared(node)


def _field(read: Reader, kind: str) -> object:
    match kind:
        case "s":
            return read.text()
        case "b":
            return read.number(1)
        case "n":
            return _node(read, 0)
        case "m":
            return [(read.text(), read.text()) for _ in range(read.uvarint())]
    return read.uvarint()  # a signed number is a number to whoever passes over it


def _node(read: Reader, depth: int) -> _Node:
    if depth > _DEPTH_MAX:
        raise WireError("nodes nested too deeply", read.at)
    kind = read.number(1)
    if kind == _ELEMENT:
        _, hid = read.text(), read.text()
        attributes = dict((read.text(), read.text()) for _ in range(read.uvarint()))
        children = _children(read, depth)
        return _Node(attributes.get("id", ""), hid, "".join(child.text for child in children), children)
    if kind in (_TEXT, _RAW):
        return _Node(text=read.text())
    if kind in (_FRAGMENT, _COMPONENT):
        children = _children(read, depth)
        return _Node(text="".join(child.text for child in children), children=children)
    if kind != _NOTHING:
        raise WireError(f"unknown node {kind:#04x}", read.at)
    return _Node()


def _children(read: Reader, depth: int) -> tuple[_Node, ...]:
    return tuple(_node(read, depth + 1) for _ in range(read.uvarint()))


def _appeared(node: _Node) -> Iterator[Appeared]:
    if node.element_id:
        yield Appeared(node.element_id, node.hid, node.text)
    for child in node.children:
        yield from _appeared(child)
