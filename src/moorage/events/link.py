"""One connection to the event server that heals itself for ever.

Rules of the room: the client's traps are known here and nowhere else. It is told to notice a silent server within
seconds; connecting has a deadline of its own; a client that closed itself is replaced. A denied call would only time
out, and a call in flight over a reconnect would wait for its full timeout: both are ended at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from moorage.domain.errors import MoorageError, Problem, Unavailable
from moorage.events import names
from moorage.system.clock import monotonic_s, pause
from moorage.system.log import get_log

CONNECT_TIMEOUT_S = 2
CALL_TIMEOUT_S = 2.0
RECONNECT_WAIT_S = 0.1
PING_INTERVAL_S = 2
PINGS_OUTSTANDING_MAX_COUNT = 2
_CLOSE_TIMEOUT_S = 1.0

_T = TypeVar("_T")
_log = get_log("moorage.events")


class EventsUnavailable(Unavailable):
    """The event server did not answer (in time). What was asked may have happened."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            Problem(
                "events-unavailable",
                "The event server does not answer",
                detail,
                "Nothing is lost: the log is in the control database. `moorage status` shows the event server.",
                status=503,
            )
        )


class EventsDenied(MoorageError):
    """The event server refused a subject or a key: a fault of configuration, not of the weather."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            Problem(
                "events-denied",
                "The event server refused this user",
                detail,
                "Restart the platform, so that keys and permissions are written anew.",
                status=500,
            )
        )


class Link:
    """A connection as one user. `generation` rises with every connection that was made: what was known about the
    server before may be wrong after."""

    def __init__(self, url: str, seed: str, user: str) -> None:
        self._url, self._seed, self._user = url, seed, user
        self._client: Client | None = None
        self._jetstream: JetStreamContext | None = None
        self._trouble: asyncio.Future[MoorageError] | None = None
        self._connecting = asyncio.Lock()
        self._refusal = ""  # why the server does not let this user in; empty while it does
        self.generation = 0

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands now."""
        return self._client is not None and self._client.is_connected

    async def jetstream(self, timeout_s: float = CONNECT_TIMEOUT_S) -> JetStreamContext:
        """JetStream over a standing connection, connecting first if need be.

        Raises EventsUnavailable, and EventsDenied when the server does not know this user.
        """
        deadline = monotonic_s() + timeout_s
        async with self._connecting:
            if self._client is None or self._client.is_closed or self._refusal:
                await self._connect(deadline)
        while not self.is_connected:
            if self._refusal:
                raise EventsDenied(self._refusal)
            if monotonic_s() >= deadline or self._client is None or self._client.is_closed:
                raise EventsUnavailable(f"not connected to {self._url}")
            await pause(0.01)
        assert self._jetstream is not None
        return self._jetstream

    async def call(self, work: Coroutine[Any, Any, _T], timeout_s: float = CALL_TIMEOUT_S) -> _T:
        """The result of a call to the server.

        Raises EventsUnavailable after the time or as soon as the connection breaks, EventsDenied as soon as the
        server refuses; errors of JetStream's own come through as they are.
        """
        if self._trouble is None or self._trouble.done():
            self._trouble = asyncio.get_running_loop().create_future()
        trouble, task = self._trouble, asyncio.ensure_future(work)
        either: set[asyncio.Future[Any]] = {task, trouble}
        try:
            await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        except TimeoutError as late:
            raise EventsUnavailable("no answer in time") from late
        except (OSError, nats.errors.ConnectionClosedError, nats.errors.ConnectionReconnectingError) as broken:
            raise EventsUnavailable(f"the connection broke: {broken}") from broken
        finally:
            if not task.done():
                task.cancel()
        raise trouble.result() if trouble.done() else EventsUnavailable("no answer in time")

    async def close(self) -> None:
        """Close the connection; the link may be used again afterwards."""
        client, self._client, self._jetstream = self._client, None, None
        if client is not None:
            await _close(client)

    async def _connect(self, deadline: float) -> None:
        await self.close()  # a refused client would go on knocking ten times a second
        client = Client()
        try:
            await self.call(
                client.connect(
                    self._url,
                    name=f"moorage {self._user}",
                    nkeys_seed_str=self._seed,
                    inbox_prefix=names.inbox_prefix(self._user),
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # seconds, fractions work
                    connect_timeout=CONNECT_TIMEOUT_S,
                    ping_interval=PING_INTERVAL_S,
                    max_outstanding_pings=PINGS_OUTSTANDING_MAX_COUNT,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_reconnected,
                ),
                timeout_s=max(deadline - monotonic_s(), 0.01),
            )
        except nats.errors.Error as wrong:
            await _close(client)
            raise EventsUnavailable(f"{self._url}: {wrong}") from wrong
        except BaseException:  # cancelled too: a client that is left would go on connecting for ever
            await _close(client)
            raise
        self._client, self._jetstream = client, client.jetstream(timeout=CALL_TIMEOUT_S)
        self.generation += 1
        self._refusal = ""

    async def _on_error(self, wrong: Exception) -> None:
        said = str(wrong).lower()
        if "authorization violation" in said:
            if not self._refusal:
                _log.error("event server does not let this user in", user=self._user, error=str(wrong))
            self._refusal = str(wrong)
            self._end_calls(EventsDenied(str(wrong)))
        elif "permissions violation" in said:
            _log.error("event server refused a subject", user=self._user, error=str(wrong))
            self._end_calls(EventsDenied(str(wrong)))

    async def _on_disconnected(self) -> None:
        _log.info("event server lost", user=self._user)
        self._end_calls(EventsUnavailable("the connection broke"))

    async def _on_reconnected(self) -> None:
        self.generation += 1
        self._refusal = ""
        _log.info("event server is back", user=self._user)

    def _end_calls(self, why: MoorageError) -> None:
        if self._trouble is not None and not self._trouble.done():
            self._trouble.set_result(why)


async def _close(client: Client) -> None:
    try:
        await asyncio.wait_for(client.close(), _CLOSE_TIMEOUT_S)
    except (OSError, nats.errors.Error) as wrong:
        _log.debug("closing failed", error=str(wrong))
