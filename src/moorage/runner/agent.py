"""The runner's loops: ask for the desired state, make it true, report.

Rules: a pass is observe, plan, apply; events only wake it. What was desired last goes on while the control plane is
away. A report is always the whole picture, sent at once when something changed, else each second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from moorage.artifacts.store import ArtifactStore
from moorage.domain.errors import MoorageError
from moorage.domain.limits import LOG_FILE_MAX_BYTES, LONG_POLL_MAX_S, REPORT_PERIOD_S, RESTART_BACKOFF_FIRST_S
from moorage.runner import housekeeping, logs
from moorage.runner.allocation import Equipment
from moorage.runner.drivers.driver import Driver
from moorage.runner.drivers.process import ProcessDriver
from moorage.runner.launch import LANG_DEFAULT, PATH_DEFAULT, Surroundings
from moorage.runner.registry import Registry
from moorage.system.binaries import find_valkey
from moorage.system.clock import now_ms, pause, wait_for
from moorage.system.rand import jitter
from moorage.wire.runner import Desired, RunnerReport

RESYNC_PERIOD_S = 5.0
LOG_CHECK_PERIOD_S = 1.0
SWEEP_PERIOD_S = 60.0
RETRY_MAX_S = 5.0
LAST_REPORT_TIMEOUT_S = 1.0  # the control plane may be stopping, too

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """Where a runner works and with what. `valkey` is a configured path, "" for the installed one; `path` and `lang`
    are what apps see; `python` is the interpreter that Python apps run on, "" for the one below the platform's own;
    an app's log is kept below about `log_max_bytes`."""

    allocations: Path
    stores: Path
    artifacts: Path
    valkey: str = ""
    path: str = PATH_DEFAULT
    lang: str = LANG_DEFAULT
    python: str = ""
    log_max_bytes: int = LOG_FILE_MAX_BYTES


class Control(Protocol):
    """The control plane as a runner sees it (`moorage.client.agents.RunnerClient`)."""

    runner: str

    async def desired(self, after_revision: int, wait_s: float) -> Desired: ...

    async def report(self, report: RunnerReport) -> None: ...


class Agent:
    """One host's runner. `run` until `stop`; both ways of ending leave a host that the next runner can adopt."""

    def __init__(self, settings: RunnerSettings, control: Control, *, driver: Driver | None = None) -> None:
        self._settings, self._control = settings, control
        self._driver = driver or ProcessDriver()
        python = settings.python or base_interpreter()
        around = Surroundings(python, settings.path, settings.lang)
        valkey = find_valkey(settings.valkey)
        self._versions = {"driver": self._driver.name, "isolation": self._driver.isolation, "python": python}
        self._valkey = valkey
        self._changed, self._stopping, self._end_all = asyncio.Event(), asyncio.Event(), False
        self._report_due = asyncio.Event()
        self.registry = Registry(
            settings.allocations.resolve(),
            settings.stores.resolve(),
            Equipment(self._driver, ArtifactStore(settings.artifacts.resolve()), around),
            valkey.path,
            self._on_change,
            self._spawn,
        )
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self, *, end_all: bool = False) -> None:
        """Make `run` return. With `end_all` every allocation and store is ended first; else all go on without us."""
        self._end_all = end_all
        self._stopping.set()

    async def run(self) -> None:
        """Adopt what runs, then keep the host at its desired state until `stop`.

        Raises Refused (`binary-broken`) when Valkey does not run, OSError when the folders cannot be made.
        """
        self._versions["valkey"] = await asyncio.to_thread(self._valkey.version)
        for folder in (self._settings.allocations, self._settings.stores):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with asyncio.TaskGroup() as self._group:
            self.registry.recover()
            loops = (self._listen(), self._reconcile(), self._tell(), self._look_after_logs(), self._sweep())
            running = [self._group.create_task(loop) for loop in loops]
            await self._stopping.wait()
            for task in running:
                task.cancel()
            if self._end_all:
                await self._finish()
            self.registry.release()
            for task in self._tasks:
                task.cancel()

    async def reconcile_once(self) -> int:
        """One pass: observe, plan, apply; how many actions it took."""
        return self.registry.reconcile()

    def report(self) -> RunnerReport:
        """The whole picture as it is now."""
        allocations, stores = self.registry.reports()
        return RunnerReport(
            runner=self._control.runner,
            revision=self.registry.revision,
            allocations=allocations,
            stores=stores,
            versions=dict(self._versions),
        )

    # ---- loops ------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Keep the desired state current; what was desired last stays in force while the control plane is away."""
        failures, after = 0, -1
        while True:
            try:
                desired = await self._control.desired(after, LONG_POLL_MAX_S if failures == 0 else 0.0)
            except (MoorageError, ValidationError) as failed:
                failures += 1
                if failures == 1:
                    _log.warning("no desired state: %s", failed)
                await pause(jitter(min(RESTART_BACKOFF_FIRST_S * 2 ** min(failures - 1, 8), RETRY_MAX_S)))
                continue
            failures = 0
            if self.registry.accept(desired):
                self._changed.set()
            after = self.registry.revision

    async def _reconcile(self) -> None:
        while True:
            await wait_for(self._changed, RESYNC_PERIOD_S)
            await self.reconcile_once()

    async def _tell(self) -> None:
        failures = 0
        while True:
            await wait_for(self._report_due, REPORT_PERIOD_S if failures == 0 else min(2.0**failures, RETRY_MAX_S))
            failures = 0 if await self._try_report() else failures + 1

    async def _try_report(self) -> bool:
        try:
            await self._control.report(self.report())
        except MoorageError as failed:
            _log.debug("report not delivered: %s", failed)
            return False
        return True

    async def _look_after_logs(self) -> None:
        while True:
            await pause(LOG_CHECK_PERIOD_S)
            limit = self._settings.log_max_bytes
            for log in self.registry.logs_written():
                if logs.is_too_long(log, limit):
                    await asyncio.to_thread(logs.keep_short, log, limit)

    async def _sweep(self) -> None:
        """Collect folders, once the control plane has said what is desired."""
        while True:
            await pause(SWEEP_PERIOD_S)
            if self.registry.revision < 0:
                continue
            allocations, stores = self.registry.known()
            try:
                await asyncio.to_thread(
                    housekeeping.sweep_allocations, self.registry.allocations_root, allocations, now_ms()
                )
                await asyncio.to_thread(housekeeping.sweep_stores, self.registry.stores_root, stores, now_ms())
            except OSError as failed:
                _log.warning("folders not collected: %s", failed)

    # ---- ending and waking ------------------------------------------------------------------------------------

    async def _finish(self) -> None:
        """End every allocation, then every store, and say so."""
        self.registry.stop_allocations()
        await _all_done(self.registry.tasks_of_allocations())
        self.registry.close_stores()
        await _all_done(self.registry.tasks_of_stores())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._try_report(), LAST_REPORT_TIMEOUT_S)

    def _on_change(self) -> None:
        self._changed.set()
        self._report_due.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._group is not None, "the agent runs"
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def base_interpreter() -> str:
    """The interpreter below the platform's own virtual environment: its packages are no app's business."""
    return str(getattr(sys, "_base_executable", "") or sys.executable)


async def _all_done(tasks: Collection[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)
