"""The control plane's end of the log for tests of the edge: real entries, real signatures, and a stream that a test may
lose, repeat, reorder or stop. It decides nothing; the edge must cope with whatever it does."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from moorage.domain.allocation import Posture
from moorage.domain.errors import Problem, Unavailable
from moorage.domain.limits import LOG_PAGE_MAX_COUNT
from moorage.edge.table import RouteTable
from moorage.wire.edge import EdgeReply, EdgeReport, LogPage
from moorage.wire.log import (
    AllocationUpdated,
    Event,
    LogEntry,
    OwnerUpdated,
    RouteHeld,
    RouteRemoved,
    SignedSnapshot,
    Snapshot,
    endpoint_event,
    owner_event,
    sign_snapshot,
)

PIN_KEY = base64.b64encode(b"k" * 32).decode()


def deployment_id(number: int) -> str:
    return f"dep_{number}"


class Ledger:
    """A log with its snapshot, as an edge asks for them."""

    def __init__(self, incarnation: str = "inc-1", key: Ed25519PrivateKey | None = None) -> None:
        self.key = key or Ed25519PrivateKey.generate()
        self.incarnation = incarnation
        self.entries: list[LogEntry] = []
        self.reports: list[EdgeReport] = []
        self.snapshots_asked = self.pages_asked = 0
        self.is_down = False
        self.now_ms = 1  # moves on with every message
        self.kept_from = 0  # entries up to this index are no longer on the log's pages
        self.listeners: list[Callable[[LogEntry], None]] = []
        self._epochs: dict[str, int] = {}
        self._versions: dict[int, int] = {}

    @property
    def index(self) -> int:
        return len(self.entries)

    @property
    def last_report(self) -> EdgeReport:
        return self.reports[-1]

    def add(self, event: Event) -> LogEntry:
        """Commit an event and announce it."""
        self.now_ms += 1
        entry = LogEntry(index=self.index + 1, incarnation=self.incarnation, at_ms=self.now_ms, event=event)
        self.entries.append(entry)
        for listener in self.listeners:
            listener(entry)
        return entry

    def own(
        self, route_key: str, deployment: int, *, environment: int = 1, held: bool = False, cure: bool = False
    ) -> LogEntry:
        """A new owner, one epoch on."""
        epoch = self._epochs[route_key] = self._epochs.get(route_key, 0) + 1
        return self.add(
            OwnerUpdated(
                route_key=route_key,
                epoch=epoch,
                app="app",
                environment=environment,
                deployment=deployment_id(deployment),
                deployment_number=deployment,
                artifact="sha256:0",
                held=held,
                cure=cure,
            )
        )

    def hold(self, route_key: str, held: bool) -> LogEntry:
        return self.add(RouteHeld(route_key=route_key, epoch=self._epochs[route_key], held=held))

    def remove(self, route_key: str) -> LogEntry:
        epoch = self._epochs[route_key] = self._epochs[route_key] + 1
        return self.add(RouteRemoved(route_key=route_key, epoch=epoch))

    def place(
        self,
        number: int,
        port: int,
        *,
        deployment: int = 1,
        environment: int = 1,
        posture: Posture = Posture.OPEN,
        ready: bool = True,
    ) -> LogEntry:
        """An allocation, or its next version."""
        version = self._versions[number] = self._versions.get(number, 0) + 1
        return self.add(
            AllocationUpdated(
                number=number,
                allocation=f"alc_{number}",
                environment=environment,
                deployment=deployment_id(deployment),
                host="127.0.0.1",
                port=port,
                posture=posture,
                ready=ready,
                version=version,
            )
        )

    def fold(self) -> Snapshot:
        """The snapshot of everything committed."""
        table = self._table()
        self.now_ms += 1
        return Snapshot(
            incarnation=self.incarnation,
            index=self.index,
            issued_ms=self.now_ms,
            pin_key=PIN_KEY,
            routes=tuple(owner_event(owner) for owner in table.owners.values()),
            allocations=tuple(endpoint_event(endpoint) for endpoint in table.endpoints.values()),
        )

    def fold_owners(self) -> set[str]:
        """The route keys that have an owner."""
        return set(self._table().owners)

    def _table(self) -> RouteTable:
        table = RouteTable()
        table.load(self.empty())
        for entry in self.entries:
            table.fold(entry)
        return table

    def empty(self) -> Snapshot:
        """The snapshot of the log's beginning."""
        return Snapshot(incarnation=self.incarnation, index=0, issued_ms=1, pin_key=PIN_KEY, routes=(), allocations=())

    def restart(self, incarnation: str) -> None:
        """Another history under another name."""
        self.incarnation = incarnation
        self.entries.clear()
        self._epochs.clear()
        self._versions.clear()

    def take_back(self, index: int) -> tuple[LogEntry, ...]:
        """The database is an earlier copy of itself, under the same name; the entries that it has lost."""
        lost, self.entries = tuple(self.entries[index:]), self.entries[:index]
        table = self._table()
        self._epochs = {key: table.epoch_of(key) for key in self._epochs if table.epoch_of(key)}
        self._versions = {number: endpoint.version for number, endpoint in table.endpoints.items()}
        return lost

    async def snapshot(self) -> SignedSnapshot:
        self._answer()
        self.snapshots_asked += 1
        return sign_snapshot(self.fold(), self.key)

    async def log(self, after_index: int) -> LogPage:
        self._answer()
        self.pages_asked += 1
        return LogPage(
            incarnation=self.incarnation,
            committed_index=self.index,
            complete=after_index >= self.kept_from,
            entries=tuple(self.entries[after_index : after_index + LOG_PAGE_MAX_COUNT]),
        )

    async def report(self, report: EdgeReport) -> EdgeReply:
        self._answer()
        self.reports.append(report)
        return EdgeReply(incarnation=self.incarnation, committed_index=self.index)

    def _answer(self) -> None:
        if self.is_down:
            raise Unavailable(Problem("control-unreachable", "The control plane does not answer", status=503))


class Stream:
    """A durable consumer's end of a stream, with faults on demand."""

    def __init__(self, ledger: Ledger) -> None:
        self.acked: list[int] = []
        self.resets: list[int] = []
        self.is_stopped = False
        self._waiting: list[LogEntry] = []
        self._fetched = 0
        self._arrived = asyncio.Event()
        ledger.listeners.append(self.deliver)

    def deliver(self, *entries: LogEntry) -> None:
        """Entries arrive, whatever they are; a stopped stream loses them."""
        if not self.is_stopped:
            self._waiting.extend(entries)
            self._arrived.set()

    async def fetch(self, timeout_s: float) -> tuple[LogEntry, ...]:
        try:
            await asyncio.wait_for(self._arrived.wait(), timeout_s)
        except TimeoutError:
            return ()
        entries = tuple(self._waiting)
        self._waiting.clear()
        self._arrived.clear()
        if entries:
            self._fetched = entries[-1].index
        return entries

    async def ack(self) -> None:
        self.acked.append(self._fetched)

    async def reset(self, index: int) -> None:
        self.resets.append(index)
