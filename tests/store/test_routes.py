"""Route owners: one compare-and-swap per change, with log, history and audit in the same transaction."""

from __future__ import annotations

import asyncio
import threading

import pytest

from moorage.domain.route import Granted, RouteOwner, Stale
from moorage.store import log, routes
from moorage.store.database import Database, Tx
from tests.store.rows import wanted
from tests.support.nouns import owner

KEY = "board.localhost"


async def claim(db: Database, deployment: str, expected: int) -> Granted | Stale:
    return await db.write(
        lambda tx: routes.claim(tx, wanted(deployment), expected_epoch=expected, operation="opn_1"), actor="admin"
    )


async def everything(db: Database) -> tuple[object, ...]:
    """All rows that a change of owner writes."""

    def look(tx: Tx) -> tuple[object, ...]:
        audited = [(row["action"], row["outcome"], row["actor"]) for row in log.audit_of(tx, KEY, 1000)]
        entries = [entry.event for entry in log.entries(tx, 0, 1000)]
        history = [row["epoch"] for row in routes.history(tx, KEY, 1000)]
        return routes.owner(tx, KEY), history, entries, audited, log.committed_index(tx)

    return await db.read(look)


async def test_a_claim_writes_owner_history_audit_and_log_together(db: Database) -> None:
    said = await claim(db, "dep_1", 0)
    assert isinstance(said, Granted)
    who, history, entries, audited, index = await everything(db)
    assert who == said.owner
    assert said.owner.epoch == 1
    assert (history, index) == ([1], 1)
    assert audited == [("route.claim", "granted", "admin")]
    assert [(e.type, e.epoch, e.deployment) for e in entries] == [("route.owner.updated", 1, "dep_1")]  # type: ignore[attr-defined]


async def test_a_lost_claim_changes_nothing_but_the_audit_and_says_who_owns(db: Database) -> None:
    await claim(db, "dep_1", 0)
    before = await everything(db)
    for expected in (0, 2, 7):
        said = await claim(db, "dep_2", expected)
        assert said == Stale(owner("dep_1", epoch=1))
    after = await everything(db)
    assert (after[0], after[1], after[2], after[4]) == (before[0], before[1], before[2], before[4])
    assert [row[1] for row in after[3]] == ["stale", "stale", "stale", "granted"]  # type: ignore[attr-defined]


async def test_a_transaction_that_fails_after_the_claim_leaves_nothing(db: Database) -> None:
    """Owner, history, audit and log entry are one with whatever else the transaction does."""
    before = await everything(db)

    def claim_and_break(tx: Tx) -> None:
        routes.claim(tx, wanted(), expected_epoch=0, operation="opn_1")
        raise ValueError("a bug after the swap")

    with pytest.raises(ValueError, match="a bug"):
        await db.write(claim_and_break)
    assert await everything(db) == before
    assert isinstance(await claim(db, "dep_1", 0), Granted)
    assert (await everything(db))[4] == 1, "the index that was taken back is given again: no gap"


async def test_64_racing_claims_from_tasks_have_one_winner_per_epoch(db: Database) -> None:
    for epoch in range(5):
        said = await asyncio.gather(*(claim(db, f"dep_{n}", epoch) for n in range(64)))
        granted = [each.owner for each in said if isinstance(each, Granted)]
        assert len(granted) == 1
        assert granted[0].epoch == epoch + 1
        assert all(each == Stale(granted[0]) for each in said if isinstance(each, Stale)), "every loser is told who won"
    assert await _indexes(db) == [1, 2, 3, 4, 5]


def test_64_racing_claims_from_threads_have_one_winner_per_epoch(db: Database) -> None:
    """Each thread with an event loop of its own reads the epoch and claims from it, again and again."""
    start, won = threading.Barrier(16), []

    def race(name: str) -> None:
        async def run() -> None:
            start.wait(10.0)
            for _ in range(4):
                epoch = await db.read(lambda tx: routes.epoch_of(tx, KEY))
                said = await claim(db, name, epoch)
                if isinstance(said, Granted):
                    won.append(said.owner.epoch)

        asyncio.run(run())

    threads = [threading.Thread(target=race, args=(f"dep_{n}",)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(1, len(won) + 1)), "one winner per epoch"
    assert asyncio.run(_indexes(db)) == list(range(1, len(won) + 1)), "no gap in the log"


async def _indexes(db: Database) -> list[int]:
    return await db.read(lambda tx: [entry.index for entry in log.entries(tx, 0, 10_000)])


async def test_a_tombstone_keeps_the_epoch(db: Database) -> None:
    await claim(db, "dep_1", 0)
    current = owner("dep_1", epoch=1)
    assert await db.write(lambda tx: routes.remove(tx, current, expected_epoch=1))
    assert await db.read(lambda tx: (routes.owner(tx, KEY), routes.epoch_of(tx, KEY), routes.owners(tx))) == (
        None,
        2,
        (),
    )
    assert not await db.write(lambda tx: routes.remove(tx, current, expected_epoch=2)), "nobody's cannot be removed"
    for expected in (0, 1):
        assert await claim(db, "dep_2", expected) == Stale(None)
    said = await claim(db, "dep_2", 2)
    assert isinstance(said, Granted)
    assert said.owner.epoch == 3
    epochs = await db.read(lambda tx: [e.event.epoch for e in log.entries(tx, 0, 100)])  # type: ignore[union-attr]
    assert epochs == [1, 2, 3], "an edge never sees an epoch fall"


async def test_a_removal_and_a_hold_are_conditional_too(db: Database) -> None:
    await claim(db, "dep_1", 0)
    await claim(db, "dep_2", 1)
    old = owner("dep_1", epoch=1)
    before = await everything(db)
    assert not await db.write(lambda tx: routes.remove(tx, old, expected_epoch=1))
    assert not await db.write(lambda tx: routes.hold(tx, old, True, expected_epoch=1))
    assert await everything(db) == before
    assert await db.write(lambda tx: routes.hold(tx, old, True, expected_epoch=2))
    held = await db.read(lambda tx: routes.owner(tx, KEY))
    assert held is not None
    assert (held.held, held.epoch) == (True, 2)


async def test_a_new_owner_is_never_held(db: Database) -> None:
    await claim(db, "dep_1", 0)
    await db.write(lambda tx: routes.hold(tx, owner("dep_1"), True, expected_epoch=1))
    said = await claim(db, "dep_2", 1)
    assert isinstance(said, Granted)
    assert not said.owner.held


async def test_routes_do_not_touch_each_other(db: Database) -> None:
    await claim(db, "dep_1", 0)

    def other(tx: Tx) -> Granted | Stale:
        return routes.claim(
            tx, wanted("dep_9", route_key="other.localhost", app="other"), expected_epoch=0, operation="o"
        )

    assert isinstance(await db.write(other), Granted)
    found = await db.read(lambda tx: {o.route_key: (o.deployment, o.epoch) for o in routes.owners(tx)})
    assert found == {KEY: ("dep_1", 1), "other.localhost": ("dep_9", 1)}
    mine: tuple[RouteOwner, ...] = await db.read(lambda tx: routes.owners(tx, "board"))
    assert [o.route_key for o in mine] == [KEY]
