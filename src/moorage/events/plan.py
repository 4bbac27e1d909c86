"""What to do with the stream and where to start in it: decisions over what was seen, without I/O."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Why(StrEnum):
    """Why a stream is built anew."""

    MISSING = "missing"
    OTHER_INCARNATION = "other-incarnation"
    OTHER_SHAPE = "other-shape"
    AHEAD = "ahead"
    DIFFERS = "differs"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class StreamSeen:
    """A stream as it is. `shape_fits`: limits and format are those of this release. `last_matches`: its last message
    is the source's entry of that index (None: one of them is not there any more)."""

    incarnation: str
    first: int
    last: int
    shape_fits: bool = True
    last_matches: bool | None = None


@dataclass(frozen=True, slots=True)
class SourceSeen:
    """The log as it is. `next_index`: the first entry behind the stream's end that the source still has, None when
    there is nothing newer."""

    incarnation: str
    committed: int
    next_index: int | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    """Go on publishing behind this index."""

    after: int


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Delete what is there and build the stream from the source."""

    why: Why


def plan_stream(stream: StreamSeen | None, source: SourceSeen) -> Keep | Rebuild:
    """Whether the stream is this log as far as it goes, so that sequence and index stay equal."""
    if stream is None:
        return Rebuild(Why.MISSING)
    reasons = {
        Why.OTHER_INCARNATION: stream.incarnation != source.incarnation,
        Why.OTHER_SHAPE: not stream.shape_fits,
        Why.AHEAD: stream.last > source.committed,
        Why.DIFFERS: stream.last_matches is False,
        Why.UNREACHABLE: source.next_index is not None and source.next_index != stream.last + 1,
    }
    why = next((reason for reason, holds in reasons.items() if holds), None)
    return Rebuild(why) if why else Keep(stream.last)


@dataclass(frozen=True, slots=True)
class ConsumerPlan:
    """Consumers to make and to remove."""

    create: tuple[str, ...]
    delete: tuple[str, ...]


def plan_consumers(wanted: Collection[str], fitting: Collection[str], other: Collection[str]) -> ConsumerPlan:
    """`fitting` exist with the right configuration, `other` with a wrong one (they are made anew)."""
    return ConsumerPlan(
        create=tuple(sorted(set(wanted) - set(fitting))),
        delete=tuple(sorted((set(fitting) - set(wanted)) | set(other))),
    )


class Standing(StrEnum):
    """How an edge's cursor stands to the stream."""

    UNKNOWN = "unknown"
    FOLLOWS = "follows"
    AHEAD = "ahead"  # the stream is still being filled up to where the edge is
    TRIMMED = "trimmed"  # entries between are gone from the stream; the next entry shows a gap
    OTHER_HISTORY = "other-history"


@dataclass(frozen=True, slots=True)
class Cursor:
    """Up to where an edge has acknowledged; `incarnation` is empty while it has seen no entry of the log."""

    index: int
    incarnation: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """The sequence to be delivered next."""

    sequence: int
    standing: Standing


def plan_start(cursor: Cursor | None, acknowledged: int, first: int, last: int, incarnation: str) -> Start:
    """Where the consumer starts: behind the cursor (None: behind what the server has as `acknowledged`).

    A consumer set beyond the stream's end would skip what comes in between in silence, and one set before its start
    would jump in silence; entries that come twice are harmless, so what is unclear starts early.
    """
    if cursor is None:
        return Start(max(min(acknowledged, last) + 1, first, 1), Standing.UNKNOWN)
    if cursor.incarnation and cursor.incarnation != incarnation:
        return Start(max(first, 1), Standing.OTHER_HISTORY)
    if cursor.index > last:
        return Start(last + 1, Standing.AHEAD)
    if cursor.index + 1 < first:
        return Start(first, Standing.TRIMMED)
    return Start(cursor.index + 1, Standing.FOLLOWS)
