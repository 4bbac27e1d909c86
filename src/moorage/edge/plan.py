"""What the proxy should hold for a table, and the commands that take it there. Pure.

The order of a plan is what makes a switch safe at every step: new servers, their numbers, the slots of a fresh base,
then one change of the route's hot entry (the atomic moment), and only then are numbers and servers of the past closed.
Slots that lost their route are collected a pass later, when no request in flight can still mean them. A server's id is
its allocation's number and is never used twice, so nothing in the proxy can come to mean another allocation.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moorage.domain.allocation import Endpoint, Posture, honours_pins, honours_upgrades, is_pickable
from moorage.domain.limits import SLOTS_PER_ROUTE_MAX_COUNT
from moorage.domain.route import RouteOwner
from moorage.edge.proxy.actual import ActualProxy
from moorage.edge.proxy.commands import (
    AddServer,
    ClearNumber,
    ClearRoute,
    ClearSlot,
    Command,
    DeleteServer,
    MoveServer,
    SetMark,
    SetNumber,
    SetPinKey,
    SetRoute,
    SetSlot,
    ShutdownSessions,
    StartServer,
    StopServer,
)
from moorage.edge.proxy.hot import SLOTS_MAX_COUNT, HotEntry
from moorage.edge.table import RouteTable, Touched

_ROUTE_KEY = re.compile(r"[a-z0-9_\[][a-z0-9_.:\]-]{0,253}")  # nothing that the runtime socket could read as syntax
_SHUT = frozenset({Posture.CUT, Posture.FENCED, Posture.GONE})


@dataclass(frozen=True, slots=True)
class WantedRoute:
    """A route as it should be: the allocations for new sessions, lowest number first."""

    environment: int
    picks: tuple[int, ...]
    held: bool
    closed: bool
    cured: bool


@dataclass(frozen=True, slots=True)
class WantedServer:
    """An allocation as it should be. `pinned`: pins count; `refuses_upgrades`: pinned upgrades go to a pick;
    `shut`: nothing may reach it and what is attached is cut."""

    host: str
    port: int
    pinned: bool
    refuses_upgrades: bool
    shut: bool


@dataclass(frozen=True, slots=True)
class WantedProxy:
    """What should be in the proxy, for some keys or for all; None: it should not be there."""

    pin_key: str
    mark: str
    routes: Mapping[str, WantedRoute | None]
    servers: Mapping[int, WantedServer | None]


def wanted(table: RouteTable, touched: Touched, *, closed: bool = False) -> WantedProxy:
    """What the proxy should hold of the touched routes and allocations. `closed`: the table is too old to serve."""
    return WantedProxy(
        pin_key=table.pin_key,
        mark=mark_of(table),
        routes={key: _wanted_route(table, key, closed=closed) for key in touched.routes},
        servers={number: _wanted_server(table.endpoints.get(number)) for number in touched.numbers},
    )


def everything(table: RouteTable, actual: ActualProxy) -> Touched:
    """All that the table or the proxy knows of: what a full pass must look at."""
    return Touched(
        frozenset(table.owners) | frozenset(actual.routes),
        frozenset(table.endpoints) | frozenset(actual.servers) | frozenset(actual.numbers),
    )


def mark_of(table: RouteTable) -> str:
    """The log and index that the proxy is marked with once it has everything up to there."""
    return f"{table.incarnation}:{table.index}"


def is_route_key(text: str) -> bool:
    """Whether the key can stand in the proxy's table: lower-case host name characters only."""
    return _ROUTE_KEY.fullmatch(text) is not None


def _wanted_route(table: RouteTable, key: str, *, closed: bool) -> WantedRoute | None:
    owner = table.owners.get(key)
    if owner is None or not is_route_key(key):
        return None
    picks = () if closed else _picks(table, owner)
    environment = 0 if closed else owner.environment  # no pin is of that one
    return WantedRoute(environment, picks, held=owner.held, closed=closed, cured=owner.cure)


def _picks(table: RouteTable, owner: RouteOwner) -> tuple[int, ...]:
    numbers = table.numbers_of(owner.environment, owner.deployment)
    ready = (
        number
        for number in numbers
        if is_pickable(table.endpoints[number], environment=owner.environment, deployment=owner.deployment)
        and _is_address(table.endpoints[number])
    )
    return tuple(ready)[:SLOTS_PER_ROUTE_MAX_COUNT]


def _wanted_server(endpoint: Endpoint | None) -> WantedServer | None:
    if endpoint is None or not _is_address(endpoint):
        return None
    return WantedServer(
        host=endpoint.host,
        port=endpoint.port,
        pinned=honours_pins(endpoint),
        refuses_upgrades=not honours_upgrades(endpoint),
        shut=endpoint.posture in _SHUT,
    )


def _is_address(endpoint: Endpoint) -> bool:
    """Whether the proxy can be given this address: servers added at run time take no names to resolve."""
    try:
        ipaddress.ip_address(endpoint.host)
    except ValueError:
        return False
    return 0 < endpoint.port < 65536


def plan_changes(want: WantedProxy, actual: ActualProxy) -> tuple[Command, ...]:
    """The commands from `actual` to `want`, in the order in which they are safe; empty when nothing differs.

    Deleting servers and clearing forgotten slots is left to `plan_collection`.
    """
    switch = _Switch(actual)
    for key, route in sorted(want.routes.items()):
        switch.route(key, route)
    plan = (
        *([SetPinKey(want.pin_key)] if want.pin_key and want.pin_key != actual.pin_key else ()),
        *_plan_servers(want.servers, actual),
        *_plan_numbers(want.servers, actual, opening=True),
        *switch.slots,
        *switch.hot,
        *_plan_numbers(want.servers, actual, opening=False),
        *_plan_shut(want.servers, actual),
    )
    return plan + ((SetMark(want.mark),) if plan or want.mark != actual.mark else ())


def plan_collection(table: RouteTable, actual: ActualProxy, *, forgotten: frozenset[int]) -> tuple[Command, ...]:
    """What may go for good: servers of allocations that are gone, once nothing is attached to them, and those slots
    without a route that were `forgotten` a pass ago already."""
    numbers = sorted(number for number in actual.servers if number not in table.endpoints)
    idle = [number for number in numbers if actual.servers[number].stopped and not actual.servers[number].connections]
    idle = [number for number in idle if number not in actual.numbers]
    slots = sorted(forgotten & unreferenced_slots(actual))
    return (*(ClearSlot(slot) for slot in slots), *(DeleteServer(number) for number in idle))


def unreferenced_slots(actual: ActualProxy) -> frozenset[int]:
    """The slots that no route points to."""
    meant = {slot for entry in actual.routes.values() for slot in entry.slots}
    return frozenset(actual.slots.keys() - meant)


def _plan_servers(servers: Mapping[int, WantedServer | None], actual: ActualProxy) -> Iterable[Command]:
    for number, server in sorted(servers.items()):
        if server is None or server.shut:
            continue
        present = actual.servers.get(number)
        if present is None:
            yield AddServer(number, server.host, server.port)
        elif (present.host, present.port) != (server.host, server.port):
            yield MoveServer(number, server.host, server.port)
        if present is None or present.stopped:
            yield StartServer(number)


def _plan_numbers(
    servers: Mapping[int, WantedServer | None], actual: ActualProxy, *, opening: bool
) -> Iterable[Command]:
    """Which pins count. Opening comes before the switch of routes, closing after it."""
    for number, server in sorted(servers.items()):
        present = actual.numbers.get(number)
        if server is None or not server.pinned:
            if present is not None and not opening:
                yield ClearNumber(number)
        elif opening and present != server.refuses_upgrades:
            yield SetNumber(number, server.refuses_upgrades)


def _plan_shut(servers: Mapping[int, WantedServer | None], actual: ActualProxy) -> Iterable[Command]:
    for number, server in sorted(servers.items()):
        present = actual.servers.get(number)
        if present is None or (server is not None and not server.shut):
            continue
        if not present.stopped:
            yield StopServer(number)
        if not present.stopped or present.connections:
            yield ShutdownSessions(number)


class _Switch:
    """The slots and hot entries of the routes of one plan, each changed route under a base of its own."""

    def __init__(self, actual: ActualProxy) -> None:
        self._actual, self._next = actual, actual.next_slot
        self._taken: set[int] = set()
        self.slots: list[Command] = []
        self.hot: list[Command] = []

    def route(self, key: str, want: WantedRoute | None) -> None:
        present = self._actual.routes.get(key)
        if want is None:
            if present is not None:
                self.hot.append(ClearRoute(key))
            return
        base = present.base if present and self._picks_of(present) == want.picks else self._place(want.picks)
        entry = HotEntry(base, len(want.picks), want.held, want.closed, want.environment, want.cured)
        if entry != present:
            self.hot.append(SetRoute(key, entry))

    def _picks_of(self, entry: HotEntry) -> tuple[int, ...]:
        return tuple(self._actual.slots.get(slot, 0) for slot in entry.slots)

    def _place(self, picks: tuple[int, ...]) -> int:
        """Fill free slots with the picks and return the first one."""
        if not picks:
            return 0
        base = self._free_base(len(picks))
        for slot, number in enumerate(picks, base):
            self._taken.add(slot)
            self.slots.append(SetSlot(slot, number))
        return base

    def _free_base(self, count: int) -> int:
        """The next run of free slots, going round: a base comes back as late as possible."""
        base = self._next
        for _ in range(2 * SLOTS_MAX_COUNT):
            if base + count > SLOTS_MAX_COUNT:
                base = 0
            blocked = [slot for slot in range(base, base + count) if self._is_used(slot)]
            if not blocked:
                self._next = base + count
                return base
            base = blocked[-1] + 1
        raise AssertionError("the slots cannot be full: the proxy takes fewer routes than that")

    def _is_used(self, slot: int) -> bool:
        return slot in self._actual.slots or slot in self._taken
