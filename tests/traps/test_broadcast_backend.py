"""Broadcast backend: it announces that a value changed and is never where the value lives."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from valkey.asyncio import Valkey

from demo.people import Person, crowd
from examples.board.materialise import materialise
from moorage.sessions.users import ADMIN
from moorage.wire.api import RestartRequest
from moorage_app.contract import SHARED_CHANNEL, shared_key
from tests.support.platform import Platform, key
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

NOTES = "board:notes:v1"
EACH_COUNT = 3
NOTES_COUNT = 5
ANNOUNCEMENT_MAX_BYTES = 512


@pytest.fixture(scope="module")
def board(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The board, served."""
    app, _ = asyncio.run(platform.serve(materialise("v1", tmp_path_factory.mktemp("source") / "board")))
    return app


@pytest_asyncio.fixture
async def people(platform: Platform, board: str) -> AsyncIterator[list[Person]]:
    """People at two live allocations of one environment, half and half: one drains, one takes the newcomers."""
    address, host = ("127.0.0.1", platform.http_port), platform.host(board)
    async with crowd(EACH_COUNT, address, host) as earlier:
        async with platform.api() as api:
            started = await api.restart(board, RestartRequest(mode="drain"), key=key())
        assert (await platform.finished(started.operation)).state == "settled"
        async with crowd(EACH_COUNT, address, host) as later:
            first, second = places(earlier), places(later)
            assert (len(first), len(second), first & second) == (1, 1, set()), "two allocations serve"
            yield [*earlier, *later]
            assert all(len(p.welcomes) == 1 and p.here for p in (*earlier, *later)), "nobody was moved meanwhile"


def places(people: Sequence[Person]) -> set[str]:
    """The allocations that serve these people."""
    return {person.welcomes[-1].allocation for person in people}


def texts(person: Person) -> list[str]:
    """The notes that somebody sees, in any order."""
    return sorted(note["text"] for note in person.shared[NOTES]["notes"])


async def pin(person: Person, text: str) -> None:
    """Pin a note; returns when it is stored."""
    person.type(text)
    await person.send("add_note")


async def pin_many(people: Sequence[Person], about: str) -> set[str]:
    """Everybody pins some notes, one after the other, all people at once; the notes, once all are stored."""

    async def pins(i: int, person: Person) -> list[str]:
        texts = [f"{about}: note {n} of person {i}" for n in range(NOTES_COUNT)]
        for text in texts:
            await pin(person, text)
        return texts

    return set(itertools.chain(*await asyncio.gather(*(pins(i, person) for i, person in enumerate(people)))))


async def all_see(people: Sequence[Person], wanted: set[str], *, timeout_s: float = 20.0) -> None:
    """Wait until everybody sees these notes, each of them once."""
    await wait_until(
        lambda: all(sorted(t for t in texts(p) if t in wanted) == sorted(wanted) for p in people),
        timeout_s=timeout_s,
        what=f"everybody sees {len(wanted)} notes",
    )


async def stored(platform: Platform, app: str) -> dict[str, Any]:
    """The shared value as it lies in the store."""
    async with platform.store_admin(app) as admin:
        document: dict[str, Any] = json.loads(await admin.command("GET", shared_key(NOTES)))
    return document


async def test_an_announcement_carries_no_value_and_concurrent_changes_are_all_kept(
    platform: Platform, board: str, people: list[Person]
) -> None:
    async with announcements(platform, board) as heard:
        notes = await pin_many(people, "concurrent")
        await all_see(people, notes)
        await wait_until(lambda: len(heard) >= len(notes), what="every change was announced")
    for payload in heard:
        assert len(payload) <= ANNOUNCEMENT_MAX_BYTES
        assert set(json.loads(payload)) == {"state", "revision"}, "it says that a value changed, not which"
    document = await stored(platform, board)
    assert {note["text"] for note in document["value"]["notes"]} >= notes


@asynccontextmanager
async def announcements(platform: Platform, app: str) -> AsyncIterator[list[str]]:
    """What is announced on the channel of shared values meanwhile."""
    found = (await platform.store(app)).desired
    client: Any = Valkey(port=found.port, username=ADMIN, password=found.admin_password, decode_responses=True)
    subscription = client.pubsub(ignore_subscribe_messages=True)
    await subscription.subscribe(SHARED_CHANNEL)
    heard: list[str] = []

    async def listen() -> None:
        async for message in subscription.listen():
            heard.append(message["data"])

    task = asyncio.create_task(listen())
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await subscription.aclose()
        await client.aclose()


async def test_an_allocation_that_missed_every_announcement_converges_by_reading_the_store(
    platform: Platform, board: str, people: list[Person]
) -> None:
    async with without_broadcast(platform, board, people):
        await pin(people[0], "unheard at the new one")
        await pin(people[-1], "unheard at the old one")
        await all_see(people, {"unheard at the new one", "unheard at the old one"})
    await pin(people[0], "heard again")
    await all_see(people, {"heard again"})


@asynccontextmanager
async def without_broadcast(platform: Platform, app: str, people: Sequence[Person]) -> AsyncIterator[None]:
    """Both allocations may use no channel: what they listened to is cut off, what they announce is refused.

    The runner would mend its users, so it stands still meanwhile.
    """
    runner = platform.pid_of("runner")
    async with platform.store_admin(app) as admin:
        os.kill(runner, signal.SIGSTOP)
        try:
            for user in places(people):
                await admin.command("ACL", "SETUSER", user, "resetchannels")
            await wait_until(lambda: listens(admin, 0), what="nobody listens any more")
            yield
            assert await listens(admin, 0)
        finally:
            os.kill(runner, signal.SIGCONT)
        await wait_until(lambda: listens(admin, len(places(people))), what="the runner gave the channels back")


async def listens(admin: Any, count: int) -> bool:
    """Whether so many connections listen to changes of shared values."""
    return bool(await admin.command("PUBSUB", "NUMSUB", SHARED_CHANNEL) == [SHARED_CHANNEL, count])


async def test_killing_the_backend_loses_no_value(platform: Platform, board: str, people: list[Person]) -> None:
    await pin(people[0], "before the kill")
    writing = asyncio.create_task(pin_many(people, "while it died"))
    before = await stored(platform, board)
    await platform.kill_store(board)
    notes = await writing
    after = await stored(platform, board)
    assert after["revision"] >= before["revision"]
    kept = [note["text"] for note in after["value"]["notes"]]
    assert set(kept) >= {note["text"] for note in before["value"]["notes"]} | notes
    assert len(kept) == len(set(kept)), "what was sent again counts once"
    await pin(people[-1], "after the kill")
    await all_see(people, notes | {"before the kill", "after the kill"})
