"""Watching a real store: which user did what to which session's record, and what the records say of themselves."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import pytest

from moorage.sessions.admin import StoreAdmin
from moorage.sessions.failures import StoreDown
from moorage.sessions.stored_account import Deed, Did
from moorage.sessions.stored_records import StoredRecords
from moorage.sessions.stored_watch import StoreWatch, parse_line
from moorage.system.clock import now_ms
from moorage.vango.records import GLOBAL_KEY_PREFIX, key_of, label_of
from tests.runner.kit import ADMIN_PASSWORD
from tests.sessions.kit import Store
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers
IDS = [f"{number:032x}" for number in range(3)]


def record(written_ms: int, payload: bytes = b'\x00\xff\r\n"secret"') -> bytes:
    head = struct.pack(">4sBH32sQI", b"VNGO", 1, 1, b"\x07" * 32, written_ms, len(payload))
    return head + payload + b"\x09" * 32


@asynccontextmanager
async def watching(store: Store) -> AsyncIterator[StoreWatch]:
    async with store.admin() as admin:
        watch = StoreWatch(admin)
        await watch.start()
        try:
            yield watch
        finally:
            await watch.stop()


async def deeds(watch: StoreWatch, count: int) -> list[tuple[str, Did, str]]:
    found: list[Deed] = []

    async def enough() -> bool:
        found.extend(await watch.take())
        return len(found) >= count

    await wait_until(enough)
    return [(deed.user, deed.did, deed.label) for deed in found]


async def test_each_deed_has_its_user_and_values_are_no_obstacle(store: Store) -> None:
    async with watching(store) as watch, store.client("alc_old") as old, store.client("alc_new") as new:
        await old.set(key_of(IDS[0]), record(now_ms()), ex=120)
        await new.execute_command("GET", key_of(IDS[0]), NEVER_DECODE=True)
        await new.expire(key_of(IDS[0]), 120)
        await new.set("something:else", "1")
        await new.set(f"{GLOBAL_KEY_PREFIX}x", "1")
        await old.delete(key_of(IDS[0]))
        label = label_of(IDS[0])
        assert await deeds(watch, 4) == [
            ("alc_old", Did.WROTE, label),
            ("alc_new", Did.READ, label),
            ("alc_new", Did.TOUCHED, label),
            ("alc_old", Did.REMOVED, label),
        ]


async def test_the_platforms_own_looks_are_nobodys_deeds(store: Store) -> None:
    async with watching(store) as watch, store.admin() as admin, store.client("alc_new") as new:
        await new.set(key_of(IDS[0]), record(now_ms()), ex=120)
        await StoredRecords(admin).all()
        await admin.command("EXPIRE", key_of(IDS[0]), 100)
        await admin.command("EXISTS", key_of(IDS[0]))
        await new.expire(key_of(IDS[0]), 120)
        label = label_of(IDS[0])
        assert await deeds(watch, 2) == [("alc_new", Did.WROTE, label), ("alc_new", Did.TOUCHED, label)]


async def test_a_connection_that_is_gone_before_anybody_could_ask_has_no_user(store: Store) -> None:
    async with watching(store) as watch:
        watch.forget("nobody")
        async with store.client("alc_new") as new:
            await new.set(key_of(IDS[1]), "x")
        (deed,) = await deeds(watch, 1)
        assert deed[0] in ("alc_new", "")
        assert deed[1:] == (Did.WROTE, label_of(IDS[1]))


class Interrupted(StoreAdmin):
    """An admin of the real store whose next answer about users is followed by something before it is used."""

    then: Callable[[], Awaitable[None]] | None = None

    async def user_by_address(self) -> Mapping[str, str]:
        found = await super().user_by_address()
        then, self.then = self.then, None
        if then is not None:
            await then()
        return found


async def test_a_connection_that_is_younger_than_the_answer_is_asked_for_again(store: Store) -> None:
    admin = Interrupted(store.port, ADMIN_PASSWORD)
    watch = StoreWatch(admin)
    await watch.start()
    try:
        async with store.client("alc_old") as old, store.client("alc_new") as new:

            async def write_and_be_heard() -> None:
                await new.set(key_of(IDS[1]), "x")
                await wait_until(lambda: any(line.key == key_of(IDS[1]) for line in watch._lines))

            admin.then = write_and_be_heard
            await old.set(key_of(IDS[0]), "x")
            found = await deeds(watch, 2)
        assert [user for user, _, _ in found] == ["alc_old", "alc_new"]
    finally:
        await watch.stop()
        await admin.close()


async def test_a_user_that_is_forgotten_while_the_store_is_asked_stays_forgotten(store: Store) -> None:
    admin = Interrupted(store.port, ADMIN_PASSWORD)
    watch = StoreWatch(admin)
    await watch.start()
    try:
        watch._users["127.0.0.1:1"] = "alc_old"
        async with store.client("alc_new") as new:

            async def forget() -> None:
                watch.forget("alc_old")

            admin.then = forget
            await new.set(key_of(IDS[0]), "x")
            await deeds(watch, 1)
        assert "127.0.0.1:1" not in watch._users
    finally:
        await watch.stop()
        await admin.close()


async def test_a_watch_knows_that_it_has_ended(store: Store) -> None:
    async with watching(store) as watch:
        assert watch.is_watching
        store.process.kill()
        await wait_until(lambda: not watch.is_watching)
    async with store.admin() as admin:
        with pytest.raises(StoreDown):
            await StoreWatch(admin).start()


async def test_records_tell_when_they_were_written_and_when_they_go(store: Store) -> None:
    written = now_ms()
    async with store.client("alc_old") as old, store.admin() as admin:
        await old.set(key_of(IDS[0]), record(written), ex=120)
        await old.set(key_of(IDS[1]), b"VNGO broken", ex=60)
        await old.set(f"{GLOBAL_KEY_PREFIX}x", record(written))
        found = await StoredRecords(admin).all()
        assert found.keys() == {label_of(IDS[0]), label_of(IDS[1])}
        whole, broken = found[label_of(IDS[0])], found[label_of(IDS[1])]
        assert whole.written_ms == written
        assert 119_000 <= whole.expires_ms - written <= 121_000
        assert broken.written_ms == 0
        assert await StoredRecords(admin).of([label_of(IDS[2])]) == {}


@pytest.mark.parametrize(
    ("line", "command", "key"),
    [
        (
            b'+1732500000.000123 [0 127.0.0.1:5000] "SET" "vango:session:1" "a\\"b" "ex" "1"\r\n',
            "set",
            "vango:session:1",
        ),
        (b'+1732500000.000123 [0 [::1]:5000] "get" "k\\x00"\r\n', "get", "k\\x00"),
        (b'+1732500000.000123 [0 lua] "PING"\r\n', "ping", ""),
    ],
)
def test_a_line_of_the_monitor(line: bytes, command: str, key: str) -> None:
    found = parse_line(line)
    assert found is not None
    assert (found.command, found.key, found.at_ms) == (command, key, 1732500000000)


def test_what_is_no_command_is_no_line() -> None:
    assert parse_line(b"+OK\r\n") is None
