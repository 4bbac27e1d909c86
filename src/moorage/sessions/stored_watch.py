"""Watching a store: which user read, wrote or touched which session's record, from `MONITOR` and `CLIENT LIST`.

`MONITOR` prints addresses, `CLIENT LIST` joins them with users. A connection that was gone before anybody could ask
has no user: its deeds are kept without a name and prove little. Values are never looked at and never kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from moorage.domain.errors import Unavailable
from moorage.sessions.admin import ANSWER_TIMEOUT_S, StoreAdmin
from moorage.sessions.failures import StoreDown
from moorage.sessions.stored_account import Deed, Did
from moorage.sessions.users import ADMIN
from moorage.system.clock import pause
from moorage.vango.records import is_session_key, label_of_key

LINE_MAX_BYTES = 16 << 20  # a record of 512 KiB, each byte printed as `\xNN`, in a line with others
NAMING_PERIOD_S = 0.02
_LINE = re.compile(rb'^\+(\d+)\.(\d{6}) \[\d+ (\S+)\] "(\w+)"(?: "((?:[^"\\]|\\.)*)")?')
_CONNECTS = frozenset({"hello", "client", "auth"})  # the first commands of a new connection
_DEEDS: Mapping[str, Did] = {
    "get": Did.READ,
    "set": Did.WROTE,
    "setex": Did.WROTE,
    "psetex": Did.WROTE,
    "expire": Did.TOUCHED,
    "pexpire": Did.TOUCHED,
    "expireat": Did.TOUCHED,
    "pexpireat": Did.TOUCHED,
    "getex": Did.TOUCHED,
    "del": Did.REMOVED,
    "unlink": Did.REMOVED,
}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of `MONITOR`: the client's address, the command's name in lower case, its first argument."""

    at_ms: int
    address: str
    command: str
    key: str


def parse_line(line: bytes) -> Line | None:
    """The line's parts; None for what is no command."""
    found = _LINE.match(line)
    if found is None:
        return None
    seconds, micros, address, command, key = found.groups()
    at_ms = int(seconds) * 1000 + int(micros) // 1000
    return Line(at_ms, address.decode(), command.decode().lower(), (key or b"").decode("ascii", "backslashreplace"))


class StoreWatch:
    """Deeds at one environment's store from `start` on. `take` hands them over once their users are known."""

    def __init__(self, admin: StoreAdmin) -> None:
        self._admin = admin
        self._users: dict[str, str] = {}  # address to user
        self._lines: list[Line] = []  # whose users are not known yet
        self._deeds: list[Deed] = []
        self._naming = asyncio.Lock()  # whoever takes deeds waits for those that are just being named
        self._reading: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def is_watching(self) -> bool:
        """Whether nothing has been missed since `start`."""
        return self._reading is not None and not self._reading.done()

    async def start(self) -> None:
        """Begin to watch; returns once the store has agreed. Raises StoreDown."""
        self._users = dict(await self._admin.user_by_address())
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._connect()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as lost:
            await self.stop()
            raise StoreDown(self._admin.port, str(lost) or type(lost).__name__) from lost

    async def _connect(self) -> None:
        reader, self._writer = await asyncio.open_connection(self._admin.host, self._admin.port, limit=LINE_MAX_BYTES)
        for words in (("AUTH", ADMIN, self._admin.password), ("MONITOR",)):
            self._writer.write(_resp(words))
            answer = await reader.readuntil(b"\r\n")
            if not answer.startswith(b"+OK"):
                raise ValueError(f"{words[0]} was refused")
        self._reading = asyncio.create_task(self._read(reader), name="store-watch")

    async def stop(self) -> None:
        """End the watch; what was seen stays to be taken."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        if self._writer is not None:
            self._writer.transport.abort()

    async def take(self) -> tuple[Deed, ...]:
        """The deeds since the last call, in their order."""
        await self._name()
        deeds, self._deeds = self._deeds, []
        return tuple(deeds)

    def forget(self, user: str) -> None:
        """The user's connections have been ended: their addresses may be anybody's from now on."""
        self._users = {address: name for address, name in self._users.items() if name != user}

    async def _read(self, reader: asyncio.StreamReader) -> None:
        naming = asyncio.create_task(self._name_often())
        try:
            while raw := await reader.readline():
                line = parse_line(raw)
                if line is not None and line.command in _CONNECTS:
                    self._users.pop(line.address, None)
                elif line is not None and line.command in _DEEDS and is_session_key(line.key):
                    self._lines.append(line)
        except (OSError, ValueError):
            return
        finally:
            naming.cancel()

    async def _name_often(self) -> None:
        """Learn the users of new connections while these still exist."""
        while True:
            await pause(NAMING_PERIOD_S)
            with contextlib.suppress(Unavailable):
                await self._name()

    async def _name(self) -> None:
        """Give each line its user, in order; one whose connection is gone already has none.

        A line that comes while the store is being asked waits for the next time: its connection may be younger than
        the answer.
        """
        async with self._naming:
            count = len(self._lines)
            if any(line.address not in self._users for line in self._lines):
                found = await self._admin.user_by_address()
                self._users |= found  # not in one step with the asking: what was forgotten meanwhile stays forgotten
            lines, self._lines = self._lines[:count], self._lines[count:]
            for line in lines:
                user = self._users.get(line.address, "")
                if user != ADMIN:  # the platform's own looks are nobody's return
                    self._deeds.append(Deed(user, _DEEDS[line.command], label_of_key(line.key), line.at_ms))


def _resp(words: tuple[str, ...]) -> bytes:
    """A command in the store's protocol."""
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        raw = word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
    return b"".join(parts)
