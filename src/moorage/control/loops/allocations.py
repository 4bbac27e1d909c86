"""Allocations that ended are fenced and removed; an owner that has lost its allocation gets a new one.

A crashed allocation is never restarted under its old identity: its replacement is a new allocation with a store user
of its own, so that evidence says who wrote what.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from moorage.control.context import Control
from moorage.control.operations.allocate import stop_allocations
from moorage.domain.allocation import Posture
from moorage.domain.errors import Unavailable
from moorage.domain.ids import Prefix
from moorage.domain.limits import RESTART_BACKOFF_FIRST_S, RESTART_BACKOFF_MAX_S
from moorage.domain.operation import Kind
from moorage.domain.route import RouteOwner
from moorage.store import allocations, apps, operations, routes
from moorage.store.allocations import Allocation
from moorage.store.database import Tx
from moorage.system.clock import now_ms, pause
from moorage.system.rand import new_id

_log = structlog.get_logger()
CRASH_WINDOW_S = 300.0
PERIOD_S = 1.0
_BUSY = frozenset({Kind.PROMOTION, Kind.ROLLBACK, Kind.REPLACEMENT, Kind.DESTROY})


def backoff_s(failures: int) -> float:
    """How long to wait before the next start after this many failures within CRASH_WINDOW_S: doubling, bounded."""
    return 0.0 if failures <= 1 else min(RESTART_BACKOFF_FIRST_S * 2 ** (failures - 2), RESTART_BACKOFF_MAX_S)


@dataclass(frozen=True, slots=True)
class Vacancy:
    """An owner without an allocation that runs or is being started; `dead` are the ones that ended last."""

    owner: RouteOwner
    dead: tuple[str, ...]


class AllocationLoop:
    """Runs `reconcile_once` after every change and at least each second."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def run(self) -> None:
        """For ever."""
        seen = -1
        while True:
            try:
                await self.reconcile_once()
            except Unavailable as failed:
                _log.warning("allocations wait", problem=str(failed))
                await pause(PERIOD_S)
            seen = await self._control.db.changes.wait(seen, PERIOD_S)

    async def reconcile_once(self) -> None:
        """One pass: remove what is over, stop what nobody wants, fill what is vacant."""
        found = await self._control.db.read(lambda tx: (_removable(tx), _strays(tx), _vacancies(tx)))
        if any(found):
            await self._control.db.write(lambda tx: self._apply(tx, *found), actor="allocations")

    def _apply(self, tx: Tx, over: tuple[str, ...], strays: tuple[str, ...], vacant: tuple[Vacancy, ...]) -> None:
        for id in strays:
            stop_allocations(tx, [id], "it serves no owner and no operation wants it")
        for id in over:
            allocations.disable_store_user(tx, id, reason="the process is over")
            allocations.set_posture(tx, id, Posture.GONE, reason="the process is over")
        for vacancy in vacant:
            if _busy(tx, vacancy.owner.app, vacancy.owner.route_key) or not _due(tx, vacancy.owner):
                continue
            operations.create(
                tx,
                id=new_id(Prefix.OPERATION),
                kind=Kind.REPLACEMENT,
                app=vacancy.owner.app,
                input={
                    "route_key": vacancy.owner.route_key,
                    "dead": list(vacancy.dead),
                    "sockets": {id: self._sockets(tx, id) for id in vacancy.dead},
                    "why": "the owner has no running allocation",
                },
            )

    def _sockets(self, tx: Tx, id: str) -> int | None:
        """How many sockets an allocation had just before it ended."""
        found = allocations.get(tx, id)
        return self._control.live.count_before(found.number, found.ended_ms) if found and found.ended_ms else None


def _removable(tx: Tx) -> tuple[str, ...]:
    """Ended allocations whose sessions nobody has to settle any more."""
    settling = _under_settlement(tx)
    return tuple(a.id for a in allocations.live(tx) if a.is_over and a.id not in settling and not _vacates(tx, a))


def _strays(tx: Tx) -> tuple[str, ...]:
    """Production allocations that would take new sessions if their deployment were the owner, which it is not.

    They are left by a replacement or promotion that another one overtook; as long as such an operation of the app
    runs, they may be its own.
    """
    owned = {(owner.environment, owner.deployment) for owner in routes.owners(tx)}
    environments = {e.number for e in apps.environments(tx) if e.kind == apps.PRODUCTION}
    return tuple(
        a.id
        for a in allocations.live(tx)
        if a.posture is Posture.OPEN
        and a.want == "run"
        and not a.is_over
        and a.environment_number in environments
        and (a.environment_number, a.deployment) not in owned
        and not _busy(tx, a.app)
    )


def _under_settlement(tx: Tx) -> set[str]:
    found: set[str] = set()
    for operation in operations.unfinished(tx):
        found.update(operation.input.get("old", ()))
        found.update(operation.input.get("dead", ()))
    return found


def _vacates(tx: Tx, allocation: Allocation) -> bool:
    """Whether the allocation's end leaves an owner without one: its replacement settles its sessions first."""
    owner = _owner_of(tx, allocation)
    return owner is not None and not _runs(tx, owner) and not _replaced(tx, allocation)


def _owner_of(tx: Tx, allocation: Allocation) -> RouteOwner | None:
    for owner in routes.owners(tx, allocation.app):
        if owner.environment == allocation.environment_number and owner.deployment == allocation.deployment:
            return owner
    return None


def _replaced(tx: Tx, allocation: Allocation) -> bool:
    recent = operations.newest(tx, allocation.app, 50)
    return any(allocation.id in operation.input.get("dead", ()) for operation in recent)


def _runs(tx: Tx, owner: RouteOwner) -> bool:
    return any(
        a.deployment == owner.deployment and not a.is_over and a.want == "run" and a.posture is Posture.OPEN
        for a in allocations.live(tx, owner.environment)
    )


def _vacancies(tx: Tx) -> tuple[Vacancy, ...]:
    found = []
    production = {e.number for e in apps.environments(tx) if e.kind == apps.PRODUCTION}
    for owner in sorted(routes.owners(tx), key=lambda owner: owner.environment not in production):
        if _runs(tx, owner):
            continue
        dead = [a for a in allocations.live(tx, owner.environment) if a.is_over and not _replaced(tx, a)]
        found.append(Vacancy(owner, tuple(a.id for a in dead)))
    return tuple(found)


def _busy(tx: Tx, app: str, route_key: str | None = None) -> bool:
    """Whether an operation may be moving the app's allocations; with a route key, of that route where it is a
    replacement."""
    return any(
        o.app == app
        and o.kind in _BUSY
        and (o.kind is not Kind.REPLACEMENT or route_key in (None, o.input["route_key"]))
        for o in operations.unfinished(tx)
    )


def _due(tx: Tx, owner: RouteOwner) -> bool:
    now = now_ms()
    failed = allocations.failed_since(tx, owner.environment, owner.deployment, now - int(CRASH_WINDOW_S * 1000))
    newest = failed[0].ended_ms if failed else None
    return newest is None or now - newest >= backoff_s(len(failed)) * 1000
