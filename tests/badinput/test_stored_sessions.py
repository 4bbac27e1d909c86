"""Session stores that fail: records nobody can read, a store that is down when an app starts or a hand-over begins."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from demo.people import Person, crowd
from examples.board.materialise import materialise
from moorage.cli.call import Exit
from moorage.wire.api import OperationView, PromoteRequest, RestartRequest
from moorage_app.contract import quarantine_key, session_key
from tests.badinput.kit import code_of, owner_stays, source
from tests.support.platform import Platform, key, start_platform, stop_platform
from tests.support.tab import Tab, enter
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

DRAFT = "board:draft:v1"
APP = "board"
STORED = "stored"


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While this file is there, an allocation of the board that starts does not become ready."""
    return tmp_path_factory.mktemp("gate") / "closed"


@pytest.fixture(scope="module")
def platform(gate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of its own, since its stores are broken: the board is served, the next version has a preview."""
    folder = tmp_path_factory.mktemp("source")
    running = start_platform(tmp_path_factory.mktemp("home"))
    try:
        asyncio.run(running.serve(gated(materialise("v1", folder / "v1"), gate)))
        asyncio.run(running.deploy(materialise("v2", folder / "v2")))
        yield running
    finally:
        stop_platform(running)


def gated(folder: Path, gate: Path) -> Path:
    """The board, whose health depends on the gate."""
    board = folder / "board.py"
    text = board.read_text()
    healthy = '    return PlainTextResponse("ok\\n")\n'
    assert healthy in text
    closed = f'    if Path({str(gate)!r}).exists():\n        return PlainTextResponse("not yet", status_code=503)\n'
    board.write_text(text.replace(healthy, closed + healthy))
    return folder


async def tab(platform: Platform, session: str | None = None) -> Tab:
    """A tab on the board."""
    return await enter(platform.http_port, platform.host(APP), session)


CORRUPT: dict[str, tuple[Callable[[str], str], str]] = {
    "cut off": (lambda text: text[: len(text) // 2], "corrupt"),
    "no JSON": (lambda text: "stolen", "corrupt"),
    "another session's": (lambda text: text.replace('"id":"', '"id":"A', 1), "corrupt"),
    "a wrong type": (lambda text: text.replace('"text":"Mine"', '"text":["Mine"]'), "corrupt"),
    "a newer format": (lambda text: text.replace('"format":1', '"format":99'), "newer_format"),
}


@pytest.mark.parametrize("how", CORRUPT)
async def test_a_record_that_cannot_be_read_is_kept_aside_and_its_session_starts_fresh_with_the_reason(
    platform: Platform, how: str
) -> None:
    spoil, reason = CORRUPT[how]
    first = await tab(platform)
    await first.set(DRAFT, "text", "Mine")
    await first.close()
    async with platform.store_admin(APP) as admin:
        place, aside = session_key(first.session), quarantine_key(first.session)
        await wait_until(lambda: parted(admin, place), what="the tab's end is stored")
        good = await admin.command("GET", place)
        bad = spoil(good)
        assert bad != good
        await admin.command("SET", place, bad)
        back = await tab(platform, first.session)
        assert (back.welcome["outcome"], back.welcome["reason"]) == ("fresh", reason)
        assert back.welcome["states"][DRAFT]["text"] == ""
        told = back.welcome["story"][-1]
        assert (told["event"], told["reason"]) == ("fresh", reason)
        assert await admin.command("GET", aside) == bad, "what nobody can read is kept for whoever can"
    await back.set(DRAFT, "text", "Written anew")
    await back.close()
    again = await tab(platform, first.session)
    assert (again.welcome["outcome"], again.welcome["states"][DRAFT]["text"]) == ("resumed", "Written anew")
    await again.close()


async def parted(admin: object, place: str) -> bool:
    """Whether the record says that nobody is attached."""
    text = await admin.command("GET", place)  # type: ignore[attr-defined]
    return '"attached":false' in text


async def test_a_store_that_is_down_before_the_cut_calls_the_hand_over_off_and_nobody_notices(
    platform: Platform, gate: Path
) -> None:
    async with crowd(5, ("127.0.0.1", platform.http_port), platform.host(APP)) as people:
        await type_on(people)
        with owner_stays(platform, APP):
            view, move = await store_stops_while_reconnects_are_held(platform, gate)
            assert (move.state, code_of(move)) == ("failed", "handover-called-off")
            assert (move.problem or {})["cause"] == "store-down"
            assert "cut_ms" not in move.facts
            assert (view.state, code_of(view)) == ("failed", "handover-called-off")
        await type_on(people)
        assert all(len(person.welcomes) == 1 and person.here for person in people), "no socket was cut"
        async with crowd(2, ("127.0.0.1", platform.http_port), platform.host(APP)) as newcomers:
            await type_on(newcomers)


def close_gate(gate: Path) -> None:
    """Let no allocation become ready."""
    gate.touch()


def open_gate(gate: Path) -> None:
    """Let the allocation become ready that waits for it."""
    gate.unlink()


async def store_stops_while_reconnects_are_held(platform: Platform, gate: Path) -> tuple[OperationView, OperationView]:
    """The store stands still while a hand-over waits for an edge before its cut; the restart and its hand-over."""
    close_gate(gate)
    async with platform.api() as api:
        started = await api.restart(APP, RestartRequest(mode="handover"), key=key())

        async def starting() -> bool:
            return any(a.state == "starting" and a.pid for a in await api.allocations(APP))

        await wait_until(starting, what="a new allocation is starting")
        edge = platform.pid_of("edge")
        os.kill(edge, signal.SIGSTOP)
        try:
            open_gate(gate)
            child = await begun(platform, started.operation, "refusing_new")
            async with frozen_store(platform):
                os.kill(edge, signal.SIGCONT)
                move = await platform.finished(child)
        finally:
            os.kill(edge, signal.SIGCONT)
    return await platform.finished(started.operation), move


async def begun(platform: Platform, operation: str, *states: str) -> str:
    """The id of an operation's hand-over, once it has come to one of these states."""
    child: list[str] = []

    async def there() -> bool:
        async with platform.api() as api:
            child[:] = (await api.operation(operation)).children
            return bool(child) and (await api.operation(child[0])).state in states

    await wait_until(there, timeout_s=30.0, what=f"the hand-over is {' or '.join(states)}")
    return child[0]


async def test_a_store_that_stops_while_apps_let_go_calls_the_hand_over_off_and_they_take_everybody_back(
    platform: Platform,
) -> None:
    async with crowd(5, ("127.0.0.1", platform.http_port), platform.host(APP)) as people:
        await type_on(people)
        old = await platform.allocation(APP)
        assert old.pid is not None
        with owner_stays(platform, APP, given_back=True):
            async with platform.api() as api:
                epoch = next(a.epoch for a in await api.apps() if a.name == APP)
                request = PromoteRequest(deployment=2, expected_epoch=epoch, mode="handover")
                os.kill(old.pid, signal.SIGSTOP)  # it hears the notice only when the store does not answer any more
                try:
                    started = await api.promote(APP, request, key=key())
                    child = await begun(platform, started.operation, "cutting")
                    async with frozen_store(platform):
                        os.kill(old.pid, signal.SIGCONT)
                        view = await platform.finished(started.operation)
                finally:
                    os.kill(old.pid, signal.SIGCONT)
            assert (view.state, code_of(view)) == ("rolled_back", "handover-called-off")
            move = await platform.finished(child)
            assert ("cut_ms" in move.facts, move.state) == (False, "failed")
            await type_on(people)
        assert all(p.welcomes[-1].outcome != "fresh" and p.changes_lost == 0 for p in people)
        assert {p.welcomes[-1].deployment for p in people} == {1}
        async with crowd(2, ("127.0.0.1", platform.http_port), platform.host(APP)) as newcomers:
            await type_on(newcomers)


async def type_on(people: Sequence[Person]) -> None:
    """Everybody types something that is stored."""
    async with asyncio.timeout(20):
        await asyncio.gather(*(person.type(f"{person.name} types on") for person in people))


@asynccontextmanager
async def frozen_store(platform: Platform) -> AsyncIterator[None]:
    """The production store answers nobody meanwhile."""
    identity = (await platform.store(APP)).identity
    assert identity is not None
    os.kill(identity.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(identity.pid, signal.SIGCONT)


async def test_a_store_that_is_down_at_the_start_keeps_the_new_allocation_out_and_the_old_one_in(
    platform: Platform, tmp_path: Path
) -> None:
    more = "ready_timeout_s = 3\n[store]\nenabled = true\n"
    await platform.serve(source(tmp_path / "app", name=STORED, more=more))
    with owner_stays(platform, STORED):
        async with taken_port(platform):
            answer = await platform.run("restart", STORED, "--json")
            assert answer.code == Exit.ENDED, answer.out
            assert (answer.json["state"], answer.json["problem"]["code"]) == ("failed", "allocation-ready-timeout")
            assert "store is down" in answer.json["problem"]["detail"]
            stores = platform.cli("status", "--json").json["stores"]
            assert {s["state"] for s in stores if (s["app"], s["environment"]) == (STORED, "production")} == {"down"}


@asynccontextmanager
async def taken_port(platform: Platform) -> AsyncIterator[None]:
    """The store of that app dies, and somebody else listens on its port before it can come back."""
    record, runner = await platform.store(STORED), platform.pid_of("runner")
    assert record.identity is not None
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def mine() -> bool:
            with suppress(OSError):
                taken.bind(("127.0.0.1", record.desired.port))
                taken.listen()
                return True
            return False

        os.kill(runner, signal.SIGSTOP)
        try:
            os.kill(record.identity.pid, signal.SIGKILL)
            await wait_until(mine, what="the port is free to be taken")
        finally:
            os.kill(runner, signal.SIGCONT)
        yield
