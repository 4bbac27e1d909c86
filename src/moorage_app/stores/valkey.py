"""The Valkey store: one server per environment, this allocation's own user, changes as Lua scripts.

Rules of this room: imported only when a store URL is given (it needs the `valkey` package). Every failure to get an
answer becomes StoreUnavailableError here, with no URL and no id in its text. The scripts lie beside this file.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from valkey.asyncio import BlockingConnectionPool, Valkey
from valkey.exceptions import ValkeyError

from moorage_app import contract
from moorage_app.errors import StoreUnavailableError

from .port import Announcement, Lost, Stored, Taking, Written

T = TypeVar("T")

CONNECTIONS_COUNT: Final = 24  # the server commits in groups: more do not make it faster
ANSWER_TIMEOUT_S: Final = 5.0
CONNECT_TIMEOUT_S: Final = 3.0
SCAN_COUNT: Final = 500
SILENCE_LIMIT_S: Final = 20.0  # a subscription is asked for a sign of life after this long


class ValkeyStore:
    """`Store` over a Redis-protocol server (Valkey 7 or newer)."""

    def __init__(self, url: str) -> None:
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS_COUNT,
            timeout=ANSWER_TIMEOUT_S,
            socket_timeout=ANSWER_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            health_check_interval=15,
        )
        self._client: Any = Valkey.from_pool(self._pool)
        self._take = self._script("take")
        self._write = self._script("write")
        self._swap = self._script("swap")
        self._prune = self._script("prune")

    def _script(self, name: str) -> Any:
        return self._client.register_script((Path(__file__).parent / f"{name}.lua").read_text(encoding="utf-8"))

    async def open(self) -> None:
        """See Store.open."""
        await _asked("opening", self._client.ping())

    async def close(self) -> None:
        """See Store.close."""
        await self._client.aclose(close_connection_pool=True)

    async def load(self, session_id: str) -> Stored:
        """See Store.load."""
        keys = [contract.session_key(session_id), contract.trace_key(session_id)]
        text, trace = await _asked("reading a session", self._client.mget(keys))
        return Stored(text, trace is not None)

    async def take(self, taking: Taking) -> bool:
        """See Store.take."""
        keys = [
            contract.session_key(taking.session_id),
            contract.trace_key(taking.session_id),
            contract.quarantine_key(taking.session_id),
            contract.held_key(taking.holder),
            contract.held_key(taking.previous_holder or taking.holder),
        ]
        arguments = [
            _digest(taking.expected),
            taking.text,
            taking.session_id,
            contract.SESSION_TTL_S,
            contract.TRACE_TTL_S,
            "" if taking.quarantine_ms is None else taking.quarantine_ms,
            contract.QUARANTINE_TTL_S,
        ]
        return bool(await _asked("taking a session", self._take(keys=keys, args=arguments)))

    async def write(self, session_id: str, text: str, *, holder: str, lease: int, revision: int) -> Written | Lost:
        """See Store.write."""
        arguments = [text, holder, lease, revision, contract.SESSION_TTL_S]
        asked = self._write(keys=[contract.session_key(session_id)], args=arguments)
        answer = (await _asked("storing a session", asked)).decode()
        return Written() if answer == "written" else Lost(answer)

    async def still_held(self, holder: str, session_ids: Sequence[str]) -> frozenset[str]:
        """See Store.still_held."""
        if not session_ids:
            return frozenset()
        asked = self._client.smismember(contract.held_key(holder), list(session_ids))
        answers = await _asked("checking leases", asked)
        return frozenset(one for one, held in zip(session_ids, answers, strict=True) if held)

    async def refresh(self, holder: str, session_ids: Iterable[str]) -> None:
        """See Store.refresh."""
        pipeline = self._client.pipeline(transaction=False)
        for session_id in session_ids:
            pipeline.expire(contract.session_key(session_id), contract.SESSION_TTL_S)
            pipeline.expire(contract.trace_key(session_id), contract.TRACE_TTL_S)
        pipeline.expire(contract.held_key(holder), contract.TRACE_TTL_S)
        await _asked("refreshing sessions", pipeline.execute())

    async def prune_held(self, holder: str) -> int:
        """See Store.prune_held."""
        key, cursor, gone = contract.held_key(holder), 0, 0
        while True:
            asked = self._client.sscan(key, cursor, count=SCAN_COUNT)
            cursor, members = await _asked("pruning the set of held sessions", asked)
            if members:
                pruned = self._prune(keys=[key], args=[contract.SESSION_PREFIX, *members])
                gone += int(await _asked("pruning the set of held sessions", pruned))
            if cursor == 0:
                return gone

    async def load_shared(self, state_id: str) -> bytes | None:
        """See Store.load_shared."""
        return cast(
            "bytes | None", await _asked("reading shared state", self._client.get(contract.shared_key(state_id)))
        )

    async def swap_shared(
        self, state_id: str, text: str, *, expected: bytes | None, quarantine_ms: int | None = None
    ) -> bool:
        """See Store.swap_shared."""
        keys = [contract.shared_key(state_id), contract.quarantine_key(state_id)]
        aside = "" if quarantine_ms is None else quarantine_ms
        arguments = [_digest(expected), text, aside, contract.QUARANTINE_TTL_S]
        return bool(await _asked("storing shared state", self._swap(keys=keys, args=arguments)))

    async def register(self, allocation: str, text: str) -> None:
        """See Store.register."""
        asked = self._client.set(contract.allocation_key(allocation), text, ex=contract.TRACE_TTL_S)
        await _asked("registering the allocation", asked)

    async def notice(self, allocation: str) -> bytes | None:
        """See Store.notice."""
        return cast("bytes | None", await _asked("reading a notice", self._client.get(contract.notice_key(allocation))))

    async def report_handover(self, allocation: str, text: str) -> None:
        """See Store.report_handover."""
        asked = self._client.set(contract.handover_key(allocation), text, ex=contract.TRACE_TTL_S)
        await _asked("reporting a hand-over", asked)

    async def show_people(self, allocation: str, text: str, *, now_ms: int, ttl_ms: int) -> None:
        """See Store.show_people."""
        pipeline = self._client.pipeline(transaction=False)
        if text:
            pipeline.set(contract.presence_key(allocation), text, px=ttl_ms)
            pipeline.zadd(contract.PRESENCE_KEY, {allocation: now_ms + ttl_ms})
        else:
            pipeline.delete(contract.presence_key(allocation))
            pipeline.zrem(contract.PRESENCE_KEY, allocation)
        await _asked("showing people", pipeline.execute())

    async def people(self, now_ms: int) -> list[bytes]:
        """See Store.people."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.zremrangebyscore(contract.PRESENCE_KEY, "-inf", f"({now_ms}")
        pipeline.zrange(contract.PRESENCE_KEY, 0, -1)
        _, allocations = await _asked("reading people", pipeline.execute())
        if not allocations:
            return []
        keys = [contract.presence_key(allocation.decode()) for allocation in allocations]
        return [text for text in await _asked("reading people", self._client.mget(keys)) if text is not None]

    async def announce(self, channel: str, payload: str) -> None:
        """See Store.announce."""
        await _asked("announcing", self._client.publish(channel, payload))

    async def listen(self, channels: Sequence[str]) -> AsyncIterator[Announcement]:
        """See Store.listen."""
        subscription = self._client.pubsub()
        try:
            await _asked("subscribing", subscription.subscribe(*channels))
            while True:
                message = await _asked("listening", subscription.get_message(timeout=SILENCE_LIMIT_S))
                if message is None:
                    await _asked("listening", subscription.ping())
                elif message["type"] == "subscribe":
                    yield Announcement("", "")
                elif message["type"] == "message":
                    yield Announcement(message["channel"].decode(), message["data"].decode(errors="replace"))
        finally:
            await subscription.aclose()


async def _asked(doing: str, awaitable: Awaitable[T]) -> T:
    """The answer, or StoreUnavailableError: then it is not known whether the store has done it."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S + SILENCE_LIMIT_S):
            return await awaitable
    except (ValkeyError, OSError, TimeoutError) as error:
        raise StoreUnavailableError(doing, type(error).__name__) from error


def _digest(expected: bytes | None) -> str:
    """How a script recognises the text it may replace; `-` for none. SHA-1 is what the store offers."""
    return "-" if expected is None else hashlib.sha1(expected, usedforsecurity=False).hexdigest()
