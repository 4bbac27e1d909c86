"""An environment's session store: one Valkey, kept running, its users kept as desired.

Rules: the file of users is written anew before every start, from the desired state, and a user that the last file had
switched off stays off: neither a restart nor a stale desired state readmits a fenced allocation. While it runs, users
are only ever tightened. A store outlives its runner and is adopted again. It is started only on a desired state that
came from the control plane in this runner's life.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moorage.domain.errors import MoorageError
from moorage.domain.limits import RESTART_BACKOFF_FIRST_S, RESTART_BACKOFF_MAX_S
from moorage.runner import logs
from moorage.runner.drivers.driver import Driver, Instance
from moorage.runner.launch import LANG_DEFAULT, PATH_DEFAULT, Launch
from moorage.runner.stores.config import (
    CONFIG_NAME,
    LOG_NAME,
    USERS_NAME,
    StoreRecord,
    read_store_record,
    render_config,
    write_store_record,
)
from moorage.sessions.admin import StoreAdmin
from moorage.sessions.failures import StoreDown, StoreRefused
from moorage.sessions.users import users_file
from moorage.system.clock import monotonic_s, wait_for
from moorage.system.files import write_private
from moorage.wire.runner import DesiredStore, StoreReport

STORE_HOST = "127.0.0.1"
ANSWER_PERIOD_S = 0.02
ANSWER_TIMEOUT_S = 30.0  # a process that says nothing for this long (not even that it loads) is started anew
LOADING_PERIOD_S = 0.5  # a large store reads its file for a while; it is asked less often then
LOOK_PERIOD_S = 5.0
STOP_GRACE_S = 10.0
STEADY_AFTER_S = 60.0  # a store that ran this long starts its back-off anew
_DETAIL_LINES_COUNT = 3

State = Literal["starting", "ready", "down", "stopped"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Seen:
    state: State
    detail: str = ""


class StoreRun:
    """Runs one environment's store until it is closed. `changed` is called after each change."""

    def __init__(
        self, desired: DesiredStore, folder: Path, valkey: Path, driver: Driver, changed: Callable[[], None]
    ) -> None:
        self.desired, self.folder = desired, folder
        self.users: frozenset[str] = frozenset()
        self.is_closing = self.is_closed = False
        self._valkey, self._driver, self._changed = valkey, driver, changed
        self._seen, self._restarts = _Seen("starting"), 0
        self._wake, self._confirmed = asyncio.Event(), False
        self._instance: Instance | None = None
        self._had_process = False

    @property
    def is_confirmed(self) -> bool:
        """Whether its desired state came from the control plane in this runner's life."""
        return self._confirmed

    @property
    def is_ready(self) -> bool:
        """Whether it answers and its users were brought to a desired state."""
        return self._seen.state == "ready"

    def update(self, desired: DesiredStore) -> None:
        """A desired state from the control plane; takes effect by itself."""
        self.desired, self._confirmed = desired, True
        self._wake.set()

    def close(self) -> None:
        """Ask it to stop; its data stays."""
        self.is_closing = True
        self._wake.set()

    def release(self) -> None:
        """Let go of it without stopping it."""
        if self._instance is not None:
            self._instance.release()

    def report(self) -> StoreReport:
        """What is seen of it."""
        pid = self._instance.identity.pid if self._instance is not None and self._seen.state != "down" else None
        return StoreReport(
            environment=self.desired.environment,
            state=self._seen.state,
            pid=pid,
            restarts=self._restarts,
            detail=self._seen.detail,
        )

    async def run(self) -> None:
        """Keep it running until it is closed."""
        failures, instance = 0, self._instance
        while not self.is_closing:
            begun = monotonic_s()
            if instance is None:
                instance = await self._start()
            if instance is not None:
                await self._serve(instance)
                instance = None
            if self.is_closing:
                break
            failures = 1 if monotonic_s() - begun > STEADY_AFTER_S else failures + 1
            await self._wait_before_restart(failures)
        if instance is not None:
            await self._end(instance)
        self.is_closed = True
        self._see("stopped")

    def adopt(self) -> bool:
        """Take up the process that an earlier runner left running; call it before `run`. Says whether there is one."""
        self._instance = self._adopted()
        return self._instance is not None

    # ---- starting ---------------------------------------------------------------------------------------------

    def _adopted(self) -> Instance | None:
        """The store that an earlier runner left running, if it is the one that is wanted."""
        known = read_store_record(self.folder)
        if known is None or known.identity is None:
            return self._driver.find(mark=self.folder)
        return self._driver.adopt(known.identity, mark=self.folder) or self._driver.find(mark=self.folder)

    async def _start(self) -> Instance | None:
        if not self._confirmed:
            self._see("down", "It died; a new one waits for the control plane.")
            return None
        desired = self.desired
        holder = self._driver.stranger(STORE_HOST, desired.port, None)
        if holder is not None:
            self._see("down", f"port-taken: port {desired.port} is held by {holder}.")
            return None
        self._see("starting")
        try:
            await asyncio.to_thread(self._write_files, desired)
            environ = {"PATH": PATH_DEFAULT, "LANG": LANG_DEFAULT, "HOME": str(self.folder)}
            launch = Launch((str(self._valkey), str(self.folder / CONFIG_NAME)), environ, self.folder)
            instance = self._driver.start(launch, log=self.folder / LOG_NAME, mark=self.folder)
            await asyncio.to_thread(self._remember, instance)
        except OSError as failed:
            self._see("down", f"start-failed: {failed.strerror}: {failed.filename}.")
            return None
        except MoorageError as refused:
            self._see("down", f"{refused.problem.code}: {refused}.")
            return None
        return instance

    def _write_files(self, desired: DesiredStore) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        users = self.folder / USERS_NAME
        previous = users.read_text() if users.exists() else ""
        password = hashlib.sha256(desired.admin_password.encode()).hexdigest()
        write_private(users, users_file(password, desired.users, previous).encode())
        write_private(self.folder / CONFIG_NAME, render_config(self.folder, desired.port).encode())
        (self.folder / LOG_NAME).touch(0o600)

    def _remember(self, instance: Instance) -> None:
        write_store_record(self.folder, StoreRecord(desired=self.desired, identity=instance.identity))

    # ---- serving ----------------------------------------------------------------------------------------------

    async def _serve(self, instance: Instance) -> None:
        """Follow one process until it has ended, or is stopped because it is closed or must be another one."""
        self._instance, started_as = instance, self.desired
        self._restarts += self._had_process
        self._had_process = True
        exited = asyncio.create_task(instance.ended())
        exited.add_done_callback(lambda _: self._wake.set())
        admin = StoreAdmin(started_as.port, started_as.admin_password, host=STORE_HOST)
        try:
            if await self._answers(admin, instance, exited):
                await self._keep_users(admin, exited, started_as)
        finally:
            await admin.close()
            exited.cancel()
        if exited.done() and not self.is_closing:
            tail = logs.tail_lines(self.folder / LOG_NAME, _DETAIL_LINES_COUNT)
            self._see("down", " / ".join(["exited: the store's process ended", *tail]))
        await self._end(instance)

    async def _answers(self, admin: StoreAdmin, instance: Instance, exited: asyncio.Task[int | None]) -> bool:
        """Wait until the store answers the admin as the admin; False when it must be ended instead."""
        deadline = monotonic_s() + ANSWER_TIMEOUT_S
        while not exited.done() and not self.is_closing and monotonic_s() < deadline:
            period = ANSWER_PERIOD_S
            try:
                await admin.ping()
            except StoreDown as down:
                self._see("starting", down.problem.detail)
            except StoreRefused as refused:
                if "loading" not in refused.problem.detail.lower():
                    _log.warning("ending the store of %s: %s", self.desired.environment, refused.problem.detail)
                    return False  # it has another password: started for an older desired state
                self._see("starting", "It reads its file.")
                period, deadline = LOADING_PERIOD_S, monotonic_s() + ANSWER_TIMEOUT_S
            else:
                if not instance.listens(STORE_HOST, self.desired.port):
                    return False
                await asyncio.to_thread(self._try_to_remember, instance)
                return True
            await wait_for(self._wake, period)
        return False

    def _try_to_remember(self, instance: Instance) -> None:
        try:
            self._remember(instance)
        except OSError as failed:
            _log.error("cannot write the record of store %s: %s", self.desired.environment, failed)

    async def _keep_users(self, admin: StoreAdmin, exited: asyncio.Task[int | None], started_as: DesiredStore) -> None:
        while not exited.done() and not self.is_closing:
            wanted = self.desired
            if (wanted.port, wanted.admin_password) != (started_as.port, started_as.admin_password):
                return
            try:
                for change in await admin.reconcile_users(wanted.users):
                    _log.info("store %s: %s", wanted.environment, type(change).__name__)
            except MoorageError as failed:
                if not exited.done():
                    self._see("down", f"{failed.problem.code}: {failed.problem.detail}")
            else:
                users = frozenset(user.name for user in wanted.users)
                if users != self.users:
                    self.users = users
                    self._changed()  # an allocation may have waited for its user
                self._see("ready")
            await wait_for(self._wake, LOOK_PERIOD_S)

    async def _end(self, instance: Instance) -> None:
        """Let it write what it holds and end it; a frozen one is killed."""
        if not instance.is_over:
            instance.terminate()
            try:
                await asyncio.wait_for(instance.ended(), STOP_GRACE_S)
            except TimeoutError:
                _log.warning("the store of %s does not stop, killing it", self.desired.environment)
        await instance.kill()
        instance.release()
        self._instance = None
        self.users = frozenset()

    async def _wait_before_restart(self, failures: int) -> None:
        """Back off; a new desired state or closing ends the wait."""
        seconds = min(RESTART_BACKOFF_FIRST_S * 2 ** min(failures - 1, 16), RESTART_BACKOFF_MAX_S)
        self._wake.clear()
        if not self.is_closing:
            await wait_for(self._wake, seconds)

    def _see(self, state: State, detail: str = "") -> None:
        seen = _Seen(state, detail)
        if seen != self._seen or state == "stopped":
            self._seen = seen
            self._changed()
