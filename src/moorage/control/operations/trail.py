"""The trail that an operation follows at the store: sessions of apps that cannot report, but whose framework stores.

One trail per operation and environment, begun before anything is cut. What it has seen is kept in the operation's
facts; an operation that goes on after its control plane was killed begins to watch again and says what it cannot know.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import astuple, replace
from types import TracebackType
from typing import Any

from moorage.control.operations.engine import Work
from moorage.domain.artifact import Depth
from moorage.domain.errors import Unavailable
from moorage.domain.impact import StateImpact
from moorage.domain.operation import Kind
from moorage.domain.session import Account
from moorage.sessions.account import Phase
from moorage.sessions.admin import StoreAdmin
from moorage.sessions.stored_account import (
    Moved,
    Stored,
    Trace,
    account_of_stored,
    followed,
    see_records,
    see_returns,
    see_stored,
    see_written,
    settles_ms,
)
from moorage.sessions.stored_records import StoredRecords
from moorage.sessions.stored_watch import StoreWatch
from moorage.store.apps import Environment
from moorage.system.clock import now_ms

LABELS_KEPT_COUNT = 20_000  # in the facts of an operation; more sessions than that are counted, not followed


class Trail:
    """What is seen at the store of the old allocations' sessions. Enter it, `begin` it before the cut, leave it."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._stack = AsyncExitStack()
        self._watch: StoreWatch | None = None
        self._records: StoredRecords | None = None
        self._blind = False  # the watch began after the cut
        self.traces: dict[str, Trace] = {id: _trace(kept) for id, kept in work.facts.get("traces", {}).items()}

    async def __aenter__(self) -> Trail:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._end()

    @property
    def followed(self) -> tuple[str, ...]:
        """The old allocations whose sessions only the store knows."""
        baseline: Mapping[str, Any] = self._work.facts.get("baseline", {})
        return tuple(id for id, entry in baseline.items() if entry["depth"] == Depth.STORE_AWARE)

    async def begin(self, environment: Environment) -> None:
        """Watch from now on; nothing happens when there is nobody to follow or it is watching. Raises StoreDown."""
        if not self.followed or environment.store_port is None or (self._watch and self._watch.is_watching):
            return
        await self._end()
        self._note_gap()
        admin = StoreAdmin(environment.store_port, environment.store_password)
        self._stack.push_async_callback(admin.close)
        watch = StoreWatch(admin)
        self._stack.push_async_callback(watch.stop)
        await watch.start()
        self._watch, self._records = watch, StoredRecords(admin)
        for id in self.followed:
            self.traces.setdefault(id, Trace())

    def _note_gap(self) -> None:
        """Whoever begins again may have missed the storing after the cut, or readings after the admission."""
        facts = self._work.facts
        self._blind = "cut_ms" in facts and self._work.operation.state == "cutting"
        if "admitted_ms" in facts and self.traces:
            self.traces = {id: _unwatched(trace) for id, trace in self.traces.items()}

    async def find_stored(self) -> None:
        """Look which sessions the old allocations have stored since the cut. Raises Unavailable."""
        watch, records = self._parts()
        deeds, found = await watch.take(), await records.all()
        for id in self.followed:
            trace = see_stored(self.traces[id], deeds, found, old=id)
            if self._blind or not watch.is_watching:
                trace = see_written(trace, found, since_ms=self._work.facts["cut_ms"])
            self.traces[id] = trace

    async def find_all(self) -> None:
        """Take every record there is for what the dead allocations have left. Raises Unavailable."""
        watch, records = self._parts()
        await watch.take()
        found = await records.all()
        self.traces = {id: Trace(older=found) for id in self.followed}

    async def find_returns(self) -> None:
        """Look who has come back. Raises Unavailable."""
        watch, records = self._parts()
        if not watch.is_watching:
            self.traces = {id: _unwatched(trace) for id, trace in self.traces.items()}
        deeds = await watch.take()
        for id in self.followed:
            trace = see_returns(self.traces[id], deeds, old=self.followed)
            self.traces[id] = see_records(trace, await records.of(followed(trace)), now_ms=now_ms())

    def fenced(self) -> None:
        """The old allocations' connections were ended: their addresses may be anybody's now."""
        for id in self.followed:
            if self._watch:
                self._watch.forget(id)

    def stored_count(self) -> int:
        """How many sessions were seen stored."""
        return sum(len(self.traces[id].stored) for id in self.followed if id in self.traces)

    def sockets_count(self) -> int:
        """How many sockets were attached to the followed allocations, as far as they were counted."""
        return sum(self._work.facts["baseline"][id]["sockets"] or 0 for id in self.followed)

    def settles_ms(self) -> int | None:
        """When the last session that came back is known to be resumed or fresh (Unix ms); None: all are."""
        times = [settles_ms(trace) for trace in self.traces.values()]
        return max((at for at in times if at is not None), default=None)

    def account(self, id: str, phase: Phase) -> Account:
        """What became of one old allocation's sessions, as far as it was seen."""
        entry = self._work.facts["baseline"][id]
        cold = self._work.input.get("impact") == StateImpact.COLD
        moved = Moved(
            entry["sockets"],
            cut_ms=self._work.facts.get("closed_ms"),
            ended_ms=entry.get("ended_ms") if self._work.operation.kind is Kind.REPLACEMENT else None,
            cold=cold,
            window_ms=entry.get("window_ms"),
        )
        return account_of_stored(self.traces.get(id, Trace()), moved, phase, now_ms=now_ms())

    def facts(self) -> dict[str, Any]:
        """The traces as JSON values, for the operation's facts; empty when nobody is followed."""
        return {"traces": {id: _kept(trace) for id, trace in self.traces.items()}} if self.traces else {}

    def _parts(self) -> tuple[StoreWatch, StoredRecords]:
        assert self._watch is not None
        assert self._records is not None
        return self._watch, self._records

    async def _end(self) -> None:
        with suppress(Unavailable):
            await self._stack.aclose()
        self._watch = self._records = None


def _unwatched(trace: Trace) -> Trace:
    return replace(trace, watched=False)


def _kept(trace: Trace) -> dict[str, Any]:
    return {
        "stored": _kept_records(trace.stored),
        "older": _kept_records(trace.older),
        "returned": dict(trace.returned),
        "resumed": dict(trace.resumed),
        "watched": trace.watched,
    }


def _kept_records(records: Mapping[str, Stored]) -> dict[str, list[int]]:
    return {label: list(astuple(stored)) for label, stored in list(records.items())[:LABELS_KEPT_COUNT]}


def _trace(kept: Mapping[str, Any]) -> Trace:
    stored, older = ({label: Stored(*values) for label, values in kept[name].items()} for name in ("stored", "older"))
    return Trace(stored, older, kept["returned"], kept["resumed"], kept["watched"])
