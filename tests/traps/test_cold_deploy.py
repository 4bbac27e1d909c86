"""Cold deploy: never shown as a normal promotion; refused until somebody has accepted exactly what it costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from demo.ledger import marks, outcome_of, tag_of
from demo.people import Person, crowd
from examples.board.materialise import materialise
from moorage.cli.call import Exit
from moorage.wire.api import PromoteRequest, PromotionReport, RouteView
from tests.support.platform import Answer, Platform, key
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

APP = "board"
DRAFT = "board:draft:v1"
V1, V3, V3_AGAIN = 1, 2, 3
PEOPLE_COUNT = 6
RETYPED = f"{DRAFT} colour retyped from str to int"


@pytest.fixture(scope="module")
def board(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Version 1 is served; version 3 (cold) and another artifact of version 3 have previews."""
    folder = tmp_path_factory.mktemp("source")
    again = materialise("v3", folder / "again")
    (again / "board.py").write_text((again / "board.py").read_text() + "\n# other bytes, same state\n")
    asyncio.run(platform.serve(materialise("v1", folder / "v1")))
    for source in (materialise("v3", folder / "v3"), again):
        asyncio.run(platform.deploy(source))
    return APP


async def report(platform: Platform, number: int, *, sessions: int) -> PromotionReport:
    """What promoting this deployment would do, once the edge has counted so many live sessions."""
    found: list[PromotionReport] = []

    async def counted() -> bool:
        async with platform.api() as api:
            found[:] = [await api.promotion_report(APP, number)]
        return found[0].live_sessions == sessions

    await wait_until(counted, what=f"{sessions} live sessions are counted")
    return found[0]


async def world(platform: Platform) -> dict[str, Any]:
    """Everything that a refusal must leave as it was."""
    async with platform.api() as api:
        return {
            "route": await production(platform),
            "allocations": [
                (a.number, a.posture, a.want, a.state)
                for a in await api.allocations(APP, all=True)
                if a.environment == "production"
            ],
            "history": (await api.explain(f"http://{platform.host(APP)}/")).history,
        }


async def production(platform: Platform) -> RouteView:
    """The owner of the production route."""
    async with platform.api() as api:
        return next(route for route in await api.routes() if route.route_key == f"{APP}.localhost")


async def promote(platform: Platform, number: int, *flags: str) -> Answer:
    """The command as a person types it, in JSON."""
    return await platform.run("promote", APP, "--deployment", str(number), "--json", *flags)


async def test_a_cold_promotion_is_refused_until_the_right_acknowledgement(platform: Platform, board: str) -> None:
    async with crowd(PEOPLE_COUNT, ("127.0.0.1", platform.http_port), platform.host(board)) as people:
        await asyncio.gather(*(person.type(f"draft of {person.name}") for person in people))
        told = await report(platform, V3, sessions=PEOPLE_COUNT)
        before = await world(platform)

        await refused_without(platform)
        await refused_with_a_stale_one(platform, told)
        assert await world(platform) == before, "what was refused changed nothing"
        assert all(len(person.welcomes) == 1 and person.here for person in people), "nobody noticed"

        seen = marks(people)
        answer = await promote(platform, V3, "--acknowledge", str(told.acknowledge))
        assert answer.code == Exit.OK, answer.out + answer.err
        await asyncio.gather(*(p.welcome_after(seen[p.name]) for p in people))
        move = await platform.newest(APP, "handover")
        who_was_there(people, seen, move.facts["account"])
    route = await production(platform)
    assert (route.deployment, route.epoch) == (V3, told.epoch + 1)


async def refused_without(platform: Platform) -> None:
    """No acknowledgement: the report says what it costs and asks for the digest; the API refuses it as well."""
    began_ms = time.time_ns() // 1_000_000
    answer = await promote(platform, V3)
    assert answer.code == Exit.ACKNOWLEDGEMENT
    assert answer.json["code"] == "acknowledgement-required"
    assert answer.json["deciding_change"] == RETYPED
    told = answer.json["report"]
    assert (told["forward"], told["verdict"]) == ("cold", "needs_acknowledgement")
    assert told["live_sessions"] == PEOPLE_COUNT
    assert began_ms <= told["live_sessions_at_ms"] <= time.time_ns() // 1_000_000, "the count has the time of counting"
    assert told["acknowledge"] == answer.json["acknowledge"] in answer.json["command"]
    view = await straight_to_the_server(platform, None)
    assert (view.state, (view.problem or {})["code"]) == ("rejected", "acknowledgement-required")
    assert (view.problem or {})["live_sessions"] == PEOPLE_COUNT


async def refused_with_a_stale_one(platform: Platform, told: PromotionReport) -> None:
    """A digest of something else: of another artifact with the very same changes."""
    other = await report(platform, V3_AGAIN, sessions=PEOPLE_COUNT)
    assert other.forward_changes == told.forward_changes
    assert other.acknowledge != told.acknowledge
    answer = await promote(platform, V3, "--acknowledge", str(other.acknowledge))
    assert answer.code == Exit.ACKNOWLEDGEMENT
    assert answer.json["state"] == "rejected"
    assert answer.json["problem"]["code"] == "acknowledgement-stale"
    assert answer.json["problem"]["acknowledge"] == told.acknowledge
    view = await straight_to_the_server(platform, other.acknowledge)
    assert (view.state, (view.problem or {})["code"]) == ("rejected", "acknowledgement-stale")


async def straight_to_the_server(platform: Platform, acknowledge: str | None) -> Any:
    """The same past the command line: what decides is the server."""
    async with platform.api() as api:
        epoch = next(a.epoch for a in await api.apps() if a.name == APP)
        request = PromoteRequest(deployment=V3, expected_epoch=epoch, acknowledge=acknowledge)
        started = await api.promote(APP, request, key=key())
    return await platform.finished(started.operation)


def who_was_there(people: Sequence[Person], seen: dict[str, int], account: dict[str, Any]) -> None:
    """The account says of each session what its person saw: fresh, with the reason."""
    said = {row["label"]: (row["outcome"], row["reason"]) for row in account["rows"]}
    assert said == {tag_of(p, seen[p.name]): ("fresh", "schema") for p in people}
    assert (account["total"], account["fresh"], account["reasons"]) == (
        PEOPLE_COUNT,
        PEOPLE_COUNT,
        {"fresh": {"schema": PEOPLE_COUNT}},
    )
    for person in people:
        assert outcome_of(person, seen[person.name]) == "fresh"
        welcome = person.welcomes[seen[person.name]]
        assert (welcome.reason, welcome.detail) == ("schema", f"{DRAFT}.colour was str and is now int")
        assert person.states[DRAFT]["text"] == ""


async def test_another_tab_leaves_the_digest_and_another_epoch_does_not(platform: Platform, board: str) -> None:
    assert (await production(platform)).deployment == V3, "the proof above has promoted"
    address, host = ("127.0.0.1", platform.http_port), platform.host(board)
    async with crowd(2, address, host):
        before = await report(platform, V1, sessions=2)
        async with crowd(1, address, host):
            more = await report(platform, V1, sessions=3)
            assert more.acknowledge == before.acknowledge
            assert more.live_sessions_at_ms > before.live_sessions_at_ms
        for number in (V3_AGAIN, V3):
            assert (await platform.promote(APP, number)).state == "healthy"
        later = await report(platform, V1, sessions=2)
    assert (later.serving, later.forward_changes) == (before.serving, before.forward_changes)
    assert later.epoch == before.epoch + 2, "the same artifacts and the same changes, at another epoch"
    assert later.acknowledge != before.acknowledge
    answer = await promote(platform, V1, "--acknowledge", str(before.acknowledge))
    assert (answer.code, answer.json["problem"]["code"]) == (Exit.ACKNOWLEDGEMENT, "acknowledgement-stale")
