"""Session store: it keeps declared fields and not the whole process, and only the holder of a session writes it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.ledger import marks, outcome_of
from demo.people import crowd
from examples.board.materialise import materialise
from moorage.wire.api import AllocationView, RestartRequest
from moorage_app.contract import SESSION_PREFIX
from tests.support.platform import Platform, key
from tests.support.tab import Tab, enter
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

DRAFT, VIEW, ME = "board:draft:v1", "board:view:v1", "board:me:v1"
PEOPLE_COUNT = 8

SEARCH = """

@live.action
async def search(session: Session, data: Any) -> None:
    view = session[View]
    view.searches += 1
    session.send("searches", view.searches)
"""

# The same app in a process that does what it likes. On SIGUSR2 it goes deaf to SIGTERM; on SIGUSR1 it overwrites every
# session's record, over the connection that it has kept open and over a new one, and prints how that went.
STUBBORN = """
import contextlib, os, signal, threading
import uvicorn, valkey
from board import app

URL = os.environ["MOORAGE_SESSION_STORE_URL"]
asked = threading.Event()


def go_deaf(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)


def attack(client, keys, how):
    for key in keys:
        try:
            client.set(key, "stolen")
            print("attack", how, "wrote", flush=True)
        except valkey.ValkeyError as refused:
            print("attack", how, "refused", type(refused).__name__, flush=True)


def lurk():
    kept = valkey.Valkey.from_url(URL, retry=None)
    keys, rounds = [], 0
    while True:
        if asked.wait(0.02):
            asked.clear()
            rounds += 1
            attack(kept, keys, "kept")
            attack(valkey.Valkey.from_url(URL, retry=None), keys, "new")
            print("attack", rounds, "over", flush=True)
        elif not rounds:
            with contextlib.suppress(valkey.ValkeyError):
                keys = list(kept.scan_iter("moorage:session:*"))
                kept.incr("app:alive")


signal.signal(signal.SIGUSR2, go_deaf)
signal.signal(signal.SIGUSR1, lambda *_: asked.set())
threading.Thread(target=lurk, daemon=True).start()
uvicorn.run(app, host=os.environ["HOST"], port=int(os.environ["PORT"]))
"""


def stubborn_board(folder: Path) -> Path:
    """The board with a counter in the process's memory, in a process that does not cooperate."""
    materialise("v1", folder)
    board, appfile = folder / "board.py", folder / "moorage.toml"
    text = board.read_text()
    assert "from state import Draft, Me, Notes, colour_of" in text
    text = text.replace("from state import Draft, Me,", "from state import Draft, View, Me,")
    board.write_text(text.replace("\n\nclass Assets", SEARCH + "\n\nclass Assets"))
    (folder / "stubborn.py").write_text(STUBBORN)
    started = "python -m uvicorn board:app --host $HOST --port $PORT --no-access-log"
    assert started in appfile.read_text()
    appfile.write_text(appfile.read_text().replace(f'"{started}"', '"python stubborn.py"\nstop_grace_s = 60'))
    return folder


@pytest.fixture(scope="module")
def board(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The app, promoted."""
    name, _ = asyncio.run(platform.serve(stubborn_board(tmp_path_factory.mktemp("source") / "board")))
    return name


async def records(platform: Platform, app: str) -> dict[str, str]:
    """Every session's record as the bytes that lie in the store."""
    async with platform.store_admin(app) as admin:
        keys = sorted(await admin.command("KEYS", f"{SESSION_PREFIX}*"))
        return dict(zip(keys, await admin.command("MGET", *keys), strict=True))


async def test_after_kill_9_declared_fields_are_back_and_the_others_said_to_be_at_their_defaults(
    platform: Platform, board: str
) -> None:
    old = await platform.allocation(board)
    async with crowd(PEOPLE_COUNT, ("127.0.0.1", platform.http_port), platform.host(board)) as people:
        await asyncio.gather(*(person.type(f"draft of {person.name}") for person in people))
        tab = await enter(platform.http_port, platform.host(board))
        await tab.set(DRAFT, "colour", "mint")
        await tab.set(VIEW, "filter", "mine")
        assert [await searches(tab) for _ in range(3)] == [1, 2, 3]
        before = marks(people)

        assert old.pid is not None
        os.kill(old.pid, signal.SIGKILL)

        back = await enter(platform.http_port, platform.host(board), tab.session)
        await asyncio.gather(*(p.welcome_after(before[p.name]) for p in people))
        view = await platform.newest(board, "replacement")
    assert (back.welcome["outcome"], back.welcome["allocation_number"] > old.number) == ("resumed", True)
    assert (back.welcome["states"][DRAFT]["colour"], back.welcome["states"][VIEW]["filter"]) == ("mint", "mine")
    declared = {f"{DRAFT}.text", f"{DRAFT}.colour", f"{VIEW}.filter", f"{ME}.name"}
    assert set(back.welcome["restored"]) == declared
    assert back.welcome["defaults"] == [f"{VIEW}.searches"]
    told = back.welcome["story"][-1]
    assert (told["event"], told["allocation"]) == ("resumed", back.welcome["allocation"])
    assert (set(told["restored"]), told["defaults"]) == (declared, [f"{VIEW}.searches"])
    assert await searches(back) == 1, "what was not declared lived in the process and died with it"
    for person in people:
        assert outcome_of(person, before[person.name]) == "resumed"
        assert person.states[DRAFT]["text"] == f"draft of {person.name}"
    account = view.facts["account"]
    assert (account["total"], account["resumed"]) == (PEOPLE_COUNT + 1, PEOPLE_COUNT + 1)
    await back.close()


async def searches(tab: Tab) -> int:
    """Search once; how often the process says that this session has."""
    tab.messages.clear()
    await tab.send("search")
    heard = await tab.hears(lambda m: m["type"] == "message" and m["name"] == "searches", what="the counter")
    return int(heard["data"])


async def test_a_frozen_allocation_that_wakes_after_the_hand_over_changes_no_record(
    platform: Platform, board: str
) -> None:
    old = await platform.allocation(board)
    assert old.pid is not None
    async with crowd(PEOPLE_COUNT, ("127.0.0.1", platform.http_port), platform.host(board)) as people:
        await asyncio.gather(*(person.type(f"draft of {person.name}") for person in people))
        assert await counts_itself(platform, board), "while it holds its sessions it may write"
        os.kill(old.pid, signal.SIGUSR2)
        await wait_until(lambda: "deaf" in printed(platform, old), what="it does not hear that it should end")
        before = marks(people)
        async with frozen(old):
            for person in people:
                person.type(f"typed by {person.name} while nobody listened")
            moved = await handed_over(platform, board)
            await asyncio.gather(*(p.until(lambda p=p: not p.unacknowledged and p.here, 60.0) for p in people))
            assert {outcome_of(p, before[p.name]) for p in people} == {"resumed"}
            assert (moved.state, moved.facts["account"]["resumed"]) == ("settled", PEOPLE_COUNT)
            assert await store_user(platform, board, old) == "off"
            kept = await records(platform, board)
            assert len(kept) >= PEOPLE_COUNT
            assert all(f"typed by {p.name} while" in "".join(kept.values()) for p in people)

        await wakes_and_attacks(platform, old, rounds=1)
        assert await records(platform, board) == kept

        async with frozen(old):
            await platform.kill_store(board)
        await wakes_and_attacks(platform, old, rounds=2)
        assert await store_user(platform, board, old) == "off", "a restart of the store does not readmit it"
        assert await records(platform, board) == kept
        os.killpg(old.pid, signal.SIGKILL)


@asynccontextmanager
async def frozen(allocation: AllocationView) -> AsyncIterator[None]:
    """The allocation's processes stand still; on leaving they wake up and are asked to write what they can."""
    assert allocation.pid is not None
    os.killpg(allocation.pid, signal.SIGSTOP)
    try:
        yield
        os.kill(allocation.pid, signal.SIGUSR1)
    finally:
        os.killpg(allocation.pid, signal.SIGCONT)


async def handed_over(platform: Platform, app: str) -> Any:
    """A restart with a hand-over, to its end."""
    async with platform.api() as api:
        started = await api.restart(app, RestartRequest(mode="handover"), key=key())
    done = await platform.finished(started.operation)
    assert done.state == "settled", done.problem
    return await platform.newest(app, "handover")


async def counts_itself(platform: Platform, app: str) -> bool:
    """Whether the app's own counter in the store is there and moves."""
    async with platform.store_admin(app) as admin:
        first = int(await admin.command("GET", "app:alive"))

        async def moved() -> bool:
            return int(await admin.command("GET", "app:alive")) > first

        await wait_until(moved, what="the app writes")
    return first > 0


async def store_user(platform: Platform, app: str, allocation: AllocationView) -> str:
    """What the store says of an allocation's user: on or off."""
    async with platform.store_admin(app) as admin:
        user = (await admin.users())[allocation.id]
        assert not (await admin.connected_users()).get(allocation.id, 0)
    return "on" if user.enabled else "off"


async def wakes_and_attacks(platform: Platform, allocation: AllocationView, *, rounds: int) -> None:
    """Wait until the woken process has tried everything; nothing of it was let through."""

    def tried() -> list[str]:
        return [line for line in printed(platform, allocation) if line.startswith("attack ")]

    await wait_until(lambda: f"attack {rounds} over" in tried(), what="it has tried to write")
    ways = {tuple(line.split()[1:3]) for line in tried() if line.split()[2] in ("wrote", "refused")}
    assert ways == {("kept", "refused"), ("new", "refused")}


def printed(platform: Platform, allocation: AllocationView) -> list[str]:
    """What an allocation's process has printed."""
    return (platform.home / "allocations" / allocation.id / "app.log").read_text().splitlines()
