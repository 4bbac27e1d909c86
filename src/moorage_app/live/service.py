"""The running side of one allocation: its sessions, shared state, people, and what the platform asks of it.

Rules of this room: announcements only wake; every fact is re-read on a period. A notice is a latch (contract.py). After
a hand-over this process writes nothing any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol, TypeVar, cast

from moorage_app import contract
from moorage_app.contract import Notice, NoticeKind
from moorage_app.declared import schema_of
from moorage_app.errors import DeclarationError, MoorageAppError, StoreUnavailableError
from moorage_app.place import Place, jitter, new_session_id, now_ms, tick_s
from moorage_app.resume import Arrival, Entry, House, decide_entry, house_of
from moorage_app.state import SharedState, State
from moorage_app.stores.port import Store, Taking

from .people import GAP_S, SAY_AGAIN_S, People
from .session import Session
from .shared import REREAD_S, SharedCell, announced_state
from .supervise import keep_running

log = logging.getLogger("moorage_app")

G = TypeVar("G", bound=SharedState)

SDK_VERSION: Final = "0.1.0"
START_PATIENCE_S: Final = 10.0  # how long a store may take to answer when the app starts
ENTER_TRIES_COUNT: Final = 32  # an old holder that is typing moves the record between read and take
LEASE_CHECK_S: Final = 5.0
BEAT_S: Final = 15.0
REFRESH_S: Final = contract.SESSION_TTL_S / 4
PRUNE_S: Final = 600.0
STOP_PATIENCE_S: Final = 4.0
HANDOVER_PATIENCE_S: Final = 20.0  # when the notice names no deadline
OPENING_PATIENCE_S: Final = 2.0


class Attached(Protocol):
    """One open socket, as the service needs it."""

    session: Session

    def post(self, message: Mapping[str, Any]) -> None:
        """Queues a message."""

    def post_latest(self, slot: str, text: str) -> None:
        """Queues a text that replaces an unsent one of the same slot."""

    def lose(self, reason: str) -> None:
        """Another connection has the session."""

    async def hand_over(self, deadline_s: float, reason: str) -> bool:
        """Stores, lets go and asks the client to reconnect; False when it could not be stored by then."""


class Service:
    """One per `Live`. `start` and `stop` belong to the ASGI lifespan."""

    def __init__(self, states: tuple[type[State], ...], place: Place, store: Store) -> None:
        self.place, self.store = place, store
        self.house: House = house_of(states, place)
        self._schema = schema_of(states)
        self.attached: dict[str, Attached] = {}
        self.people = People(store, place.allocation, self._people_here)
        shared = [state for state in states if issubclass(state, SharedState)]
        self._cells: dict[type[SharedState], SharedCell[Any]] = {
            state: SharedCell(state, store, self._share) for state in shared
        }
        self._by_id = {cell.id: cell for cell in self._cells.values()}
        self._tasks: list[asyncio.Task[None]] = []
        self._opening = 0
        self._last: dict[str, float] = {}
        self._notice_wake = asyncio.Event()
        self.notice = Notice(NoticeKind.OPEN)
        self._finished: Notice | None = None  # the hand-over that was carried out
        self._started = asyncio.Lock()

    # ---- life -------------------------------------------------------------------------------------------------
    @property
    def accepting(self) -> bool:
        """Whether new sockets are welcome."""
        return self.notice.kind is not NoticeKind.HANDOVER

    @property
    def silent(self) -> bool:
        """A hand-over was carried out: this process writes nothing any more."""
        return self._finished is not None

    async def start(self) -> None:
        """Waits for the store, registers the allocation, reads shared state, starts the loops. Once."""
        async with self._started:
            if self._tasks:
                return
            await self._open_store()
            for cell in self._cells.values():
                await cell.refresh()
            await self._look_for_notice()
            loops = (
                ("listening", self._listen_once),
                ("notices", self._notice_once),
                ("people", self._people_once),
                ("upkeep", self._upkeep_once),
            )
            self._tasks = [
                asyncio.create_task(keep_running(name, once), name=f"moorage {name}") for name, once in loops
            ]
            for line in self.explain():
                log.info(line)

    async def stop(self) -> None:
        """Stores and lets go of every session as far as it can, then ends the loops."""
        if not self.silent:
            await self._let_go(tick_s() + STOP_PATIENCE_S, "shutdown")
            with contextlib.suppress(StoreUnavailableError):
                await self.people.leave()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self.store.close()

    def explain(self) -> list[str]:
        """What persists and what does not, one sentence per state."""
        lines = []
        for state in (*self.house.states, *self._cells):
            own = state.declaration
            line = f"{own.id} ({own.scope}) keeps {', '.join(own.fields)}"
            lines.append(f"{line}; does not keep {', '.join(own.unpersisted)}" if own.unpersisted else line)
        return lines

    async def _open_store(self) -> None:
        document = {
            "sdk": SDK_VERSION,
            "schema_hash": self._schema.hash,
            "started_ms": now_ms(),
            "deployment": self.place.deployment,
            "number": self.place.allocation_number,
        }
        until = tick_s() + START_PATIENCE_S
        while True:
            try:
                await self.store.open()
                await self.store.register(self.place.allocation, json.dumps(document))
                return
            except StoreUnavailableError as error:
                if tick_s() >= until:
                    raise
                log.warning("%s; waiting for it", error)
            await asyncio.sleep(0.25)

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """Around entering and attaching: a hand-over waits for it, so that no session slips through."""
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1

    # ---- entering a session -----------------------------------------------------------------------------------
    async def enter(self, presented: str | None) -> Entry | None:
        """Takes the session's lease for this allocation; None when the platform wants no new sockets here.

        Raises StoreUnavailableError, also when the record was changed under every try.
        """
        if not self.accepting:
            return None
        own = self.attached.get(presented) if presented is not None else None
        if own is not None:  # a duplicated tab here: what the other tab typed last comes along
            with contextlib.suppress(MoorageAppError):
                await own.session.store()
        entry = await self._take(presented)
        if entry.displaces and entry.previous_holder != self.place.allocation:
            with contextlib.suppress(StoreUnavailableError):
                await self.store.announce(contract.lost_channel(str(entry.previous_holder)), entry.record.id)
        return entry

    async def _take(self, presented: str | None) -> Entry:
        for attempt in range(ENTER_TRIES_COUNT):
            if attempt > 2:
                await asyncio.sleep(jitter(0, 0.01 * attempt))
            arrival = Arrival(presented)
            if contract.is_session_id(presented):
                stored = await self.store.load(str(presented))
                arrival = Arrival(presented, stored.text, stored.traced)
            at_ms = now_ms()
            entry = decide_entry(arrival, self.house, at_ms, new_session_id())
            taking = Taking(
                session_id=entry.record.id,
                expected=arrival.stored,
                text=contract.encode_record(entry.record, spare=True),
                holder=self.place.allocation,
                previous_holder=entry.previous_holder,
                quarantine_ms=at_ms if entry.quarantine else None,
            )
            if await self.store.take(taking):
                return entry
        raise StoreUnavailableError("taking a session", "its record changed under every try")

    def attach(self, connection: Attached) -> None:
        """The socket of an entered session; an older one here loses it."""
        session_id = connection.session.record.id
        older = self.attached.get(session_id)
        self.attached[session_id] = connection
        if older is not None:
            older.lose("taken_over")
        self.people.wake()

    def detach(self, connection: Attached) -> None:
        """The socket is gone."""
        session_id = connection.session.record.id
        if self.attached.get(session_id) is connection:
            del self.attached[session_id]
            self.people.wake()

    # ---- shared state -----------------------------------------------------------------------------------------
    def cell(self, state: type[G]) -> SharedCell[G]:
        """This allocation's copy of a shared state."""
        found = self._cells.get(state)
        if found is None:
            raise DeclarationError(getattr(state, "__name__", str(state)), "it is not a shared state of this app")
        return cast("SharedCell[G]", found)

    def shared_values(self) -> dict[str, Any]:
        """Every shared state clients may see."""
        return {
            cell.id: {"revision": cell.revision, "value": cell.values()}
            for cell in self._cells.values()
            if not cell.private
        }

    def _share(self, cell: SharedCell[Any]) -> None:
        if cell.private or not self.attached:
            return
        text = json.dumps({"type": "shared", "state": cell.id, "revision": cell.revision, "value": cell.values()})
        for connection in list(self.attached.values()):
            connection.post_latest(f"shared {cell.id}", text)

    # ---- people -----------------------------------------------------------------------------------------------
    def _people_here(self) -> list[dict[str, Any]]:
        sessions = [connection.session for connection in self.attached.values()]
        return [{"tag": session.tag, **session.shown} for session in sessions]

    async def _people_once(self) -> None:
        await self.people.wait(SAY_AGAIN_S)
        if not self.silent:
            await self.people.say()
        if await self.people.look():
            text = json.dumps({"type": "people", **self.people.everyone})
            for connection in list(self.attached.values()):
                connection.post_latest("people", text)
        await asyncio.sleep(GAP_S)

    # ---- loops ------------------------------------------------------------------------------------------------
    async def _listen_once(self) -> None:
        mine = contract.lost_channel(self.place.allocation)
        channels = (contract.NOTICES_CHANNEL, contract.SHARED_CHANNEL, contract.PRESENCE_CHANNEL, mine)
        async for message in self.store.listen(channels):
            if message.channel in ("", contract.NOTICES_CHANNEL):
                self._notice_wake.set()
            if message.channel in ("", contract.PRESENCE_CHANNEL) and message.payload != self.place.allocation:
                self.people.wake()
            if message.channel == "":
                await self._reread()
            elif message.channel == contract.SHARED_CHANNEL:
                await self._reread(announced_state(message.payload))
            elif message.channel == mine:
                await self._check_leases([message.payload])

    async def _reread(self, state_id: str | None = None) -> None:
        for cell in [self._by_id[state_id]] if state_id in self._by_id else self._cells.values():
            await cell.refresh()

    async def _upkeep_once(self) -> None:
        await asyncio.sleep(0.5)
        if self._due("reread", REREAD_S):
            await self._reread()
        if self._due("beat", BEAT_S):
            for connection in list(self.attached.values()):
                connection.post({"type": "beat"})
        if self.silent:
            return
        if self._due("leases", LEASE_CHECK_S):
            await self._check_leases(list(self.attached))
        if self._due("refresh", REFRESH_S, first=False):
            await self.store.refresh(self.place.allocation, list(self.attached))
        if self._due("prune", PRUNE_S, first=False):
            await self.store.prune_held(self.place.allocation)

    def _due(self, name: str, period_s: float, *, first: bool = True) -> bool:
        now = tick_s()
        last = self._last.get(name)
        if last is None or now - last >= period_s:
            self._last[name] = now
            return last is not None or first
        return False

    async def _check_leases(self, session_ids: list[str]) -> None:
        before = {one: self.attached[one] for one in session_ids if one in self.attached}
        held = await self.store.still_held(self.place.allocation, list(before))
        for session_id, connection in before.items():
            if session_id not in held and connection.session.over is None:
                connection.lose("taken_over")

    # ---- notices ----------------------------------------------------------------------------------------------
    async def _notice_once(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(contract.NOTICE_POLL_S):
                await self._notice_wake.wait()
        self._notice_wake.clear()
        await self._look_for_notice()
        if self.notice.kind is NoticeKind.HANDOVER and self._finished != self.notice:
            await self._carry_out(self.notice)

    async def _look_for_notice(self) -> None:
        notice = contract.decode_notice(await self.store.notice(self.place.allocation))
        if notice is None or notice == self.notice:
            return
        log.info("notice: %s", notice.kind)
        self.notice = notice
        if notice.kind is not NoticeKind.HANDOVER:
            self._finished = None
        if notice.kind is NoticeKind.DRAIN:
            for connection in list(self.attached.values()):
                connection.post({"type": "drain", "deadline_ms": notice.deadline_ms})

    async def _carry_out(self, notice: Notice) -> None:
        """The hand-over: every session stored and let go, then silence. One that could not be stored stays."""
        left_s = (notice.deadline_ms - now_ms()) / 1000 if notice.deadline_ms else HANDOVER_PATIENCE_S
        stored, unstored = await self._let_go(tick_s() + max(0.5, left_s), "handover")
        with contextlib.suppress(StoreUnavailableError):
            await self.people.leave()
        self._finished = notice
        report = {"at_ms": now_ms(), "stored": stored, "unstored": unstored}
        with contextlib.suppress(StoreUnavailableError):
            await self.store.report_handover(self.place.allocation, json.dumps(report))
        log.info("hand-over: %d sessions stored, %d not", stored, unstored)

    async def _let_go(self, deadline_s: float, reason: str) -> tuple[int, int]:
        opening_until = min(deadline_s, tick_s() + OPENING_PATIENCE_S)
        done: dict[Attached, bool] = {}
        while True:
            connections = [one for one in self.attached.values() if one not in done]
            answers = await asyncio.gather(*(one.hand_over(deadline_s, reason) for one in connections))
            done |= dict(zip(connections, answers, strict=True))
            if not connections and (self._opening == 0 or tick_s() >= opening_until):
                break
            await asyncio.sleep(0.01)
        return sum(done.values()), len(done) - sum(done.values())
