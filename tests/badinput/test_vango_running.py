"""Vango apps that do badly while they run, stores that fail under them, records that nobody can read: each is said with
a stable code, and whoever was served goes on being served."""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import pytest
import pytest_asyncio

from moorage.sessions.admin import StoreAdmin
from moorage.system.proc import free_port
from moorage.vango.records import HEADER_BYTES, SESSION_PREFIX, SIGNATURE_BYTES, label_of_key
from moorage.wire.api import AllocationView, OperationView
from tests.badinput.kit import code_of
from tests.support.platform import Platform
from tests.support.processes import frozen
from tests.support.stages import Moment, signals_at
from tests.support.truth import owner
from tests.support.vango.crowd import ATTACHED, FRESH, RESUMED, all_back, marks
from tests.support.vango.ground import running_store
from tests.support.vango_stage import (
    PEOPLE_COUNT,
    Shelf,
    Stage,
    Stories,
    Story,
    allocation_numbered,
    asked_for,
    at_board,
    attached,
    begin_restart,
    bring,
    check_account,
    check_kept,
    child_of,
    fates,
    key_of,
    killed,
    needs_go,
    promote,
    serve,
    set_secret,
    settled,
    store_everybody,
    type_once,
)
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.servers,
    needs_go,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]

BOARD: Final = "trouble"  # version 1 of the board; which trouble it has is chosen by a variable
GRACE_S: Final = 1.0
OWN_STORE_DRAIN_S: Final = 2.0
READY_S: Final = 10.0  # it takes one, or three on a busy machine
RECORD_BUDGET_BYTES: Final = 512 << 10  # the framework's own, for one session
BEFORE_THE_CUT: Final = Moment("refusing_new", {"baseline": False})


# ---- apps -------------------------------------------------------------------------------------------------------
async def deaf(stage: Stage) -> None:
    """An app that does not hear SIGTERM is killed when its grace time is over, which is said; its sessions moved on."""
    platform, app = stage.platform, "vango-deaf"
    await set_secret(platform, app, "BOARD_TROUBLE", "deaf", "runtime")
    await serve(platform, stage.shelf, app, BOARD, stop_grace_s=GRACE_S)
    old = await platform.allocation(app)
    async with at_board(platform, app) as people:
        await type_once(people)
        await attached(platform, app, PEOPLE_COUNT)
        before = marks(people)
        operation = await begin_restart(platform, app)
        await all_back(people, before)
        check_kept(people, before)
        ended = await over(platform, app, old.number)
        assert (ended.state, ended.exit_code) == ("stopped", -signal.SIGKILL), ended
        assert "SIGKILL" in ended.detail, ended
        move = await settled(platform, await child_of(platform, operation))
        fenced_ms = next(stage.at_ms for stage in move.stages if stage.state == "fenced")
        assert (ended.ended_ms or 0) - fenced_ms >= GRACE_S * 1000, "it had its time"
        check_account(move.facts["account"], fates(people, before), resumed=PEOPLE_COUNT)


async def over(platform: Platform, app: str, number: int) -> AllocationView:
    """An allocation, once its process has ended."""

    async def ended() -> bool:
        return (await allocation_numbered(platform, app, number)).ended_ms is not None

    await wait_until(ended, what=f"allocation {number} has ended")
    return await allocation_numbered(platform, app, number)


async def blocked(trouble: str, code: str, stage: Stage) -> None:
    """What a browser would show as a broken page is blocked at the preview, and cannot be promoted."""
    platform, app = stage.platform, f"vango-{trouble}"
    await set_secret(platform, app, "BOARD_TROUBLE", trouble, "preview", "runtime")
    view = await bring(platform, stage.shelf, BOARD, app)
    problem = view.problem or {}
    assert (view.state, problem.get("code")) == ("blocked", code), view.problem
    assert problem["hint"]
    number = int(view.input["deployment"])
    refused = await promote(platform, app, number)
    assert (refused.state, code_of(refused)) == ("rejected", "deployment-not-promotable")
    async with platform.api() as api:
        assert [a.number for a in await api.allocations(app) if a.want == "run"] == [], "nothing of it runs on"
    assert platform.get(f"{number}--{app}.localhost").status_code == 404


# ---- stores -----------------------------------------------------------------------------------------------------
async def store_down_or_full(stage: Stage) -> None:
    """A hand-over stops before its cut when the store is down, or full; one does not begin without a store. Nobody
    notices, nothing is lost."""
    platform, app = stage.platform, "vango-stores"
    await serve(platform, stage.shelf, app, BOARD, ready_timeout_s=READY_S)
    async with at_board(platform, app) as people:
        await type_once(people)
        await attached(platform, app, PEOPLE_COUNT)
        before = marks(people)
        route, serving = owned(platform, app), await platform.allocation(app)
        check_called_off(*await store_stops_before_the_cut(platform, app), cause="store-down")
        await type_once(people)
        async with full_store(platform, app):
            operation = await begin_restart(platform, app)
            view = await platform.finished(operation)
            move = await platform.finished(await child_of(platform, operation))
        check_called_off(view, move, cause="store-refused")
        await store_down_at_start(platform, app)
        await type_once(people)
        assert owned(platform, app) == route
        assert (await platform.allocation(app)).id == serving.id
        assert {(fate.seen, fate.state_lost) for fate in fates(people, before)} == {(ATTACHED, False)}


def owned(platform: Platform, app: str) -> dict[str, Any]:
    """The app's production route, but for when somebody last held it."""
    return {name: value for name, value in owner(platform, app).items() if name != "updated_ms"}


def check_called_off(view: OperationView, move: OperationView, *, cause: str) -> None:
    """Both say that it stopped before the cut, and why."""
    for each in (view, move):
        assert (each.state, code_of(each)) == ("failed", "handover-called-off"), each.problem
        assert (each.problem or {})["cause"] == cause
    assert "cut_ms" not in move.facts


async def store_stops_before_the_cut(platform: Platform, app: str) -> tuple[OperationView, OperationView]:
    """The store stands still from when reconnects are held and nothing is cut; the restart and its hand-over."""
    identity = (await platform.store(app)).identity
    assert identity is not None
    try:
        async with signals_at(platform, "handover", BEFORE_THE_CUT, [(identity.pid, signal.SIGSTOP)]) as watch:
            operation = await begin_restart(platform, app)
            child = await watch.met()
        assert child, "the store was stopped before the cut"
        move = await platform.finished(child)
    finally:
        os.kill(identity.pid, signal.SIGCONT)
    return await platform.finished(operation), move


@asynccontextmanager
async def full_store(platform: Platform, app: str) -> AsyncIterator[None]:
    """The store takes no more writes meanwhile."""
    async with platform.store_admin(app) as admin:
        _, limit = await admin.command("CONFIG", "GET", "maxmemory")
        await admin.command("CONFIG", "SET", "maxmemory", 1)
        try:
            yield
        finally:
            await admin.command("CONFIG", "SET", "maxmemory", limit)


async def store_down_at_start(platform: Platform, app: str) -> None:
    """A new allocation that finds no store does not become ready, and is said to have found none."""
    async with taken_port(platform, app):
        view = await platform.finished(await begin_restart(platform, app))
        assert (view.state, code_of(view)) == ("failed", "allocation-ready-timeout"), view.problem
        assert "store is down" in str((view.problem or {})["detail"])

    async def back() -> bool:
        async with platform.api() as api:
            return {s.state for s in (await api.status()).stores if s.app == app} == {"ready"}

    await wait_until(back, timeout_s=40.0, what="the store is back")


@asynccontextmanager
async def taken_port(platform: Platform, app: str) -> AsyncIterator[None]:
    """The store dies, and somebody else listens on its port before it can come back."""
    record, runner = await platform.store(app), platform.pid_of("runner")
    assert record.identity is not None
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def mine() -> bool:
            with suppress(OSError):
                taken.bind(("127.0.0.1", record.desired.port))
                taken.listen()
                return True
            return False

        with frozen(runner):
            os.kill(record.identity.pid, signal.SIGKILL)
            await wait_until(mine, what="the port is free to be taken")
        yield


async def own_store(stage: Stage) -> None:
    """A wrong URL of a store of the user's own blocks the deploy, or the promotion; the right one is used."""
    platform, app, name = stage.platform, "vango-own", "VANGO_SESSION_STORE_URL"
    async with running_store(stage.folder) as store:
        right = await store.add("keeper")
        wrong = right.replace("keeper:keeper", "keeper:not-its-password")
        await set_secret(platform, app, name, f"redis://127.0.0.1:{free_port()}", "preview")
        view = await bring(platform, stage.shelf, BOARD, app)
        assert (view.state, code_of(view)) == ("blocked", "own-store-unusable"), view.problem
        assert (view.problem or {})["variable"] == name

        await set_secret(platform, app, name, right, "preview")
        await set_secret(platform, app, name, wrong, "runtime")
        view = await bring(platform, stage.shelf, BOARD, app)
        assert (view.state, view.facts["probe"]["bindings"]) == ("preview_ready", {"vango_session_store": True})
        number = int(view.input["deployment"])
        refused = await promote(platform, app, number)
        assert (refused.state, code_of(refused)) == ("rejected", "own-store-unusable")
        assert "not-its-password" not in str(refused.problem), "a problem is no place for a password"
        assert platform.get(f"{app}.localhost").status_code == 404

        await set_secret(platform, app, name, right, "runtime")
        assert (await promote(platform, app, number)).state == "healthy"
        async with at_board(platform, app, 1) as (person,):
            await type_once([person])
            await person.drop()
            await person.welcome_after(1)
            async with store.admin() as admin:
                keys = await admin.command("KEYS", f"{SESSION_PREFIX}*")
            assert person.label in map(label_of_key, keys)

            await attached(platform, app, 1)
            view = await bring(platform, stage.shelf, BOARD, app)
            before, how = marks([person]), {"mode": "drain", "drain_deadline_s": OWN_STORE_DRAIN_S}
            moved = await promote(platform, app, int(view.input["deployment"]), **how)
            drain = await settled(platform, moved.children[0])
            await all_back([person], before)
            assert {fate.seen for fate in fates([person], before)} == {RESUMED}, (
                "the platform can neither see nor deny it"
            )
            assert drain.state == "settled_with_losses", "not all is known, so it is not called settled"
            assert drain.facts["account"]["reasons"] == {"unknown": {"own-store": 1}}


# ---- records ----------------------------------------------------------------------------------------------------
def truncated(record: bytes) -> bytes:
    """A record that breaks off."""
    return record[: len(record) // 2]


def of_another_secret(record: bytes) -> bytes:
    """A whole record, signed with a secret that is not this environment's."""
    body = record[:-SIGNATURE_BYTES]
    return body + hmac.digest(os.urandom(32), body, hashlib.sha256)


def oversized(record: bytes) -> bytes:
    """A record beyond the framework's budget, whose header agrees with its length."""
    payload = record[HEADER_BYTES:-SIGNATURE_BYTES] + bytes(RECORD_BUDGET_BYTES)
    head = record[: HEADER_BYTES - 4] + len(payload).to_bytes(4, "big")
    return head + payload + record[-SIGNATURE_BYTES:]


SPOILED: Final[Sequence[Callable[[bytes], bytes]]] = (truncated, of_another_secret, oversized)


async def records(stage: Stage) -> None:
    """Records that are cut off, of another secret or too large are refused: fresh, never resumed, and said so."""
    platform, app = stage.platform, "vango-records"
    await serve(platform, stage.shelf, app, BOARD)
    async with at_board(platform, app) as people:
        await type_once(people)
        await store_everybody(platform, app, people)
        await type_once(people)
        await attached(platform, app, PEOPLE_COUNT)
        before = marks(people)
        spoiled, whole = people[: len(SPOILED)], people[len(SPOILED) :]
        async with platform.store_admin(app) as admin:
            for person, spoil in zip(spoiled, SPOILED, strict=True):
                await rewrite(admin, await key_of(platform, app, person), spoil)
        view = await killed(platform, app)
        await all_back(people, before)
        assert {fate.seen for fate in fates(spoiled, before)} == {FRESH}, fates(spoiled, before)
        assert {fate.seen for fate in fates(whole, before)} == {RESUMED}
        account = (await settled(platform, view.id)).facts["account"]
        check_account(account, fates(people, before), fresh=len(spoiled), resumed=len(whole))
        reasons = {row["label"]: row["reason"] for row in account["rows"] if row["outcome"] == "fresh"}
        assert set(reasons.values()) == {"not-resumed"}
        await store_everybody(platform, app, spoiled)  # what they started anew is kept like any other
        await type_once(spoiled)


async def rewrite(admin: StoreAdmin, place: str, spoil: Callable[[bytes], bytes]) -> None:
    """Put something else in a record's place, for as long as the record had."""
    (record,) = await admin.raw([("GET", place)])
    bad = spoil(bytes(record))
    assert bad != record
    await admin.raw([("SET", place, bad, "KEEPTTL")])  # type: ignore[list-item]


TROUBLES: dict[str, Story] = {
    "records": records,
    "store_down_or_full": store_down_or_full,
    "deaf": deaf,
    "own_store": own_store,
    "live-silent": partial(blocked, "live-silent", "vango-live-silent"),
    "page-500": partial(blocked, "page-500", "vango-page-failed"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stories(
    request: pytest.FixtureRequest, platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stories]:
    """Everything that is asked for, side by side; each story breaks nothing but what is its own app's."""
    asked, stage = asked_for(request), Stage(platform, Shelf(), tmp_path_factory.mktemp("source"))
    going = Stories(stage, {name: story for name, story in TROUBLES.items() if name in asked})
    try:
        yield going
    finally:
        await going.close()


@pytest.mark.parametrize("story", TROUBLES)
async def test_a_vango_app_that_does_badly_is_told_and_nobody_else_suffers(stories: Stories, story: str) -> None:
    await stories.end_of(story)
