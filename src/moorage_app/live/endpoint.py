"""`Live`: what an author puts into an ASGI app. One WebSocket path, one script, the lifespan.

Rules of this room: plain ASGI, no framework. `wrap(app)` serves the live path and hands everything else on.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from moorage_app.contract import Notice
from moorage_app.errors import DeclarationError, MoorageAppError
from moorage_app.place import Place, read_place
from moorage_app.state import SharedState, State, declared_states
from moorage_app.stores.memory import MemoryStore
from moorage_app.stores.port import Store

from .connection import Action, Actions, Connection
from .service import Service
from .session import Session
from .supervise import run_lifespan

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

G = TypeVar("G", bound=SharedState)
T = TypeVar("T")

log = logging.getLogger("moorage_app")

SCRIPT: Final = Path(__file__).parent.parent / "static" / "moorage.js"


class Live:
    """The live endpoint of an app.

    `path` is where the socket is served; the client script is at `path/moorage.js`. `states` limits the app to these
    state classes (default: all that are declared when it starts). `store` and `place` are for tests; by default
    both come from the environment, and without a store URL everything lives in memory.
    """

    def __init__(
        self,
        path: str = "/live",
        *,
        states: Sequence[type[State]] | None = None,
        store: Store | None = None,
        place: Place | None = None,
    ) -> None:
        self.path = "/" + path.strip("/")
        self.states = None if states is None else tuple(states)
        self._store, self._place = store, place
        self._actions = Actions()
        self._running: Service | None = None

    # ---- for authors ------------------------------------------------------------------------------------------
    def action(self, function: Callable[[Session, Any], Awaitable[None]]) -> Action:
        """Decorator: clients may call this function by its name: `async def add_note(session, data)`.

        It runs with the session's other messages in order. Raise `Refused` to say no. While the store does not
        answer it is run again: shared changes made through `session.change` still count once.
        """
        name = getattr(function, "__name__", "")
        if not name or name in self._actions.named:
            raise DeclarationError("Live.action", f"an action needs a name of its own, {name!r} is none")
        self._actions.named[name] = function
        return function

    def entered(self, function: Callable[[Session], Awaitable[None]]) -> Callable[[Session], Awaitable[None]]:
        """Decorator: runs whenever somebody came in (also after a resume), before their first message."""
        self._actions.entered = function
        return function

    def read(self, state: type[G]) -> G:
        """A shared state as this allocation knows it now (read only)."""
        return self.service.cell(state).view

    async def change(self, state: type[G], function: Callable[[G], T]) -> T | None:
        """Changes shared state from outside a session; see Session.change."""
        return await self.service.cell(state).change(function)

    @property
    def place(self) -> Place:
        """This allocation's identity."""
        if self._place is None:
            self._place = read_place()
        return self._place

    @property
    def notice(self) -> Notice:
        """What the platform asks of this allocation now."""
        return self.service.notice

    @property
    def service(self) -> Service:
        """The running side; made when it is first needed."""
        if self._running is None:
            states = declared_states() if self.states is None else self.states
            self._running = Service(states, self.place, self._store or _store_for(self.place))
        return self._running

    # ---- for ASGI ---------------------------------------------------------------------------------------------
    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """For frameworks that take a lifespan context: starts and stops the live side. `wrap` does it by itself."""
        await self.service.start()
        try:
            yield
        finally:
            await self.service.stop()
            self._running = None

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """The app with the live path, the script and the live side's lifespan around it."""

        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await _with_lifespan(self, app, scope, receive, send)
            elif self.serves(str(scope.get("path", ""))):
                await self(scope, receive, send)
            else:
                await app(scope, receive, send)

        return wrapped

    def serves(self, path: str) -> bool:
        """Whether a path belongs to the live side."""
        return path.rstrip("/") == self.path or path.startswith(f"{self.path}/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The live side as an ASGI app of its own, for mounting."""
        if scope["type"] == "websocket":
            await self.service.start()  # for servers and frameworks that run no lifespan
            await Connection(self.service, self._actions, receive, send).run()
        elif scope["type"] == "http" and str(scope.get("path", "")).endswith("/moorage.js"):
            await _answer(send, 200, b"text/javascript; charset=utf-8", SCRIPT.read_bytes())
        elif scope["type"] == "http":
            await _answer(send, 404, b"text/plain; charset=utf-8", b"not found\n")


def _store_for(place: Place) -> Store:
    if place.store_url is None:
        return MemoryStore()
    from moorage_app.stores.valkey import ValkeyStore  # needs the `valkey` package only here

    return ValkeyStore(place.store_url)


async def _answer(send: Send, status: int, kind: bytes, body: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _with_lifespan(live: Live, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Starts the live side before the app's own start, and stops it before the app's own end.

    An app that knows no lifespan raises at once; then the live side answers in its place.
    """
    first = await receive()
    try:
        await live.service.start()
    except MoorageAppError as error:
        await send({"type": "lifespan.startup.failed", "message": f"{error.code}: {error}"})
        return
    waiting, said = [first], False

    async def receive_between() -> Message:
        if waiting:
            return waiting.pop()
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            await live.service.stop()
        return message

    async def send_between(message: Message) -> None:
        nonlocal said
        said = True
        await send(message)

    failure = await run_lifespan(app(scope, receive_between, send_between))
    if failure is not None and not said:
        log.warning("the app answered no lifespan (%s: %s); going on without", type(failure).__name__, failure)
        await send({"type": "lifespan.startup.complete"})
        await receive_between()
        await send({"type": "lifespan.shutdown.complete"})
