"""Deploy through the API: build worker, preview, its route; every way it can end."""

from __future__ import annotations

import pytest

from moorage.control import builds
from moorage.domain.artifact import artifact_digest
from moorage.domain.errors import MoorageError
from moorage.store import allocations, log
from moorage.system.rand import new_secret
from moorage.wire.build import BuildReport
from tests.control.rig import World
from tests.support.agents import built
from tests.support.nouns import manifest
from tests.support.waiting import wait_until


async def test_a_deploy_reaches_preview_ready_with_a_route_of_its_own(world: World) -> None:
    done = await world.ended(await world.begin_deploy(manifest()))
    assert done.state == "preview_ready", done.problem
    assert done.succeeded
    states = [stage.state for stage in done.stages]
    assert list(dict.fromkeys(states)) == ["queued", "fetching", "building", "validating", "preview_ready"]
    view = await world.api.deployment("board", 1)
    assert view.preview_url == "http://1--board.localhost:7080"
    assert (view.state, view.serving, view.depth) == ("preview_ready", False, "plain")
    assert view.artifact == artifact_digest(manifest())
    routes = await world.api.routes()
    assert [(r.route_key, r.epoch, r.environment, r.ready_allocations) for r in routes] == [
        ("1--board.localhost", 1, "preview 1", 1)
    ]
    assert world.edge.owners["1--board.localhost"].epoch == 1
    assert [a.ready for a in world.edge.allocations.values()] == [True]


async def test_a_build_without_a_result_is_blocked_and_starts_nothing(world: World) -> None:
    done = await world.ended(await world.begin_deploy(None))
    assert (done.state, done.succeeded) == ("blocked", False)
    assert done.problem is not None
    assert done.problem["code"] == "source-unsupported"
    view = await world.api.deployment("board", 1)
    assert (view.state, view.artifact, view.preview_url) == ("blocked", None, None)
    assert await world.api.allocations(all=True) == ()


async def test_a_build_may_be_blocked_before_anything_was_fetched(world: World) -> None:
    """The first report of a worker may be its last."""
    await world.without("builder")
    id = await world.begin_deploy(None)
    job = await world.plane.builds.claim("runner-1", 5.0)
    assert job is not None
    reply = await world.plane.builds.report(
        id, BuildReport(token=job.token, stage="blocked", code="source-link-escapes", detail="link out of the tree")
    )
    assert not reply.go_on
    assert (await world.ended(id)).state == "blocked"


async def test_an_app_that_exits_fails_with_its_last_lines(world: World) -> None:
    world.runner.behave = lambda _wanted: "fail"
    done = await world.ended(await world.begin_deploy(manifest()))
    assert done.state == "failed"
    assert done.problem is not None
    assert done.problem["code"] == "allocation-exited"
    assert done.problem["exit_code"] == 1
    assert done.problem["log_tail"] == ["Traceback", "ValueError: no such board"]
    assert await world.api.routes() == ()
    await wait_until(lambda: _nothing_left(world), what="the failed preview is removed")


async def test_an_app_that_never_becomes_ready_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorage.control.operations.deploy.READY_MARGIN_S", 0.1)
    world.runner.behave = lambda _wanted: "hang"
    done = await world.ended(await world.begin_deploy(manifest(ready_timeout_s=0.1)))
    assert done.state == "failed"
    assert done.problem is not None
    assert done.problem["code"] == "allocation-ready-timeout"
    await wait_until(lambda: _nothing_left(world), what="the hanging preview is removed")


async def test_previews_of_one_app_do_not_share_environment_or_store(world: World) -> None:
    made = [manifest(content=text, kind="python") for text in ("one", "two")]
    for each in made:
        await world.deploy(each)
    first, second = await world.api.allocations()
    assert first.environment != second.environment
    urls = [world.runner.environs[a.number]["REDIS_URL"] for a in (first, second)]
    assert len(set(urls)) == 2
    assert urls[0].rpartition(":")[2] != urls[1].rpartition(":")[2], "each preview has a store of its own"


async def test_a_worker_that_went_silent_loses_its_lease(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "LEASE_S", 0.05)
    await world.without("builder")
    id = await world.begin_deploy(manifest())
    worker = world.plane.builds
    first = await worker.claim("runner-1", 5.0)
    assert first is not None
    await worker.report(id, BuildReport(token=first.token, stage="fetching"))
    await worker.report(id, BuildReport(token=first.token, stage="building"))
    second = await worker.claim("runner-1", 5.0)
    assert second is not None
    assert second.token > first.token
    before = await world.api.operation(id)
    with pytest.raises(MoorageError) as late:
        await worker.report(id, built(first.token, manifest(content="of the first worker")))
    assert late.value.problem.code == "lease-lost"
    after = await world.api.operation(id)
    assert (after.state, after.facts, after.stages) == (before.state, before.facts, before.stages)
    audited = await world.plane.read(lambda tx: log.audit_of(tx, id))
    assert [(row["action"], row["outcome"], row["detail"]["token"]) for row in audited] == [
        ("operation.report", "refused", first.token)
    ]
    # The second worker begins at the beginning; the machine goes on from where it was.
    for stage in ("fetching", "building", "validating"):
        assert (await worker.report(id, BuildReport(token=second.token, stage=stage))).go_on  # type: ignore[arg-type]
    await worker.report(id, built(second.token, manifest()))
    done = await world.ended(id)
    assert done.state == "preview_ready", done.problem
    assert (await world.api.deployment("board", 1)).artifact == artifact_digest(manifest())


async def test_a_late_report_after_the_end_of_a_build_changes_nothing(world: World) -> None:
    id = await world.begin_deploy(manifest())
    done = await world.ended(id)
    token = world.builder.jobs[0].token
    with pytest.raises(MoorageError) as late:
        await world.builder.client.report(id, built(token, manifest(content="another")))
    assert late.value.problem.code == "lease-lost"
    assert (await world.api.operation(id)).facts == done.facts


async def test_cancel_ends_a_build_at_its_next_report(world: World) -> None:
    await world.without("builder")
    id = await world.begin_deploy(manifest())
    job = await world.plane.builds.claim("runner-1", 5.0)
    assert job is not None
    await world.api.cancel(id, key=new_secret())
    reply = await world.plane.builds.report(id, BuildReport(token=job.token, stage="fetching"))
    assert not reply.go_on
    done = await world.ended(id)
    assert (done.state, done.problem and done.problem["code"]) == ("canceled", "operation-canceled")
    assert (await world.api.deployment("board", 1)).state == "canceled"


async def test_a_canceled_deploy_that_nobody_builds_ends(world: World) -> None:
    await world.without("builder")
    id = await world.begin_deploy(manifest())
    await world.api.cancel(id, key=new_secret())
    done = await world.ended(id, timeout_s=5.0)
    assert done.state == "canceled"
    assert (await world.api.deployment("board", 1)).state == "canceled"
    assert await world.plane.builds.claim("runner-1", 0.0) is None, "a canceled build is given to nobody"


async def test_a_result_that_is_no_manifest_is_refused(world: World) -> None:
    """What the build worker says is checked before it becomes a deployment that people could promote."""
    await world.without("builder")
    id = await world.begin_deploy(manifest())
    job = await world.plane.builds.claim("runner-1", 5.0)
    assert job is not None
    good = built(job.token, manifest())
    for bad in (
        good.model_copy(update={"manifest": {"app": "board"}}),
        good.model_copy(update={"artifact": "sha256:" + "0" * 63}),
        good.model_copy(update={"artifact": ""}),
    ):
        with pytest.raises(MoorageError) as wrong:
            await world.plane.builds.report(id, bad)
        assert wrong.value.problem.code == "artifact-invalid"
        assert wrong.value.problem.status == 422
    await world.plane.builds.report(id, good)
    assert (await world.ended(id)).state == "preview_ready"


async def test_an_app_that_was_destroyed_can_be_deployed_again(world: World) -> None:
    """Numbers begin anew, epochs do not: the second preview of number 1 has a route all the same."""
    await world.serve(manifest())
    await world.ended((await world.api.destroy("board", key=new_secret())).operation)
    assert await world.deploy(manifest(content="again")) == 1
    view = await world.api.deployment("board", 1)
    assert view.preview_url is not None
    epochs = {r.route_key: r.epoch for r in await world.api.routes()}
    assert epochs == {"1--board.localhost": 3}
    done = await world.promote(1)
    assert done.state == "healthy", done.problem
    assert {r.route_key: r.epoch for r in await world.api.routes()}["board.localhost"] == 3


async def _nothing_left(world: World) -> bool:
    return await world.plane.read(lambda tx: not allocations.live(tx))
