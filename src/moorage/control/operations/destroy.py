"""Destroy: the app's routes belong to nobody, its sessions end, its processes and stores stop, its name is free."""

from __future__ import annotations

from typing import Any

from moorage.control.operations.engine import Work
from moorage.domain.allocation import Posture
from moorage.domain.limits import STOP_GRACE_S
from moorage.store import allocations, apps, log, routes
from moorage.store.database import Tx

STOP_PATIENCE_S = STOP_GRACE_S * 3


async def run(work: Work) -> None:
    """Routes first, then sockets, then processes, then the records."""
    app = work.operation.app
    if "log_index" not in work.facts:
        await work.commit("removing", lambda tx: _remove(tx, app), "routes removed, allocations stopping")
    await work.control.edges_reach(work.facts["log_index"])
    gone = await work.wait(lambda tx: not _left(tx, app), timeout_s=STOP_PATIENCE_S)
    note = "all processes are gone" if gone else "some processes did not stop in time; they are still being stopped"
    await work.commit("destroyed", lambda tx: _forget(tx, app), note)


def _remove(tx: Tx, app: str) -> dict[str, Any]:
    for owner in routes.owners(tx, app):
        routes.remove(tx, owner, expected_epoch=owner.epoch)
    for allocation in allocations.live(tx):
        if allocation.app == app:
            allocations.disable_store_user(tx, allocation.id, reason="the app is destroyed")
            allocations.set_posture(tx, allocation.id, Posture.CUT, reason="the app is destroyed")
            allocations.set_want(tx, allocation.id, "stop", reason="the app is destroyed")
    for environment in apps.environments(tx, app):
        apps.close_environment(tx, environment.id)
    return {"log_index": log.committed_index(tx)}


def _left(tx: Tx, app: str) -> list[str]:
    return [a.id for a in allocations.live(tx) if a.app == app and not a.is_over]


def _forget(tx: Tx, app: str) -> dict[str, Any]:
    apps.delete_app(tx, app)
    log.audit(tx, "app.destroy", app, "destroyed")
    return {}
