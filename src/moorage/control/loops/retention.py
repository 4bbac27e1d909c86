"""Retention: old previews end, unused artifacts and answered idempotency keys are forgotten, the log is trimmed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from moorage.control.context import Control
from moorage.domain.allocation import Posture
from moorage.domain.errors import Unavailable
from moorage.domain.limits import IDEMPOTENCY_KEPT_S
from moorage.domain.operation import Kind
from moorage.store import allocations, apps, log, operations, routes
from moorage.store.apps import Environment
from moorage.store.database import Tx
from moorage.system.clock import now_ms, pause

PERIOD_S = 5.0
SOURCE_KEPT_S = 3600.0  # long enough to retry a deploy of an upload
LOG_KEPT_COUNT = 100_000  # entries; an edge that is further behind starts from a snapshot
_log = structlog.get_logger()


class RetentionLoop:
    """Runs `tidy_once` each PERIOD_S; `remove_artifact` deletes an artifact's files."""

    def __init__(self, control: Control, remove_artifact: Callable[[str], object]) -> None:
        self._control, self._remove_artifact = control, remove_artifact

    async def run(self) -> None:
        """For ever."""
        while True:
            await pause(PERIOD_S)
            try:
                await self.tidy_once()
            except Unavailable as failed:
                _log.warning("retention waits", problem=str(failed))

    async def tidy_once(self) -> None:
        """One pass."""
        kept = self._control.settings.previews_kept
        if await self._control.db.read(lambda tx: outdated_previews(tx, kept) or _log_is_long(tx) or _has_old_keys(tx)):
            await self._control.db.write(lambda tx: _tidy(tx, kept), actor="retention")
        if await self._control.db.read(_is_building):
            return  # a build may be about to name an artifact that nothing names yet
        await asyncio.to_thread(remove_sources, self._control.settings.sources, now_ms())
        for digest in await self._control.db.read(apps.unused_artifacts):
            self._remove_artifact(digest)
            await self._control.db.write(lambda tx, digest=digest: apps.forget_artifact(tx, digest), actor="retention")  # type: ignore[misc]
            _log.info("artifact removed", artifact=digest)


def _is_building(tx: Tx) -> bool:
    return any(operation.kind is Kind.DEPLOY for operation in operations.unfinished(tx))


def remove_sources(folder: Path, now: int) -> int:
    """Remove uploaded archives (and broken uploads) older than SOURCE_KEPT_S; how many. Artifacts need none of them."""
    removed = 0
    for file in folder.glob("*.tar.gz*"):
        if now - file.stat().st_mtime * 1000 > SOURCE_KEPT_S * 1000:
            file.unlink(missing_ok=True)
            removed += 1
    return removed


def outdated_previews(tx: Tx, kept: int) -> tuple[Environment, ...]:
    """Preview environments beyond the newest `kept` of their app."""
    found: list[Environment] = []
    for app in apps.apps(tx):
        previews = [e for e in apps.environments(tx, app["name"]) if e.kind == apps.PREVIEW]
        previews.sort(key=lambda e: e.deployment_number or 0, reverse=True)
        found += previews[kept:]
    return tuple(found)


def _keys_kept_since_ms() -> int:
    return now_ms() - IDEMPOTENCY_KEPT_S * 1000


def _has_old_keys(tx: Tx) -> bool:
    return operations.has_answers_before(tx, _keys_kept_since_ms())


def _log_is_long(tx: Tx) -> bool:
    row = tx.one("outbox_first")
    first = row["log_index"] if row and row["log_index"] else log.committed_index(tx)
    return log.committed_index(tx) - int(first) > LOG_KEPT_COUNT * 2


def _tidy(tx: Tx, kept: int) -> None:
    for environment in outdated_previews(tx, kept):
        for owner in routes.owners(tx, environment.app):
            if owner.environment == environment.number:
                routes.remove(tx, owner, expected_epoch=owner.epoch)
        for allocation in allocations.live(tx, environment.number):
            allocations.disable_store_user(tx, allocation.id, reason="an older preview ends")
            allocations.set_posture(tx, allocation.id, Posture.CUT, reason="an older preview ends")
            allocations.set_want(tx, allocation.id, "stop", reason="an older preview ends")
        apps.close_environment(tx, environment.id)
    operations.forget_answers(tx, _keys_kept_since_ms())
    if _log_is_long(tx):
        tx.run("trim_outbox", through=log.committed_index(tx) - LOG_KEPT_COUNT)
