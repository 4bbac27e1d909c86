"""Operations: stages under a lease, a token that fences, idempotency keys, the audit of what came too late."""

from __future__ import annotations

import asyncio

import pytest

from moorage.domain.errors import Refused
from moorage.domain.operation import MACHINES, Kind, may_cancel
from moorage.store import log, operations
from moorage.store.database import Database, Tx
from moorage.store.operations import LeaseLost
from tests.store.rows import add_operation


async def everything(db: Database, id: str = "opn_1") -> tuple[object, ...]:
    return await db.read(lambda tx: (operations.require(tx, id), operations.stages(tx, id)))


async def test_a_new_operation_begins_in_the_first_state_of_its_machine(db: Database) -> None:
    for kind in Kind:
        made = await db.write(lambda tx, kind=kind: add_operation(tx, f"opn_{kind}", kind=kind), actor="admin")  # type: ignore[misc]
        assert made.state == next(iter(MACHINES[kind]))
        assert (made.token, made.lease_owner, made.finished_ms, made.actor) == (0, None, None, "admin")
        stages = await db.read(lambda tx, kind=kind: operations.stages(tx, f"opn_{kind}"))  # type: ignore[misc]
        assert [(s["seq"], s["state"], s["actor"]) for s in stages] == [(1, made.state, "admin")]


async def test_of_64_workers_one_gets_the_lease(db: Database) -> None:
    read = await db.write(add_operation)
    got = await asyncio.gather(
        *(db.write(lambda tx, n=n: operations.lease(tx, read, f"worker-{n}")) for n in range(64))  # type: ignore[misc]
    )
    leased = [operation for operation in got if operation]
    assert len(leased) == 1
    assert leased[0].token == 1
    assert leased[0] == await db.read(lambda tx: operations.require(tx, "opn_1"))


async def test_an_old_token_changes_nothing(db: Database) -> None:
    made = await db.write(add_operation)
    first = await db.write(lambda tx: operations.lease(tx, made, "one"))
    assert first is not None
    await db.write(lambda tx: operations.record(tx, "opn_1", "policy_check", token=1, facts={"a": 1}))
    second = await db.write(lambda tx: operations.lease(tx, first, "two"))
    assert second is not None
    assert (second.token, second.facts) == (2, {"a": 1})
    before = await everything(db)
    for token in (0, 1, 3):
        with pytest.raises(LeaseLost) as lost:
            await db.write(
                lambda tx, token=token: operations.record(tx, "opn_1", "route_cas", token=token, facts={"a": 2})  # type: ignore[misc]
            )
        assert lost.value.problem.facts == {"operation": "opn_1", "token": token}
    assert await everything(db) == before


async def test_the_fence_takes_the_rest_of_the_transaction_back(db: Database) -> None:
    """A worker that slept writes rows and then its stage: nothing of it stays."""
    made = await db.write(add_operation)
    await db.write(lambda tx: operations.lease(tx, made, "one"))

    def late(tx: Tx) -> None:
        log.audit(tx, "late", "opn_1", "written")
        operations.record(tx, "opn_1", "policy_check", token=0)

    with pytest.raises(LeaseLost):
        await db.write(late)
    assert await db.read(lambda tx: log.audit_of(tx, "opn_1")) == []
    await db.write(lambda tx: operations.refuse_late(tx, "opn_1", 0, "policy_check"), actor="one")
    audited = await db.read(lambda tx: log.audit_of(tx, "opn_1"))
    assert [(a["action"], a["outcome"], a["actor"], a["detail"]) for a in audited] == [
        ("operation.report", "refused", "one", {"token": 0, "what": "policy_check"})
    ]


async def test_nothing_follows_the_end(db: Database) -> None:
    made = await db.write(add_operation)
    await db.write(lambda tx: operations.lease(tx, made, "one"))
    done = await db.write(lambda tx: operations.record(tx, "opn_1", "rejected", token=1, problem={"code": "x"}))
    assert done.finished_ms is not None
    assert await db.read(operations.unfinished) == ()
    with pytest.raises(LeaseLost):
        await db.write(lambda tx: operations.record(tx, "opn_1", "rejected", token=1))
    assert await db.write(lambda tx: operations.lease(tx, done, "two")) is None
    with pytest.raises(Refused) as refused:
        await db.write(lambda tx: operations.request_cancel(tx, "opn_1"))
    assert refused.value.problem.code == "operation-not-cancelable"


async def test_a_stage_that_the_machine_does_not_have_is_a_bug_that_changes_nothing(db: Database) -> None:
    made = await db.write(add_operation)
    await db.write(lambda tx: operations.lease(tx, made, "one"))
    before = await everything(db)
    with pytest.raises(AssertionError):
        await db.write(lambda tx: operations.record(tx, "opn_1", "healthy", token=1))
    assert await everything(db) == before


async def test_facts_are_merged_and_a_problem_stays(db: Database) -> None:
    made = await db.write(add_operation)
    await db.write(lambda tx: operations.lease(tx, made, "one"))
    for facts in ({"a": 1, "b": 1}, {"b": 2}):
        await db.write(lambda tx, facts=facts: operations.record(tx, "opn_1", "policy_check", token=1, facts=facts))  # type: ignore[misc]
    await db.write(lambda tx: operations.record(tx, "opn_1", "rejected", token=1, problem={"code": "x"}))
    found = await db.read(lambda tx: operations.require(tx, "opn_1"))
    assert (found.facts, found.problem) == ({"a": 1, "b": 2}, {"code": "x"})


async def test_repeating_a_stage_without_news_adds_no_row(db: Database) -> None:
    made = await db.write(add_operation)
    await db.write(lambda tx: operations.lease(tx, made, "one"))
    for note in ("", "looking", "", ""):
        await db.write(lambda tx, note=note: operations.record(tx, "opn_1", "policy_check", token=1, note=note))  # type: ignore[misc]
    stages = await db.read(lambda tx: operations.stages(tx, "opn_1"))
    assert [(s["seq"], s["state"], s["note"]) for s in stages] == [
        (1, "requested", ""),
        (2, "policy_check", ""),
        (3, "policy_check", "looking"),
    ]
    assert [s["seq"] for s in await db.read(lambda tx: operations.stages(tx, "opn_1", 2))] == [3]


async def test_cancel_is_accepted_exactly_where_it_prevents_something(db: Database) -> None:
    for number, (kind, state) in enumerate((k, s) for k in Kind for s in MACHINES[k]):
        id = f"opn_{number}"

        def come(tx: Tx, id: str = id, kind: Kind = kind, state: str = state) -> None:
            tx.run(
                "insert_operation", id=id, kind=kind, app="a", parent=None, state=state, input="{}", actor="", now_ms=1
            )

        await db.write(come)
        said = await db.write(lambda tx, id=id: _cancel(tx, id))  # type: ignore[misc]
        assert said == ("accepted" if may_cancel(kind, state) else "operation-not-cancelable"), (kind, state)


async def test_a_promotion_that_has_changed_the_owner_cannot_be_canceled(db: Database) -> None:
    """Its stage is still the one of the compare-and-swap when that has been committed."""
    made = await db.write(add_operation)
    await db.write(lambda tx: operations.lease(tx, made, "one"))
    for state in ("policy_check", "route_cas"):
        await db.write(lambda tx, state=state: operations.record(tx, "opn_1", state, token=1))  # type: ignore[misc]
    assert may_cancel(Kind.PROMOTION, "route_cas")
    await db.write(lambda tx: operations.record(tx, "opn_1", "route_cas", token=1, facts={"epoch": 7}))
    assert await db.write(lambda tx: _cancel(tx, "opn_1")) == "operation-not-cancelable"


def _cancel(tx: Tx, id: str) -> str:
    try:
        return "accepted" if operations.request_cancel(tx, id).cancel else "not kept"
    except Refused as refused:
        return refused.problem.code


async def test_an_answer_is_kept_with_its_mutation_or_not_at_all(db: Database) -> None:
    def act_and_break(tx: Tx) -> None:
        operations.remember(tx, "default", "key", "print", 202, "{}")
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await db.write(act_and_break)
    assert await db.read(lambda tx: operations.replay(tx, "default", "key")) is None
    await db.write(lambda tx: operations.remember(tx, "default", "key", "print", 202, "{}"))
    kept = await db.read(lambda tx: operations.replay(tx, "default", "key"))
    assert kept is not None
    assert (kept["fingerprint"], kept["status"], kept["body"]) == ("print", 202, "{}")
    assert await db.read(lambda tx: operations.replay(tx, "other", "key")) is None, "keys are scoped to a workspace"


async def test_an_unknown_operation_is_refused(db: Database) -> None:
    with pytest.raises(Refused) as refused:
        await db.read(lambda tx: operations.require(tx, "opn_nothing"))
    assert (refused.value.problem.code, refused.value.problem.status) == ("operation-unknown", 404)
