"""Warm deploy: it says nothing about the database, and an addition is warm one way only."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from demo.ledger import marks, outcome_of
from demo.people import crowd
from examples.board.materialise import materialise
from moorage.cli.call import Exit
from moorage.wire.api import OperationView, PromoteRequest, PromotionReport, RouteView
from tests.support.platform import Platform, key

pytestmark = pytest.mark.servers

DRAFT = "board:draft:v1"
PLAIN = Path(__file__).parents[2] / "examples" / "plain"
ADDED = ("plain:cart:v1", "items"), ("plain:cart:v1", "coupon")
PEOPLE_COUNT = 6


def migrating(folder: Path, *migrations: tuple[str, str]) -> Path:
    """The app in this folder with these migrations (name, impact) in its app file."""
    declared = "".join(f'\n[[migration]]\nname = "{name}"\nimpact = "{impact}"\n' for name, impact in migrations)
    appfile = folder / "moorage.toml"
    appfile.write_text(appfile.read_text() + declared)
    return folder


def plain(folder: Path, fields: Sequence[tuple[str, str]], *migrations: tuple[str, str]) -> Path:
    """The plain app, which declares these session fields in a file."""
    shutil.copytree(PLAIN, folder, ignore=shutil.ignore_patterns("__pycache__"))
    entries = [
        {"id": id, "field": name, "scope": "session", "kind": "value", "type": "str", "default": True}
        for id, name in fields
    ]
    (folder / "schema.json").write_text(json.dumps({"format": 1, "hash": "-", "entries": entries}))
    appfile = folder / "moorage.toml"
    appfile.write_text(appfile.read_text() + '\n[state]\nschema = "schema.json"\n')
    return migrating(folder, *migrations)


async def production(platform: Platform, app: str) -> RouteView:
    """The owner of the app's production route."""
    async with platform.api() as api:
        return next(route for route in await api.routes() if route.route_key == f"{app}.localhost")


async def report(platform: Platform, app: str, number: int, *, rollback: bool = False) -> PromotionReport:
    """What the platform says of this promotion or rollback."""
    async with platform.api() as api:
        return await api.promotion_report(app, number, rollback=rollback)


async def straight_to_the_server(platform: Platform, app: str, number: int, *, rollback: bool) -> OperationView:
    """The same past the command line, with the state's acknowledgement: what decides is the server."""
    told = await report(platform, app, number, rollback=rollback)
    request = PromoteRequest(deployment=number, expected_epoch=told.epoch, acknowledge=told.acknowledge)
    async with platform.api() as api:
        send = api.rollback if rollback else api.promote
        started = await send(app, request, key=key())
    return await platform.finished(started.operation)


async def test_a_warm_promotion_passes_over_a_destructive_migration_and_its_rollback_is_blocked(
    platform: Platform, tmp_path: Path
) -> None:
    app, first = await platform.serve(materialise("v1", tmp_path / "v1"))
    _, second = await platform.deploy(migrating(materialise("v2", tmp_path / "v2"), ("drop-colours", "destructive")))
    async with crowd(PEOPLE_COUNT, ("127.0.0.1", platform.http_port), platform.host(app)) as people:
        await asyncio.gather(*(person.type(f"draft of {person.name}") for person in people))
        told = await report(platform, app, second)
        assert (told.forward, told.backward, told.data_impact) == ("warm", "cold", "destructive")
        assert told.verdict == "allow", "the state is warm and the data goes forward"

        before = marks(people)
        answer = await platform.run("promote", app, "--deployment", str(second), "--json")
        assert answer.code == Exit.OK, answer.out + answer.err
        await asyncio.gather(*(p.welcome_after(before[p.name]) for p in people))
        assert {outcome_of(person, before[person.name]) for person in people} == {"resumed"}
        assert all(person.states[DRAFT]["text"] == f"draft of {person.name}" for person in people)

        owner = await production(platform, app)
        await blocked(platform, app, first)
        assert await production(platform, app) == owner
        assert all(len(p.welcomes) == before[p.name] + 1 and p.here for p in people), "nobody noticed"


async def blocked(platform: Platform, app: str, number: int) -> None:
    """Going back is refused with reasons and choices, whatever the verb, whoever asks, acknowledged or not."""
    for words in (("rollback", app, "--to"), ("promote", app, "--deployment")):
        answer = await platform.run(*words, str(number), "--json")
        assert answer.code == Exit.REFUSED, answer.out
        check_blocked(answer.json)
        assert "drop-colours" in answer.json["detail"], "it names the migration that stands in the way"
    for rollback in (True, False):
        view = await straight_to_the_server(platform, app, number, rollback=rollback)
        assert view.state == "rejected"
        check_blocked(view.problem or {})


def check_blocked(problem: dict[str, Any]) -> None:
    """The refusal has its code, the impact that decides, and what can be done instead."""
    assert problem["code"] == "rollback-blocked-by-data"
    assert (problem["data_impact"], problem["choices"]) == ("destructive", ["forward-fix", "restore"])


async def test_an_addition_is_warm_forward_and_cold_backward(platform: Platform, tmp_path: Path) -> None:
    app, first = await platform.serve(plain(tmp_path / "1", ADDED[:1]))
    _, second = await platform.deploy(plain(tmp_path / "2", ADDED))
    forward = await report(platform, app, second)
    assert (forward.forward, forward.backward, forward.verdict) == ("warm", "cold", "allow")
    assert (await platform.promote(app, second)).state == "healthy"

    back = await report(platform, app, first, rollback=True)
    assert (back.forward, back.data_impact, back.verdict) == ("cold", "none", "needs_acknowledgement")
    answer = await platform.run("rollback", app, "--to", str(first), "--json")
    assert (answer.code, answer.json["code"]) == (Exit.ACKNOWLEDGEMENT, "acknowledgement-required")
    assert answer.json["deciding_change"] == "plain:cart:v1 coupon removed"
    assert (await production(platform, app)).deployment == second
    answer = await platform.run("rollback", app, "--to", str(first), "--acknowledge", answer.json["acknowledge"])
    assert answer.code == Exit.OK, answer.out + answer.err
    assert (await production(platform, app)).deployment == first


async def test_a_rollback_asks_for_the_worst_that_happened_to_the_data_since_its_target(
    platform: Platform, tmp_path: Path
) -> None:
    dropped, indexed = ("drop-orders", "destructive"), ("index-orders", "additive")
    app = "plain"
    target = await production(platform, app)
    _, destructive = await platform.deploy(plain(tmp_path / "3", ADDED[:1], dropped))
    _, later = await platform.deploy(plain(tmp_path / "4", ADDED[:1], dropped, indexed))
    for number, impact in ((destructive, "destructive"), (later, "additive")):
        told = await report(platform, app, number)
        assert (told.forward, told.backward, told.data_impact) == ("neutral", "neutral", impact)
        assert (await platform.promote(app, number)).state == "healthy"

    far = await report(platform, app, target.deployment, rollback=True)
    assert (far.forward, far.verdict) == ("neutral", "blocked"), "the state would resume and the data would not"
    check_blocked(far.problem or {})
    near = await report(platform, app, destructive, rollback=True)
    assert (near.forward, near.verdict) == ("neutral", "allow")
    answer = await platform.run("rollback", app, "--to", str(destructive), "--json")
    assert answer.code == Exit.OK, answer.out + answer.err
    assert (await production(platform, app)).deployment == destructive
