"""One tab of an SDK app by the letter of its protocol: sees every message, does nothing by itself.

`demo.people.Person` behaves like the browser's script; a tab is for tests that look at a single message.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from tests.support.waiting import wait_until

PATIENCE_S = 20.0


class Tab:
    """A socket after its welcome. `session` is the id to come back with."""

    def __init__(self, connection: ClientConnection, welcome: dict[str, Any]) -> None:
        self.welcome = welcome
        self.session = str(welcome["session"])
        self.messages: list[dict[str, Any]] = []
        self._connection, self._seq = connection, int(welcome["seq"])
        self._reader = asyncio.create_task(self._read())

    async def set(self, state: str, field: str, value: Any) -> None:
        """Set a field; returns when the store has it."""
        await self._say({"type": "set", "state": state, "field": field, "value": value})

    async def send(self, name: str, data: Any = None) -> None:
        """Call an action; returns when the store has what it did."""
        await self._say({"type": "send", "name": name, "data": data})

    async def hears(self, wanted: Callable[[dict[str, Any]], bool], *, what: str) -> dict[str, Any]:
        """The first message that fits, once it has come."""
        await wait_until(lambda: any(wanted(m) for m in self.messages), timeout_s=PATIENCE_S, what=what)
        return next(m for m in self.messages if wanted(m))

    async def close(self) -> None:
        """Close the tab."""
        await self._connection.close()
        await self._reader

    async def _say(self, message: dict[str, Any]) -> None:
        self._seq += 1
        seq = self._seq
        await self._connection.send(json.dumps({**message, "seq": seq}))
        await self.hears(lambda m: m["type"] == "ack" and m["seq"] >= seq, what=f"change {seq} is stored")

    async def _read(self) -> None:
        try:
            async for text in self._connection:
                self.messages.append(json.loads(text))
        except ConnectionClosed:
            return


async def enter(port: int, host: str, session: str | None = None, *, path: str = "/live") -> Tab:
    """Open a tab through the edge, with the session of an earlier one; tries again as long as nobody lets it in."""
    entered: list[Tab] = []

    async def attempt() -> bool:
        try:
            connection = await connect(f"ws://{host}{path}", host="127.0.0.1", port=port, proxy=None)
            await connection.send(json.dumps({"type": "hello", "protocol": 1, "session": session}))
            async with asyncio.timeout(PATIENCE_S):
                welcome = json.loads(await connection.recv())
        except (ConnectionClosed, InvalidHandshake, InvalidMessage, OSError, TimeoutError):
            return False
        entered.append(Tab(connection, welcome))
        return True

    await wait_until(attempt, timeout_s=PATIENCE_S, what=f"{host} lets a tab in")
    assert entered[0].welcome["type"] == "welcome"
    return entered[0]
