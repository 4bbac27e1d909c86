"""The platform's own visitor of a Vango app: comes through the edge as a browser does, and says what it saw.

Rules of this room: one visitor is one browser tab with cookies of its own; nothing of it is shared or survives it.
Every step has a deadline and is tried once: whoever sends the visitor decides what to do next. An answer of the
framework, also a refusal, is data; an app that answers as no app of the framework does is a `VisitFailed` with a stable
code; an edge that cannot be reached is `Unavailable`. A session id opens the session: it is in no problem and no log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from urllib.parse import urljoin, urlsplit

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from moorage.domain.errors import MoorageError, Problem, Unavailable
from moorage.vango import wire
from moorage.vango.page import Bootstrap, Page, read_page
from moorage.vango.wire import ControlKind, EventKind, FrameKind, ServerHello, WireError

PAGE_LIMIT_S: Final = 10.0  # the framework gives up on a page after 5 s by itself
UPGRADE_LIMIT_S: Final = 10.0
HELLO_LIMIT_S: Final = 5.0  # the framework's own limit for the exchange of hellos
CLOSE_LIMIT_S: Final = 1.0
REDIRECTS_MAX_COUNT: Final = 5
_BROWSER: Final = "Mozilla/5.0 (Moorage visitor)"


class VisitFailed(MoorageError):
    """The app did not answer as an app of the framework does; the problem says how."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A page. `path` is where redirects led, with its query."""

    status: int
    path: str
    page: Page

    @property
    def runtime(self) -> Bootstrap | None:
        """What the page's script needs for its live part; None for a page that has none."""
        return self.page.bootstrap


class Visitor:
    """One tab. Load a page first, then open its live socket; as a context manager it closes what is left open."""

    def __init__(self, address: tuple[str, int], host_header: str) -> None:
        """`address` is the edge's (host, port); `host_header` the name of the route, with its port where it has one."""
        self._address, self._host = address, host_header
        self._origin = f"http://{host_header}"
        self._cookies: dict[str, str] = {}
        self._http = httpx.AsyncClient(
            base_url=f"http://{_bracketed(address[0])}:{address[1]}",
            headers={"Host": host_header, "User-Agent": _BROWSER, "Accept": "text/html"},
            timeout=PAGE_LIMIT_S,
            trust_env=False,
        )
        self._loaded: Loaded | None = None
        self._socket: ClientConnection | None = None
        self._listener: asyncio.Task[None] | None = None
        self._page: Page | None = None
        self._full_pages = 0
        self._heard = asyncio.Event()
        self._events = self._last_seq = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies that the next request will carry."""
        return dict(self._cookies)

    @property
    def last_patches(self) -> int:
        """Number of the last patches that came since the page was sent whole: a click is answered by the next ones."""
        return self._last_seq

    async def load(self, path: str = "/") -> Loaded:
        """Load a page as a navigation does, following redirects within the host.

        Raises VisitFailed (`vango-page-failed`: another status than 200, or none in time) or Unavailable.
        """
        for _ in range(REDIRECTS_MAX_COUNT + 1):
            answer = await self._get(path)
            if not answer.has_redirect_location:
                return self._keep(path, answer)
            there = urlsplit(urljoin(f"{self._origin}{path}", answer.headers["Location"]))
            if there.netloc != self._host:
                raise _page_failed(path, "it sends its visitors to another host", status=answer.status_code)
            path = there.path + (f"?{there.query}" if there.query else "")
        raise _page_failed(path, f"more than {REDIRECTS_MAX_COUNT} redirects")

    async def open(self, session_id: str = "", *, extra_query: str | None = None) -> ServerHello:
        """Open the live socket of the page that was loaded last; an earlier socket is dropped.

        `session_id` is a session to come back to; status OK with another id is a new session that the page is not told
        of. `extra_query` (`name=value`) is appended to the page's path, as the edge does for an app that needs it.

        Raises VisitFailed (`vango-page-without-runtime`: the page has no live part; `vango-live-refused`: the upgrade
        is answered with another status than 101; `vango-live-silent`: no ServerHello within HELLO_LIMIT_S;
        `vango-live-unreadable`: something else than a ServerHello) or Unavailable.
        """
        loaded = self._loaded
        assert loaded is not None, "load a page first"
        if loaded.runtime is None:
            raise _without_runtime(loaded.path)
        self.drop()
        target = wire.live_target(loaded.path, live_path=loaded.runtime.live_path, extra_query=extra_query or "")
        said = wire.ClientHello(loaded.page.csrf, loaded.runtime.client_hash, session_id, self._last_seq)
        socket = await self._upgrade(target)
        answered = False
        try:
            hello = await _exchange(socket, said)
            answered = hello.ok
        finally:
            if not answered:
                socket.transport.abort()
        if hello.ok:
            self._socket, self._events, self._full_pages = socket, 0, 0
            self._listener = asyncio.create_task(self._listen(socket), name="visitor listens")
        return hello

    async def full_page(self, limit_s: float = HELLO_LIMIT_S) -> Page | None:
        """The page that the app sends after a resume; None when none has come on this socket in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not self._full_pages:
                    self._heard.clear()
                    await self._heard.wait()
        return self._page if self._full_pages else None

    async def click(self, element_id: str) -> bool:
        """Click an element of the page as it was last sent; False when it has no such element or the socket is gone."""
        hid = self._page.hid(element_id) if self._page else ""
        if not hid or self._socket is None:
            return False
        self._events += 1
        event = wire.encode_event(wire.Event(self._events, EventKind.CLICK, hid))
        try:
            await self._socket.send(wire.encode_frame(wire.Frame(FrameKind.EVENT, event)))
        except ConnectionClosed:
            return False
        return True

    def drop(self) -> None:
        """End the socket without a close frame, as a cut or a crash does."""
        if self._listener is not None:
            self._listener.cancel()
        if self._socket is not None:
            self._socket.transport.abort()
        self._socket = self._listener = None

    async def close(self) -> None:
        """Close the tab: a clean close of the socket, if one is open."""
        socket, listener = self._socket, self._listener
        self._socket = self._listener = None
        if listener is not None:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
        if socket is not None:
            with contextlib.suppress(ConnectionClosed, OSError, TimeoutError):
                async with asyncio.timeout(2 * CLOSE_LIMIT_S):
                    await socket.close(1001)
        await self._http.aclose()

    # ---- steps ------------------------------------------------------------------------------------------------
    async def _get(self, path: str) -> httpx.Response:
        try:
            async with asyncio.timeout(PAGE_LIMIT_S):
                answer = await self._http.get(path, headers=self._cookie_header())
        except httpx.ConnectError as wrong:
            raise Unavailable(_edge_unreachable(self._address)) from wrong
        except (httpx.TransportError, httpx.InvalidURL, TimeoutError) as wrong:
            raise _page_failed(path, f"no whole answer in {PAGE_LIMIT_S:.0f} s ({type(wrong).__name__})") from wrong
        self._take_cookies(answer.headers.get_list("Set-Cookie"))
        return answer

    def _keep(self, path: str, answer: httpx.Response) -> Loaded:
        if answer.status_code != httpx.codes.OK:
            raise _page_failed(path, f"status {answer.status_code}", status=answer.status_code)
        self._page = read_page(answer.text)
        self._loaded = Loaded(answer.status_code, path, self._page)
        return self._loaded

    async def _upgrade(self, target: str) -> ClientConnection:
        try:
            socket = await connect(
                f"ws://{self._host}{target}",
                host=self._address[0],
                port=self._address[1],
                additional_headers={"Origin": self._origin, **self._cookie_header()},
                user_agent_header=_BROWSER,
                compression=None,
                proxy=None,
                ping_interval=None,
                open_timeout=UPGRADE_LIMIT_S,
                close_timeout=CLOSE_LIMIT_S,
                max_size=wire.FRAME_HEADER_BYTES + wire.PAYLOAD_MAX_BYTES,
            )
        except InvalidStatus as refusal:
            raise _live_refused(refusal.response.status_code) from refusal
        except (InvalidHandshake, InvalidMessage, TimeoutError, EOFError) as wrong:
            raise _live_silent(f"the upgrade was not answered ({type(wrong).__name__})") from wrong
        except OSError as wrong:
            raise Unavailable(_edge_unreachable(self._address)) from wrong
        if socket.response is not None:
            self._take_cookies(socket.response.headers.get_all("Set-Cookie"))
        return socket

    async def _listen(self, socket: ClientConnection) -> None:
        """Answer what a script must answer, keep the newest full page; ends with the socket."""
        with contextlib.suppress(ConnectionClosed, WireError):
            while True:
                frame = wire.decode_frame(await socket.recv())
                if frame.kind is FrameKind.PATCHES:
                    self._last_seq, _ = wire.decode_patches_head(frame.payload)
                    await socket.send(wire.encode_frame(wire.Frame(FrameKind.ACK, wire.encode_ack(self._last_seq))))
                elif frame.kind is FrameKind.CONTROL:
                    await self._obey(socket, wire.decode_control(frame.payload))

    async def _obey(self, socket: ClientConnection, control: wire.Control) -> None:
        if control.kind is ControlKind.PING:
            pong = wire.encode_control(wire.Control(ControlKind.PONG, stamp_ms=control.stamp_ms))
            await socket.send(wire.encode_frame(wire.Frame(FrameKind.CONTROL, pong)))
        elif control.kind is ControlKind.RESYNC_FULL:
            self._page, self._last_seq = read_page(control.text), 0
            self._full_pages += 1
            self._heard.set()

    def _cookie_header(self) -> dict[str, str]:
        return (
            {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())} if self._cookies else {}
        )

    def _take_cookies(self, lines: Iterable[str]) -> None:
        for line in lines:
            name, _, value = line.split(";", 1)[0].partition("=")
            if "max-age=0" in line.lower().replace(" ", ""):
                self._cookies.pop(name.strip(), None)
            else:
                self._cookies[name.strip()] = value.strip()


async def _exchange(socket: ClientConnection, said: wire.ClientHello) -> ServerHello:
    """Say hello and hear the answer. Raises VisitFailed; the socket stays the caller's."""
    try:
        async with asyncio.timeout(HELLO_LIMIT_S):
            await socket.send(wire.encode_frame(wire.Frame(FrameKind.HANDSHAKE, wire.encode_client_hello(said))))
            message = await socket.recv()
        frame = wire.decode_frame(message)
        if frame.kind is not FrameKind.HANDSHAKE:
            raise WireError(f"the first frame is {frame.kind.name.lower()}")
        return wire.decode_server_hello(frame.payload)
    except TimeoutError as wrong:
        raise _live_silent(f"no ServerHello within {HELLO_LIMIT_S:.0f} s") from wrong
    except ConnectionClosed as closed:
        code = closed.rcvd.code if closed.rcvd is not None else 1006
        raise _live_silent(f"the socket ended ({code}) before any ServerHello") from closed
    except WireError as wrong:
        raise _live_unreadable(str(wrong)) from wrong


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


# ---- what is wrong ----------------------------------------------------------------------------------------------
def _page_failed(path: str, detail: str, *, status: int = 0) -> VisitFailed:
    return VisitFailed(
        Problem(
            "vango-page-failed",
            "The app did not give its page",
            f"{path.split('?')[0]}: {detail}",
            "Look at the app's log, and load the page of the preview yourself.",
            422,
            {"page_status": status} if status else {},
        )
    )


def _without_runtime(path: str) -> VisitFailed:
    return VisitFailed(
        Problem(
            "vango-page-without-runtime",
            "The page does not start the framework's script",
            f"{path.split('?')[0]} has no bootstrap",
            "Render the framework's scripts in the layout of this page, or name another page to try.",
            422,
        )
    )


def _live_refused(status: int) -> VisitFailed:
    return VisitFailed(
        Problem(
            "vango-live-refused",
            "The live path refuses the socket of its own page",
            f"the upgrade was answered with status {status}",
            "403: the origin, 421: the host, 429: a limit. Compare what the app allows with the address of its route.",
            422,
            {"upgrade_status": status},
        )
    )


def _live_silent(detail: str) -> VisitFailed:
    return VisitFailed(
        Problem(
            "vango-live-silent",
            "The app answers its pages, but its live path says nothing",
            detail,
            "Look at the app's log for a panic; generate the state bindings anew and build again.",
            422,
        )
    )


def _live_unreadable(detail: str) -> VisitFailed:
    return VisitFailed(
        Problem(
            "vango-live-unreadable",
            "The live path speaks another protocol",
            detail,
            "Moorage speaks version 2.2, that of Vango 0.2.4: build the app with it.",
            422,
        )
    )


def _edge_unreachable(address: tuple[str, int]) -> Problem:
    return Problem(
        "edge-unreachable",
        "The edge does not answer",
        f"nothing accepts connections at {address[0]}:{address[1]}",
        "Look at `moorage status`.",
        status=503,
    )
