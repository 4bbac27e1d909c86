"""Deploy through the API: build worker, preview, its route; every way it can end."""

from __future__ import annotations

from tests.control.rig import World
from tests.support.nouns import manifest


async def test_deploy_reaches_preview_ready_with_a_route_of_its_own(world: World) -> None:
    done = await world.ended(await world.begin_deploy(manifest()))
    assert done.state == "preview_ready", done.problem
    assert done.succeeded
    states = [stage.state for stage in done.stages]
    assert list(dict.fromkeys(states)) == ["queued", "fetching", "building", "validating", "preview_ready"]
    view = await world.api.deployment("board", 1)
    assert view.preview_url == "http://1--board.localhost:7080"
    assert (view.state, view.serving, view.depth) == ("preview_ready", False, "plain")
    routes = await world.api.routes()
    assert [(r.route_key, r.epoch, r.environment, r.ready_allocations) for r in routes] == [
        ("1--board.localhost", 1, "preview 1", 1)
    ]
