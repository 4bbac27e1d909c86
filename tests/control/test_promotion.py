"""Promotion and rollback through the API: policy, the one compare-and-swap, bake, and everything that stops them."""

from __future__ import annotations

import asyncio

import pytest

from moorage.domain.allocation import Posture
from moorage.domain.artifact import artifact_digest
from moorage.store import allocations, log, operations, routes
from moorage.system.rand import new_secret
from moorage.wire.api import OperationView, RouteView
from moorage.wire.log import OwnerUpdated
from tests.control.rig import World
from tests.support.nouns import manifest, state_entry
from tests.support.waiting import wait_until

KEY = "board.localhost"
V1 = manifest(content="v1", state=[state_entry("draft")])
V2 = manifest(content="v2", state=[state_entry("draft"), state_entry("colour")])
V3 = manifest(content="v3", state=[state_entry("draft", "int")])


async def production(world: World) -> RouteView | None:
    return next((r for r in await world.api.routes() if r.route_key == KEY), None)


async def history(world: World) -> list[tuple[int, int]]:
    rows = await world.plane.read(lambda tx: routes.history(tx, KEY, 1000))
    return [(row["epoch"], row["deployment_number"]) for row in reversed(rows)]


def code(view: OperationView) -> str:
    return str(view.problem["code"]) if view.problem else ""


async def test_a_promotion_changes_the_owner_and_every_edge_has_it(world: World) -> None:
    number = await world.deploy(V1)
    done = await world.promote(number)
    assert done.state == "healthy", done.problem
    states = list(dict.fromkeys(stage.state for stage in done.stages))
    assert states == ["requested", "policy_check", "route_cas", "propagating", "baking", "healthy"]
    route = await production(world)
    assert route is not None
    assert (route.epoch, route.deployment, route.artifact) == (1, 1, artifact_digest(V1))
    assert (route.environment, route.ready_allocations, route.edges_behind) == ("production", 1, ())
    announced = world.edge.owners[KEY]
    assert isinstance(announced, OwnerUpdated)
    assert announced.artifact == artifact_digest(V1)
    assert (await world.api.deployment("board", 1)).serving
    assert await history(world) == [(1, 1)]


async def test_the_next_promotion_lets_the_old_allocation_drain(world: World) -> None:
    await world.serve(V1)
    number = await world.deploy(V2)
    old = next(a for a in await world.api.allocations() if a.environment == "production")
    world.edge.sockets = {old.number: 2}
    await wait_until(lambda: world.plane.control.live.attached(old.number) == 2, what="sockets are reported")
    done = await world.promote(number)
    assert done.state == "healthy", done.problem
    assert (done.facts["mode"], done.facts["impact"]["forward"]) == ("drain", "warm")
    drain = await world.api.operation(done.children[0])
    assert (drain.kind, drain.state) == ("drain", "draining")
    view = next(a for a in await world.api.allocations() if a.number == old.number)
    assert (view.posture, view.want) == (Posture.NO_PICKS, "run")
    for left in (2, 1):
        world.edge.sockets = {old.number: left}
        seen = await world._follow(drain.id, lambda v, left=left: _attached(v) == left, 5.0)  # type: ignore[misc]
        account = seen.facts["account"]
        assert account["total"] == 2
        assert account["attached"] + account["ended"] == 2
        assert account["resumed"] == account["fresh"] == 0, "a session in a drain is never called moved"
    world.edge.sockets = {old.number: 0}
    ended = await world.ended(drain.id)
    assert ended.state == "settled"
    assert (ended.facts["account"]["total"], ended.facts["account"]["ended"]) == (2, 2)
    await wait_until(lambda: _gone(world, old.number), what="the drained allocation is gone")


async def test_a_deadline_of_no_seconds_cuts_at_once(world: World) -> None:
    await world.serve(V1)
    old = next(a for a in await world.api.allocations() if a.environment == "production")
    world.edge.sockets = {old.number: 2}
    await wait_until(lambda: world.plane.control.live.attached(old.number) == 2, what="sockets are reported")
    promoted = await world.promote(await world.deploy(V2), mode="drain", drain_deadline_s=0.0)
    drain = await world.ended(promoted.children[0])
    account = drain.facts["account"]
    assert (account["total"], account["ended"], account["attached"]) == (2, 2, 0)
    assert account["reasons"]["ended"] == {"cut-at-deadline": 2}


def _attached(view: OperationView) -> int | None:
    account = view.facts.get("account")
    return account["attached"] if account else None


async def _gone(world: World, number: int) -> bool:
    return number not in [a.number for a in await world.api.allocations()]


async def test_a_wrong_expected_epoch_is_refused_with_the_actual_one(world: World) -> None:
    await world.serve(V1)
    number = await world.deploy(V2)
    for epoch in (0, 2, 7):
        done = await world.promote(number, epoch=epoch)
        assert (done.state, code(done)) == ("rejected", "epoch-stale")
        assert done.problem is not None
        assert (done.problem["expected_epoch"], done.problem["actual_epoch"]) == (epoch, 1)
    assert await history(world) == [(1, 1)]


async def test_only_a_ready_preview_can_be_promoted(world: World) -> None:
    await world.serve(V1)
    world.runner.behave = lambda _wanted: "fail"
    for number, (made, state) in enumerate([(None, "blocked"), (V2, "failed")], start=2):
        assert (await world.ended(await world.begin_deploy(made))).state == state
        report = await world.api.promotion_report("board", number)
        assert report.verdict == "blocked"
        assert report.problem is not None
        assert report.problem["code"] == "deployment-not-promotable"
        done = await world.promote(number)
        assert (done.state, code(done)) == ("rejected", "deployment-not-promotable")
    assert await history(world) == [(1, 1)]


async def test_the_owner_cannot_be_promoted_again(world: World) -> None:
    await world.serve(V1)
    done = await world.promote(1)
    assert (done.state, code(done)) == ("rejected", "already-owner")
    assert await history(world) == [(1, 1)]


async def test_64_racing_promotions_have_one_winner_per_epoch(world: World) -> None:
    """Each loser is told who won; nothing of a loser is left running."""
    await world.serve(V1)
    await world.deploy(V2)
    await world.deploy(manifest(content="v2b", state=V2.state))
    world.runner.behave = lambda _wanted: "hang"
    begun = await asyncio.gather(*(world.begin_promote(2 + i % 2, epoch=1) for i in range(64)))
    await wait_until(lambda: _hold_allocations(world, 64), what="all have passed the policy")
    world.runner.behave = lambda _wanted: "ready"  # the gun: all have passed the policy with the epoch they read
    world.runner.revision = -1
    await wait_until(lambda: _are_final(world, begun), what="all have ended", timeout_s=60.0)
    done = [await world.api.operation(id) for id in begun]
    winners = [view for view in done if view.state == "healthy"]
    losers = [view for view in done if view.state == "rejected"]
    assert len(winners) == 1, [view.state for view in done]
    assert len(losers) == 63
    won = int(winners[0].input["deployment"])
    for view in losers:
        assert code(view) == "epoch-stale"
        assert view.problem is not None
        assert view.problem["actual_epoch"] == 2
        assert view.problem["winner_deployment"] == won
    swaps = [
        row for row in await world.plane.read(lambda tx: log.audit_of(tx, KEY, 1000)) if row["detail"].get("actual")
    ]
    assert len(swaps) > 32, "most of them have lost at the compare-and-swap itself"
    assert await history(world) == [(1, 1), (2, won)]
    indexes = await world.plane.read(lambda tx: [e.index for e in log.entries(tx, 0, 10_000)])
    assert indexes == list(range(1, len(indexes) + 1))
    await wait_until(lambda: _production_is(world, winners[0].facts["allocations"]), what="the losers' processes stop")


async def _hold_allocations(world: World, count: int) -> bool:
    rows = await world.plane.read(operations.unfinished)
    return sum("allocations" in row.facts for row in rows) == count


async def _are_final(world: World, ids: list[str]) -> bool:
    rows = await world.plane.read(operations.unfinished)
    return not {row.id for row in rows} & set(ids)


async def _production_is(world: World, ids: list[str]) -> bool:
    live = await world.plane.read(lambda tx: allocations.live(tx))
    return [a.id for a in live if a.deployment_number and a.environment == _environment(live, ids)] == ids


def _environment(live: tuple[allocations.Allocation, ...], ids: list[str]) -> str:
    return next(a.environment for a in live if a.id in ids)


async def test_a_cold_promotion_needs_the_right_acknowledgement(world: World) -> None:
    await world.serve(V1)
    number = await world.deploy(V3)
    old = next(a for a in await world.api.allocations() if a.environment == "production")
    world.edge.sockets = {old.number: 3}
    await wait_until(lambda: world.plane.control.live.attached(old.number) == 3, what="sockets are reported")

    report = await world.api.promotion_report("board", number)
    assert (report.verdict, report.forward, report.live_sessions) == ("needs_acknowledgement", "cold", 3)
    assert [c.text for c in report.forward_changes] == ["board:draft:v1 draft retyped from str to int"]
    without = await world.promote(number)
    assert (without.state, code(without)) == ("rejected", "acknowledgement-required")
    assert without.problem is not None
    digest = without.problem["acknowledge"]
    assert digest == report.acknowledge
    assert without.problem["live_sessions"] == 3
    assert without.problem["deciding_change"] == "board:draft:v1 draft retyped from str to int"

    stale = await world.promote(number, acknowledge="ack:0123456789abcdef")
    assert (stale.state, code(stale)) == ("rejected", "acknowledgement-stale")
    assert stale.problem is not None
    assert stale.problem["acknowledge"] == digest
    assert await history(world) == [(1, 1)]

    world.edge.sockets = {old.number: 1}  # another number of sessions does not make the digest another one
    await wait_until(lambda: world.plane.control.live.attached(old.number) == 1, what="sockets are reported")
    done = await world.promote(number, acknowledge=digest)
    assert done.state == "healthy", done.problem
    assert await history(world) == [(1, 1), (2, number)]


async def test_an_acknowledgement_is_for_one_epoch(world: World) -> None:
    await world.serve(V1)
    cold = await world.deploy(V3)
    digest = (await world.api.promotion_report("board", cold)).acknowledge
    warm = await world.deploy(V2)
    assert (await world.promote(warm)).state == "healthy"
    done = await world.promote(cold, acknowledge=digest)
    assert (done.state, code(done)) == ("rejected", "acknowledgement-stale")


async def test_a_rollback_over_an_addition_is_cold_and_says_so(world: World) -> None:
    await world.serve(V1)
    await world.serve(V2)
    refused = await world.promote(1, rollback=True)
    assert (refused.state, code(refused)) == ("rejected", "acknowledgement-required")
    assert refused.problem is not None
    assert refused.problem["changes"] == ["board:draft:v1 colour removed"]
    done = await world.promote(1, rollback=True, acknowledge=refused.problem["acknowledge"])
    assert (done.kind, done.state) == ("rollback", "healthy")
    assert await history(world) == [(1, 1), (2, 2), (3, 1)]


@pytest.mark.parametrize("impact", ["destructive", "data-migration", "no such impact"])
async def test_a_data_migration_blocks_the_way_back(world: World, impact: str) -> None:
    """By either verb: promoting an earlier deployment is a rollback too."""
    await world.serve(V1)
    with_migration = manifest(content="v2", state=V1.state, migrations=[("drop-notes", impact)])
    await world.serve(with_migration)
    for rollback in (True, False):
        done = await world.promote(1, rollback=rollback)
        assert (done.state, code(done)) == ("rejected", "rollback-blocked-by-data")
        assert done.problem is not None
        assert done.problem["choices"] == ["forward-fix", "restore"]
        assert "drop-notes" in done.problem["detail"]
    assert await history(world) == [(1, 1), (2, 2)]


async def test_mild_migrations_do_not_block_the_way_back(world: World) -> None:
    await world.serve(V1)
    mild = [(f"step-{impact}", impact) for impact in ("additive", "expand-contract", "online-change")]
    await world.serve(manifest(content="v2", state=V1.state, migrations=mild))
    done = await world.promote(1, rollback=True)
    assert done.state == "healthy", done.problem


async def test_an_allocation_that_does_not_start_leaves_the_owner_untouched(world: World) -> None:
    await world.serve(V1)
    number = await world.deploy(V2)
    world.runner.behave = lambda _wanted: "fail"
    done = await world.promote(number)
    assert (done.state, code(done)) == ("failed", "allocation-exited")
    assert done.problem is not None
    assert done.problem["log_tail"] == ["Traceback", "ValueError: no such board"]
    route = await production(world)
    assert route is not None
    assert (route.epoch, route.deployment, route.ready_allocations) == (1, 1, 1)
    assert await history(world) == [(1, 1)]


@pytest.mark.parametrize("world", [{"bake_s": 0.4}], indirect=True)
async def test_a_failed_bake_gives_the_route_back(world: World) -> None:
    await world.serve(V1)
    number = await world.deploy(V2)
    old = next(a for a in await world.api.allocations() if a.environment == "production")
    id = await world.begin_promote(number)
    baking = await world.reached(id, "baking")
    await world.runner.crash(baking.facts["allocations"][0])
    done = await world.ended(id)
    assert (done.state, code(done)) == ("rolled_back", "bake-failed")
    assert await history(world) == [(1, 1), (2, 2), (3, 1)]
    view = next(a for a in await world.api.allocations() if a.number == old.number)
    assert (view.posture, view.want, view.state) == (Posture.OPEN, "run", "ready")
    announced = world.edge.owners[KEY]
    await wait_until(lambda: world.edge.owners[KEY].epoch == 3, what="the edge has the old owner again")
    assert isinstance(announced, OwnerUpdated)


@pytest.mark.parametrize("world", [{"bake_s": 0.4}], indirect=True)
async def test_a_failed_bake_of_the_first_owner_leaves_nobody(world: World) -> None:
    number = await world.deploy(V1)
    id = await world.begin_promote(number)
    baking = await world.reached(id, "baking")
    await world.runner.crash(baking.facts["allocations"][0])
    done = await world.ended(id)
    assert (done.state, code(done)) == ("rolled_back", "bake-failed")
    assert await production(world) is None
    assert await world.plane.read(lambda tx: routes.epoch_of(tx, KEY)) == 2


async def _overtaken(world: World) -> OperationView:
    """A second owner is held up right after its swap, a third one takes the route and drains it: the second's end."""
    await world.serve(V1)
    number = await world.deploy(V2)
    third = await world.deploy(manifest(content="v2b", state=V2.state))
    world.runner.behave = lambda _wanted: "hang"
    second = await world.begin_promote(number)
    await wait_until(lambda: _runs(world, number), what="the second owner's allocation is planned")
    db = world.plane.db
    db.only, db.count, db.die_at = second, 0, 2  # the first write from here is the swap
    world.runner.behave = lambda _wanted: "ready"
    await db.dead.wait()
    assert (await world.promote(third, epoch=2)).state == "healthy"
    await wait_until(lambda: _ended(world, number), what="the second owner's allocation is stopped")
    db.go_on.set()
    return await world.ended(second)


async def _runs(world: World, deployment: int) -> bool:
    views = await world.api.allocations()
    return deployment in [a.deployment for a in views if a.environment == "production"]


async def _ended(world: World, deployment: int) -> bool:
    return not await _runs(world, deployment)


async def test_an_overtaken_promotion_gives_nothing_back_and_says_so(world: World) -> None:
    done = await _overtaken(world)
    assert (done.state, code(done)) == ("failed", "promotion-overtaken")
    assert await history(world) == [(1, 1), (2, 2), (3, 3)], "nothing was given back"


async def test_nothing_that_an_overtaken_promotion_put_aside_runs_for_ever(world: World) -> None:
    await _overtaken(world)
    await wait_until(lambda: _only_owner_runs(world), timeout_s=2.0, what="only the owner's allocation runs")


@pytest.mark.parametrize("world", [{"bake_s": 0.4}], indirect=True)
async def test_a_promotion_that_is_overtaken_while_it_gives_back_does_not_say_that_it_did(world: World) -> None:
    """A crash is seen, and before the giving back is written another promotion takes the route: then nothing is."""
    await world.serve(V1)
    number = await world.deploy(V2)
    third = await world.deploy(manifest(content="v2b", state=V2.state))
    second = await world.begin_promote(number)
    baking = await world.reached(second, "baking")
    db = world.plane.db
    db.only, db.count, db.die_at = second, 0, 1
    await world.runner.crash(baking.facts["allocations"][0])
    await db.dead.wait()
    assert (await world.promote(third, epoch=2)).state == "healthy"
    db.die_at = 0
    db.go_on.set()
    done = await world.ended(second)
    assert await history(world) == [(1, 1), (2, 2), (3, 3)]
    assert done.facts["gave_back"] is False
    assert (done.state, code(done)) == ("failed", "promotion-overtaken")


async def test_cancel_before_the_swap_leaves_no_trace(world: World) -> None:
    await world.serve(V1)
    number = await world.deploy(V2)
    world.runner.behave = lambda _wanted: "hang"
    id = await world.begin_promote(number)
    await world.reached(id, "policy_check")
    await world.api.cancel(id, key=new_secret())
    done = await world.ended(id)
    assert (done.state, code(done)) == ("canceled", "operation-canceled")
    assert await history(world) == [(1, 1)]
    await wait_until(lambda: _only_owner_runs(world), what="the canceled allocation stops")


async def _only_owner_runs(world: World) -> bool:
    """In production runs what serves and nothing else."""
    views = [a for a in await world.api.allocations() if a.environment == "production"]
    route = await production(world)
    return route is not None and [a.deployment for a in views] == [route.deployment]


async def test_cancel_after_the_end_is_refused(world: World) -> None:
    await world.deploy(V1)
    done = await world.promote(1)
    answer = await world.plane.http()._client.post(
        f"/v1/operations/{done.id}/cancel", headers={"Idempotency-Key": new_secret()}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "operation-not-cancelable")


async def test_an_edge_that_does_not_acknowledge_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(world.plane.control).edges_reach, "__defaults__", (0.2,))
    await world.deploy(V1)
    world.edge.deaf = True
    done = await world.promote(1)
    assert done.state == "healthy"
    assert done.facts["edges_behind"] == ["edge-1"]
    route = await production(world)
    assert route is not None
    assert route.edges_behind == ("edge-1",)


async def test_an_acknowledgement_of_another_log_counts_for_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edge that still follows an earlier incarnation may be far ahead by number and has nothing of this one."""
    monkeypatch.setattr(type(world.plane.control).edges_reach, "__defaults__", (0.2,))
    await world.deploy(V1)
    world.edge.deaf = True
    await world.edge.client.report(world.edge.report(incarnation="inc_of_another_log", applied_index=1_000_000))
    done = await world.promote(1)
    assert done.facts["edges_behind"] == ["edge-1"]


async def test_a_handover_whose_store_is_down_stops_before_the_cut(world: World) -> None:
    """No store runs in these tests, so asking for a hand-over of a store-bound app meets a store that is down."""
    await world.serve(manifest(content="v1", kind="python"))
    number = await world.deploy(manifest(content="v2", kind="python"))
    old = next(a for a in await world.api.allocations() if a.environment == "production")
    done = await world.promote(number, mode="handover")
    assert (done.state, code(done)) == ("rolled_back", "handover-called-off")
    assert await history(world) == [(1, 1), (2, 2), (3, 1)]
    child = await world.api.operation(done.children[0])
    assert (child.kind, child.state) == ("handover", "failed")
    view = next(a for a in await world.api.allocations() if a.number == old.number)
    assert (view.posture, view.want, view.state) == (Posture.OPEN, "run", "ready")
    route = await production(world)
    assert route is not None
    assert not route.held
