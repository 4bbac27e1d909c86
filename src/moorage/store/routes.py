"""Route owners: every change is one conditional write with its log entry, history and audit row (compare-and-swap)."""

from __future__ import annotations

from typing import Any

from moorage.domain.route import Granted, RouteOwner, Stale
from moorage.store import log
from moorage.store.database import Tx
from moorage.wire.log import RouteHeld, owner_event


def owner(tx: Tx, route_key: str) -> RouteOwner | None:
    """Who owns the route key; None for nobody."""
    row = tx.one("owner", route_key=route_key)
    return _owner(row) if row and not row["removed"] else None


def epoch_of(tx: Tx, route_key: str) -> int:
    """The epoch of the route key, tombstones included; 0 when the key was never owned."""
    row = tx.one("owner", route_key=route_key)
    return int(row["epoch"]) if row else 0


def owners(tx: Tx, app: str | None = None) -> tuple[RouteOwner, ...]:
    """All owners, or those of one app, by route key."""
    rows = tx.all("owners") if app is None else tx.all("owners_of_app", app=app)
    return tuple(_owner(row) for row in rows)


def claim(tx: Tx, wanted: RouteOwner, *, expected_epoch: int, operation: str) -> Granted | Stale:
    """Make `wanted` the owner if the route is still at `expected_epoch` (0: never owned).

    Committed together: owner row with epoch + 1, history, audit, log entry. A lost race changes nothing and says who
    owns the route now.
    """
    values = {
        "route_key": wanted.route_key,
        "app": wanted.app,
        "environment": wanted.environment,
        "deployment": wanted.deployment,
        "deployment_number": wanted.deployment_number,
        "artifact": wanted.artifact,
        "cure": int(wanted.cure),
        "now_ms": tx.now_ms,
    }
    if expected_epoch == 0:
        changed = tx.run("create_owner", **values)
    else:
        changed = tx.run("swap_owner", expected_epoch=expected_epoch, **values)
    if changed != 1:
        actual = owner(tx, wanted.route_key)
        found = epoch_of(tx, wanted.route_key)
        log.audit(
            tx, "route.claim", wanted.route_key, "stale", expected=expected_epoch, actual=found, operation=operation
        )
        return Stale(actual)
    granted = owner(tx, wanted.route_key)
    assert granted is not None
    assert granted.epoch == expected_epoch + 1
    tx.run(
        "append_history",
        route_key=granted.route_key,
        epoch=granted.epoch,
        deployment=granted.deployment,
        deployment_number=granted.deployment_number,
        artifact=granted.artifact,
        operation=operation,
        actor=tx.actor,
        at_ms=tx.now_ms,
    )
    log.append(tx, owner_event(granted))
    log.audit(tx, "route.claim", granted.route_key, "granted", epoch=granted.epoch, operation=operation)
    return Granted(granted)


def hold(tx: Tx, current: RouteOwner, held: bool, *, expected_epoch: int) -> bool:
    """Set or clear the hold flag under an epoch; False when the owner has changed meanwhile."""
    done = tx.run(
        "hold_route", route_key=current.route_key, held=int(held), expected_epoch=expected_epoch, now_ms=tx.now_ms
    )
    if done:
        log.append(tx, RouteHeld(route_key=current.route_key, epoch=expected_epoch, held=held))
    return bool(done)


def remove(tx: Tx, current: RouteOwner, *, expected_epoch: int) -> bool:
    """Take the route from everybody; the epoch goes on, so that no old event can revive an owner."""
    done = tx.run("remove_owner", route_key=current.route_key, expected_epoch=expected_epoch, now_ms=tx.now_ms)
    if done:
        log.append(tx, log.removal(current, expected_epoch + 1))
        log.audit(tx, "route.remove", current.route_key, "removed", epoch=expected_epoch + 1)
    return bool(done)


def history(tx: Tx, route_key: str, limit: int = 20) -> list[dict[str, Any]]:
    """The owners of a route key, newest first."""
    return tx.all("history", route_key=route_key, limit=limit)


def _owner(row: dict[str, Any]) -> RouteOwner:
    fields = {name: row[name] for name in RouteOwner.__dataclass_fields__}
    return RouteOwner(**{**fields, "held": bool(row["held"]), "cure": bool(row["cure"])})
