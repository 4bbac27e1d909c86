"""A real store for tests, configured as the runner configures it, and records as the SDK writes them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import valkey.asyncio

from moorage.runner.stores.config import CONFIG_NAME, USERS_NAME, render_config
from moorage.sessions.admin import StoreAdmin
from moorage.sessions.users import users_file
from moorage.system.binaries import find_valkey
from moorage_app import contract
from moorage_app.contract import Born, Outcome, Parted, Record
from tests.runner.kit import ADMIN_PASSWORD, HOST, connects, free_port, store_user
from tests.support.waiting import wait_until


@dataclass
class Store:
    """A running store with the users `alc_old` and `alc_new` (password = name)."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    def admin(self) -> contextlib.AbstractAsyncContextManager[StoreAdmin]:
        return _closing(StoreAdmin(self.port, ADMIN_PASSWORD))

    def client(self, user: str = "alc_old") -> contextlib.AbstractAsyncContextManager[Any]:
        found: Any = valkey.asyncio.Valkey(
            host=HOST,
            port=self.port,
            username=user,
            password=user,
            decode_responses=True,
            single_connection_client=True,
        )
        return contextlib.aclosing(found)

    async def restart(self) -> None:
        """Kill it and start it again on the same files, without writing the users anew."""
        self.process.kill()
        self.process.wait()
        self.process = await _start(self.folder, self.port)


@contextlib.asynccontextmanager
async def _closing(admin: StoreAdmin) -> AsyncIterator[StoreAdmin]:
    try:
        yield admin
    finally:
        await admin.close()


@contextlib.asynccontextmanager
async def running_store(folder: Path) -> AsyncIterator[Store]:
    port = free_port()
    users = [store_user("alc_old", "alc_old"), store_user("alc_new", "alc_new")]
    password = hashlib.sha256(ADMIN_PASSWORD.encode()).hexdigest()
    (folder / USERS_NAME).write_text(users_file(password, users))
    (folder / CONFIG_NAME).write_text(render_config(folder, port))
    store = Store(folder, port, await _start(folder, port))
    try:
        yield store
    finally:
        store.process.kill()
        await asyncio.to_thread(store.process.wait)


def _spawn(folder: Path) -> subprocess.Popen[bytes]:
    with open(folder / "valkey.log", "ab") as log:
        return subprocess.Popen([find_valkey().path, folder / CONFIG_NAME], stdout=log, stderr=log)


async def _start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    process = _spawn(folder)
    await wait_until(lambda: connects(port), what="the store accepts")
    return process


def session_id(number: int) -> str:
    return f"session-number-{number:010d}"


def record(number: int = 1, **changes: Any) -> Record:
    """A record as the SDK writes it: attached under `alc_old` with lease 3."""
    base = Record(
        id=session_id(number),
        schema_hash="abc",
        schema_entries=(),
        states={"draft": {"text": f"secret text {number}"}},
        revision=7,
        lease=3,
        holder="alc_old",
        attached=True,
        parted=None,
        outcome=Outcome.CREATED,
        reason="",
        created_ms=1000,
        updated_ms=2000,
        born=Born(1, Outcome.CREATED, "", "alc_old", 1000),
    )
    return replace(base, **changes)


def parted(number: int = 1, how: Parted = Parted.HANDED_OVER) -> Record:
    return record(number, attached=False, parted=how, revision=8)


def resumed(number: int = 1) -> Record:
    return record(number, holder="alc_new", previous_holder="alc_old", lease=4, revision=9, outcome=Outcome.RESUMED)


def fresh(number: int = 1, reason: str = "schema") -> Record:
    born = Born(4, Outcome.FRESH, reason, "alc_new", 3000)
    return record(
        number,
        holder="alc_new",
        previous_holder="alc_old",
        lease=4,
        revision=9,
        outcome=Outcome.FRESH,
        reason=reason,
        born=born,
    )


async def keep(app: Any, *records: Record) -> None:
    """Write records and the sets of who holds what, as the SDK's scripts do."""
    for each in records:
        await app.set(contract.session_key(each.id), contract.encode_record(each))
        for holder in ("alc_old", "alc_new"):
            await app.srem(contract.held_key(holder), each.id)
        await app.sadd(contract.held_key(each.holder), each.id)
