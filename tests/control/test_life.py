"""Life after the promotion: crashes, restarts, old previews, the end of an app, and what is said of it all."""

from __future__ import annotations

import pytest

from moorage.control.loops.retention import RetentionLoop
from moorage.domain.allocation import Posture, State
from moorage.domain.artifact import artifact_digest
from moorage.domain.limits import IDEMPOTENCY_KEPT_S
from moorage.store import allocations, apps, operations, routes
from moorage.store.database import Tx
from moorage.system.clock import now_ms
from moorage.system.rand import new_secret
from moorage.wire.api import AllocationView, RestartRequest
from tests.control.rig import World
from tests.control.test_promotion import KEY, _only_owner_runs, code, history, production
from tests.support.nouns import manifest
from tests.support.waiting import wait_until

V1, V2 = manifest(content="v1"), manifest(content="v2")


async def owners_allocation(world: World) -> AllocationView:
    return next(a for a in await world.api.allocations() if a.environment == "production" and a.state == "ready")


async def test_a_crashed_owner_is_replaced_by_the_same_artifact_under_the_same_epoch(world: World) -> None:
    await world.serve(V1)
    dead = await owners_allocation(world)
    await world.runner.crash(dead.id)
    await wait_until(lambda: _replaced(world, dead.number), what="another allocation serves")
    fresh = await owners_allocation(world)
    assert fresh.artifact == dead.artifact
    assert await history(world) == [(1, 1)], "a replacement is no change of owner"
    replacement = next(o for o in await world.api.operations("board") if o.kind == "replacement")
    done = await world.ended(replacement.id)
    assert done.state == "settled"
    await wait_until(lambda: _only_owner_runs(world), what="the dead allocation is gone")
    assert len([o for o in await world.api.operations("board") if o.kind == "replacement"]) == 1


async def test_the_sessions_of_a_plain_app_die_with_its_process_and_are_counted(world: World) -> None:
    await world.serve(V1)
    dead = await owners_allocation(world)
    world.edge.sockets = {dead.number: 4}
    await wait_until(lambda: world.plane.control.live.attached(dead.number) == 4, what="sockets are reported")
    world.edge.sockets = {dead.number: 0}  # they die with it, and the edge may tell before the runner does
    await wait_until(lambda: world.plane.control.live.attached(dead.number) == 0, what="the edge has noticed")
    await world.runner.crash(dead.id)
    await wait_until(lambda: _replaced(world, dead.number), what="another allocation serves")
    replacement = next(o for o in await world.api.operations("board") if o.kind == "replacement")
    done = await world.ended(replacement.id)
    account = done.facts["account"]
    assert (done.state, account["total"], account["lost"]) == ("settled_with_losses", 4, 4)


async def _replaced(world: World, number: int) -> bool:
    route = await production(world)
    found = [a for a in await world.api.allocations() if a.environment == "production" and a.number != number]
    return route is not None and route.ready_allocations == 1 and bool(found)


async def test_an_allocation_that_the_runner_no_longer_knows_is_lost_and_replaced(world: World) -> None:
    await world.serve(V1)
    dead = await owners_allocation(world)
    await world.without("runner")
    world.runner.seen = {id: report for id, report in world.runner.seen.items() if id != dead.id}
    world.runner.revision = await world.plane.read(allocations.desired_revision)
    await world.runner.tell()
    row = await world.plane.read(lambda tx: allocations.get(tx, dead.id))
    assert row is not None
    assert (row.state, row.reason) == (State.LOST, "lost")


async def test_a_report_that_is_older_than_the_desired_state_loses_nothing(world: World) -> None:
    """A runner that has not heard of an allocation yet does not make it lost."""
    await world.serve(V1)
    known = await owners_allocation(world)
    await world.without("runner")
    world.runner.seen = {}
    world.runner.revision = await world.plane.read(allocations.desired_revision) - 1
    await world.runner.tell()
    row = await world.plane.read(lambda tx: allocations.get(tx, known.id))
    assert row is not None
    assert row.state is State.READY


async def test_a_restart_replaces_the_allocation_and_drains_the_old_one(world: World) -> None:
    await world.serve(V1)
    old = await owners_allocation(world)
    ref = await world.api.restart("board", RestartRequest(), key=new_secret())
    done = await world.ended(ref.operation)
    assert done.state == "settled", done.problem
    assert (await world.api.operation(done.children[0])).kind == "drain"
    await wait_until(lambda: _only_owner_runs(world), what="the old allocation is gone")
    assert (await owners_allocation(world)).number > old.number
    assert await history(world) == [(1, 1)]


async def test_a_restart_of_an_app_that_serves_nothing_is_refused(world: World) -> None:
    await world.deploy(V1)
    answer = await world.plane.http()._client.post(
        "/v1/apps/board/restarts", json={}, headers={"Idempotency-Key": new_secret()}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "app-not-promoted")


async def test_only_the_last_three_previews_of_an_app_stay(world: World) -> None:
    await world.serve(manifest("other"), app="other")
    for number in range(1, 6):
        assert await world.deploy(manifest(content=f"v{number}")) == number
    removed: list[str] = []
    loop = RetentionLoop(world.plane.control, removed.append)
    await loop.tidy_once()
    keys = [r.route_key for r in await world.api.routes() if r.app == "board"]
    assert keys == ["3--board.localhost", "4--board.localhost", "5--board.localhost"]
    assert "1--other.localhost" in [r.route_key for r in await world.api.routes()], "previews count per app"
    await wait_until(lambda: _previews_are(world, {3, 4, 5}), what="the processes of older previews stop")
    await loop.tidy_once()
    assert removed == [], "every deployment's artifact can still be promoted"
    done = await world.promote(1)
    assert done.state == "healthy", "a deployment whose preview has ended can still be promoted"


async def _previews_are(world: World, numbers: set[int]) -> bool:
    found = [a for a in await world.api.allocations("board") if a.environment != "production"]
    return {a.deployment for a in found} == numbers


async def test_answers_of_idempotency_keys_are_forgotten_after_their_time(world: World) -> None:
    def remember(tx: Tx) -> None:
        operations.remember(tx, "default", "new", "f", 202, "{}")
        tx.now_ms = now_ms() - IDEMPOTENCY_KEPT_S * 1000 - 1000
        operations.remember(tx, "default", "old", "f", 202, "{}")

    await world.plane.db.write(remember)
    await RetentionLoop(world.plane.control, lambda _digest: None).tidy_once()
    kept = await world.plane.read(
        lambda tx: [operations.replay(tx, "default", key) is not None for key in ("new", "old")]
    )
    assert kept == [True, False]


async def test_destroy_frees_the_name_and_leaves_nothing_running(world: World) -> None:
    await world.serve(V1)
    ref = await world.api.destroy("board", key=new_secret())
    done = await world.ended(ref.operation)
    assert (done.kind, done.state) == ("destroy", "destroyed")
    assert await world.api.apps() == ()
    assert await world.api.routes() == ()
    await wait_until(lambda: _nobody(world), what="no allocation is left")
    assert world.edge.owners[KEY].type == "route.removed"
    assert await world.plane.read(lambda tx: routes.epoch_of(tx, KEY)) == 2, "a tombstone keeps the epoch"
    gone = await world.api.allocations(all=True)
    assert {a.posture for a in gone} == {"gone"}, "what has been can still be looked at"
    removed: list[str] = []
    await RetentionLoop(world.plane.control, removed.append).tidy_once()
    assert removed == [artifact_digest(V1)]


async def _nobody(world: World) -> bool:
    return await world.api.allocations() == ()


async def test_a_process_that_does_not_stop_does_not_stop_the_platform(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the app was destroyed one of its processes lives on: its runner still gets its orders, for all apps."""
    monkeypatch.setattr("moorage.control.operations.destroy.STOP_PATIENCE_S", 0.2)
    await world.serve(V1)
    await world.serve(manifest("other"), app="other")
    stubborn = next(a for a in await world.api.allocations("board") if a.environment == "production")
    world.runner.stubborn = {stubborn.number}
    await world.ended((await world.api.destroy("board", key=new_secret())).operation)
    removed: list[str] = []
    await RetentionLoop(world.plane.control, removed.append).tidy_once()
    assert removed == [], "an artifact that still runs is not removed"
    desired = await world.runner.client.desired(-1, 0)
    wanted = next(a for a in desired.allocations if a.number == stubborn.number)
    assert wanted.want == "stop"
    assert await world.deploy(manifest("other", content="v2"), app="other") == 2
    world.runner.stubborn = set()
    world.runner.revision = -1
    await wait_until(lambda: _is_gone(world, stubborn.number), what="it stops in the end")


async def _is_gone(world: World, number: int) -> bool:
    return number not in [a.number for a in await world.api.allocations()]


async def test_destroying_an_app_whose_sessions_drain_ends_the_drain(world: World) -> None:
    await world.serve(V1)
    old = await owners_allocation(world)
    world.edge.sockets = {old.number: 5}
    await wait_until(lambda: world.plane.control.live.attached(old.number) == 5, what="sockets are reported")
    number = await world.deploy(V2)
    promoted = await world.promote(number)
    drain = promoted.children[0]
    await world.reached(drain, "draining")
    done = await world.ended((await world.api.destroy("board", key=new_secret())).operation)
    assert done.state == "destroyed"
    world.edge.sockets = {}
    view = await world.ended(drain)
    assert view.finished
    assert not world.plane.tasks[0].done(), "the engine lives on"
    assert await world.deploy(V1) == 1


async def test_destroying_an_app_whose_drain_waits_for_its_store_ends_the_drain(world: World) -> None:
    """No store runs here, so the drain of a store-bound app waits for it, until the environment has ended."""
    await world.serve(manifest(content="v1", kind="python"))
    promoted = await world.promote(await world.deploy(manifest(content="v2", kind="python")))
    drain = promoted.children[0]
    await world.ended((await world.api.destroy("board", key=new_secret())).operation)
    view = await world.ended(drain)
    assert view.state == "settled", view.problem


async def test_destroying_an_app_ends_a_promotion_that_is_under_way(world: World) -> None:
    await world.serve(V1)
    number = await world.deploy(V2)
    world.runner.behave = lambda _wanted: "hang"
    id = await world.begin_promote(number)
    await world.reached(id, "policy_check")
    await world.ended((await world.api.destroy("board", key=new_secret())).operation)
    world.runner.behave = lambda _wanted: "ready"
    view = await world.ended(id)
    assert not view.succeeded
    assert code(view) != "internal-error", view.problem
    assert await world.api.routes() == ()
    await wait_until(lambda: _nobody(world), what="no allocation is left")


async def test_the_loops_outlive_a_database_that_cannot_be_written(world: World) -> None:
    """A full disk fails some writes of the engine and the reconciler; they go on when it has room again."""
    await world.serve(V1)
    number = await world.deploy(V2)
    world.plane.db.broken_count = 3
    id = await world.begin_promote(number)
    await world.runner.crash((await owners_allocation(world)).id)
    done = await world.ended(id)
    assert done.state == "healthy", done.problem
    assert world.plane.db.broken_count == 0
    assert not any(task.done() for task in world.plane.tasks)


async def test_explain_says_where_a_request_goes_and_why(world: World) -> None:
    await world.serve(V1)
    told = await world.api.explain("http://board.localhost:7080/notes?x=1")
    assert (told.outcome, told.route_key, told.epoch, told.deployment) == ("served", KEY, 1, 1)
    assert told.artifact == artifact_digest(V1)
    assert [(c.picked, c.why) for c in told.candidates] == [(True, "ready, open, and of the owner's deployment")]
    assert [row["epoch"] for row in told.history] == [1]
    assert (await world.api.explain("BOARD.localhost")).outcome == "served"
    unknown = await world.api.explain("http://nobody.localhost:7080/")
    assert (unknown.outcome, unknown.epoch, unknown.candidates) == ("unknown-host", None, ())


async def test_explain_follows_the_pin_and_the_posture(world: World) -> None:
    await world.serve(V1)
    old = await owners_allocation(world)
    world.edge.sockets = {old.number: 1}
    await wait_until(lambda: world.plane.control.live.attached(old.number) == 1, what="sockets are reported")
    await world.promote(await world.deploy(V2))
    pinned = await world.api.explain("http://board.localhost/", pin=f"{old.number}-nonce.mac")
    assert pinned.outcome == "served"
    assert f"allocation {old.number}" in pinned.reason
    fresh = await world.api.explain("http://board.localhost/")
    by_number = {c.number: c for c in fresh.candidates}
    assert not by_number[old.number].picked
    assert sum(c.picked for c in fresh.candidates) == 1
    assert by_number[old.number].posture == Posture.NO_PICKS


async def test_explain_is_honest_about_an_owner_without_allocations(world: World) -> None:
    await world.serve(V1)
    world.runner.behave = lambda _wanted: "hang"
    await world.runner.crash((await owners_allocation(world)).id)
    told = await world.api.explain("http://board.localhost/")
    assert told.outcome == "no-ready-allocation"
    assert (told.app, told.deployment) == ("board", 1)


async def test_secrets_reach_production_only_and_only_by_their_scope(world: World) -> None:
    await world.deploy(V1)
    for name, scope in (("API_KEY", "runtime"), ("NPM_TOKEN", "build")):
        await world.plane.http().send(
            "PUT",
            f"/v1/apps/board/secrets/{name}",
            json={"value": f"value of {name}", "scope": scope},
            headers={"Idempotency-Key": new_secret()},
        )
    await world.promote(1)
    await world.deploy(V2)
    live = {a.number: a for a in await world.api.allocations()}
    for number, environ in world.runner.environs.items():
        assert "NPM_TOKEN" not in environ
        production_one = live[number].environment == "production"
        assert environ.get("API_KEY") == ("value of API_KEY" if production_one else None)
    assert world.builder.jobs[-1].environ == {"NPM_TOKEN": "value of NPM_TOKEN"}


async def test_environments_are_where_the_app_says(world: World) -> None:
    await world.serve(V1)
    found = await world.plane.read(lambda tx: apps.environments(tx, "board"))
    assert [(e.kind, e.deployment_number, e.store_port) for e in found] == [
        ("preview", 1, None),
        ("production", None, None),
    ]
