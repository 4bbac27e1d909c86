"""What an allocation does while its store does not answer or refuses: nothing is acknowledged, nothing lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.people import Person, RefusedByAppError
from moorage_app import contract
from moorage_app.contract import NoticeKind, Parted
from tests.support.waiting import wait_until

from .servers import APP_RULES, AppProcess, Platform, ValkeyProcess, free_port, started, write_small_app

pytestmark = pytest.mark.servers

DRAFT = "board:draft:v1"


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[ValkeyProcess]:
    """A Valkey of this test alone, which it may kill."""
    server = ValkeyProcess(tmp_path / "valkey")
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def test_typing_while_the_store_is_down(own_valkey: ValkeyProcess, tmp_path: Path) -> None:
    """kill -9 of the store: the change waits, newcomers are turned away; when it is back everything is stored."""
    await own_valkey.ready()
    app = AppProcess(
        write_small_app(tmp_path / "app"), "alloc-a", store_url=await own_valkey.add_user("alloc-a", APP_RULES)
    )
    with started(app):
        await app.ready()
        someone = Person(app.address, "board.localhost")
        await someone.arrive()
        await someone.type("before")
        own_valkey.kill()
        waiting = someone.type("while it is down")
        noted = someone.send("add_note", "once")
        newcomer = Person(app.address, "board.localhost")
        with pytest.raises(TimeoutError):
            await newcomer.arrive(patience_s=1.0)
        await newcomer.vanish()
        assert not waiting.done()
        own_valkey.start()
        await own_valkey.ready()
        async with asyncio.timeout(30):
            await waiting
            await noted
        admin = own_valkey.admin()
        platform = Platform(admin)
        record = await platform.kept(someone.session or "")
        assert (record.states[DRAFT]["text"], record.seq, len(someone.welcomes)) == ("", 3, 1)
        notes = json.loads(await admin.get(contract.shared_key("board:notes:v1")))["value"]["items"]
        assert notes == [{"text": "once"}]
        await admin.aclose()
        await someone.leave()


async def test_what_cannot_be_stored_is_not_handed_over(
    valkey: ValkeyProcess, platform: Platform, tmp_path: Path
) -> None:
    """Writes are refused during a hand-over: the client stays, the report says so; taken back, everything goes on."""
    folder = write_small_app(tmp_path / "app")
    app = AppProcess(folder, "alloc-a", store_url=await valkey.add_user("alloc-a"))
    with started(app):
        await app.ready()
        someone = Person(app.address, "board.localhost")
        await someone.arrive()
        await someone.type("before")
        await platform.admin.execute_command("ACL", "SETUSER", "alloc-a", "-evalsha")
        late = someone.type("not storable now")
        notice = contract.encode_notice(contract.Notice(NoticeKind.HANDOVER, await now_ms(platform) + 1_000))
        await platform.admin.set(contract.notice_key("alloc-a"), notice)

        async def reported() -> bool:
            return bool(await platform.admin.exists(contract.handover_key("alloc-a")))

        await wait_until(reported, what="the hand-over's report")
        report = json.loads(await platform.admin.get(contract.handover_key("alloc-a")))
        assert (report["stored"], report["unstored"]) == (0, 1)
        assert (someone.here, late.done(), someone.notices) == (True, False, [])
        assert (await platform.kept(someone.session or "")).attached
        await platform.admin.execute_command("ACL", "SETUSER", "alloc-a", "+evalsha")
        await platform.give_notice("alloc-a", NoticeKind.OPEN)
        async with asyncio.timeout(20):
            await late
        assert (await platform.kept(someone.session or "")).states[DRAFT]["text"] == "not storable now"
        await someone.leave()
        await platform.parted(someone.session or "", Parted.ENDED)


async def now_ms(platform: Platform) -> int:
    """The server's clock, in Unix ms."""
    seconds, micros = await platform.admin.time()
    return int(seconds) * 1000 + int(micros) // 1000


async def test_a_store_that_is_down_at_start_is_no_start(tmp_path: Path) -> None:
    """The process ends with the reason; it never becomes ready on a store of its own."""
    url = f"redis://nobody:secret-word@127.0.0.1:{free_port()}/0"
    app = AppProcess(write_small_app(tmp_path / "app"), "alloc-a", store_url=url)
    with started(app):
        assert app.process is not None
        await wait_until(lambda: app.process is not None and app.process.poll() is not None, timeout_s=40.0)
        log = app.log_path.read_text()
        assert app.process.returncode != 0
        assert "store-unavailable" in log
        assert "secret-word" not in log


async def test_a_session_has_a_size_limit(valkey: ValkeyProcess, platform: Platform, tmp_path: Path) -> None:
    """The change that does not fit is refused and taken back; the session goes on with what is stored."""
    fields = [f'part{i}: str = ""' for i in range(6)]
    folder = write_small_app(tmp_path / "app", 'text: str = ""', *fields)
    app = AppProcess(folder, "alloc-a", store_url=await valkey.add_user("alloc-a"))
    with started(app):
        await app.ready()
        someone = Person(app.address, "board.localhost")
        await someone.arrive()
        for i in range(4):
            await someone.set(DRAFT, f"part{i}", "x" * 60_000)
        with pytest.raises(RefusedByAppError):
            await someone.set(DRAFT, "part5", "x" * 60_000)
        await someone.type("goes on")
        record = await platform.kept(someone.session or "")
        assert (record.states[DRAFT]["part5"], record.states[DRAFT]["text"]) == ("", "goes on")
        assert len(record.states[DRAFT]["part3"]) == 60_000
        await someone.until(lambda: someone.states[DRAFT]["part5"] == "")
        await someone.leave()
