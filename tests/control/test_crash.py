"""The control plane dies in the middle: at every single write of an operation, and is started anew on the same files.

Whatever the moment: the operation ends as it would have, ownership changed exactly once, nothing is left running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from moorage.control.operations.engine import Engine
from moorage.domain.ids import Prefix
from moorage.main.control import CODES
from moorage.store import allocations, log, operations
from moorage.system.rand import new_id
from moorage.wire.api import OperationView
from moorage.wire.runner import DesiredAllocation
from tests.control.rig import World
from tests.control.test_promotion import KEY, _only_owner_runs, code, history, production
from tests.support.nouns import manifest
from tests.support.waiting import wait_until

V1, V2 = manifest(content="v1"), manifest(content="v2")
WRITES_MAX_COUNT = 40  # far beyond what any operation here writes


async def crash_at(world: World, number: int, begin: Callable[[], Awaitable[str]]) -> tuple[str, bool]:
    """Begin an operation, kill the control plane before its engine's write `number`, start it anew.

    The operation's id and whether there was such a write.
    """
    db = world.plane.db
    db.count, db.die_at = 0, number
    id = await begin()
    await wait_until(lambda: _dead_or_idle(world), what="the write or the end")
    died = db.dead.is_set()
    if died:
        await world.restart()
    return id, died


async def _dead_or_idle(world: World) -> bool:
    return world.plane.db.dead.is_set() or await _idle(world)


async def check_tokens(world: World, id: str) -> None:
    """Stages were written under tokens that never fall: each worker fenced the one before."""
    rows = await world.plane.read(lambda tx: operations.stages(tx, id))
    tokens = [row["token"] for row in rows]
    assert tokens == sorted(tokens)


async def test_a_promotion_survives_a_crash_at_every_write(world: World) -> None:
    await world.serve(V1)
    await world.deploy(V2)
    serving, epoch = 1, 1
    for number in range(1, WRITES_MAX_COUNT):
        target = 3 - serving
        id, died = await crash_at(world, number, lambda t=target: world.begin_promote(t))  # type: ignore[misc]
        done = await world.ended(id)
        assert done.state == "healthy", (number, done.state, done.problem)
        serving, epoch = target, epoch + 1
        route = await production(world)
        assert route is not None
        assert (route.epoch, route.deployment) == (epoch, serving), f"write {number}"
        assert len(await history(world)) == epoch, "ownership changed exactly once"
        await check_tokens(world, id)
        await wait_until(
            lambda: _only_owner_runs(world), timeout_s=5, what=f"nothing else runs after a crash at write {number}"
        )
        if not died:
            break
    assert number > 6, "the promotion was interrupted at each of its stages"
    assert not died


async def test_a_deploy_survives_a_crash_at_every_write(world: World) -> None:
    for number in range(1, WRITES_MAX_COUNT):
        made = manifest(content=f"v{number}")
        id, died = await crash_at(world, number, lambda m=made: world.begin_deploy(m))  # type: ignore[misc]
        done = await world.ended(id)
        assert done.state == "preview_ready", (number, done.state, done.problem)
        view = await world.api.deployment("board", number)
        assert view.preview_url is not None
        assert world.edge.owners[f"{number}--board.localhost"].epoch == 1
        live = await world.plane.read(allocations.live)
        assert sum(a.deployment_number == number for a in live) == 1, "one preview, one allocation"
        if not died:
            break
    assert number > 3
    assert not died


async def test_a_loser_survives_a_crash_at_every_write(world: World) -> None:
    """The route is taken by another while the promotion starts its allocation: it loses, before and after a crash."""
    await world.serve(V1)
    await world.deploy(V2)
    await world.deploy(manifest(content="v3"))
    for number in range(1, WRITES_MAX_COUNT):
        epoch = await _epoch(world)
        id, died = await crash_at(world, number, lambda e=epoch: _lose(world, e))  # type: ignore[misc]
        done = await world.ended(id)
        if number > 1:  # a crash before its first write: the promotion itself has not begun, the other may be slower
            assert (done.state, code(done)) in (("rejected", "epoch-stale"), ("healthy", "")), (number, done.problem)
        await wait_until(lambda: _idle(world), what="everything has ended")
        assert await _epoch(world) == epoch + 1
        await wait_until(
            lambda: _only_owner_runs(world), timeout_s=5, what=f"nothing else runs after a crash at write {number}"
        )
        if not died:
            break
    assert number > 4
    assert not died


async def _lose(world: World, epoch: int) -> str:
    """Two promotions of the same epoch; the second one's allocation hangs until the first has won."""
    route = await production(world)
    assert route is not None
    first, second = [n for n in (1, 2, 3) if n != route.deployment]

    def behave(wanted: DesiredAllocation) -> str:
        return "hang" if wanted.deployment_number == second and world.edge.owners[KEY].epoch == epoch else "ready"

    world.runner.behave = behave
    loser = world.plane.db.only = await world.begin_promote(second, epoch=epoch)
    await world.begin_promote(first, epoch=epoch)
    return loser


async def _epoch(world: World) -> int:
    route = await production(world)
    return route.epoch if route else 0


async def _idle(world: World) -> bool:
    return not await world.plane.read(operations.unfinished)


@pytest.mark.parametrize("number", [2, 3, 4, 5])
async def test_a_worker_that_slept_past_its_lease_changes_nothing(world: World, number: int) -> None:
    """Another engine has taken over and finished; then the first one's write comes. It is refused and audited."""
    await world.serve(V1)
    await world.deploy(V2)
    db = world.plane.db
    db.count, db.die_at = 0, number
    id = await world.begin_promote(2)
    await asyncio.wait_for(db.dead.wait(), 10.0)
    db.die_at = 0
    control = world.plane.control
    other = Engine(type(control)(**{**vars(control), "boot": new_id(Prefix.OPERATION)}), CODES)
    running = asyncio.create_task(other.run())
    done = await world.ended(id)
    assert done.state == "healthy", done.problem
    before = await _everything(world, id)
    db.go_on.set()
    await wait_until(lambda: _was_refused(world, id), what="the late write is audited")
    assert await _everything(world, id) == before
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def _everything(world: World, id: str) -> tuple[OperationView, list[tuple[int, int]]]:
    return await world.api.operation(id), await history(world)


async def _was_refused(world: World, id: str) -> bool:
    rows = await world.plane.read(lambda tx: log.audit_of(tx, id))
    return any((row["action"], row["outcome"]) == ("operation.report", "refused") for row in rows)
