"""Traps on a Vango app, which knows nothing of the platform: artifact, broadcast backend, cold deploy, drain, session
store and warm deploy hold on it as they do on the Python board."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from moorage.cli.call import Exit
from moorage.vango.page import read_page
from moorage.vango.records import GLOBAL_KEY_PREFIX
from moorage.wire.api import OperationView, PromotionReport
from tests.support.deeds import deploy
from tests.support.platform import Platform
from tests.support.truth import owner
from tests.support.vango.crowd import ATTACHED, FRESH, RESUMED, all_back, marks, typing
from tests.support.vango_stage import (
    PEOPLE_COUNT,
    Shelf,
    Stage,
    Stories,
    Story,
    allocation_numbered,
    asked_for,
    at_board,
    begin,
    begin_restart,
    bring,
    check_account,
    check_ages,
    check_kept,
    check_sums,
    child_of,
    come_and_leave,
    fates,
    listening,
    needs_go,
    preview,
    promote,
    records,
    serve,
    serve_first,
    set_secret,
    settled,
    source,
    store_everybody,
    told_by,
    type_once,
)
from tests.support.waiting import wait_until
from tests.traps.test_artifact import stored_tree

pytestmark = [
    pytest.mark.servers,
    needs_go,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]

PROGRAM = "app/server"
DRAINS_S = 6.0
TYPING_S = 0.25
FROZEN_GRACE_S = 30.0
RETYPED = "count retyped"
MOOD = "mood removed"


# ---- artifact ---------------------------------------------------------------------------------------------------
async def artifact(stage: Stage) -> None:
    """What was seen at the preview is what is served, or nothing."""
    platform, name = stage.platform, "vango-artifact"
    folder = source("v1", stage.folder / "artifact", name=name)
    app, first = await deploy(platform, folder)
    assert version_at(platform, f"{first}--{app}.localhost") == "v1"
    source("v2", folder, name=name)
    view = await promote(platform, app, first)
    assert view.state == "healthy", view.problem
    assert version_at(platform, f"{app}.localhost") == "v1", "the preview's bytes, whatever the source is by now"

    second = await preview(platform, stage.shelf, "v2", app)
    before, serving = owner(platform, app), await platform.allocation(app)
    flip_a_byte(stored_tree(platform, app, second) / PROGRAM)
    view = await promote(platform, app, second)
    assert (view.state, (view.problem or {}).get("code")) == ("failed", "artifact-altered")
    assert PROGRAM in str(view.problem), "the file is named"
    assert owner(platform, app) == before
    assert (await platform.allocation(app)).id == serving.id
    assert version_at(platform, f"{app}.localhost") == "v1"


def flip_a_byte(path: Path) -> None:
    """Put another file in its place, one bit apart: the one that was there runs, and cannot be written to."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.parent.chmod(0o755)
    other = path.with_name(f".{path.name}")
    other.write_bytes(content)
    other.chmod(path.stat().st_mode)
    other.replace(path)
    path.parent.chmod(0o555)


def version_at(platform: Platform, host: str) -> str:
    """The version that the page says to be."""
    answer = platform.get(host)
    assert answer.status_code == 200, answer.text
    return read_page(answer.text).elements["version"].text


# ---- broadcast backend ------------------------------------------------------------------------------------------
async def broadcast_backend(stage: Stage) -> None:
    """A note reaches sessions on another allocation while one drains, and lives in the store, not in the broadcast."""
    platform, app = stage.platform, "vango-broadcast"
    await serve(platform, stage.shelf, app)
    host = platform.host(app)
    async with listening(platform, host, "earlier") as earlier:
        earlier.pin("pinned before the other was there")
        await earlier.hears("pinned before the other was there")
        view = await platform.finished(await begin_restart(platform, app, "drain"))
        assert view.state == "settled", view.problem
        async with listening(platform, host, "later") as later:
            assert earlier.shows("allocation") != later.shows("allocation"), "two allocations serve"
            await later.hears("pinned before the other was there")
            later.pin("from the new one")
            await earlier.hears("from the new one")
            earlier.pin("from the old one, which drains")
            await later.hears("from the old one, which drains")
            assert [len(person.welcomes) for person in (earlier, later)] == [1, 1], "nobody was moved for it"
            async with platform.store_admin(app) as admin:
                (place,) = await admin.command("KEYS", f"{GLOBAL_KEY_PREFIX}*")
                (value,) = await admin.raw([("GET", place)])
            assert b"from the old one, which drains" in value
            await platform.kill_store(app)
    async with listening(platform, host, "after the store was killed") as last:
        await last.hears("from the new one")
        await last.hears("from the old one, which drains")


# ---- cold deploy ------------------------------------------------------------------------------------------------
async def cold_deploy(stage: Stage) -> None:
    """Refused until somebody has accepted exactly what it costs; then everybody's session is said to be fresh."""
    platform, app = stage.platform, "vango-cold"
    first, third = await serve_first(platform, stage.shelf, app, "v3")
    async with at_board(platform, app) as people:
        await type_once(people)
        told = await counted(platform, app, third, PEOPLE_COUNT)
        assert (told.forward, told.verdict, told.live_sessions) == ("cold", "needs_acknowledgement", PEOPLE_COUNT)
        assert (told.expected.fresh, told.expected.resume) == (PEOPLE_COUNT, 0)
        before, route = marks(people), owner(platform, app)
        await refused(platform, app, third, told)
        assert owner(platform, app) == route
        assert {fate.seen for fate in fates(people, before)} == {ATTACHED}, "nobody noticed"

        operation = await begin(platform, app, third, acknowledge=told.acknowledge, mode="handover")
        view = await platform.finished(operation)
        assert view.state == "healthy", view.problem
        await all_back(people, before)
        move = await settled(platform, view.children[0])
        seen = fates(people, before)
        assert {(fate.seen, fate.reason) for fate in seen} == {(FRESH, "schema_mismatch-id_type_changed")}, seen
        check_account(move.facts["account"], seen, fresh=PEOPLE_COUNT)
        assert move.facts["account"]["reasons"] == {"fresh": {"schema-cold": PEOPLE_COUNT}}
    assert owner(platform, app)["deployment_number"] == third != first


async def refused(platform: Platform, app: str, number: int, told: PromotionReport) -> None:
    """Without an acknowledgement and with one of something else, at the command line and straight at the server."""
    answer = await platform.run("promote", app, "--deployment", str(number), "--json")
    assert (answer.code, answer.json["code"]) == (Exit.ACKNOWLEDGEMENT, "acknowledgement-required")
    assert RETYPED in answer.json["deciding_change"]
    assert answer.json["acknowledge"] == told.acknowledge
    for acknowledge, code in ((None, "acknowledgement-required"), ("ack:0123456789abcdef", "acknowledgement-stale")):
        view = await promote(platform, app, number, acknowledge=acknowledge)
        assert (view.state, (view.problem or {})["code"]) == ("rejected", code)


async def counted(platform: Platform, app: str, number: int, sessions: int) -> PromotionReport:
    """What promoting this deployment would do, once the edge has counted so many live sessions."""
    found: list[PromotionReport] = []

    async def right() -> bool:
        async with platform.api() as api:
            found[:] = [await api.promotion_report(app, number)]
        return found[0].live_sessions == sessions

    await wait_until(right, what=f"{sessions} live sessions are counted")
    return found[0]


# ---- drain ------------------------------------------------------------------------------------------------------
async def drain(stage: Stage) -> None:
    """Who is attached stays and is never called moved; who is left at the deadline is handed over, and said to be."""
    platform, app = stage.platform, "vango-drain"
    _, second = await serve_first(platform, stage.shelf, app, "v2")
    old = await platform.allocation(app)
    async with at_board(platform, app) as people:
        await type_once(people)
        await counted(platform, app, second, PEOPLE_COUNT)
        before = marks(people)
        operation = await begin(platform, app, second, mode="drain", drain_deadline_s=DRAINS_S)
        child = await child_of(platform, operation)
        assert (await platform.finished(operation)).state == "healthy"
        async with typing(people, TYPING_S):
            await told_by(platform, child, lambda view: account_of(view).get("attached") == PEOPLE_COUNT)
            async with listening(platform, platform.host(app), "newcomer") as newcomer:
                assert newcomer.shows("allocation") != str(old.number), "who is new goes to the new owner"
            await people[0].leave()
            view = await told_by(platform, child, lambda view: account_of(view).get("ended") == 1)
            assert account_of(view)["attached"] == PEOPLE_COUNT - 1
            check_sums(account_of(view), PEOPLE_COUNT)
            assert "deadline_reached" not in view.facts
            assert {fate.seen for fate in fates(people[1:], before)} == {ATTACHED}, "0 cut before the deadline"
            await told_by(platform, child, lambda view: bool(view.facts.get("deadline_reached")))
            await all_back(people[1:], before)
        await type_once(people[1:])
        final = (await settled(platform, child)).facts["account"]
        check_kept(people[1:], before)
        check_sums(final, PEOPLE_COUNT)
        assert (final["resumed"], final["reasons"]) == (PEOPLE_COUNT - 1, {"ended": {"closed": 1}})
        rows = {row["label"]: row["outcome"] for row in final["rows"]}
        assert rows == {fate.label: RESUMED for fate in fates(people[1:], before)}


def account_of(view: OperationView) -> dict[str, Any]:
    """The account that an operation has given so far."""
    return dict(view.facts.get("account") or {})


# ---- session store ----------------------------------------------------------------------------------------------
async def session_store(stage: Stage) -> None:
    """A frozen allocation that wakes after the hand-over changes no record, and each session's fate is told truly."""
    platform, app = stage.platform, "vango-frozen"
    await serve(platform, stage.shelf, app, stop_grace_s=FROZEN_GRACE_S)
    await come_and_leave(platform, app)
    old = await platform.allocation(app)
    assert old.pid is not None
    async with at_board(platform, app) as people:
        await type_once(people)
        await store_everybody(platform, app, people)
        await type_once(people)
        before = marks(people)
        os.killpg(old.pid, signal.SIGSTOP)
        try:
            operation = await begin_restart(platform, app)
            child = await child_of(platform, operation)
            await told_by(platform, child, lambda view: view.state == "admitting")
            await all_back(people, before)
            kept = await records(platform, app)
            assert {person.welcomes[before[person.name] - 1].label for person in people} <= kept.keys()
        finally:
            os.killpg(old.pid, signal.SIGCONT)
        await until_over(platform, app, old.number)
        after = await records(platform, app)
        assert {label: after[label] for label in kept} == kept, "the one that woke has written nothing"
        await all_back(people, before)
        move = await settled(platform, child)
        seen = fates(people, before)
        assert {fate.seen for fate in seen} == {RESUMED}
        assert all(fate.state_lost for fate in seen), "what was typed after the last storing could not be stored"
        check_account(move.facts["account"], seen, resumed=PEOPLE_COUNT)
        check_ages(move.facts["account"], seen)


async def until_over(platform: Platform, app: str, number: int) -> None:
    """Wait until an allocation's process has ended."""

    async def over() -> bool:
        return (await allocation_numbered(platform, app, number)).ended_ms is not None

    await wait_until(over, timeout_s=FROZEN_GRACE_S + 10, what=f"allocation {number} has ended")


async def wrong_store(stage: Stage) -> None:
    """An app that keeps its sessions elsewhere, where nobody answers, is blocked: the framework itself only logs it."""
    platform, app = stage.platform, "vango-elsewhere"
    await set_secret(platform, app, "BOARD_TROUBLE", "other-store", "preview", "runtime")
    view = await bring(platform, stage.shelf, "trouble", app)
    problem = view.problem or {}
    assert (view.state, problem.get("code")) == ("blocked", "binding-not-taken"), view.stages
    assert problem["hint"]
    assert "no record of a session" in problem["detail"]
    number = int(view.input["deployment"])
    refusal = await promote(platform, app, number)
    assert (refusal.state, (refusal.problem or {})["code"]) == ("rejected", "deployment-not-promotable")


# ---- warm deploy ------------------------------------------------------------------------------------------------
async def warm_deploy(stage: Stage) -> None:
    """People who type keep what they typed; going back is cold, and called so, although nothing was retyped."""
    platform, app = stage.platform, "vango-warm"
    first, second = await serve_first(platform, stage.shelf, app, "v2")
    async with at_board(platform, app) as people:
        await type_once(people)
        told = await counted(platform, app, second, PEOPLE_COUNT)
        assert (told.forward, told.backward, told.verdict) == ("warm", "cold", "allow")
        assert (told.mode, told.expected.resume) == ("handover", PEOPLE_COUNT), told.mode_reason
        before = marks(people)
        async with typing(people, TYPING_S):
            view = await promote(platform, app, second)
            assert view.state == "healthy", view.problem
            await all_back(people, before)
            await going_back_is_cold(platform, app, first)
        await type_once(people)
        move = await settled(platform, view.children[0])
        assert move.state == "settled"
        check_kept(people, before)
        check_account(move.facts["account"], fates(people, before), resumed=PEOPLE_COUNT)
        assert all(len(person.welcomes) == before[person.name] + 1 for person in people), "moved once"


async def going_back_is_cold(platform: Platform, app: str, first: int) -> None:
    """The rollback of an addition: named, and refused without an acknowledgement."""
    async with platform.api() as api:
        back = await api.promotion_report(app, first, rollback=True)
    assert (back.forward, back.verdict) == ("cold", "needs_acknowledgement")
    assert [change.text for change in back.forward_changes if MOOD in change.text]
    answer = await platform.run("rollback", app, "--to", str(first), "--json")
    assert (answer.code, answer.json["code"]) == (Exit.ACKNOWLEDGEMENT, "acknowledgement-required")
    assert MOOD in answer.json["deciding_change"]
    assert owner(platform, app)["deployment_number"] != first


TRAPS: dict[str, Story] = {
    "drain": drain,
    "cold_deploy": cold_deploy,
    "session_store": session_store,
    "warm_deploy": warm_deploy,
    "broadcast_backend": broadcast_backend,
    "wrong_store": wrong_store,
    "artifact": artifact,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stories(
    request: pytest.FixtureRequest, platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stories]:
    """Everything that is asked for, side by side: the store takes half a minute to show who was resumed."""
    stage = Stage(platform, Shelf(), tmp_path_factory.mktemp("source"))
    asked = asked_for(request)
    going = Stories(stage, {name: story for name, story in TRAPS.items() if name in asked})
    try:
        yield going
    finally:
        await going.close()


@pytest.mark.parametrize("story", TRAPS)
async def test_a_trap_on_a_vango_app(stories: Stories, story: str) -> None:
    await stories.end_of(story)
