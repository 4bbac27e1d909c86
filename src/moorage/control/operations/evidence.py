"""The live sessions of an environment: counted at the edge, named at the session store."""

from __future__ import annotations

from moorage.control.context import Control
from moorage.domain.promotion import LiveCount
from moorage.store import allocations, apps
from moorage.store.apps import Environment
from moorage.system.clock import now_ms


async def live_count(control: Control, environment: Environment | None) -> LiveCount:
    """How many sockets are attached to the environment's allocations now, as the live edges count them."""
    if environment is None:
        return LiveCount(0, now_ms(), "nothing serves yet")
    found = await control.db.read(lambda tx: allocations.live(tx, environment.number))
    counts = [control.live.attached(allocation.number) for allocation in found]
    unknown = sum(count is None for count in counts)
    how = "sockets at the edges"
    if unknown:
        how = f"at least: {unknown} allocation(s) could not be counted, no edge is live"
    return LiveCount(sum(count or 0 for count in counts), now_ms(), how)


async def production_of(control: Control, app: str) -> Environment | None:
    """The app's production environment, once it has one."""
    found = await control.db.read(lambda tx: apps.environments(tx, app))
    return next((e for e in found if e.kind == apps.PRODUCTION), None)
