"""An edge's end of the log: fetch entries as they come, acknowledge what is in force, start again anywhere.

Rules of the room: delivery is at least once and says nothing about completeness. Entries are handed on as the stream
has them, repeated, with gaps or of another history; whoever applies them compares index and incarnation. Nothing here
fails because the server is away: `fetch` then answers nothing.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js import errors as js_errors
from pydantic import ValidationError

from moorage.domain.errors import MoorageError
from moorage.events import names
from moorage.events.link import CALL_TIMEOUT_S, EventsDenied, Link
from moorage.events.plan import Cursor, Standing, plan_start
from moorage.events.stream import incarnation_of, see_stream
from moorage.system.clock import monotonic_s, pause
from moorage.system.log import get_log
from moorage.wire.log import LogEntry

FETCH_COUNT = 256
FETCH_SLICE_S = 1.0  # a pull that the server has forgotten is noticed this late
RETRY_PERIOD_S = 0.1
DENIED_RETRY_PERIOD_S = 2.0  # a refusal is a fault of configuration: no need to knock often
_FETCH_MIN_S = 0.05
_FETCH_REST_S = 0.5

_log = get_log("moorage.events.consumer")


@dataclass(frozen=True, slots=True)
class Reading:
    """How the reading goes, for `moorage status`. `unreadable` counts messages that were no log entries."""

    connected: bool
    standing: Standing
    stream_first: int = 0
    stream_last: int = 0
    unreadable: int = 0
    problem: str = ""


class EdgeEvents:
    """The durable consumer of one edge."""

    def __init__(self, url: str, seed: str, edge: str) -> None:
        self._link, self._edge = Link(url, seed, edge), names.consumer_name(edge)
        self._cursor: Cursor | None = None
        self._fetched: Cursor | None = None
        self._last_message: Msg | None = None
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._generation = -1  # of the connection over which the start was checked; -1: check again
        self._standing, self._first, self._last = Standing.UNKNOWN, 0, 0
        self._unreadable, self._problem, self._denied = 0, "", False

    @property
    def reading(self) -> Reading:
        """How the reading goes now."""
        return Reading(
            self._link.is_connected, self._standing, self._first, self._last, self._unreadable, self._problem
        )

    async def fetch(self, timeout_s: float) -> tuple[LogEntry, ...]:
        """The next entries, as soon as there is one; empty after the time, also while the server is away."""
        deadline = monotonic_s() + timeout_s
        while True:
            left_s = max(deadline - monotonic_s(), _FETCH_MIN_S)
            entries = await self._attempt(min(left_s, FETCH_SLICE_S))
            if entries:
                return entries
            left_s = deadline - monotonic_s()
            if left_s <= 0:
                return ()
            if self._problem:
                await pause(min(DENIED_RETRY_PERIOD_S if self._denied else RETRY_PERIOD_S, left_s))

    async def ack(self) -> None:
        """Acknowledge everything fetched so far: it is in force and need not come again."""
        if self._fetched is not None:
            self._cursor = self._fetched
        message, self._last_message = self._last_message, None
        if message is None or self._generation != self._link.generation or not self._link.is_connected:
            return  # the check after the reconnect sets the server's cursor to ours
        try:
            await self._link.call(message.ack())
        except (MoorageError, nats.errors.Error) as wrong:
            self._problem, self._generation = str(wrong), -1

    async def reset(self, index: int) -> None:
        """Go on behind this index, whatever was fetched before; takes effect with the next fetch."""
        self._cursor, self._fetched, self._last_message = Cursor(index), None, None
        self._generation = -1

    async def close(self) -> None:
        """Close the connection; the durable consumer stays."""
        self._subscription, self._generation = None, -1
        await self._link.close()

    async def _attempt(self, timeout_s: float) -> tuple[LogEntry, ...]:
        try:
            if self._generation != self._link.generation or self._subscription is None:
                await self._start(timeout_s)
            messages = await self._pull(timeout_s)
            self._problem, self._denied = "", False
        except (MoorageError, nats.errors.Error) as wrong:
            self._note(wrong)
            return ()
        except BaseException:
            self._generation = -1  # cancelled: what was on its way comes again
            raise
        return self._read(messages)

    def _note(self, wrong: Exception) -> None:
        self._problem, self._denied = str(wrong) or type(wrong).__name__, isinstance(wrong, EventsDenied)
        self._generation = -1

    async def _start(self, timeout_s: float) -> None:
        """Compare cursor and stream, set the consumer to where it must go on, and subscribe afresh."""
        jetstream = await self._link.jetstream(timeout_s)
        generation = self._link.generation
        await self._unsubscribe()
        stream = await see_stream(self._link)
        if stream is None:
            raise js_errors.NotFoundError(description="the stream is not there (yet)")
        consumer = await self._link.call(jetstream.consumer_info(names.STREAM, self._edge))
        acknowledged = consumer.ack_floor.stream_seq if consumer.ack_floor else 0
        self._first, self._last = stream.state.first_seq, stream.state.last_seq
        start = plan_start(self._cursor, acknowledged, self._first, self._last, incarnation_of(stream))
        await self._link.call(jetstream.reset_consumer(names.STREAM, self._edge, seq=start.sequence))
        self._subscription = await self._link.call(
            jetstream.pull_subscribe_bind(consumer=self._edge, stream=names.STREAM)
        )
        self._fetched = self._last_message = None
        if start.standing is not self._standing:
            _log.info("reading the log", standing=start.standing.value, next=start.sequence, last=self._last)
        self._standing, self._generation = start.standing, generation

    async def _pull(self, timeout_s: float) -> list[Msg]:
        assert self._subscription is not None
        messages = await self._link.call(_fetch(self._subscription, timeout_s), timeout_s + CALL_TIMEOUT_S)
        if messages is None:
            return []
        if not messages:  # answered at once without a message: the consumer was deleted
            raise js_errors.NotFoundError(description="the consumer is not there")
        return messages

    def _read(self, messages: list[Msg]) -> tuple[LogEntry, ...]:
        entries = []
        for message in messages:
            entry = _entry_of(message)
            if entry is None:
                self._unreadable += 1
                _log.error("not a log entry", subject=message.subject)
                continue
            entries.append(entry)
            if self._fetched is None or entry.index > self._fetched.index or self._is_other(entry):
                self._fetched, self._last_message = Cursor(entry.index, entry.incarnation), message
                self._last = max(self._last, entry.index)
        return tuple(entries)

    def _is_other(self, entry: LogEntry) -> bool:
        return self._fetched is not None and entry.incarnation != self._fetched.incarnation

    async def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            try:
                await self._link.call(subscription.unsubscribe())
            except nats.errors.Error:  # it belonged to a connection that is gone
                return


async def _fetch(subscription: JetStreamContext.PullSubscription, timeout_s: float) -> list[Msg] | None:
    """A batch, as soon as there is one message; None when nothing came in time.

    The client waits for a batch to be full until the server ends the request, and takes the late end of an earlier
    request for an empty answer: an entry then lay here for up to a slice. So one message is waited for, and beyond it
    only as many are asked for as the server has.
    """
    try:
        messages = await subscription.fetch(1, timeout=timeout_s)
    except TimeoutError:
        return None
    more_count = min(_behind(messages[0]), FETCH_COUNT - 1)
    if more_count:
        with contextlib.suppress(TimeoutError):  # what does not come now comes with the next fetch
            messages += await subscription.fetch(more_count, timeout=_FETCH_REST_S)
    return messages


def _behind(message: Msg) -> int:
    """How many messages the server has behind this one."""
    try:
        return message.metadata.num_pending
    except nats.errors.Error:
        return 0


def _entry_of(message: Msg) -> LogEntry | None:
    """The entry of a message; None when it is none or lies under another sequence than its index."""
    try:
        entry = LogEntry.model_validate_json(message.data)
        return entry if entry.index == message.metadata.sequence.stream else None
    except (ValidationError, nats.errors.Error):
        return None
