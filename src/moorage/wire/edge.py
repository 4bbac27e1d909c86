"""What edges and the control plane tell each other: `/v1/edges/{edge}/...`."""

from __future__ import annotations

from moorage.wire.log import LogEntry
from moorage.wire.message import Message


class Sockets(Message):
    """Attached sockets of one allocation as the edge counts them; `pins` is how many distinct pins hold them."""

    number: int
    attached: int
    pins: int


class CatchUp(Message):
    """What an edge missed while it was away and how it made up for it: from its cursor in the `stream`, by `replay` of
    the log, from a `snapshot`, or backwards since the control plane was `restored` from a copy. `away_s`: for how
    long it had not known that its table was current."""

    from_index: int
    to_index: int
    by: str
    away_s: float = 0.0
    at_ms: int


class EdgeReport(Message):
    """Sent at once when a new index has been applied to the proxy, else each second.

    `applied_index` acknowledges: every entry up to it is in force in the proxy. The counters are since the agent's
    start. `postures` repeats, per allocation number, the posture that is in force.
    """

    edge: str
    incarnation: str
    applied_index: int
    applied: int
    duplicates: int
    gaps: int
    stale: int
    sockets: tuple[Sockets, ...] = ()
    catch_up: CatchUp | None = None
    proxy_pid: int = 0
    proxy_version: str = ""
    failing_closed: bool = False


class EdgeReply(Message):
    """What the edge should know: the log as committed; a difference means that events were missed."""

    incarnation: str
    committed_index: int


class LogPage(Message):
    """Entries after an index, oldest first; empty when there is nothing newer. `complete` is False when the log no
    longer reaches back to the asked index: only a snapshot helps."""

    incarnation: str
    committed_index: int
    complete: bool
    entries: tuple[LogEntry, ...]
