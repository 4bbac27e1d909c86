"""One contract for every store: the in-memory one and a real Valkey behave alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from moorage_app import contract
from moorage_app.errors import StoreUnavailableError
from moorage_app.stores.memory import MemoryServer, MemoryStore
from moorage_app.stores.port import Announcement, Lost, Store, Taking, Written
from moorage_app.stores.valkey import ValkeyStore

from .servers import ValkeyProcess, json_text

ID = "s" * 32


@dataclass(slots=True)
class Pair:
    """Two allocations' stores on the same server."""

    a: Store
    b: Store


@pytest_asyncio.fixture(params=["memory", pytest.param("valkey", marks=pytest.mark.servers)])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """Two stores of the parametrised kind."""
    if request.param == "memory":
        server = MemoryServer()
        yield Pair(MemoryStore(server), MemoryStore(server))
        return
    process: ValkeyProcess = request.getfixturevalue("valkey_process")
    await process.ready()
    admin = process.admin()
    await admin.flushall()
    await admin.aclose()
    a, b = ValkeyStore(await process.add_user("alloc-a")), ValkeyStore(await process.add_user("alloc-b"))
    yield Pair(a, b)
    await a.close()
    await b.close()


def text_of(lease: int, revision: int, holder: str, **more: Any) -> str:
    """As much of a record as a store looks at."""
    return json_text({"lease": lease, "revision": revision, "holder": holder, **more})


def taking(
    text: str, expected: str | None, holder: str, previous: str | None = None, aside: int | None = None
) -> Taking:
    """An entry for ID."""
    return Taking(ID, None if expected is None else expected.encode(), text, holder, previous, aside)


async def test_a_session_is_taken_only_from_what_was_read(stores: Pair) -> None:
    """The second of two who read the same loses; the lease's sets follow the winner."""
    await stores.a.open()
    assert (await stores.a.load(ID)).text is None
    assert not (await stores.a.load(ID)).traced
    first = text_of(1, 1, "a")
    assert await stores.a.take(taking(first, None, "a"))
    assert not await stores.b.take(taking(text_of(1, 1, "b"), None, "b"))
    loaded = await stores.b.load(ID)
    assert (loaded.text, loaded.traced) == (first.encode(), True)
    second = text_of(2, 2, "b")
    assert await stores.b.take(taking(second, first, "b", "a"))
    assert not await stores.a.take(taking(text_of(2, 2, "a"), first, "a", "a"))
    assert await stores.a.still_held("a", [ID]) == frozenset()
    assert await stores.a.still_held("b", [ID, "other"]) == {ID}
    assert await stores.a.still_held("b", []) == frozenset()


async def test_only_the_holder_of_the_lease_writes(stores: Pair) -> None:
    """Another holder, an older lease and an older revision change nothing."""
    first = text_of(1, 1, "a")
    await stores.a.take(taking(first, None, "a"))
    assert await stores.a.write(ID, text_of(1, 2, "a"), holder="a", lease=1, revision=2) == Written()
    assert await stores.a.write(ID, text_of(1, 2, "a", again=1), holder="a", lease=1, revision=2) == Written()
    now = text_of(1, 2, "a", again=1)
    for holder, lease, revision in (("b", 1, 3), ("a", 2, 3), ("a", 1, 1), ("a", 1, 9), ("a", 0, 3)):
        answer = await stores.b.write(ID, "{}", holder=holder, lease=lease, revision=revision)
        assert answer == Lost("taken_over"), (holder, lease, revision)
        assert (await stores.a.load(ID)).text == now.encode()


async def test_a_record_that_is_gone_or_unreadable_is_not_written(stores: Pair) -> None:
    """Neither is brought back by a writer that remembers it."""
    assert await stores.a.write(ID, "{}", holder="a", lease=1, revision=2) == Lost("gone")
    assert (await stores.a.load(ID)).text is None
    for bad in ("{", "[]", "3", "null", '"text"'):
        before = (await stores.a.load(ID)).text
        assert await stores.a.take(Taking(ID, before, bad, "a", None))
        assert await stores.a.write(ID, "{}", holder="a", lease=1, revision=2) in (
            Lost("unreadable"),
            Lost("taken_over"),
        )
        assert (await stores.a.load(ID)).text == bad.encode()


async def test_racing_entries_have_one_winner(stores: Pair) -> None:
    """Sixteen entries over the same text: exactly one is written."""
    first = text_of(1, 1, "a")
    await stores.a.take(taking(first, None, "a"))
    tries = [
        (stores.a if i % 2 else stores.b).take(taking(text_of(2, 2, f"holder-{i}"), first, f"holder-{i}", "a"))
        for i in range(16)
    ]
    assert sum(await asyncio.gather(*tries)) == 1


async def test_a_writer_and_a_taker_never_both_win_unseen(stores: Pair) -> None:
    """Whatever the order, the old holder's last acknowledged change is in the text the taker replaced."""
    for turn in range(20):
        session = f"{turn:032d}"
        text = text_of(1, 1, "a")
        await stores.a.take(Taking(session, None, text, "a", None))
        written, taken = await asyncio.gather(
            stores.a.write(session, text_of(1, 2, "a"), holder="a", lease=1, revision=2),
            stores.b.take(Taking(session, text.encode(), text_of(2, 2, "b"), "b", "a")),
        )
        assert (written == Written()) is not taken
        assert await stores.b.still_held("b", [session]) == ({session} if taken else frozenset())


async def test_what_is_put_aside_is_never_overwritten(stores: Pair) -> None:
    """Two bad records of one session, two quarantine keys."""
    await stores.a.take(taking("{bad", None, "a"))
    assert await stores.a.take(taking("{worse", "{bad", "a", "a", 111))
    assert await stores.a.take(taking(text_of(1, 1, "a"), "{worse", "a", "a", 222))
    assert await aside(stores.a, contract.quarantine_key(ID)) == b"{bad"
    assert await aside(stores.a, contract.quarantine_key(ID) + ":222") == b"{worse"


async def aside(store: Store, key: str) -> bytes | None:
    """A quarantined text, read past the port (which has no need to)."""
    if isinstance(store, MemoryStore):
        return store.server.get(key)
    assert isinstance(store, ValkeyStore)
    text: bytes | None = await store._client.get(key)
    return text


async def test_ids_of_expired_records_leave_the_holders_set(stores: Pair) -> None:
    """Pruning removes exactly those."""
    await stores.a.take(taking(text_of(1, 1, "a"), None, "a"))
    await stores.a.take(Taking("other" * 6, None, text_of(1, 1, "a"), "a", None))
    await stores.a.refresh("a", [ID])
    if isinstance(stores.a, MemoryStore):
        stores.a.server.drop(contract.session_key(ID))
    else:
        assert isinstance(stores.a, ValkeyStore)
        await stores.a._client.delete(contract.session_key(ID))
    assert await stores.b.prune_held("a") == 1
    assert await stores.b.still_held("a", [ID, "other" * 6]) == {"other" * 6}
    assert (await stores.a.load(ID)).traced


async def test_shared_state_is_swapped_only_from_what_was_read(stores: Pair) -> None:
    """Sixteen racing swaps: one winner; a bad value is put aside."""
    assert await stores.a.load_shared("x:y:v1") is None
    tries = [stores.a.swap_shared("x:y:v1", f'{{"by":{i}}}', expected=None) for i in range(16)]
    assert sum(await asyncio.gather(*tries)) == 1
    now = await stores.b.load_shared("x:y:v1")
    assert await stores.b.swap_shared("x:y:v1", "{}", expected=now, quarantine_ms=5)
    assert await aside(stores.a, contract.quarantine_key("x:y:v1")) == now


async def test_people_are_forgotten(stores: Pair) -> None:
    """What an allocation said is read by all until it is taken back."""
    await stores.a.show_people("a", "[1]", now_ms=1_000, ttl_ms=60_000)
    await stores.b.show_people("b", "[2]", now_ms=1_000, ttl_ms=60_000)
    assert sorted(await stores.a.people(1_000)) == [b"[1]", b"[2]"]
    await stores.b.show_people("b", "", now_ms=1_000, ttl_ms=60_000)
    assert await stores.a.people(1_000) == [b"[1]"]


async def test_announcements_reach_who_listens(stores: Pair) -> None:
    """First the empty one (re-read everything), then what was announced, on the channels asked for."""
    heard: list[Announcement] = []
    ready = asyncio.Event()

    async def listen() -> None:
        async for message in stores.b.listen(["moorage:shared"]):
            heard.append(message)
            ready.set()
            if message.payload == "last":
                return

    task = asyncio.create_task(listen())
    async with asyncio.timeout(10):
        await ready.wait()
        await stores.a.announce("moorage:other", "not asked for")
        await stores.a.announce("moorage:shared", "last")
        await task
    assert heard == [Announcement("", ""), Announcement("moorage:shared", "last")]


async def test_own_keys(stores: Pair) -> None:
    """Registration, notice and report are plain keys."""
    await stores.a.register("a", "{}")
    await stores.a.report_handover("a", "{}")
    assert await stores.a.notice("a") is None


def test_memory_forgets_like_a_server() -> None:
    """Values end with their time to live."""
    now = 0.0
    server = MemoryServer(clock=lambda: now)
    server.put("key", "value", 10)
    now = 9.9
    assert server.get("key") == b"value"
    assert server.keys("k") == ["key"]
    now = 10.0
    assert server.get("key") is None
    assert server.keys("k") == []


@pytest.mark.servers
async def test_a_store_that_does_not_answer_is_no_answer(tmp_path: Any) -> None:
    """Down, then up again on the same file: unavailable, then everything that was acknowledged."""
    process = ValkeyProcess(tmp_path)
    process.start()
    try:
        await process.ready()
        store = ValkeyStore(await process.add_user("alloc-a"))
        assert await store.take(taking(text_of(1, 1, "a"), None, "a"))
        process.kill()
        with pytest.raises(StoreUnavailableError):
            await store.write(ID, text_of(1, 2, "a"), holder="a", lease=1, revision=2)
        with pytest.raises(StoreUnavailableError):
            await store.load(ID)
        process.start()
        await process.ready()
        assert (await store.load(ID)).text == text_of(1, 1, "a").encode()
        assert await store.write(ID, text_of(1, 2, "a"), holder="a", lease=1, revision=2) == Written()
        await store.close()
    finally:
        process.stop()
