"""One WebSocket: hello, welcome, then the client's changes in their order until it goes or is let go.

Rules of this room: three tasks. The reader applies one message at a time; the keeper stores what changed and only then
acknowledges it; the writer is the only one that sends. Whoever ends the connection sets `_ended` once; `run` then says
in the record how the socket went, unless the session is no longer ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from moorage_app import contract
from moorage_app.contract import NoticeKind, Parted
from moorage_app.errors import MoorageAppError, Refused, SessionLostError, StoreUnavailableError, ValueRefusedError
from moorage_app.place import jitter, tick_s

from .messages import (
    CLOSE_FAILED,
    CLOSE_PROTOCOL,
    CLOSE_RECONNECT,
    CLOSE_TAKEN_OVER,
    CLOSE_TRY_LATER,
    Act,
    Hello,
    NotUnderstood,
    Pulse,
    SetField,
    read_message,
)
from .outbox import Outbox
from .service import Service
from .session import Session
from .supervise import run_authors

log = logging.getLogger("moorage_app")

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Action = Callable[[Session, Any], Awaitable[None]]


async def _nothing(session: Session) -> None:
    """The default of Actions.entered."""


@dataclass(slots=True)
class Actions:
    """The author's code: what clients may call, and what runs when somebody came in."""

    named: dict[str, Action] = field(default_factory=dict)
    entered: Callable[[Session], Awaitable[None]] = _nothing


HELLO_PATIENCE_S: Final = 10.0
RETRY_S: Final = 0.1
RETRY_MAX_S: Final = 2.0
PART_PATIENCE_S: Final = 5.0
GONE_PATIENCE_S: Final = 2.0
CLEAN_CLOSES: Final = frozenset({1000, 1001})
SERVER_STOPS: Final = 1012  # what uvicorn tells an app of a socket that it closes itself
NAMES_COUNT: Final = 40


class Connection:
    """Implements service.Attached for one ASGI websocket."""

    session: Session

    def __init__(self, service: Service, actions: Actions, receive: Receive, send: Send) -> None:
        self._service, self._actions, self._entered = service, actions.named, actions.entered
        self._receive, self._send = receive, send
        self._outbox = Outbox()
        self._ended = asyncio.Event()
        self._working = asyncio.Lock()  # held while a message is applied; a hand-over waits for it
        self._parted: Parted | None = None
        self._part_reason = ""

    # ---- service.Attached -------------------------------------------------------------------------------------
    def post(self, message: Mapping[str, Any]) -> None:
        """See Attached.post."""
        self._outbox.post(message)

    def post_latest(self, slot: str, text: str) -> None:
        """See Attached.post_latest."""
        self._outbox.post_latest(slot, text)

    def lose(self, reason: str) -> None:
        """See Attached.lose. A record that is gone is no takeover: the client comes back and is told."""
        self.session.mark_over(reason)
        if reason == "taken_over":
            self._outbox.post({"type": "taken_over"})
            self._outbox.close(CLOSE_TAKEN_OVER)
        else:
            self._outbox.close(CLOSE_RECONNECT)
        self._ended.set()

    async def hand_over(self, deadline_s: float, reason: str) -> bool:
        """See Attached.hand_over."""
        held = await self._wait_for_work(max(0.05, (deadline_s - tick_s()) / 2))
        try:
            if self._ended.is_set():
                return True
            if not await self._store_parted(Parted.HANDED_OVER, reason, deadline_s):
                return self.session.over is not None
            self._outbox.post({"type": "reconnect", "reason": reason})
            self._outbox.close(CLOSE_RECONNECT)
            self._ended.set()
            return True
        finally:
            if held:
                self._working.release()

    async def _wait_for_work(self, patience_s: float) -> bool:
        """Holds the reader between two messages; False when an action takes longer than the patience."""
        try:
            async with asyncio.timeout(patience_s):
                return await self._working.acquire()
        except TimeoutError:
            return False

    # ---- life -------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """The whole connection, from accept to the last write."""
        await self._receive()  # websocket.connect
        if not self._service.accepting:
            await self._refuse(CLOSE_RECONNECT)  # before accept: the handshake is answered with an error
            return
        await self._send({"type": "websocket.accept"})
        hello = await self._hello()
        if hello is None or not await self._enter(hello):
            return
        tasks = [asyncio.create_task(work) for work in (self._read(), self._keep(), self._write())]
        ended = asyncio.create_task(self._ended.wait())
        try:
            done, _ = await asyncio.wait([*tasks, ended], return_when=asyncio.FIRST_COMPLETED)
            if done == {tasks[2]}:  # the writer found the socket gone; only the reader hears how it went
                await asyncio.wait([tasks[0], ended], timeout=GONE_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
            self._ended.set()
            await self._leave()
        finally:
            self._service.detach(self)
            self._outbox.close(CLOSE_FAILED)  # only where nobody closed it, and the client did not go by itself
            await asyncio.wait([tasks[2]], timeout=PART_PATIENCE_S)  # the writer sends what is queued
            for task in (*tasks, ended):
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    log.error("a connection's task failed", exc_info=result)

    async def _hello(self) -> Hello | None:
        try:
            async with asyncio.timeout(HELLO_PATIENCE_S):
                event = await self._receive()
        except TimeoutError:
            await self._refuse(CLOSE_PROTOCOL)
            return None
        if event["type"] == "websocket.disconnect":
            return None
        message = read_message(event.get("text"))
        if not isinstance(message, Hello):
            await self._refuse(CLOSE_PROTOCOL)
            return None
        return message

    async def _enter(self, hello: Hello) -> bool:
        with self._service.opening():
            try:
                entry = await self._service.enter(hello.session)
            except StoreUnavailableError as error:
                log.warning("a client was turned away: %s", error)
                await self._refuse(CLOSE_TRY_LATER)
                return False
            if entry is None:
                await self._refuse(CLOSE_RECONNECT)
                return False
            self.session = Session(entry, self._service.house, self._service.store, self._service)
            self.session.bind(self.post)
            self.post(self._welcome())
            self._service.attach(self)
            return True

    async def _refuse(self, code: int) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            await self._send({"type": "websocket.close", "code": code})

    def _welcome(self) -> dict[str, Any]:
        session, place, notice = self.session, self._service.place, self._service.notice
        return {
            "type": "welcome",
            "protocol": contract.PROTOCOL,
            "session": session.record.id,
            "tag": session.tag,
            "outcome": session.outcome,
            "reason": session.reason,
            "detail": session.detail,
            "restored": session.restored[:NAMES_COUNT],
            "defaults": session.defaults[:NAMES_COUNT],
            "seq": session.applied,
            "app": place.app,
            "environment": place.environment,
            "allocation": place.allocation,
            "allocation_number": place.allocation_number,
            "deployment": place.deployment,
            "draining": notice.kind is NoticeKind.DRAIN,
            "story": session.story,
            "states": session.values(),
            "shared": self._service.shared_values(),
            "people": self._service.people.everyone,
        }

    async def _leave(self) -> None:
        """Says in the record how the socket went, unless that was said or is no longer ours to say."""
        if self.session.over is not None:
            return
        parted = self._parted or Parted.DROPPED
        if not await self._store_parted(parted, self._part_reason, tick_s() + PART_PATIENCE_S):
            log.warning("session %s: its end could not be stored", self.session.tag)

    # ---- the three tasks --------------------------------------------------------------------------------------
    async def _read(self) -> None:
        async with self._working:
            failure = await run_authors("entered", self._entered(self.session))
            self._answer(0, failure)
        while not self._ended.is_set():
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                self._note_disconnect(event.get("code"))
                return
            async with self._working:
                if not self._ended.is_set():
                    await self._apply(event.get("text"))

    def _note_disconnect(self, code: int | None) -> None:
        if code in CLEAN_CLOSES:
            self._parted = Parted.ENDED
        elif code == SERVER_STOPS:
            self._parted, self._part_reason = Parted.HANDED_OVER, "shutdown"
        else:
            self._parted = Parted.DROPPED

    async def _apply(self, text: str | None) -> None:
        message = read_message(text)
        match message:
            case SetField() | Act() if message.seq <= self.session.applied:
                self.post({"type": "ack", "seq": min(message.seq, self.session.record.seq)})
            case SetField():
                self.session.begin(message.seq)
                self._finish(message.seq, self._set(message))
            case Act():
                self._finish(message.seq, await self._act(message))
            case Pulse():
                pass
            case Hello() | NotUnderstood():
                self._outbox.close(CLOSE_PROTOCOL)
                self._ended.set()

    def _finish(self, seq: int, failure: Exception | None) -> None:
        """A message that met an unavailable store or a lost session is not done: the client sends it again."""
        undone = isinstance(failure, StoreUnavailableError | SessionLostError)
        self.session.finish(applied=not undone)
        if not isinstance(failure, StoreUnavailableError):
            self._answer(seq, failure)

    def _set(self, message: SetField) -> Exception | None:
        try:
            self.session.set_for_client(message.state, message.field, message.value)
        except MoorageAppError as error:
            return error
        return None

    async def _act(self, message: Act) -> Exception | None:
        """Runs an action; while the store does not answer it runs again, as its shared changes count once."""
        action = self._actions.get(message.name)
        if action is None:
            return Refused("unknown-action", f"this app has no action {message.name!r}")
        pause = RETRY_S
        while True:
            self.session.begin(message.seq)
            failure = await run_authors(f"action {message.name}", action(self.session, message.data))
            if not isinstance(failure, StoreUnavailableError) or self._ended.is_set():
                return failure
            self.post({"type": "store", "available": False})
            await asyncio.sleep(pause * jitter(0.8, 1.2))
            pause = min(RETRY_MAX_S, pause * 2)

    def _answer(self, seq: int, failure: Exception | None) -> None:
        match failure:
            case None:
                return
            case SessionLostError(reason=reason):
                self.lose(reason)
            case MoorageAppError(code=code):
                self.post({"type": "refused", "seq": seq, "code": code, "message": str(failure)})
            case _:
                message = "The app could not do this; its log says why."
                self.post({"type": "refused", "seq": seq, "code": "action-failed", "message": message})

    async def _keep(self) -> None:
        pause, told = RETRY_S, False
        while True:
            await self.session.wait_dirty()
            try:
                before = self.session.record.seq
                seq = await self.session.store()
            except SessionLostError as lost:
                if not self._ended.is_set():
                    self.lose(lost.reason)
                return
            except ValueRefusedError as error:
                self._answer(self.session.applied, error)
                self._tell_changes()
                continue
            except StoreUnavailableError:
                told = True
                self.post({"type": "store", "available": False})
                await asyncio.sleep(pause * jitter(0.8, 1.2))
                pause = min(RETRY_MAX_S, pause * 2)
                continue
            pause = RETRY_S
            if told:
                told = False
                self.post({"type": "store", "available": True})
            self._tell_changes()
            if seq > before:
                self.post({"type": "ack", "seq": seq})

    def _tell_changes(self) -> None:
        for state_id, values in self.session.take_changes().items():
            self.post({"type": "state", "state": state_id, "values": values})

    async def _write(self) -> None:
        while True:
            batch, code = await self._outbox.next_batch()
            try:
                for text in batch:
                    await self._send({"type": "websocket.send", "text": text})
                if code is not None:
                    await self._send({"type": "websocket.close", "code": code})
                    return
            except (OSError, RuntimeError):  # the socket is gone; the reader hears of it
                return

    async def _store_parted(self, parted: Parted, reason: str, deadline_s: float) -> bool:
        pause = RETRY_S
        while True:
            try:
                await self.session.store(parted, reason)
            except SessionLostError as lost:
                if not self._ended.is_set():
                    self.lose(lost.reason)
                return False
            except ValueRefusedError:
                continue  # the change that did not fit was taken back
            except StoreUnavailableError:
                if tick_s() + pause >= deadline_s:
                    return False
                await asyncio.sleep(pause)
                pause = min(RETRY_MAX_S, pause * 2)
                continue
            return True
