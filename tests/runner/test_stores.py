"""Session stores as real servers: kept running, durable, users as desired, never readmitting whom they fenced."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import valkey.asyncio
from valkey.exceptions import AuthenticationError, NoPermissionError, ValkeyError

from moorage.domain.allocation import State
from moorage.sessions.admin import StoreAdmin
from moorage.system import proc
from tests.runner.kit import (
    ADMIN_PASSWORD,
    HOST,
    ControlPlane,
    RunnerProcess,
    connects,
    control_plane,
    free_port,
    put_app,
    runner,
    store_user,
    wish,
    wish_store,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers


@asynccontextmanager
async def client(port: int, user: str, password: str) -> AsyncIterator[Any]:
    found: Any = valkey.asyncio.Valkey(host=HOST, port=port, username=user, password=password, decode_responses=True)
    try:
        yield found
    finally:
        await found.aclose()


@asynccontextmanager
async def admin(port: int) -> AsyncIterator[StoreAdmin]:
    found = StoreAdmin(port, ADMIN_PASSWORD)
    try:
        yield found
    finally:
        await found.close()


async def writes(port: int, user: str, password: str) -> bool:
    async with client(port, user, password) as app:
        try:
            return bool(await app.set("key", "value"))
        except (AuthenticationError, NoPermissionError):
            return False


async def other_pid(control: ControlPlane, pid: int | None) -> int:
    """Wait for the store to be ready as another process."""
    await wait_until(
        lambda: (each := control.store()) is not None and each.state == "ready" and each.pid not in (None, pid)
    )
    found = control.store()
    assert found is not None
    assert found.pid is not None
    return found.pid


async def test_store_is_private_durable_and_admits_its_users(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        port = free_port()
        control.want(stores=(wish_store(port, store_user("alc_1", "one"), store_user("alc_2", "two", enabled=False)),))
        await control.sees_store("ready")
        assert await writes(port, "alc_1", "one")
        assert not await writes(port, "alc_1", "two")
        assert not await writes(port, "alc_2", "two")
        assert not await writes(port, "default", "")
        async with client(port, "moorage", ADMIN_PASSWORD) as known:
            wanted = ("appendonly", "appendfsync", "save", "maxmemory-policy", "bind")
            config = {name: (await known.config_get(name))[name] for name in wanted}
        assert config == {
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "bind": HOST,
        }
        folder = tmp_path / "stores/env_1"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {(folder / name).stat().st_mode & 0o777 for name in ("valkey.conf", "store.json")} == {0o600}


async def test_users_follow_the_desired_state_while_it_runs(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        port, one = free_port(), store_user("alc_1", "one")
        control.want(stores=(wish_store(port, one),))
        pid = (await control.sees_store("ready")).pid
        async with client(port, "alc_1", "one") as held:
            await held.ping()
            control.want(stores=(wish_store(port, one, store_user("alc_2", "two")),))
            await wait_until(lambda: writes(port, "alc_2", "two"))
            assert await held.ping()
            control.want(stores=(wish_store(port, one.model_copy(update={"enabled": False})),))
            await wait_until(lambda: _is_refused(held))
        async with admin(port) as known:
            assert await known.is_fenced("alc_1")
            assert "alc_2" not in await known.users()
        assert control.reports[-1].stores[0].pid == pid


async def _is_refused(held: Any) -> bool:
    try:
        await held.set("key", "late")
    except ValkeyError:
        return True
    return False


async def test_changed_password_takes_effect(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        port = free_port()
        control.want(stores=(wish_store(port, store_user("alc_1", "one")),))
        await control.sees_store("ready")
        control.want(stores=(wish_store(port, store_user("alc_1", "two")),))
        await wait_until(lambda: writes(port, "alc_1", "two"))
        assert not await writes(port, "alc_1", "one")


async def test_killed_store_is_restarted_with_every_answered_write(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        port = free_port()
        control.want(stores=(wish_store(port, store_user("alc_1", "one")),))
        pid = (await control.sees_store("ready")).pid
        async with client(port, "alc_1", "one") as app:
            for number in range(200):
                await app.set(f"key{number}", number)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await other_pid(control, pid)
            assert await app.dbsize() == 200
        store = control.store()
        assert store is not None
        assert store.restarts == 1


async def test_restart_does_not_readmit_whom_the_store_fenced(tmp_path: Path) -> None:
    """The desired state still has the user on: it is stale, the fence is newer."""
    async with control_plane() as control, runner(tmp_path, control):
        port = free_port()
        control.want(stores=(wish_store(port, store_user("alc_1", "one")),))
        pid = (await control.sees_store("ready")).pid
        assert await writes(port, "alc_1", "one")
        async with admin(port) as known:
            await known.fence("alc_1")
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            second = await other_pid(control, pid)
            assert not await writes(port, "alc_1", "one")
            control.want(stores=(wish_store(port, store_user("alc_1", "one"), store_user("alc_2", "two")),))
            await wait_until(lambda: writes(port, "alc_2", "two"))
            assert not await writes(port, "alc_1", "one")
            await known.unfence("alc_1")
        os.kill(second, signal.SIGKILL)
        await other_pid(control, second)
        assert await writes(port, "alc_1", "one")


async def test_allocations_wait_for_their_store_and_outlive_its_restart(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        digest, port = put_app(tmp_path), free_port()
        with socket.socket() as stranger:
            stranger.bind((HOST, port))
            stranger.listen()
            control.want(wish(digest), stores=(wish_store(port, store_user("alc_1", "one")),))
            down = await control.sees_store("down")
            assert down.detail.startswith("port-taken")
            assert f"pid {os.getpid()}" in down.detail
            waiting = await control.sees(State.PLANNED)
            assert "store" in waiting.detail
        ready = await control.sees(State.READY)
        store = control.store()
        assert store is not None
        assert store.pid is not None
        os.kill(store.pid, signal.SIGKILL)
        await other_pid(control, store.pid)
        assert (await control.sees(State.READY)).pid == ready.pid


async def test_killed_runner_leaves_the_store_and_the_next_adopts_it(tmp_path: Path) -> None:
    async with control_plane() as control:
        port, one = free_port(), store_user("alc_1", "one")
        control.want(stores=(wish_store(port, one),))
        first = RunnerProcess(tmp_path, control)
        ready = await control.sees_store("ready")
        first.kill()
        assert await writes(port, "alc_1", "one")
        control.want(stores=(wish_store(port, one.model_copy(update={"enabled": False}), store_user("alc_2", "two")),))
        control.reports.clear()
        async with runner(tmp_path, control):
            adopted = await control.sees_store("ready")
            assert (adopted.pid, adopted.restarts) == (ready.pid, 0)
            await wait_until(lambda: writes(port, "alc_2", "two"))
            assert not await writes(port, "alc_1", "one")


async def test_store_that_died_with_its_runner_is_started_only_as_desired_now(tmp_path: Path) -> None:
    async with control_plane() as control:
        port, one = free_port(), store_user("alc_1", "one")
        control.want(stores=(wish_store(port, one),))
        first = RunnerProcess(tmp_path, control)
        ready = await control.sees_store("ready")
        assert await writes(port, "alc_1", "one")
        first.kill()
        assert ready.pid is not None
        os.kill(ready.pid, signal.SIGKILL)
        await wait_until(lambda: not proc.is_alive(ready.pid or 0))
        control.want(stores=(wish_store(port, one.model_copy(update={"enabled": False})),))
        control.reports.clear()
        async with runner(tmp_path, control):
            await control.sees_store("ready")
            assert not await writes(port, "alc_1", "one")
            async with admin(port) as known:
                assert await known.command("GET", "key") == "value"


async def test_stopped_store_keeps_its_data_and_the_order_is_kept(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        digest, port = put_app(tmp_path), free_port()
        wanted, store = wish(digest), wish_store(port, store_user("alc_1", "one"))
        control.want(wanted, stores=(store,))
        await control.sees(State.READY)
        assert await writes(port, "alc_1", "one")
        control.want(wanted.model_copy(update={"want": "stop"}), stores=(store.model_copy(update={"want": "stop"}),))
        await control.sees_store("stopped")
        assert (await control.sees(State.STOPPED)).reason == ""
        assert not connects(port)
        control.want(stores=(store,))
        await control.sees_store("ready")
        async with admin(port) as known:
            assert await known.command("GET", "key") == "value"
        control.want()
        await wait_until(lambda: control.store() is None)
        assert not connects(port)
        assert (tmp_path / "stores/env_1/appendonlydir").is_dir()


async def test_two_environments_have_two_stores(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        ports = free_port(), free_port()
        control.want(
            stores=tuple(
                wish_store(port, store_user("alc", f"secret{n}"), environment=f"env_{n}")
                for n, port in enumerate(ports)
            )
        )
        for n in range(2):
            await control.sees_store("ready", f"env_{n}")
        assert await writes(ports[0], "alc", "secret0")
        assert not await writes(ports[1], "alc", "secret0")


async def test_a_store_that_cannot_read_its_file_says_so(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        port = free_port()
        control.want(stores=(wish_store(port, store_user("alc_1", "one")),))
        pid = (await control.sees_store("ready")).pid
        assert await writes(port, "alc_1", "one")
        folder = tmp_path / "stores/env_1/appendonlydir"
        for each in folder.glob("*.incr.aof"):
            each.write_bytes(b"not a command\r\n" * 10)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        down = await control.sees_store("down")
        await wait_until(
            lambda: (each := control.store()) is not None and "append only file" in each.detail.lower(),
            what=f"the reason in {down.detail}",
        )
