"""Following the log: from the copy on disk or a signed snapshot, then entry by entry, never over a gap.

The stream is only the fast way. Whenever what it gives does not continue the table, or the control plane says that
there is more, the log itself is read page by page; where the log does not reach, a fresh snapshot is. When the control
plane's log ends before what the table had when it was asked, its database was restored from a copy: a fresh snapshot
then replaces everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from moorage.domain.errors import MoorageError
from moorage.domain.limits import EDGE_LIVE_WITHIN_S
from moorage.domain.route import Applied
from moorage.edge.kept import RouteCopy
from moorage.edge.ports import ControlPlane, EventSource
from moorage.edge.table import Counts, RouteTable, Touched
from moorage.system.clock import monotonic_s, now_ms, pause
from moorage.system.log import get_log
from moorage.wire.edge import CatchUp, EdgeReply
from moorage.wire.log import LogEntry, SnapshotInvalid, verify_snapshot

ASK_TIMEOUT_S = 5.0  # a control plane that hangs must not keep the stream's entries waiting for longer
SNAPSHOT_PERIOD_MIN_S = 0.5  # a stream of another log must not become a storm of snapshots
RESTORED_AFTER_S = 2.0  # for so long every answer must say that the log is shorter, before the table goes back
COPY_PERIOD_S = 5.0  # how often the copy on disk is marked as current
COPY_ENTRIES_MAX_COUNT = 1000  # kept after the snapshot before a fresh one replaces both

_log = get_log("moorage.edge.follow")


class Follower:
    """Keeps a table at the end of the log. `touched` collects what the proxy has not been told yet."""

    def __init__(
        self, control: ControlPlane, source: EventSource, copy: RouteCopy, public_key: Ed25519PublicKey
    ) -> None:
        self.table = RouteTable()
        self.touched = Touched()
        self.catch_up: CatchUp | None = None
        self._control, self._source, self._copy, self._public_key = control, source, copy, public_key
        self._behind, self._needs_snapshot, self._broken, self._is_restored = False, True, False, False
        self._unkept: list[LogEntry] = []
        self.is_confirmed = False  # by an answer to a report, since this process started: a snapshot may be an old one
        self._ahead_since_s: float | None = None
        self._verified_s: float | None = None
        self._verified_index: int | None = None  # where the table was when it was last known to be current
        self._snapshot_s = self._copied_s = float("-inf")

    @property
    def must_ask(self) -> bool:
        """Whether the control plane has to be asked to bring the table on."""
        return self._behind or self._needs_snapshot

    @property
    def is_broken(self) -> bool:
        """Whether the stream gave entries that do not continue the table, and nothing has bridged that yet."""
        return self._broken

    @property
    def age_s(self) -> float:
        """Seconds since the table was last known to be current; infinite before anything was verified."""
        return float("inf") if self._verified_s is None else monotonic_s() - self._verified_s

    def load_copy(self) -> None:
        """Begin with the copy on disk, if there is one that verifies."""
        try:
            kept = self._copy.load()
            if kept is None:
                return
            snapshot = verify_snapshot(kept.signed, self._public_key)
        except SnapshotInvalid as wrong:
            _log.error("the copy of the routes is not used", code=wrong.problem.code, why=wrong.problem.detail)
            return
        self.touched |= self.table.load(snapshot).touched
        for entry in kept.entries:
            self.touched |= self.table.fold(entry).touched
        self.table.counts = Counts()
        self._verified_s = monotonic_s() - max(0, now_ms() - kept.current_ms) / 1000
        self._verified_index = self.table.index

    def take(self, entries: Sequence[LogEntry]) -> None:
        """Fold entries of the stream in; what does not continue the table is left to `ask`."""
        for entry in entries:
            verdict = self._fold(entry)
            if verdict is Applied.GAP:
                self._behind = self._broken = True
            elif verdict is Applied.FOREIGN:
                self._needs_snapshot = self._broken = True

    def keep_entries(self) -> None:
        """What was folded is in force: keep it on disk before anyone is told so."""
        if self._unkept:
            self._copy.append(self._unkept)
            self._unkept.clear()

    def _fold(self, entry: LogEntry) -> Applied:
        before = self.table.index
        folded = self.table.fold(entry)
        self.touched |= folded.touched
        if self.table.index != before:
            self._unkept.append(entry)
        return folded.verdict

    def hear(self, reply: EdgeReply, asked_s: float, asked_index: int) -> bool:
        """What the control plane says of the log; whether there is nothing to fetch. `asked_s` is when it was asked:
        this process may have been stopped before it heard the answer. `asked_index` is where the table was then: what
        has come since may be news to the answer, what was there before it may not."""
        if reply.incarnation != self.table.incarnation:
            self._needs_snapshot = True
            return False
        if reply.committed_index < asked_index:
            return self._is_ahead(reply, asked_s, asked_index)
        self._ahead_since_s = None
        if reply.committed_index > self.table.index:
            return False
        self._is_current("stream", asked_s)
        self.is_confirmed = True
        return True

    def _is_ahead(self, reply: EdgeReply, asked_s: float, asked_index: int) -> bool:
        """The table has entries that the control plane does not know of; whether to wait and see."""
        if self._ahead_since_s is None:
            self._ahead_since_s = asked_s
        if asked_s - self._ahead_since_s < RESTORED_AFTER_S:
            return True
        _log.error("the control plane was restored", applied=asked_index, committed=reply.committed_index)
        self._ahead_since_s = None
        self._needs_snapshot = self._is_restored = True
        return False

    def fall_back(self) -> None:
        """The stream did not bring what is known to be there: read it from the log."""
        self._behind = True

    async def ask(self) -> None:
        """Bring the table on from the control plane; raises MoorageError when it cannot be had or verified."""
        by, asked_s, start = "replay", monotonic_s(), self.table.index
        async with asyncio.timeout(ASK_TIMEOUT_S):
            if self._needs_snapshot or not await self._read_pages():
                await self._read_snapshot()
                by = "restored" if self._is_restored else "snapshot"
        if self._broken or by != "replay":
            await self._source.reset(self.table.index)
        self._behind = self._needs_snapshot = self._broken = self._is_restored = False
        if by == "restored":
            self._verified_index, self.catch_up = start, None  # whatever was still to be told is of a lost history
        self._is_current(by, asked_s)

    def _is_current(self, by: str, asked_s: float) -> None:
        """The table has all that there was when it was asked. After an absence, or when the stream did not bring all,
        it is said what was missed and how it came; an answer from before the absence does not end it."""
        start, index, away_s = self._verified_index, self.table.index, self.age_s
        self._verified_s = asked_s if self._verified_s is None else max(asked_s, self._verified_s)
        if monotonic_s() - asked_s > EDGE_LIVE_WITHIN_S:
            return
        self._verified_index = index
        if start is None or (by == "stream" and away_s <= EDGE_LIVE_WITHIN_S):
            return
        if index <= start and by != "restored":
            return
        if self.catch_up and self.catch_up.by == "restored":
            return  # it is told first
        if self.catch_up:  # nobody has heard of it yet
            start, away_s = min(start, self.catch_up.from_index), max(away_s, self.catch_up.away_s)
        self.catch_up = CatchUp(from_index=start, to_index=index, by=by, away_s=round(away_s, 1), at_ms=now_ms())
        _log.info("caught up", from_index=start, to_index=index, by=by, away_s=round(away_s, 1))

    async def keep_copy(self) -> None:
        """Mark the copy on disk as current every few seconds; renew it when many entries lie behind its snapshot."""
        if monotonic_s() - self._copied_s < COPY_PERIOD_S or self.age_s > COPY_PERIOD_S:
            return
        if self._copy.appended > COPY_ENTRIES_MAX_COUNT:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                await self._read_snapshot()
        else:
            self._copy.touch()
            self._copied_s = monotonic_s()

    async def _read_pages(self) -> bool:
        """Replay the log from the table on; False when it does not reach back that far or is another log."""
        while True:
            page = await self._control.log(self.table.index)
            if page.incarnation != self.table.incarnation or not page.complete:
                return False
            before = self.table.index
            for entry in page.entries:
                self._fold(entry)
            if self.table.index >= page.committed_index:
                return True
            if self.table.index == before:
                return False  # the page does not continue the table

    async def _read_snapshot(self) -> None:
        since_s = monotonic_s() - self._snapshot_s
        if since_s < SNAPSHOT_PERIOD_MIN_S:
            await pause(SNAPSHOT_PERIOD_MIN_S - since_s)
        self._snapshot_s = monotonic_s()
        signed = await self._control.snapshot()
        snapshot = verify_snapshot(signed, self._public_key)
        folded = self.table.load(snapshot, is_restored=self._is_restored)
        self.touched |= folded.touched
        if folded.verdict is Applied.APPLY:
            self._unkept.clear()
            self._copy.save(signed)
            self._copied_s = monotonic_s()


Trouble = (MoorageError, TimeoutError)  # what asking the control plane may end with
