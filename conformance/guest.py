"""A guest: one tab of a live app, moved by hand, and what it sees.

Unlike a browser it does nothing by itself: it opens a socket where, as whom and from where it is told to, and says what
came of it. It reads the protocol to the letter, the page with every patch since.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from conformance.asking import Answer, Route, ask
from moorage.vango import wire
from moorage.vango.page import Bootstrap
from moorage.vango.wire import Control, ControlKind, EventKind, Frame, FrameKind, ServerHello
from tests.support.vango.patches import read_batch
from tests.support.vango.screen import Screen

HELLO_TIMEOUT_S: Final = 10.0
OPEN_TIMEOUT_S: Final = 30.0  # longer than any hold of the edge
PATIENCE_S: Final = 10.0
NAVIGATE: Final = 0x70


class RefusedError(Exception):
    """The upgrade was answered with another status than 101."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"status {status}" + (f" ({code})" if code else ""))
        self.status, self.code = status, code


class Guest:
    """One tab. Load a page, then open its socket; closed at the end of its block."""

    def __init__(self, route: Route, *, source: str | None = None, cookies: Mapping[str, str] | None = None) -> None:
        self.route, self.source = route, source
        self.cookies: dict[str, str] = dict(cookies or {})
        self.path = "/"
        self.screen = Screen("")
        self.hello: ServerHello | None = None
        self.full_pages = 0
        self.closed: int | None = None  # code of the close frame; 0: the connection was lost without one
        self.errors: list[str] = []
        self._runtime: Bootstrap | None = None
        self._csrf = ""
        self._socket: ClientConnection | None = None
        self._listener: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._events = self._last_seq = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def session(self) -> str:
        """The id of the session this guest is in."""
        return self.hello.session_id if self.hello else ""

    # ---- what a guest does ------------------------------------------------------------------------------------
    async def load(self, path: str = "/", **more: object) -> Answer:
        """Load a page, keeping its cookies."""
        answer = await ask(self.route, path, source=self.source, cookies=self.cookies, **more)  # type: ignore[arg-type]
        self.cookies |= answer.cookies
        self.path, self.screen = path, Screen(answer.text)
        page = self.screen.page
        self._runtime, self._csrf = page.bootstrap, page.csrf
        return answer

    async def open(
        self,
        session: str = "",
        *,
        target: str | None = None,
        origin: str | None = None,
        client_hash: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ServerHello:
        """Open the live socket of the page, as the session of this id (empty: a new one); an earlier one is dropped.

        `target` is the exact request target, `origin` and `client_hash` what a stranger would send instead.

        Raises RefusedError, ConnectionClosed, TimeoutError, OSError.
        """
        self.drop()
        self.closed, self.full_pages, self._events = None, 0, 0
        runtime = self._runtime or Bootstrap(wire.LIVE_PATH, "", "")
        place = wire.live_target(self.path, live_path=runtime.live_path) if target is None else target
        socket = await self._connect(place, origin or self.route.url, headers or {})
        said = wire.ClientHello(self._csrf, client_hash or runtime.client_hash, session, self._last_seq)
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            await socket.send(wire.encode_frame(Frame(FrameKind.HANDSHAKE, wire.encode_client_hello(said))))
            self.hello = wire.decode_server_hello(wire.decode_frame(await socket.recv()).payload)
        if self.hello.ok:
            self._socket, self._last_seq = socket, 0
            self._listener = asyncio.create_task(self._listen(socket), name="guest listens")
        else:
            socket.transport.abort()
        return self.hello

    async def enter(self, path: str = "/") -> ServerHello:
        """Load a page and open its socket."""
        await self.load(path)
        return await self.open()

    async def press(self, element_id: str) -> None:
        """Click an element."""
        await self._event(wire.encode_event(wire.Event(self._next(), EventKind.CLICK, self.screen.hid(element_id))))

    async def write(self, element_id: str, text: str) -> None:
        """Put a text into an input."""
        hid = self.screen.hid(element_id)
        await self._event(wire.encode_event(wire.Event(self._next(), EventKind.INPUT, hid, text)))

    async def navigate(self, path: str) -> None:
        """Follow a link as the page's script does: on the socket, without loading a page."""
        self.path = path
        await self._event(wire.uvarint(self._next()) + bytes([NAVIGATE]) + wire.text("") + wire.text(path) + b"\0")

    async def send_raw(self, message: bytes) -> None:
        """Send any message on the socket. Raises ConnectionClosed."""
        assert self._socket is not None, "open a socket first"
        await self._socket.send(message)

    def drop(self) -> None:
        """Lose the connection, without a close frame."""
        if self._listener is not None:
            self._listener.cancel()
        if self._socket is not None:
            self._socket.transport.abort()
        self._socket = self._listener = None

    async def close(self) -> None:
        """Close the tab."""
        socket, listener = self._socket, self._listener
        self._socket = self._listener = None
        if listener is not None:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
        if socket is not None:
            with contextlib.suppress(ConnectionClosed, OSError, TimeoutError):
                await socket.close(1001)

    # ---- what a guest sees ------------------------------------------------------------------------------------
    def reads(self, element_id: str) -> str:
        """What stands in an element now; empty when there is none."""
        try:
            return self.screen.text(element_id)
        except LookupError:
            return ""

    async def until(self, condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
        """Whether the condition comes true in time by something that is seen."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        return condition()

    async def shows(self, element_id: str, text: str, patience_s: float = PATIENCE_S) -> bool:
        """Whether an element comes to show a text in time."""
        return await self.until(lambda: self.reads(element_id) == text, patience_s)

    async def is_sent_whole(self) -> bool:
        """Whether the page is sent whole, as after a resume."""
        return await self.until(lambda: self.full_pages > 0)

    async def is_lost(self, patience_s: float = PATIENCE_S) -> bool:
        """Whether the socket ends in time."""
        return await self.until(lambda: self.closed is not None, patience_s)

    @property
    def is_here(self) -> bool:
        """Whether the socket is open."""
        return self._socket is not None and self.closed is None

    # ---- steps ------------------------------------------------------------------------------------------------
    def _next(self) -> int:
        self._events += 1
        return self._events

    async def _event(self, payload: bytes) -> None:
        await self.send_raw(wire.encode_frame(Frame(FrameKind.EVENT, payload)))

    async def _connect(self, target: str, origin: str, headers: Mapping[str, str]) -> ClientConnection:
        cookie = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())} if self.cookies else {}
        try:
            socket = await connect(
                f"ws://{self.route.host}{target}",
                host=self.route.address[0],
                port=self.route.address[1],
                local_addr=None if self.source is None else (self.source, 0),
                additional_headers={"Origin": origin, **cookie, **headers},
                compression=None,
                proxy=None,
                ping_interval=None,
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=1.0,
                max_size=wire.FRAME_HEADER_BYTES + wire.PAYLOAD_MAX_BYTES,
            )
        except InvalidStatus as refused:
            told = refused.response.headers.get("X-Moorage-Code", "")
            raise RefusedError(refused.response.status_code, told) from refused
        if socket.response is not None:
            for line in socket.response.headers.get_all("Set-Cookie"):
                name, _, value = line.split(";", 1)[0].partition("=")
                self.cookies[name.strip()] = value.strip()
        return socket

    async def _listen(self, socket: ClientConnection) -> None:
        try:
            while True:
                await self._receive(socket, wire.decode_frame(await socket.recv()))
                self._changed.set()
        except ConnectionClosed as ended:
            self.closed = ended.rcvd.code if ended.rcvd is not None else 0
        finally:
            self._changed.set()

    async def _receive(self, socket: ClientConnection, frame: Frame) -> None:
        if frame.kind is FrameKind.PATCHES:
            batch = read_batch(frame.payload)
            self.screen.show(batch)
            self._last_seq = batch.seq
            await socket.send(wire.encode_frame(Frame(FrameKind.ACK, wire.encode_ack(batch.seq))))
        elif frame.kind is FrameKind.ERROR:
            self.errors.append(wire.decode_error(frame.payload).message)
        elif frame.kind is FrameKind.CONTROL:
            control = wire.decode_control(frame.payload)
            if control.kind is ControlKind.RESYNC_FULL:
                self.screen, self._last_seq = Screen(control.text), 0
                self.full_pages += 1
            elif control.kind is ControlKind.PING:
                pong = wire.encode_control(Control(ControlKind.PONG, stamp_ms=control.stamp_ms))
                await socket.send(wire.encode_frame(Frame(FrameKind.CONTROL, pong)))
