"""The fence on a real store: whatever the old allocation does, it changes nothing after it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from valkey.exceptions import AuthenticationError, ValkeyError

from moorage.sessions.admin import StoreAdmin
from moorage.sessions.failures import StoreDown, StoreRefused, StoreUserUnknown
from moorage.system.clock import monotonic_s
from tests.runner.kit import HOST, free_port, store_user
from tests.sessions.kit import Store
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers


async def test_an_open_connection_can_no_longer_write(store: Store) -> None:
    async with store.admin() as admin, store.client() as old, store.client("alc_new") as new:
        await old.set("record", "before")
        assert not await admin.is_fenced("alc_old")
        evidence = await admin.fence("alc_old")
        assert (evidence.user, evidence.killed, evidence.durable) == ("alc_old", 1, True)
        assert evidence.took_ms < 1000
        with pytest.raises(ValkeyError):
            await old.set("record", "after")
        assert await new.get("record") == "before"
        assert await admin.is_fenced("alc_old")
        assert "alc_old" not in await admin.connected_users()
        assert (await admin.connected_users())["alc_new"] == 1


async def test_switching_off_alone_would_not_be_a_fence(store: Store) -> None:
    """Why connections are killed and looked for: this is the guard, taken away."""
    async with store.admin() as admin, store.client() as old:
        await old.set("record", "before")
        await admin.command("ACL", "SETUSER", "alc_old", "off")
        assert await old.set("record", "after")
        assert not await admin.is_fenced("alc_old")


async def test_reconnecting_is_refused_also_after_a_restart(store: Store) -> None:
    async with store.admin() as admin:
        await admin.fence("alc_old")
        for _ in range(2):
            async with store.client() as old:
                with pytest.raises(AuthenticationError):
                    await old.ping()
            await store.restart()
        assert await admin.is_fenced("alc_old")


async def test_the_same_again_is_harmless(store: Store) -> None:
    async with store.admin() as admin, store.client() as old:
        await old.ping()
        assert (await admin.fence("alc_old")).killed == 1
        assert (await admin.fence("alc_old")).killed == 0


async def test_a_user_that_is_not_there_yet_cannot_appear_later(store: Store) -> None:
    async with store.admin() as admin:
        await admin.fence("alc_late")
        await admin.reconcile_users(
            (store_user("alc_old", "alc_old"), store_user("alc_new", "alc_new"), store_user("alc_late", "alc_late"))
        )
        async with store.client("alc_late") as late:
            with pytest.raises(AuthenticationError):
                await late.ping()


async def test_waiting_subscribed_and_half_way_connections_are_ended(store: Store) -> None:
    async with store.admin() as admin, store.client() as blocked, store.client() as half, store.client() as listener:
        waiting = asyncio.create_task(blocked.blpop("queue", 30))
        await half.execute_command("MULTI")
        await half.execute_command("SET", "record", "late")
        listening = listener.pubsub()
        await listening.subscribe("channel")
        await wait_until(lambda: _connections(admin, "alc_old", 3))
        await admin.fence("alc_old")
        with pytest.raises(ValkeyError):
            await waiting
        with pytest.raises(ValkeyError):
            await half.execute_command("EXEC")
        assert await admin.command("EXISTS", "record") == 0
        await listening.aclose()


async def _connections(admin: StoreAdmin, user: str, count: int) -> bool:
    return (await admin.connected_users()).get(user) == count


_WRITER = """
import sys, valkey
client = valkey.Valkey(host=sys.argv[1], port=int(sys.argv[2]), username="alc_old", password="alc_old")
number = 0
while True:
    number += 1
    try:
        client.set("record", f"old {number}")
    except valkey.exceptions.ValkeyError as error:
        print(type(error).__name__, flush=True)
        if number > 10_000_000 or isinstance(error, valkey.exceptions.AuthenticationError):
            break
"""


def start_writer(port: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _WRITER, HOST, str(port)], stdout=subprocess.PIPE, text=True)


async def test_frozen_writer_that_wakes_changes_nothing(store: Store) -> None:
    writer = start_writer(store.port)
    try:
        async with store.admin() as admin:
            await wait_until(lambda: _holds(admin, "old"))
            os.kill(writer.pid, signal.SIGSTOP)  # in the middle of its writing
            await admin.fence("alc_old")
            await admin.command("SET", "record", "new")
            os.kill(writer.pid, signal.SIGCONT)
            said, _ = await asyncio.to_thread(writer.communicate, None, 30)
            assert said.split()[-1] == "AuthenticationError"
            assert await admin.command("GET", "record") == "new"
    finally:
        writer.kill()
        writer.wait()


async def _holds(admin: StoreAdmin, beginning: str) -> bool:
    return str(await admin.command("GET", "record")).startswith(beginning)


async def test_a_crowd_that_reconnects_at_once_is_fenced(store: Store) -> None:
    """32 clients write and reconnect as fast as they can; after the fence not one write arrives."""
    going = True

    async def insist(number: int) -> None:
        while going:
            try:
                async with store.client() as old:
                    while going:
                        await old.set(f"record{number}", "old")
            except (ValkeyError, OSError):
                continue

    async with store.admin() as admin:
        crowd = [asyncio.create_task(insist(number)) for number in range(32)]
        await wait_until(lambda: _connections(admin, "alc_old", 32))
        evidence = await admin.fence("alc_old")
        assert evidence.killed >= 32
        await admin.command("MSET", *(word for number in range(32) for word in (f"record{number}", "new")))
        end = monotonic_s() + 0.5
        await wait_until(lambda: monotonic_s() > end)
        values = await admin.command("MGET", *(f"record{number}" for number in range(32)))
        going = False
        await asyncio.gather(*crowd)
    assert values == ["new"] * 32


async def test_endless_script_does_not_hold_up_the_fence(store: Store) -> None:
    async with store.admin() as admin, store.client() as old:
        await old.ping()
        endless = asyncio.create_task(old.eval("while true do end", 0))
        await wait_until(lambda: _is_busy(admin))
        evidence = await admin.fence("alc_old")
        assert evidence.killed == 1
        with pytest.raises(ValkeyError):
            await endless


async def _is_busy(admin: StoreAdmin) -> bool:
    try:
        await admin.ping()
    except StoreRefused as refused:
        return refused.problem.detail.startswith("BUSY")
    except StoreDown:
        return False
    return False


async def test_unfence_admits_again_and_only_whom_it_knows(store: Store) -> None:
    async with store.admin() as admin:
        await admin.fence("alc_old")
        await admin.unfence("alc_old")
        await store.restart()
        async with store.client() as old:
            assert await old.ping()
        with pytest.raises(StoreUserUnknown):
            await admin.unfence("alc_never")


async def test_set_user_makes_it_exactly_this(store: Store) -> None:
    async with store.admin() as admin:
        await admin.set_user(store_user("alc_3", "alc_3"))
        async with store.client("alc_3") as third:
            assert await third.set("key", "value")
            await admin.set_user(store_user("alc_3", "alc_3", enabled=False))
            with pytest.raises(ValkeyError):
                await third.set("key", "late")
        assert await admin.is_fenced("alc_3")


async def test_store_that_is_down_is_an_error_and_not_an_answer() -> None:
    admin = StoreAdmin(free_port(), "x")
    for ask in (admin.ping(), admin.fence("alc_old"), admin.is_fenced("alc_old"), admin.connected_users()):
        with pytest.raises(StoreDown) as down:
            await ask
        assert down.value.problem.code == "store-down"
        assert down.value.retryable
    await admin.close()


async def test_frozen_store_is_down_within_its_time(store: Store) -> None:
    async with store.admin() as admin:
        await admin.ping()
        os.kill(store.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(StoreDown):
                await admin.fence("alc_old")
        finally:
            os.kill(store.process.pid, signal.SIGCONT)
        await admin.fence("alc_old")


async def test_another_password_is_refused(store: Store) -> None:
    admin = StoreAdmin(store.port, "wrong")
    with pytest.raises(StoreRefused):
        await admin.ping()
    await admin.close()


@pytest.mark.parametrize(
    "words",
    [
        "PING",
        "SET a b",
        "HSET h a b",
        "EVAL return(1) 0",
        "SCRIPT|LOAD return(1)",
        "SUBSCRIBE channel",
        "PUBLISH channel text",
        "CLIENT|SETNAME app",
        "CLIENT|SETINFO LIB-NAME app",
        "CLIENT|ID",
        "INFO server",
        "SCAN 0",
        "XADD s * a b",
        "EXPIRE a 10",
        "WATCH a",
    ],
)
async def test_what_clients_need_is_allowed(store: Store, words: str) -> None:
    async with store.client() as app:
        await app.execute_command(*_words(words))


@pytest.mark.parametrize(
    "words",
    [
        "CLIENT|LIST",
        "CLIENT|KILL USER moorage",
        "CLIENT|PAUSE 1",
        "ACL|LIST",
        "ACL|SETUSER alc_old on",
        "ACL|GETUSER moorage",
        "CONFIG|GET *",
        "CONFIG|SET appendonly no",
        "MONITOR",
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "SHUTDOWN",
        "DEBUG|SLEEP 0",
        "SAVE",
        "BGREWRITEAOF",
        "REPLICAOF 127.0.0.1 1",
        "MODULE|LIST",
        "SWAPDB 0 1",
        "SLOWLOG|GET",
        "EVAL return(redis.call('FLUSHALL')) 0",
        "EVAL return(redis.call('ACL','SETUSER','alc_old','on')) 0",
    ],
)
async def test_what_could_reach_others_is_refused(store: Store, words: str) -> None:
    async with store.client() as app:
        with pytest.raises(ValkeyError):
            await app.execute_command(*_words(words))


def _words(text: str) -> list[Any]:
    return text.replace("|", " ").split()
