"""People: WebSocket clients that behave like the browser's `moorage.js` and write down what they themselves saw.

Rules of this room: a person knows only what crossed the socket. Nothing is read from the platform or its stores, so
that the platform's account can be compared with theirs. Times are seconds of the monotonic clock. Hundreds of them fit
into one process: no compression, no pings, two tasks each.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

DRAFT_STATE: Final = "board:draft:v1"
DRAFT_FIELD: Final = "text"
TAKEN_OVER: Final = 4001
PROTOCOL_ERROR: Final = 4002
COME_BACK: Final = 1012
NOTICE_JITTER_S: Final = 0.1
BACKOFF_FIRST_S: Final = 0.25
BACKOFF_MAX_S: Final = 10.0
BACKOFF_FACTOR: Final = 1.8
OPEN_PATIENCE_S: Final = 8.0
SILENCE_S: Final = 40.0  # the server beats every 15 s
MESSAGE_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Welcome:
    """One entry as this person saw it, and how the draft it came back to compares with what was typed."""

    at_s: float
    outcome: str  # created | resumed | fresh
    reason: str
    detail: str
    session_tag: str
    allocation: str
    allocation_number: int
    deployment: int
    pause_s: float | None  # from the loss of the last socket to this welcome; None for the first
    notice: bool  # the last socket ended with a reconnect notice
    draft: Any  # the draft as it came back
    draft_expected: Any  # what this person had typed up to the change the server says it has
    changes_lost: int  # acknowledged changes that the server no longer has

    @property
    def draft_kept(self) -> bool:
        """The draft that came back is the one that was typed."""
        return bool(self.draft == self.draft_expected)


@dataclass(slots=True)
class _Change:
    """Something this person did that the store may not have yet."""

    seq: int
    message: dict[str, Any]
    done: asyncio.Future[None]
    numbered: bool
    sent: bool = False


@dataclass(frozen=True, slots=True)
class RefusedByAppError(Exception):
    """The app said no to a change, or the change was lost with a session that started fresh."""

    code: str
    message: str


@dataclass(slots=True)
class Person:
    """One simulated browser tab.

    `address` is where to connect (host, port), `host` the name sent in the Host header (`board.localhost:7080`: such
    names resolve in browsers only), `source` a local address to come from (`127.0.0.7`).
    """

    address: tuple[str, int]
    host: str
    path: str = "/live"
    source: str | None = None
    name: str = ""
    session: str | None = None
    welcomes: list[Welcome] = field(default_factory=list)
    notices: list[tuple[float, str]] = field(default_factory=list)  # drain, reconnect, taken_over
    refusals: list[tuple[str, str]] = field(default_factory=list)
    failed_opens: list[tuple[float, str]] = field(default_factory=list)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)
    people: dict[str, Any] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)
    taken_over: bool = False
    outdated: bool = False
    acknowledged: int = 0  # the last change of this person known to be stored
    typed_count: int = 0
    _pending: list[_Change] = field(default_factory=list)
    _typed: dict[int, Any] = field(default_factory=dict)  # seq to draft, for every change made
    _seq: int = 0
    _known: bool = False
    _socket: ClientConnection | None = None
    _task: asyncio.Task[None] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _speaking: asyncio.Event = field(default_factory=asyncio.Event)
    _lost_at_s: float | None = None
    _noticed: bool = False
    _leaving: bool = False

    # ---- what a person does -----------------------------------------------------------------------------------
    async def arrive(self, patience_s: float = 20.0) -> Welcome:
        """Opens the page's socket and waits for the first welcome. Raises TimeoutError."""
        self._task = asyncio.create_task(self._live(), name=f"person {self.name}")
        return await self.welcome_after(len(self.welcomes), patience_s)

    async def welcome_after(self, count: int, patience_s: float = 20.0) -> Welcome:
        """Waits until there were more than `count` welcomes; gives the newest. Raises TimeoutError."""
        await self.until(lambda: len(self.welcomes) > count, patience_s)
        return self.welcomes[-1]

    async def until(self, condition: Any, patience_s: float = 20.0) -> None:
        """Waits until something this person sees makes the condition true. Raises TimeoutError."""
        async with asyncio.timeout(patience_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def type(self, text: str) -> asyncio.Future[None]:
        """Types a draft; the future is done when the store has it."""
        self.typed_count += 1
        return self.set(DRAFT_STATE, DRAFT_FIELD, text)

    def set(self, state: str, name: str, value: Any) -> asyncio.Future[None]:
        """Sets a session field."""
        self.states.setdefault(state, {})[name] = value
        return self._queue({"type": "set", "state": state, "field": name, "value": value})

    def send(self, name: str, data: Any = None) -> asyncio.Future[None]:
        """Calls an action of the app."""
        return self._queue({"type": "send", "name": name, "data": data})

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

    async def drop(self) -> None:
        """Loses the connection, like a phone in a tunnel; comes back by itself."""
        if self._socket is not None:
            self._socket.transport.abort()

    @property
    def here(self) -> bool:
        """There is a live socket after its welcome."""
        return self._socket is not None and self._known and self._lost_at_s is None

    @property
    def unacknowledged(self) -> int:
        """Changes the store is not yet known to have."""
        return len(self._pending)

    @property
    def pauses_s(self) -> list[float]:
        """Every pause from the loss of a socket to the next welcome."""
        return [one.pause_s for one in self.welcomes if one.pause_s is not None]

    @property
    def changes_lost(self) -> int:
        """Acknowledged changes that were not there after a resume (a fresh start is told by its outcome)."""
        return sum(one.changes_lost for one in self.welcomes)

    # ---- changes ----------------------------------------------------------------------------------------------
    def _queue(self, message: dict[str, Any]) -> asyncio.Future[None]:
        self._seq += 1
        change = _Change(self._seq, message, asyncio.get_running_loop().create_future(), self._known)
        change.done.add_done_callback(_look_at)
        self._pending.append(change)
        self._note_typed(change)
        self._changed.set()
        self._speaking.set()
        return change.done

    def _note_typed(self, change: _Change) -> None:
        if change.message.get("state") == DRAFT_STATE and change.message.get("field") == DRAFT_FIELD:
            self._typed[change.seq] = change.message["value"]

    async def _speak(self, socket: ClientConnection) -> None:
        """Sends what is unsent after the welcome, in order; ends with the socket."""
        with contextlib.suppress(ConnectionClosed, OSError):
            while True:
                self._speaking.clear()
                for change in [one for one in self._pending if not one.sent and one.numbered]:
                    change.sent = True
                    await socket.send(json.dumps({**change.message, "seq": change.seq}))
                await self._speaking.wait()

    def _acknowledge(self, seq: int) -> None:
        self.acknowledged = max(self.acknowledged, seq)
        while self._pending and self._pending[0].numbered and self._pending[0].seq <= seq:
            _finish(self._pending.pop(0).done)

    # ---- the connection ---------------------------------------------------------------------------------------
    async def _live(self) -> None:
        attempt = 0
        while not self._leaving:
            before = len(self.welcomes)
            code = await self._once()
            if len(self.welcomes) > before:
                attempt = 0
            if self._lost_at_s is None:
                self._lost_at_s = time.monotonic()
            for change in self._pending:
                change.sent = False
            self.taken_over, self.outdated = code == TAKEN_OVER, code == PROTOCOL_ERROR
            if self.taken_over:
                self._drop_pending("taken-over", "the session goes on in another tab")
            self._changed.set()
            if self.taken_over or self.outdated or self._leaving:
                return
            if attempt == 0 and (self._noticed or code == COME_BACK):
                pause = random.uniform(0, NOTICE_JITTER_S)
            else:
                ceiling = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * BACKOFF_FACTOR**attempt)
                pause = ceiling * random.uniform(0.5, 1.0)
            attempt += 1
            await asyncio.sleep(pause)

    async def _once(self) -> int:
        """One socket from its opening to its end; gives the close code (1006 where there was none)."""
        speaker: asyncio.Task[None] | None = None
        headers = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())} if self.cookies else {}
        try:
            async with connect(
                f"ws://{self.host}{self.path}",
                host=self.address[0],
                port=self.address[1],
                local_addr=None if self.source is None else (self.source, 0),
                additional_headers=headers,
                compression=None,
                proxy=None,
                ping_interval=None,
                open_timeout=OPEN_PATIENCE_S,
                close_timeout=1.0,
                max_size=MESSAGE_BYTES,
            ) as socket:
                self._take_cookies(socket)
                self._socket = socket
                await socket.send(json.dumps({"type": "hello", "protocol": 1, "session": self.session}))
                while True:
                    async with asyncio.timeout(SILENCE_S):
                        message = json.loads(await socket.recv())
                    self._receive(message)
                    if message["type"] == "welcome":
                        speaker = asyncio.create_task(self._speak(socket))
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd is not None else 1006
        except (InvalidHandshake, InvalidMessage, OSError, TimeoutError, EOFError) as error:
            self.failed_opens.append((time.monotonic(), type(error).__name__))
            return 1006
        finally:
            self._socket = None
            if speaker is not None:
                speaker.cancel()

    def _take_cookies(self, socket: ClientConnection) -> None:
        for line in socket.response.headers.get_all("Set-Cookie") if socket.response is not None else ():
            name, _, value = line.split(";", 1)[0].partition("=")
            self.cookies[name.strip()] = value.strip()

    # ---- what the server says ---------------------------------------------------------------------------------
    def _receive(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "welcome":
                self._enter(message)
            case "ack":
                self._acknowledge(message["seq"])
            case "refused":
                self._refuse(message)
            case "state":
                self._note_state(message["state"], message["values"])
            case "shared":
                self.shared[message["state"]] = message["value"]
            case "people":
                self.people = {"count": message["count"], "people": message["people"]}
            case "drain" | "reconnect" | "taken_over" as notice:
                self._noticed = self._noticed or notice == "reconnect"
                self.notices.append((time.monotonic(), notice))
        self._changed.set()

    def _note_state(self, state: str, values: dict[str, Any]) -> None:
        """The app changed a field: in answer to the oldest action that waits, if one does."""
        self.states.setdefault(state, {}).update(values)
        if state == DRAFT_STATE and DRAFT_FIELD in values:
            waiting = [one.seq for one in self._pending if one.message["type"] == "send"]
            self._typed[waiting[0] if waiting else self.acknowledged] = values[DRAFT_FIELD]

    def _enter(self, message: dict[str, Any]) -> None:
        now = time.monotonic()
        fresh, seq = message["outcome"] == "fresh", message["seq"]
        draft = message["states"].get(DRAFT_STATE, {}).get(DRAFT_FIELD)
        expected = draft if fresh or not self._known else self._typed_up_to(seq, draft)
        lost = 0 if fresh or not self._known else max(0, self.acknowledged - seq)
        self.welcomes.append(
            Welcome(
                at_s=now,
                outcome=message["outcome"],
                reason=message["reason"],
                detail=message["detail"],
                session_tag=message["tag"],
                allocation=message["allocation"],
                allocation_number=message["allocation_number"],
                deployment=message["deployment"],
                pause_s=None if self._lost_at_s is None else now - self._lost_at_s,
                notice=self._noticed,
                draft=draft,
                draft_expected=expected,
                changes_lost=lost,
            )
        )
        self.session, self.states = message["session"], message["states"]
        self.shared = {key: one["value"] for key, one in message["shared"].items()}
        self.people = message["people"]
        self._lost_at_s, self._noticed = None, False
        if fresh:
            self._drop_pending("session-fresh", "the session started fresh")
        self._catch_up(seq)

    def _typed_up_to(self, seq: int, otherwise: Any) -> Any:
        known = [number for number in self._typed if number <= seq]
        return self._typed[max(known)] if known else otherwise

    def _catch_up(self, seq: int) -> None:
        """See catchUp in moorage.js."""
        for change in [one for one in self._pending if one.numbered and one.seq <= seq]:
            self._pending.remove(change)
            _finish(change.done)
        self._seq = max([seq, *(one.seq for one in self._pending if one.numbered)])
        for change in self._pending:
            if not change.numbered:
                self._typed.pop(change.seq, None)
                self._seq += 1
                change.seq, change.numbered = self._seq, True
                self._note_typed(change)
            if change.message["type"] == "set":
                self.states.setdefault(change.message["state"], {})[change.message["field"]] = change.message["value"]
        self.acknowledged = seq
        self._known = True

    def _refuse(self, message: dict[str, Any]) -> None:
        self.refusals.append((message["code"], message["message"]))
        for change in [one for one in self._pending if one.seq == message["seq"]]:
            self._pending.remove(change)
            self._typed.pop(change.seq, None)
            _finish(change.done, RefusedByAppError(message["code"], message["message"]))

    def _drop_pending(self, code: str, text: str) -> None:
        self._typed.clear()
        for change in self._pending:
            _finish(change.done, RefusedByAppError(code, text))
        self._pending.clear()


def _finish(future: asyncio.Future[None], error: Exception | None = None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _look_at(future: asyncio.Future[None]) -> None:
    """A change nobody waits for is no error of the program."""
    if not future.cancelled():
        future.exception()


@contextlib.asynccontextmanager
async def crowd(
    count: int,
    address: tuple[str, int],
    host: str,
    *,
    path: str = "/live",
    sources: Sequence[str] = (),
    at_once: int = 25,
) -> AsyncIterator[list[Person]]:
    """`count` people who have all arrived; they leave at the end. `sources` are local addresses, used in turn."""
    turns = itertools.cycle(sources) if sources else itertools.repeat(None)
    people = [
        Person(address, host, path, source, name=f"person {i}") for i, source in zip(range(count), turns, strict=False)
    ]
    door = asyncio.Semaphore(at_once)

    async def arrive(person: Person) -> None:
        async with door:
            await person.arrive(60.0)

    try:
        await asyncio.gather(*(arrive(person) for person in people))
        yield people
    finally:
        await asyncio.gather(*(person.leave() for person in people))
