"""One person on a Vango board: a browser tab by the letter of the framework's script, and a diary of what it saw.

Rules of this room: a person knows only what crossed the wire. Nothing is read from the platform or its stores, so that
the platform's account can be compared with theirs. Times are seconds of the monotonic clock.

As the script does: after an unclean loss the first retry comes after one second, then two, four, up to thirty, ten
times at most; any close frame ends it; a refusal with "reload once" loads the page anew, and forgets the session where
told so; what is done while the socket is away is sent as soon as one is there, under the element ids known then;
patches below the expected number are passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from moorage.system.clock import monotonic_s, now_ms, pause, wait_for
from moorage.vango import wire
from moorage.vango.page import Bootstrap, Reconnect
from moorage.vango.records import label_of
from moorage.vango.wire import Control, ControlKind, EventKind, Frame, FrameKind, Recovery, ServerHello
from tests.support.vango.patches import read_batch
from tests.support.vango.screen import DRAFT, INCREASE, Kept, Screen

PATIENCE_S: Final = 20.0
OPEN_PATIENCE_S: Final = 60.0  # browsers wait longer than any hold of the edge
PING_PERIOD_S: Final = 30.0
RELOAD_AGAIN_S: Final = 10.0  # the same refusal within this time is not answered with another reload
DIARY_ACKS_COUNT: Final = 4096
COUNTED_EVERY: Final = 4  # changes of the draft to one of the counter


@dataclass(frozen=True, slots=True)
class Ack:
    """A change that the server showed to have: the page after it. `turn` counts the drafts of this person."""

    at_s: float
    count: int
    turn: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """One entry into a session, as this person saw it."""

    at_s: float  # of a resume: when the full page came; else of the ServerHello
    outcome: str  # created | resumed | fresh
    reason: str  # of a fresh start: "silent", or the refusal before it
    label: str
    previous: str  # label of the session this person had before; empty on the first visit
    pause_s: float | None  # from the loss of the last socket; None on the first visit
    felt_s: float | None  # the same, from the oldest change that had gone unanswered before the loss
    before: Kept | None  # what the server had shown to have before the loss
    after: Kept | None  # what the full page of a resume shows
    lost_since_s: float | None  # when the oldest change was acknowledged that is gone

    @property
    def state_lost(self) -> bool:
        """Whether something that was acknowledged is gone."""
        return self.lost_since_s is not None


class NotLetInError(Exception):
    """This person stands before a closed door."""


@dataclass(frozen=True, slots=True)
class _End:
    """How a socket ended: "lost" without a close frame, "closed" with one, or "refused"."""

    how: str
    detail: str = ""
    hello: ServerHello | None = None


@dataclass(slots=True)
class Person:
    """One tab. `address` is the edge's (host, port), `host` the name of the route, `source` a local address."""

    address: tuple[str, int]
    host: str
    path: str = "/"
    source: str | None = None
    name: str = ""
    welcomes: list[Welcome] = field(default_factory=list)
    failed_opens: list[tuple[float, str]] = field(default_factory=list)
    refusals: list[tuple[float, str]] = field(default_factory=list)  # of the live path, by status
    errors: list[str] = field(default_factory=list)  # error frames
    acks: list[Ack] = field(default_factory=list)  # of the present session, oldest first
    cookies: dict[str, str] = field(default_factory=dict)
    gone: str = ""  # why this person gave up: the page says it is disconnected
    typed_count: int = 0
    passed_over_count: int = 0  # patches that the page ignored because their number was too low
    screen: Screen = field(default_factory=lambda: Screen(""))
    _session: str = ""
    _known: str = ""  # the session this person was last in, also when told to forget it
    _last_seq: int = 0
    _expected_seq: int = 1
    _event_seq: int = 0
    _turns: dict[str, int] = field(default_factory=dict)
    _unanswered: list[tuple[int, float]] = field(default_factory=list)  # turn and time of changes not acknowledged
    _outbox: list[bytes] = field(default_factory=list)
    _speaking: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _socket: ClientConnection | None = None
    _task: asyncio.Task[None] | None = None
    _bootstrap: Bootstrap | None = None
    _csrf: str = ""
    _live_now: bool = False
    _lost_at_s: float | None = None
    _before: Kept | None = None
    _refusal: str = ""
    _retries: int = 0
    _reloads: dict[tuple[object, ...], float] = field(default_factory=dict)
    _leaving: bool = False

    # ---- what a person does -----------------------------------------------------------------------------------
    async def arrive(self, patience_s: float = PATIENCE_S) -> Welcome:
        """Loads the page and waits for the first welcome. Raises TimeoutError or NotLetInError."""
        self._task = asyncio.create_task(self._live(), name=f"person {self.name}")
        return await self.welcome_after(len(self.welcomes), patience_s)

    async def welcome_after(self, count: int, patience_s: float = PATIENCE_S) -> Welcome:
        """Waits until there were more than `count` welcomes; gives the newest."""
        await self.until(lambda: len(self.welcomes) > count or bool(self.gone), patience_s)
        if len(self.welcomes) <= count:
            raise NotLetInError(f"{self.name}: {self.gone}")
        return self.welcomes[-1]

    async def until(self, condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        """Waits until something this person sees makes the condition true. Raises TimeoutError."""
        async with asyncio.timeout(patience_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def change(self) -> None:
        """Writes a new draft, and now and then raises the counter; sent now, or when a socket is there."""
        self.typed_count += 1
        draft = f"{self.name} is typing, turn {self.typed_count}"
        self._turns[draft] = self.typed_count
        self._unanswered.append((self.typed_count, monotonic_s()))
        self.write(DRAFT, draft)
        if self.typed_count % COUNTED_EVERY == 1:
            self.press(INCREASE)

    def press(self, element_id: str) -> None:
        """Clicks an element."""
        self._event(EventKind.CLICK, element_id)

    def write(self, element_id: str, text: str) -> None:
        """Puts a text into an input."""
        self._event(EventKind.INPUT, element_id, text)

    async def drop(self) -> None:
        """Loses the connection, like a phone in a tunnel; comes back by itself."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def leave(self) -> None:
        """Closes the tab: a clean close, no return."""
        self._leaving = True
        if self._socket is not None:
            with contextlib.suppress(ConnectionClosed, OSError):
                await self._socket.close(1001)
        await self.vanish()

    async def vanish(self) -> None:
        """Is gone without a word, like a closed laptop."""
        self._leaving = True
        if self._socket is not None:
            self._socket.transport.abort()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    # ---- what a person sees -----------------------------------------------------------------------------------
    @property
    def here(self) -> bool:
        """There is a live socket, and the page is that of its session."""
        return self._live_now

    @property
    def label(self) -> str:
        """The public name of the session this person is in, or was in last."""
        return label_of(self._known) if self._known else ""

    @property
    def unacknowledged(self) -> int:
        """Drafts that the server has not shown to have."""
        return self.typed_count - (self.acks[-1].turn if self.acks else 0)

    @property
    def pauses_s(self) -> list[float]:
        """Every pause from the loss of a socket to the next welcome."""
        return [one.pause_s for one in self.welcomes if one.pause_s is not None]

    def acknowledged_before(self, at_s: float) -> Ack | None:
        """The last change of the present session that was acknowledged before a moment."""
        return next((ack for ack in reversed(self.acks) if ack.at_s < at_s), None)

    # ---- events -----------------------------------------------------------------------------------------------
    def _event(self, kind: EventKind, element_id: str, text: str = "") -> None:
        self._event_seq += 1
        event = wire.Event(self._event_seq, kind, self.screen.hid(element_id), text)
        self._outbox.append(_frame(FrameKind.EVENT, wire.encode_event(event)))
        self._speaking.set()

    async def _speak(self, socket: ClientConnection) -> None:
        """Sends what was done, in order, and a ping now and then; ends with the socket."""
        ping_at_s = monotonic_s() + PING_PERIOD_S
        with contextlib.suppress(ConnectionClosed, OSError):
            while True:
                while self._outbox:
                    await socket.send(self._outbox.pop(0))
                if not await wait_for(self._speaking, ping_at_s - monotonic_s()):
                    ping_at_s = monotonic_s() + PING_PERIOD_S
                    await socket.send(_control(Control(ControlKind.PING, stamp_ms=now_ms())))

    # ---- the connection ---------------------------------------------------------------------------------------
    async def _live(self) -> None:
        try:
            await self._load()
            while not (self.gone or self._leaving):
                await self._go_on(await self._once())
        except (httpx.HTTPError, NotLetInError) as wrong:
            self._give_up(str(wrong) or type(wrong).__name__)

    async def _go_on(self, end: _End) -> None:
        """What the script does after a socket, by how that ended."""
        self._note_loss()
        if self._leaving or self.gone:
            return
        if end.how == "closed":
            self._give_up(f"closed {end.detail}")
        elif end.how == "lost":
            await self._retry()
        elif end.hello is not None:
            await self._recover(end.hello)

    async def _retry(self) -> None:
        policy = self._bootstrap.reconnect if self._bootstrap else Reconnect()
        if not policy.enabled or self._retries >= policy.retries:
            self._give_up("retries exhausted")
            return
        self._retries += 1
        await pause(policy.wait_ms(self._retries) / 1000)

    async def _recover(self, hello: ServerHello) -> None:
        self._refusal = "-".join(
            [hello.status.name, *([hello.schema_reason.name] if hello.schema_reason else [])]
        ).lower()
        self.refusals.append((monotonic_s(), self._refusal))
        if hello.forget:
            self._session, self._last_seq = "", 0
        if hello.recovery is Recovery.RETRY:
            await self._retry()
        elif hello.recovery is Recovery.RELOAD_ONCE and self._may_reload(hello):
            await self._load()
        else:
            self._give_up(f"refused {self._refusal}")

    def _may_reload(self, hello: ServerHello) -> bool:
        key, now_s = (hello.status, hello.auth_reason, hello.schema_reason), monotonic_s()
        again = now_s - self._reloads.get(key, -RELOAD_AGAIN_S) < RELOAD_AGAIN_S
        self._reloads[key] = now_s
        return not again

    async def _load(self) -> None:
        """Loads the page: what the tab's memory held is gone, what its session storage holds is not."""
        self._outbox.clear()
        self._retries, self._event_seq, self._expected_seq = 0, 0, 1
        transport = httpx.AsyncHTTPTransport(local_address=self.source, verify=False)
        async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=OPEN_PATIENCE_S) as browser:
            url = f"http://{self.address[0]}:{self.address[1]}{self.path}"
            answer = await browser.get(url, headers={"Host": self.host, "Accept": "text/html", **self._cookie_header()})
        self._take_cookies(answer.headers.get_list("Set-Cookie"))
        if answer.status_code != httpx.codes.OK:
            raise NotLetInError(f"page {answer.status_code}")
        self.screen = Screen(answer.text)
        self._bootstrap, self._csrf = self.screen.page.bootstrap, self.screen.page.csrf
        if self._bootstrap is None:
            raise NotLetInError("page without its script")

    async def _once(self) -> _End:
        """One socket from its opening to its end."""
        speaker: asyncio.Task[None] | None = None
        assert self._bootstrap is not None
        try:
            async with self._connect(wire.live_target(self.path, live_path=self._bootstrap.live_path)) as socket:
                if socket.response is not None:
                    self._take_cookies(socket.response.headers.get_all("Set-Cookie"))
                hello = await self._greet(socket, self._bootstrap.client_hash)
                if not hello.ok:
                    return _End("refused", hello=hello)
                self._socket = socket
                self._enter(hello)
                speaker = asyncio.create_task(self._speak(socket))
                while True:
                    await self._receive(socket, wire.decode_frame(await socket.recv()))
        except ConnectionClosed as closed:
            return _End("closed", str(closed.rcvd.code)) if closed.rcvd is not None else _End("lost")
        except InvalidStatus as refused:
            return self._failed_open(f"status {refused.response.status_code}")
        except (InvalidHandshake, InvalidMessage, OSError, TimeoutError, EOFError) as error:
            return self._failed_open(type(error).__name__)
        finally:
            self._socket, self._live_now = None, False
            if speaker is not None:
                speaker.cancel()

    def _connect(self, target: str) -> connect:
        return connect(
            f"ws://{self.host}{target}",
            host=self.address[0],
            port=self.address[1],
            local_addr=None if self.source is None else (self.source, 0),
            additional_headers={"Origin": f"http://{self.host}", **self._cookie_header()},
            compression=None,
            proxy=None,
            ping_interval=None,
            open_timeout=OPEN_PATIENCE_S,
            close_timeout=1.0,
            max_size=wire.FRAME_HEADER_BYTES + wire.PAYLOAD_MAX_BYTES,
        )

    async def _greet(self, socket: ClientConnection, client_hash: str) -> ServerHello:
        said = wire.ClientHello(self._csrf, client_hash, self._session, self._last_seq)
        async with asyncio.timeout(OPEN_PATIENCE_S):
            await socket.send(_frame(FrameKind.HANDSHAKE, wire.encode_client_hello(said)))
            return wire.decode_server_hello(wire.decode_frame(await socket.recv()).payload)

    def _failed_open(self, why: str) -> _End:
        self.failed_opens.append((monotonic_s(), why))
        return _End("lost", why)

    def _note_loss(self) -> None:
        if self._lost_at_s is None and self._known:
            self._lost_at_s = monotonic_s()
            self._before = self.screen.kept() if self.acks else None
        self._changed.set()

    def _give_up(self, why: str) -> None:
        self.gone = why
        self._changed.set()

    def _cookie_header(self) -> dict[str, str]:
        return {"Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())} if self.cookies else {}

    def _take_cookies(self, lines: list[str]) -> None:
        for line in lines:
            name, _, value = line.split(";", 1)[0].partition("=")
            self.cookies[name.strip()] = value.strip()

    # ---- what the server says ---------------------------------------------------------------------------------
    def _enter(self, hello: ServerHello) -> None:
        """The socket is a session. Of a resume the full page is still to come, and with it the welcome."""
        self._retries = 0
        self._reloads.clear()
        if hello.session_id != self._known:
            fresh = bool(self._known)
            reason = ("silent" if self._session else self._refusal) if fresh else ""
            self._welcome(hello.session_id, "fresh" if fresh else "created", reason, None)
        self._session = self._known = hello.session_id

    async def _receive(self, socket: ClientConnection, frame: Frame) -> None:
        if frame.kind is FrameKind.PATCHES:
            await self._patch(socket, frame.payload)
        elif frame.kind is FrameKind.CONTROL:
            await self._obey(socket, wire.decode_control(frame.payload))
        elif frame.kind is FrameKind.ERROR:
            self.errors.append(wire.decode_error(frame.payload).message)
        self._changed.set()

    async def _patch(self, socket: ClientConnection, payload: bytes) -> None:
        batch = read_batch(payload)
        if batch.seq < self._expected_seq:
            self.passed_over_count += 1
            return
        if batch.seq > self._expected_seq:
            await socket.send(_control(Control(ControlKind.RESYNC_REQUEST, seq=self._last_seq)))
            return
        self.screen.show(batch)
        self._last_seq, self._expected_seq = batch.seq, batch.seq + 1
        self._acknowledge(self.screen.kept())
        await socket.send(_frame(FrameKind.ACK, wire.encode_ack(batch.seq)))

    async def _obey(self, socket: ClientConnection, control: Control) -> None:
        if control.kind is ControlKind.RESYNC_FULL:
            self._show_full(control.text)
        elif control.kind is ControlKind.PING:
            await socket.send(_control(Control(ControlKind.PONG, stamp_ms=control.stamp_ms)))
        elif control.kind is ControlKind.CLOSE:
            self._give_up("closed by the server")
            await socket.close()

    def _show_full(self, source: str) -> None:
        at_s = monotonic_s()
        self.screen = Screen(source)
        self._last_seq, self._expected_seq = 0, 1
        if not self._live_now:
            self._welcome(self._known, "resumed", "", self.screen.kept_at_first(), at_s)

    def _acknowledge(self, kept: Kept) -> None:
        turn = self._turns.get(kept.draft, 0)
        last = self.acks[-1] if self.acks else None
        if last is None or (last.count, last.turn) != (kept.count, turn):
            self.acks.append(Ack(monotonic_s(), kept.count, turn))
            del self.acks[:-DIARY_ACKS_COUNT]
            self._unanswered = [one for one in self._unanswered if one[0] > turn]

    def _welcome(self, session: str, outcome: str, reason: str, after: Kept | None, at_s: float | None = None) -> None:
        now_s = monotonic_s() if at_s is None else at_s
        lost_at_s = self._lost_at_s
        felt_since = min([at for _, at in self._unanswered[:1]] + [lost_at_s or now_s])
        self.welcomes.append(
            Welcome(
                at_s=now_s,
                outcome=outcome,
                reason=reason,
                label=label_of(session),
                previous=self.label,
                pause_s=None if lost_at_s is None else now_s - lost_at_s,
                felt_s=None if lost_at_s is None else now_s - felt_since,
                before=self._before,
                after=after,
                lost_since_s=self._lost_since(after),
            )
        )
        self.acks = [] if after is None else [Ack(now_s, after.count, self._turns.get(after.draft, 0))]
        self._lost_at_s, self._before, self._refusal, self._live_now = None, None, "", True
        self._unanswered = []
        self._changed.set()

    def _lost_since(self, after: Kept | None) -> float | None:
        """When the oldest change was acknowledged that is not in what came back."""
        count, turn = (0, 0) if after is None else (after.count, self._turns.get(after.draft, 0))
        return next((ack.at_s for ack in self.acks if ack.count > count or ack.turn > turn), None)


def _frame(kind: FrameKind, payload: bytes) -> bytes:
    return wire.encode_frame(Frame(kind, payload))


def _control(control: Control) -> bytes:
    return _frame(FrameKind.CONTROL, wire.encode_control(control))
