"""The log: gapless under failure and concurrency, named once, honest about how far back it reaches."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moorage.store import log
from moorage.store.database import Database, Tx
from moorage.wire.log import owner_event
from tests.support.nouns import owner


def append(tx: Tx, *, fail: bool = False) -> int:
    index = log.append(tx, owner_event(owner()))
    if fail:
        raise ValueError("a bug")
    return index


async def indexes(db: Database) -> list[int]:
    return await db.read(lambda tx: [entry.index for entry in log.entries(tx, 0, 10_000)])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.booleans(), max_size=40))
def test_indexes_have_no_gap_whatever_fails(db: Database, failing: list[bool]) -> None:
    async def run() -> list[object]:
        writes = [db.write(lambda tx, fail=fail: append(tx, fail=fail)) for fail in failing]  # type: ignore[misc]
        return list(await asyncio.gather(*writes, return_exceptions=True))

    results = asyncio.run(run())
    assert [isinstance(result, ValueError) for result in results] == failing
    found = asyncio.run(indexes(db))
    assert found == list(range(1, len(found) + 1))
    assert asyncio.run(db.read(log.committed_index)) == len(found)


async def test_the_log_is_named_once(db: Database) -> None:
    assert await db.write(lambda tx: log.create_incarnation(tx, "inc_first")) == "inc_first"
    assert await db.write(lambda tx: log.create_incarnation(tx, "inc_second")) == "inc_first"
    await db.write(append)
    entries = await db.read(lambda tx: log.entries(tx, 0, 10))
    assert [entry.incarnation for entry in entries] == ["inc_first"]


async def test_a_trimmed_log_says_how_far_it_reaches_back(db: Database) -> None:
    assert await db.read(lambda tx: log.reaches_back_to(tx, 0)), "an empty log has everything"
    for _ in range(10):
        await db.write(append)
    assert await db.read(lambda tx: log.reaches_back_to(tx, 0))
    await db.write(lambda tx: tx.run("trim_outbox", through=4))
    reach = [await db.read(lambda tx, after=after: log.reaches_back_to(tx, after)) for after in range(12)]  # type: ignore[misc]
    assert reach == [after >= 4 for after in range(12)]
    await db.write(lambda tx: tx.run("trim_outbox", through=10))
    assert not await db.read(lambda tx: log.reaches_back_to(tx, 9))
    assert await db.read(lambda tx: log.reaches_back_to(tx, 10))
    assert await db.write(append) == 11, "an index is never given twice"


async def test_pages_are_oldest_first_and_bounded(db: Database) -> None:
    for _ in range(5):
        await db.write(append)
    pages = await db.read(lambda tx: [[e.index for e in log.entries(tx, after, 2)] for after in (0, 2, 4, 5)])
    assert pages == [[1, 2], [3, 4], [5], []]
