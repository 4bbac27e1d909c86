"""The route table of an edge: the fold of a verified snapshot and the log entries after it.

Pure: no I/O, no clock. An entry is taken only when it is exactly the next one of the same log, a route changes owner
only to a newer epoch, an allocation only to a newer version; everything else is counted and dropped, so replayed,
reordered and duplicated events can never take the table back. A removed route keeps its epoch as a tombstone. Only one
thing takes it back: a snapshot that was fetched because the control plane itself had lost the end of its log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from moorage.domain.allocation import Endpoint, Posture
from moorage.domain.route import Applied, RouteOwner, decide_epoch, decide_log_entry
from moorage.wire.log import (
    AllocationUpdated,
    Event,
    LogEntry,
    OwnerUpdated,
    RouteHeld,
    RouteRemoved,
    Snapshot,
    endpoint_of,
    owner_of,
)

_Member = TypeVar("_Member")
Group = tuple[int, str]  # environment number and deployment id: what owners and allocations have in common


@dataclass(frozen=True, slots=True)
class Touched:
    """What a change may have altered: route keys and allocation numbers whose place in the proxy must be looked at."""

    routes: frozenset[str] = frozenset()
    numbers: frozenset[int] = frozenset()

    def __or__(self, other: Touched) -> Touched:
        return Touched(self.routes | other.routes, self.numbers | other.numbers)

    def __bool__(self) -> bool:
        return bool(self.routes or self.numbers)


@dataclass(frozen=True, slots=True)
class Folded:
    """What became of one entry."""

    verdict: Applied
    touched: Touched = Touched()


@dataclass(frozen=True, slots=True)
class Counts:
    """Entries since the table was made, by what became of them."""

    applied: int = 0
    duplicates: int = 0
    gaps: int = 0
    stale: int = 0


class RouteTable:
    """Owners and allocations up to `index` of the log named `incarnation` ("" before the first snapshot)."""

    def __init__(self) -> None:
        self.incarnation = ""
        self.index = 0
        self.pin_key = ""
        self._issued_ms = self._since_ms = 0  # of the last snapshot; entries before `since` are of a lost history
        self.counts = Counts()
        self._owners: dict[str, RouteOwner] = {}
        self._epochs: dict[str, int] = {}  # of owners and of tombstones
        self._endpoints: dict[int, Endpoint] = {}
        self._versions: dict[int, int] = {}  # of endpoints and of tombstones
        self._routes_of: dict[Group, set[str]] = {}
        self._numbers_of: dict[Group, set[int]] = {}

    @property
    def owners(self) -> Mapping[str, RouteOwner]:
        """The owner of each route key."""
        return MappingProxyType(self._owners)

    @property
    def endpoints(self) -> Mapping[int, Endpoint]:
        """The allocations that exist, by number."""
        return MappingProxyType(self._endpoints)

    def epoch_of(self, route_key: str) -> int:
        """The newest epoch seen for the key, its removal included (0: never seen)."""
        return self._epochs.get(route_key, 0)

    def numbers_of(self, environment: int, deployment: str) -> tuple[int, ...]:
        """The allocations of a deployment in an environment, lowest number first."""
        return tuple(sorted(self._numbers_of.get((environment, deployment), ())))

    def load(self, snapshot: Snapshot, *, is_restored: bool = False) -> Folded:
        """Take a verified snapshot. An older one of the same log changes nothing (DUPLICATE).

        `is_restored`: the control plane's database is an earlier copy of itself, so its log is another history under
        the same name. Then the snapshot replaces everything, epochs and versions too, unless it was issued before the
        last one: such a message is a repeated one.
        """
        same = snapshot.incarnation == self.incarnation and not is_restored
        if snapshot.issued_ms <= self._issued_ms if is_restored else same and snapshot.index < self.index:
            return Folded(Applied.DUPLICATE)
        before = Touched(frozenset(self._owners), frozenset(self._endpoints))
        if not same:
            self._epochs.clear()
            self._versions.clear()
            self._since_ms = snapshot.issued_ms if is_restored else 0
        self._load_owners(snapshot)
        self._load_endpoints(snapshot)
        self.incarnation, self.index, self.pin_key = snapshot.incarnation, snapshot.index, snapshot.pin_key
        self._issued_ms = snapshot.issued_ms
        return Folded(Applied.APPLY, before | Touched(frozenset(self._owners), frozenset(self._endpoints)))

    def fold(self, entry: LogEntry) -> Folded:
        """Take the next entry of the log, or count why not. A stale entry still moves the index on."""
        verdict = decide_log_entry(
            applied_index=self.index,
            incoming_index=entry.index,
            same_incarnation=self._is_ours(entry),
        )
        if verdict is Applied.DUPLICATE:
            self.counts = replace(self.counts, duplicates=self.counts.duplicates + 1)
        elif verdict is Applied.GAP:
            self.counts = replace(self.counts, gaps=self.counts.gaps + 1)
        if verdict is not Applied.APPLY:
            return Folded(verdict)
        self.index = entry.index
        touched = self._take(entry.event)
        if touched is None:
            self.counts = replace(self.counts, stale=self.counts.stale + 1)
            return Folded(Applied.STALE)
        self.counts = replace(self.counts, applied=self.counts.applied + 1)
        return Folded(Applied.APPLY, touched)

    def _is_ours(self, entry: LogEntry) -> bool:
        """Whether the entry is of this history: a stream may still hold what the control plane has lost."""
        is_lost = entry.index > self.index and entry.at_ms < self._since_ms
        return entry.incarnation == self.incarnation and not is_lost

    def _take(self, event: Event) -> Touched | None:
        """Apply an event; None when it is stale."""
        match event:
            case OwnerUpdated():
                return self._take_owner(owner_of(event))
            case RouteHeld():
                return self._take_held(event)
            case RouteRemoved():
                return self._take_removed(event)
            case AllocationUpdated():
                return self._take_endpoint(endpoint_of(event))

    def _take_owner(self, owner: RouteOwner) -> Touched | None:
        applied = self.epoch_of(owner.route_key)
        if decide_epoch(applied_epoch=applied, incoming_epoch=owner.epoch) is Applied.STALE:
            return None
        self._forget_owner(owner.route_key)
        self._put_owner(owner)
        return Touched(routes=frozenset({owner.route_key}))

    def _take_held(self, event: RouteHeld) -> Touched | None:
        owner = self._owners.get(event.route_key)
        if owner is None or owner.epoch != event.epoch:
            return None  # decided under another owner
        self._owners[event.route_key] = replace(owner, held=event.held)
        return Touched(routes=frozenset({event.route_key}))

    def _take_removed(self, event: RouteRemoved) -> Touched | None:
        applied = self.epoch_of(event.route_key)
        if decide_epoch(applied_epoch=applied, incoming_epoch=event.epoch) is Applied.STALE:
            return None
        self._forget_owner(event.route_key)
        self._epochs[event.route_key] = event.epoch
        return Touched(routes=frozenset({event.route_key}))

    def _take_endpoint(self, endpoint: Endpoint) -> Touched | None:
        if endpoint.version <= self._versions.get(endpoint.number, -1):
            return None
        touched = Touched(self._routes_with(endpoint.number), frozenset({endpoint.number}))
        self._forget_endpoint(endpoint.number)
        self._put_endpoint(endpoint)
        return touched | Touched(routes=self._routes_with(endpoint.number))

    def _routes_with(self, number: int) -> frozenset[str]:
        endpoint = self._endpoints.get(number)
        return frozenset(self._routes_of.get(_group(endpoint), ())) if endpoint else frozenset()

    def _load_owners(self, snapshot: Snapshot) -> None:
        kept = dict(self._owners)
        for route_key in kept:
            self._forget_owner(route_key)
        for event in snapshot.routes:
            owner = owner_of(event)
            known = kept.get(owner.route_key)
            if owner.epoch >= self.epoch_of(owner.route_key):
                self._put_owner(owner)
            else:  # the log says otherwise: a snapshot may not take a route back either
                self.counts = replace(self.counts, stale=self.counts.stale + 1)
                if known is not None:
                    self._put_owner(known)

    def _load_endpoints(self, snapshot: Snapshot) -> None:
        for number in tuple(self._endpoints):
            self._forget_endpoint(number)
        for event in snapshot.allocations:
            self._put_endpoint(endpoint_of(event))

    def _put_owner(self, owner: RouteOwner) -> None:
        self._owners[owner.route_key] = owner
        self._epochs[owner.route_key] = owner.epoch
        self._routes_of.setdefault(_group(owner), set()).add(owner.route_key)

    def _forget_owner(self, route_key: str) -> None:
        owner = self._owners.pop(route_key, None)
        if owner is not None:
            _discard(self._routes_of, _group(owner), route_key)

    def _put_endpoint(self, endpoint: Endpoint) -> None:
        self._versions[endpoint.number] = endpoint.version
        if endpoint.posture is Posture.GONE:
            return  # its number is never used again; the version stays as a tombstone
        self._endpoints[endpoint.number] = endpoint
        self._numbers_of.setdefault(_group(endpoint), set()).add(endpoint.number)

    def _forget_endpoint(self, number: int) -> None:
        endpoint = self._endpoints.pop(number, None)
        if endpoint is not None:
            _discard(self._numbers_of, _group(endpoint), number)


def _group(record: RouteOwner | Endpoint) -> Group:
    return record.environment, record.deployment


def _discard(index: dict[Group, set[_Member]], key: Group, value: _Member) -> None:
    members = index.get(key, set())
    members.discard(value)
    if not members:
        index.pop(key, None)
