"""The outbox relay: publishes the log to the stream, in order, so that sequence and index are the same number.

Rules of the room: the source is right and the stream follows. What was published is known by looking at the stream,
never by remembering; an answer that did not come is unknown until then. A stream that is not this log as far as it
goes is built anew. One pass is `relay_once`; `run` repeats it for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Protocol

import nats.errors
from nats.js import JetStreamContext
from nats.js import errors as js_errors
from nats.js.api import PubAck

from moorage.domain.errors import MoorageError
from moorage.events import names
from moorage.events.link import CALL_TIMEOUT_S, EventsUnavailable, Link
from moorage.events.plan import Rebuild, SourceSeen, StreamSeen, Why, plan_stream
from moorage.events.stream import ensure_consumers, incarnation_of, rebuild_stream, see_stream, shape_fits
from moorage.system.clock import monotonic_s, pause
from moorage.system.log import get_log
from moorage.system.rand import jitter
from moorage.wire.log import LogEntry
from moorage.wire.message import canonical

BATCH_COUNT = 128  # publishes in flight; the server flushes each, so more gains little
REBUILD_KEEP_COUNT = 1000  # entries a stream is refilled with; an edge further behind starts from a snapshot
VERIFY_PERIOD_S = 1.0  # how long a stream may be missing while nothing is published
BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 2.0
_WRONG_LAST_SEQUENCE = (10071, 10164)

_log = get_log("moorage.events.relay")


class OutboxSource(Protocol):
    """The log where it is the truth: the control database's outbox."""

    @property
    def incarnation(self) -> str:
        """The name of this log."""

    @property
    def committed_index(self) -> int:
        """The index of the newest committed entry, 0 for an empty log."""

    async def entries(self, after_index: int, limit: int) -> tuple[LogEntry, ...]:
        """Up to `limit` committed entries behind an index, oldest first; the first may lie further on when the
        source no longer reaches back."""

    async def wait(self, after_index: int, timeout_s: float) -> object:
        """Return as soon as there is an entry behind the index, or after the time."""


@dataclass(frozen=True, slots=True)
class RelayReport:
    """What one pass did. `confirmed`: entries that an earlier, unanswered publish had stored. `behind`: committed
    entries that the stream does not have yet."""

    published: int
    confirmed: int
    last_index: int
    behind: int
    rebuilt: Why | None = None
    consumers_made: tuple[str, ...] = ()


class Relay:
    """Relays one source to the stream; `edges` names those that have a consumer, asked again on each look."""

    def __init__(self, link: Link, source: OutboxSource, edges: Callable[[], Collection[str]]) -> None:
        self._link, self._source, self._edges = link, source, edges
        self._last = 0
        self._generation = -1  # of the connection over which the stream was looked at; -1: look again
        self._verified_s = 0.0
        self._met_stranger = False
        self.report: RelayReport | None = None

    async def relay_once(self) -> RelayReport:
        """Look at the stream if that is due, then publish one batch.

        Raises EventsUnavailable or EventsDenied; the next pass looks again.
        """
        rebuilt: Why | None = None
        made: tuple[str, ...] = ()
        if self._link.generation != self._generation or monotonic_s() - self._verified_s > VERIFY_PERIOD_S:
            rebuilt, made = await self._look()
        entries = await self._source.entries(self._last, BATCH_COUNT)
        if entries and entries[0].index != self._last + 1:
            self._generation = -1  # the source was shortened meanwhile; the next look decides
            entries = ()
        published, confirmed = await self._publish(entries) if entries else (0, 0)
        behind = max(self._source.committed_index - self._last, 0)
        self.report = RelayReport(published, confirmed, self._last, behind, rebuilt, made)
        return self.report

    async def run(self) -> None:
        """Relay for ever; what goes wrong is logged and tried again."""
        failures = 0
        while True:
            try:
                report = await self.relay_once()
                failures = failures + 1 if report.rebuilt else 0
            except (MoorageError, nats.errors.Error) as wrong:
                failures += 1
                self._generation = -1
                _log.warning("relay pass failed", error=str(wrong), failures=failures)
            else:
                if report.behind == 0:
                    await self._source.wait(self._last, VERIFY_PERIOD_S)
            if failures:  # a stream rebuilt again and again means that somebody else writes to it
                await pause(jitter(min(BACKOFF_FIRST_S * 2 ** min(failures - 1, 10), BACKOFF_MAX_S)))

    async def _look(self) -> tuple[Why | None, tuple[str, ...]]:
        """Compare the stream with the source, build it anew if it is not this log, and see to the consumers."""
        await self._link.jetstream()
        generation = self._link.generation
        plan = plan_stream(*await self._seen())
        if isinstance(plan, Rebuild):
            first = await self._rebuild(plan.why)
            self._last = first - 1
        else:
            self._last = plan.after
        made = await ensure_consumers(self._link, self._edges())
        self._generation, self._verified_s = generation, monotonic_s()
        return (plan.why if isinstance(plan, Rebuild) else None), made

    async def _seen(self) -> tuple[StreamSeen | None, SourceSeen]:
        source = self._source
        info = await see_stream(self._link)
        if info is None:
            return None, SourceSeen(source.incarnation, source.committed_index)
        last = info.state.last_seq
        around = await source.entries(last - 1, 2) if last > 0 else await source.entries(0, 1)
        at_end = next((each for each in around if each.index == last), None)
        behind = next((each.index for each in around if each.index > last), None)
        matches = await self._is_stored(at_end) if at_end is not None and info.state.messages > 0 else None
        matches = False if self._met_stranger else matches
        seen = StreamSeen(incarnation_of(info), info.state.first_seq, last, shape_fits(info), matches)
        committed = max([source.committed_index, *(each.index for each in around)])  # the figure may lag behind
        return seen, SourceSeen(source.incarnation, committed, behind)

    async def _rebuild(self, why: Why) -> int:
        source = self._source
        oldest = await source.entries(max(source.committed_index - REBUILD_KEEP_COUNT, 0), 1)
        first = oldest[0].index if oldest else source.committed_index + 1
        _log.warning("stream is built anew", why=why.value, first_index=first, committed=source.committed_index)
        await rebuild_stream(self._link, source.incarnation, first)
        self._met_stranger = False
        return first

    async def _publish(self, entries: Sequence[LogEntry]) -> tuple[int, int]:
        """Publish in order; how many were stored now, and how many had been. Stops at the first that is unknown."""
        jetstream = await self._link.jetstream()
        # Each task writes its message before it first waits, so they leave in this order; were it not so, the expected
        # sequence would refuse them. (publish_async is of no use: it never answers what the server refused.)
        futures = [asyncio.ensure_future(_publication(jetstream, entry)) for entry in entries]
        try:
            await self._link.call(_all(futures), timeout_s=CALL_TIMEOUT_S)
        except MoorageError:
            self._generation = -1  # some may be stored: the next look tells
            raise
        finally:
            for future in futures:
                _ = future.done() and not future.cancelled() and future.exception()  # looked at, whatever follows
                future.cancel()
        published = confirmed = 0
        for entry, future in zip(entries, futures, strict=True):
            stored_now = await self._settle(entry, future)
            published, confirmed = published + stored_now, confirmed + (not stored_now)
            self._last = entry.index
        return published, confirmed

    async def _settle(self, entry: LogEntry, future: asyncio.Future[PubAck]) -> bool:
        """True: stored now; False: an earlier publish had stored it. Raises EventsUnavailable when neither."""
        try:
            answer = future.result()
            if answer.seq == entry.index:
                return not answer.duplicate
            detail = f"stored as {answer.seq}"
        except js_errors.APIError as wrong:
            if wrong.err_code in _WRONG_LAST_SEQUENCE:
                if await self._is_stored(entry):
                    return False
                # Something else lies under this index, and what followed in the batch may have been stored behind it,
                # so that the end of the stream looks right: only building it anew helps.
                self._met_stranger = True
            detail = str(wrong)
        except nats.errors.Error as wrong:  # no stream
            detail = repr(wrong)
        self._generation = -1
        raise EventsUnavailable(f"entry {entry.index} was not stored: {detail}")

    async def _is_stored(self, entry: LogEntry) -> bool:
        """Whether the stream has this very entry under its index."""
        jetstream = await self._link.jetstream()
        try:
            stored = await self._link.call(jetstream.get_msg(names.STREAM, seq=entry.index))
        except js_errors.NotFoundError:
            return False
        return stored.data == payload_of(entry)


def payload_of(entry: LogEntry) -> bytes:
    """The entry's canonical bytes: what is stored can be compared."""
    return canonical(entry.model_dump(mode="json"))


def _publication(jetstream: JetStreamContext, entry: LogEntry) -> Coroutine[None, None, PubAck]:
    headers = {
        "Nats-Msg-Id": f"{entry.incarnation}:{entry.index}",
        "Nats-Expected-Last-Sequence": str(entry.index - 1),
    }
    subject = names.log_subject(entry.event.type)
    return jetstream.publish(subject, payload_of(entry), timeout=2 * CALL_TIMEOUT_S, headers=headers)


async def _all(futures: Sequence[asyncio.Future[PubAck]]) -> None:
    await asyncio.wait(futures)
