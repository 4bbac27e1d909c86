"""The platform's visitor: what it makes of apps that answer wrongly, and of a real one behind a real edge."""

from __future__ import annotations

import asyncio
import contextlib
import http
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from moorage.control import visitor
from moorage.control.visitor import VisitFailed, Visitor
from moorage.domain.allocation import Posture
from moorage.domain.errors import Unavailable
from moorage.system.proc import free_port
from moorage.vango import wire
from moorage.vango.records import key_of, read_header
from moorage.vango.wire import Control, ControlKind, Frame, FrameKind, Recovery, SchemaReason, ServerHello, Status
from tests.support.vango.ground import Ground, needs_go, running_ground
from tests.support.waiting import wait_until

HOST = "board.localhost:7080"
SESSION = "992eb4678821363b51e23155b87bf460"
BOOTSTRAP = json.dumps({"runtime": {"livePath": "/_vango/live", "clientScriptUrl": "/c.js?v=1", "clientHash": "1"}})
PAGE = (
    f'<p id="count" data-hid="h1">0</p><script id="__vango_bootstrap__" type="application/json">{BOOTSTRAP}</script>'
    '<script data-csrf="token"></script>'
)
Speak = Callable[[ServerConnection], Awaitable[None]]
Answers = Callable[[Request], tuple[int, str, dict[str, str]] | None]


def page_at(path: str) -> Answers:
    """An app that has its page here."""
    return lambda request: (200, PAGE, {}) if request.path == path else None


@contextlib.asynccontextmanager
async def app(answers: Answers, speak: Speak | None = None) -> AsyncIterator[Visitor]:
    """A visitor of an app that answers pages and speaks on its live path as told."""

    async def process(_: ServerConnection, request: Request) -> Response | None:
        found = answers(request)
        if found is None:
            return None
        status, body, headers = found
        fields = Headers({"Content-Type": "text/html", "Content-Length": str(len(body.encode())), **headers})
        return Response(status, http.HTTPStatus(status).phrase, fields, body.encode())

    async def silent(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with (
        serve(speak or silent, "127.0.0.1", 0, process_request=process) as server,
        Visitor(("127.0.0.1", server.sockets[0].getsockname()[1]), HOST) as visiting,
    ):
        yield visiting


def hello(answer: ServerHello) -> bytes:
    return wire.encode_frame(Frame(FrameKind.HANDSHAKE, wire.encode_server_hello(answer)))


async def refusal(step: Awaitable[object]) -> str:
    """The code with which a step fails."""
    with pytest.raises(VisitFailed) as failed:
        await step
    assert failed.value.problem.hint
    return failed.value.problem.code


# ---- pages that are none ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [404, 500, 503])
async def test_a_page_of_another_status_has_failed(status: int) -> None:
    async with app(lambda _: (status, "no", {})) as visiting:
        with pytest.raises(VisitFailed) as failed:
            await visiting.load()
    assert failed.value.problem.code == "vango-page-failed"
    assert failed.value.problem.facts == {"page_status": status}


async def test_a_page_without_its_script_has_no_live_part() -> None:
    async with app(lambda _: (200, "<h1>It works</h1>", {})) as visiting:
        assert (await visiting.load()).runtime is None
        assert await refusal(visiting.open()) == "vango-page-without-runtime"


async def test_a_page_that_does_not_come_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor, "PAGE_LIMIT_S", 0.1)

    async def dumb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with (
        await asyncio.start_server(dumb, "127.0.0.1", 0) as server,
        Visitor(server.sockets[0].getsockname()[:2], HOST) as visiting,
    ):
        assert await refusal(visiting.load()) == "vango-page-failed"


async def test_redirects_within_the_host_are_followed() -> None:
    def answers(request: Request) -> tuple[int, str, dict[str, str]]:
        onward = {"/": "/en?a=1", "/en?a=1": f"http://{HOST}/en/?a=1"}.get(request.path)
        return (308, "", {"Location": onward}) if onward else (200, PAGE, {})

    async with app(answers) as visiting:
        assert (await visiting.load()).path == "/en/?a=1"


@pytest.mark.parametrize("location", ["http://elsewhere.example/", "//elsewhere.example/", "/"])
async def test_redirects_elsewhere_or_in_a_circle_fail(location: str) -> None:
    async with app(lambda _: (302, "", {"Location": location})) as visiting:
        assert await refusal(visiting.load()) == "vango-page-failed"


async def test_an_edge_that_is_away_is_no_fault_of_the_app() -> None:
    async with Visitor(("127.0.0.1", free_port()), HOST) as visiting:
        with pytest.raises(Unavailable) as away:
            await visiting.load()
    assert away.value.problem.code == "edge-unreachable"


# ---- live paths that are none -----------------------------------------------------------------------------------
async def opened(speak: Speak) -> str:
    """The code with which opening fails."""
    async with app(page_at("/"), speak) as visiting:
        await visiting.load()
        return await refusal(visiting.open())


async def test_a_live_path_that_says_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor, "HELLO_LIMIT_S", 0.1)

    async def silent(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.wait_closed()

    assert await opened(silent) == "vango-live-silent"


async def test_a_live_path_that_ends_before_a_hello_is_told() -> None:
    async def panic(socket: ServerConnection) -> None:
        await socket.recv()
        socket.transport.abort()

    assert await opened(panic) == "vango-live-silent"


@pytest.mark.parametrize(
    "first",
    [
        "hello",
        b"\x00",
        wire.encode_frame(Frame(FrameKind.PATCHES, b"\x01\x00")),
        wire.encode_frame(Frame(FrameKind.HANDSHAKE, b"\x63" + bytes(15))),
    ],
)
async def test_a_first_frame_that_is_no_hello_is_told(first: str | bytes) -> None:
    async def odd(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(first)
        await socket.wait_closed()

    assert await opened(odd) == "vango-live-unreadable"


@pytest.mark.parametrize("status", [403, 421, 429, 503])
async def test_a_refused_upgrade_is_told_with_its_status(status: int) -> None:
    def answers(request: Request) -> tuple[int, str, dict[str, str]]:
        return (200, PAGE, {}) if request.path == "/" else (status, "no", {})

    async with app(answers) as visiting:
        await visiting.load()
        with pytest.raises(VisitFailed) as failed:
            await visiting.open()
    assert failed.value.problem.code == "vango-live-refused"
    assert failed.value.problem.facts == {"upgrade_status": status}


# ---- what it says and keeps -------------------------------------------------------------------------------------
async def test_it_comes_as_a_browser_does() -> None:
    seen: list[Request] = []
    said: list[wire.ClientHello] = []

    def answers(request: Request) -> tuple[int, str, dict[str, str]] | None:
        seen.append(request)
        pin = {"Set-Cookie": "moorage_pin=1-a.b; Path=/; HttpOnly"}
        return (200, PAGE, pin) if request.path == "/a?b=c" else None

    async def speak(socket: ServerConnection) -> None:
        message = await socket.recv()
        assert isinstance(message, bytes)
        said.append(wire.decode_client_hello(wire.decode_frame(message).payload))
        await socket.send(hello(ServerHello(Status.OK, SESSION)))
        await socket.wait_closed()

    async with app(answers, speak) as visiting:
        await visiting.load("/a?b=c")
        answer = await visiting.open(SESSION, extra_query="moorage=1")
        assert (answer.ok, answer.session_id) == (True, SESSION)
        assert visiting.cookies == {"moorage_pin": "1-a.b"}
    page, upgrade = seen
    assert "Cookie" not in page.headers
    assert upgrade.path == "/_vango/live?path=%2Fa%3Fb%3Dc%26moorage%3D1"
    assert upgrade.headers["Cookie"] == "moorage_pin=1-a.b"
    assert (upgrade.headers["Origin"], upgrade.headers["Host"]) == (f"http://{HOST}", HOST)
    assert said == [wire.ClientHello("token", "1", SESSION)]


async def test_a_refusal_of_the_framework_is_data() -> None:
    told = ServerHello(
        Status.SCHEMA_MISMATCH,
        schema_reason=SchemaReason.ID_REMOVED,
        banner=wire.Banner("The app was updated"),
        recovery=Recovery.RELOAD_ONCE,
        forget=True,
    )

    async def speak(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(hello(told))

    async with app(page_at("/"), speak) as visiting:
        await visiting.load()
        answer = await visiting.open(SESSION)
        assert answer == told
        assert not await visiting.click("count")  # there is no live session to click in


async def test_it_answers_pings_and_clicks_by_the_newest_page() -> None:
    heard: list[Frame] = []

    async def speak(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(hello(ServerHello(Status.OK, SESSION)))
        for control in (
            Control(ControlKind.PING, stamp_ms=7),
            Control(ControlKind.RESYNC_FULL, text='<b id="count" data-hid="h9">3</b>'),
        ):
            await socket.send(wire.encode_frame(Frame(FrameKind.CONTROL, wire.encode_control(control))))
        async for message in socket:
            assert isinstance(message, bytes)
            heard.append(wire.decode_frame(message))

    async with app(page_at("/"), speak) as visiting:
        await visiting.load()
        await visiting.open(SESSION)
        page = await visiting.full_page()
        assert page is not None
        assert page.text("count") == "3"
        assert await visiting.click("count")
        assert not await visiting.click("nobody")
        await wait_until(lambda: len(heard) == 2, what="pong and click have come")
    pong, click = heard
    assert wire.decode_control(pong.payload) == Control(ControlKind.PONG, stamp_ms=7)
    assert wire.decode_event(click.payload).hid == "h9"


# ---- a real app behind a real edge ------------------------------------------------------------------------------
@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with running_ground(tmp_path) as running:
        yield running


async def clicked(visiting: Visitor, element_id: str) -> None:
    """Click, and wait for the answer."""
    before = visiting.last_patches
    assert await visiting.click(element_id)
    await wait_until(lambda: visiting.last_patches > before, what="the click is answered")


async def stored(ground: Ground, session_id: str) -> bool:
    """Whether the store has a good record of the session."""
    assert ground.store is not None
    async with ground.store.admin() as admin:
        (record,) = await admin.raw([("GET", key_of(session_id))])
    return record is not None and getattr(read_header(bytes(record), len(record)), "written_ms", 0) > 0


async def move(ground: Ground, old: int, new: int) -> None:
    """The route goes to the new allocation; the old one is fenced and gone."""
    assert ground.store is not None
    await ground.own(new)
    await ground.posture(old, Posture.CUT)
    await ground.store.fence(f"alc_{old}")
    await ground.boards[old].kill()
    await ground.posture(old, Posture.GONE)


@needs_go
@pytest.mark.servers
async def test_it_sees_a_real_session_resume_on_another_allocation(ground: Ground) -> None:
    await ground.start(1)
    await ground.own(1)
    async with Visitor(ground.address, ground.host) as visiting:
        loaded = await visiting.load()
        assert loaded.runtime is not None
        first = await visiting.open()
        assert first.ok
        assert set(visiting.cookies) == {wire.CSRF_COOKIE, "moorage_pin"}
        await wait_until(lambda: visiting.last_patches == 1, what="the page is told that it is live")
        for _ in range(3):
            await clicked(visiting, "inc")
        visiting.drop()
        await wait_until(lambda: stored(ground, first.session_id), what="the record of the dropped session")

        again = await visiting.open(first.session_id)  # in the same process, from its memory
        assert again.session_id == first.session_id
        page = await visiting.full_page()
        assert page is not None
        assert page.text("count") == "3"
        visiting.drop()

        await ground.start(2)
        await move(ground, 1, 2)
        elsewhere = await visiting.open(first.session_id)
        assert elsewhere.session_id == first.session_id
        page = await visiting.full_page()
        assert page is not None
        assert (page.text("count"), page.text("allocation")) == ("3", "2")

        unknown = await visiting.open("0" * 32)
        assert unknown.ok
        assert unknown.session_id not in ("0" * 32, first.session_id)
        assert await visiting.full_page(0.3) is None  # and the page is not told


@needs_go
@pytest.mark.servers
async def test_it_tells_an_app_that_resumes_with_a_query_only(ground: Ground) -> None:
    await ground.start(1)
    await ground.own(1)
    async with Visitor(ground.address, ground.host) as visiting:
        await visiting.load()
        first = await visiting.open()
        await wait_until(lambda: visiting.last_patches == 1, what="the page is told that it is live")
        await clicked(visiting, "inc")
        visiting.drop()
        await wait_until(lambda: stored(ground, first.session_id), what="the record of the dropped session")
        await ground.start(2, more={"BOARD_RESUME_HOOK": "off"})
        await move(ground, 1, 2)
        bare = await visiting.open(first.session_id)
        assert (bare.status, bare.recovery, bare.forget) == (Status.INTERNAL_ERROR, Recovery.RELOAD_ONCE, True)
        cured = await visiting.open(first.session_id, extra_query="moorage=1")
        assert cured.session_id == first.session_id
        page = await visiting.full_page()
        assert page is not None
        assert page.text("count") == "1"


@needs_go
@pytest.mark.servers
async def test_it_tells_a_cold_version(ground: Ground) -> None:
    await ground.start(1)
    await ground.own(1)
    async with Visitor(ground.address, ground.host) as visiting:
        await visiting.load()
        first = await visiting.open()
        visiting.drop()
        await wait_until(lambda: stored(ground, first.session_id), what="the record of the dropped session")
        await ground.start(3, "v3")
        await move(ground, 1, 3)
        cold = await visiting.open(first.session_id)
    assert (cold.status, cold.schema_reason) == (Status.SCHEMA_MISMATCH, SchemaReason.ID_TYPE_CHANGED)
    assert cold.forget


@needs_go
@pytest.mark.servers
async def test_a_frozen_app_is_silent(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor, "UPGRADE_LIMIT_S", 0.5)
    board = await ground.start(1)
    await ground.own(1)
    async with Visitor(ground.address, ground.host) as visiting:
        await visiting.load()
        board.signal(signal.SIGSTOP)
        assert await refusal(visiting.open()) == "vango-live-silent"
        board.signal(signal.SIGCONT)
