"""What a runner has in hand: its allocations and stores, observed for the plan, changed by its actions.

Rules: actions only start, ask and drop; the work itself is in the runs, each a task of its own. Nothing here waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from moorage.domain.allocation import State
from moorage.runner import plan
from moorage.runner.allocation import AllocationRun, Equipment
from moorage.runner.record import Place, Record, is_folder_name, read_record, report_of
from moorage.runner.stores.config import LOG_NAME, read_store_record
from moorage.runner.stores.store import StoreRun
from moorage.wire.runner import AllocationReport, Desired, StoreReport

_log = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Registry:
    """Allocations and stores of one host. `changed` is called when something a report holds has changed."""

    def __init__(
        self,
        allocations_root: Path,
        stores_root: Path,
        equipment: Equipment,
        valkey: Path,
        changed: Callable[[], None],
        spawn: Spawn,
    ) -> None:
        self.allocations_root, self.stores_root = allocations_root, stores_root
        self._equipment, self._valkey, self._changed, self._spawn = equipment, valkey, changed, spawn
        self._desired: Desired | None = None
        self._runs: dict[str, AllocationRun] = {}
        self._declined: dict[str, Record] = {}
        self._stores: dict[str, StoreRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def revision(self) -> int:
        """Of the desired state in force; -1 before there is one."""
        return self._desired.revision if self._desired is not None else -1

    def accept(self, desired: Desired) -> bool:
        """Take a desired state unless it is older than the one in force; says whether it is news."""
        if desired.revision < self.revision:
            _log.warning("desired state %d is older than %d, dropped", desired.revision, self.revision)
            return False
        news = desired != self._desired
        self._desired = desired
        return news

    def recover(self) -> None:
        """Take up what an earlier runner left: adopt what lives, remember what ended."""
        for folder in _folders(self.allocations_root):
            record = read_record(Place(folder))
            if record is None or record.allocation != folder.name:
                continue
            run = self._add(record)
            if not record.is_over:
                self._tasks[record.allocation] = self._spawn(run.resume())
        for folder in _folders(self.stores_root):
            known = read_store_record(folder)
            if known is not None and known.desired.environment == folder.name and known.identity is not None:
                store = StoreRun(known.desired, folder, self._valkey, self._equipment.driver, self._changed)
                if store.adopt():
                    self._stores[folder.name] = store
                    self._tasks[folder.name] = self._spawn(store.run())

    def reconcile(self) -> int:
        """Plan from what is seen and apply; how many actions were taken."""
        if self._desired is None:
            return 0
        actions = plan.plan_changes(self._desired, self._observed(), self._observed_stores())
        for action in actions:
            self._apply(action)
        return len(actions)

    def reports(self) -> tuple[tuple[AllocationReport, ...], tuple[StoreReport, ...]]:
        """Of every allocation that is desired or lives, and every store."""
        known = [run.record for run in self._runs.values()] + list(self._declined.values())
        reports = [report_of(record) for record in known if not record.is_over or self._is_desired(record)]
        return tuple(reports + self._waiting()), tuple(store.report() for store in self._stores.values())

    def known(self) -> tuple[frozenset[str], frozenset[str]]:
        """Allocations and environments whose folders must not be collected."""
        assert self._desired is not None, "nothing is collected before it is known what is desired"
        allocations = {each.allocation for each in self._desired.allocations} | self._runs.keys()
        stores = {each.environment for each in self._desired.stores} | self._stores.keys()
        return frozenset(allocations), frozenset(stores)

    def living(self) -> tuple[AllocationRun, ...]:
        """Allocations that have not ended."""
        return tuple(run for run in self._runs.values() if not run.record.is_over)

    def open_stores(self) -> tuple[StoreRun, ...]:
        """Stores that are not closed."""
        return tuple(store for store in self._stores.values() if not store.is_closed)

    def logs_written(self) -> tuple[Path, ...]:
        """The logs that somebody may be writing."""
        apps = tuple(run.place.log for run in self.living())
        return apps + tuple(store.folder / LOG_NAME for store in self.open_stores())

    def tasks_of_allocations(self) -> tuple[asyncio.Task[None], ...]:
        """The work on allocations that have not ended."""
        return tuple(self._tasks[run.record.allocation] for run in self.living())

    def tasks_of_stores(self) -> tuple[asyncio.Task[None], ...]:
        """The work on stores that are not closed."""
        return tuple(self._tasks[store.desired.environment] for store in self.open_stores())

    def stop_allocations(self) -> None:
        """Ask every allocation to end."""
        for run in self.living():
            run.stop()

    def close_stores(self) -> None:
        """Ask every store to stop."""
        for store in self.open_stores():
            store.close()

    def release(self) -> None:
        """Let go of everything without ending it."""
        for run in self._runs.values():
            run.release()
        for store in self._stores.values():
            store.release()

    # ---- observing --------------------------------------------------------------------------------------------

    def _observed(self) -> dict[str, plan.ObservedAllocation]:
        found = {
            name: plan.ObservedAllocation(
                name, run.record.desired.environment, run.record.is_over, run.is_stopping, run.is_letting_go
            )
            for name, run in self._runs.items()
        }
        declined = {
            name: plan.ObservedAllocation(name, record.desired.environment, True, False)
            for name, record in self._declined.items()
        }
        return declined | found

    def _observed_stores(self) -> dict[str, plan.ObservedStore]:
        return {
            name: plan.ObservedStore(
                name,
                store.desired,
                is_confirmed=store.is_confirmed,
                is_ready=store.is_ready,
                is_closing=store.is_closing,
                is_closed=store.is_closed,
                users=store.users,
            )
            for name, store in self._stores.items()
        }

    def _is_desired(self, record: Record) -> bool:
        if self._desired is None:
            return False
        return any(each.allocation == record.allocation for each in self._desired.allocations)

    def _waiting(self) -> list[AllocationReport]:
        """Desired allocations that cannot start yet."""
        if self._desired is None:
            return []
        stores = self._observed_stores()
        return [
            AllocationReport(allocation=each.allocation, state=State.PLANNED, detail="It waits for its session store.")
            for each in self._desired.allocations
            if each.allocation not in self._runs
            and each.allocation not in self._declined
            and plan.waits_for_store(each, self._desired, stores)
        ]

    # ---- acting -----------------------------------------------------------------------------------------------

    def _apply(self, action: plan.Action) -> None:
        match action:
            case plan.Start(desired):
                run = self._add(Record(desired=desired, state=State.PLANNED))
                # A folder whose record could not be read: it was started before, so it is looked for, not started.
                begun = run.place.record.exists()
                self._tasks[desired.allocation] = self._spawn(run.resume() if begun else run.start())
            case plan.Decline(desired, state, reason, detail):
                self._declined[desired.allocation] = Record(desired=desired, state=state, reason=reason, detail=detail)
                self._changed()
            case plan.Stop(allocation):
                self._runs[allocation].stop()
            case plan.LetGo(allocation):
                self._spawn(self._runs[allocation].let_go())
            case plan.Forget(allocation):
                self._runs.pop(allocation, None)
                self._declined.pop(allocation, None)
                self._tasks.pop(allocation, None)
            case _:
                self._apply_to_store(action)

    def _apply_to_store(self, action: plan.Action) -> None:
        match action:
            case plan.OpenStore(desired):
                folder = self.stores_root / desired.environment
                store = StoreRun(desired, folder, self._valkey, self._equipment.driver, self._changed)
                store.update(desired)
                store.adopt()
                self._stores[desired.environment] = store
                self._tasks[desired.environment] = self._spawn(store.run())
            case plan.UpdateStore(desired):
                self._stores[desired.environment].update(desired)
            case plan.CloseStore(environment):
                self._stores[environment].close()
            case plan.ForgetStore(environment):
                del self._stores[environment]
                self._tasks.pop(environment, None)
            case _:
                raise AssertionError(f"an action without an effect: {action}")

    def _add(self, record: Record) -> AllocationRun:
        place = Place(self.allocations_root / record.allocation)
        run = AllocationRun(record, place, self._equipment, self._changed)
        self._runs[record.allocation] = run
        return run


def _folders(root: Path) -> list[Path]:
    return sorted(found for found in root.iterdir() if found.is_dir() and is_folder_name(found.name))
