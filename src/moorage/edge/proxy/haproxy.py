"""The proxy as the agent sees it: what it holds, what it counts, and commands that it carries out or refuses."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from moorage.edge.proxy.actual import ActualProxy, ActualServer
from moorage.edge.proxy.commands import (
    POOL,
    REFUSES_UPGRADES,
    AddServer,
    ClearRoute,
    Command,
    DeleteServer,
    MoveServer,
    SetRoute,
)
from moorage.edge.proxy.hot import unpack
from moorage.edge.proxy.runtime import ProxyRefused, ProxyUnreachable, RuntimeSocket
from moorage.wire.edge import Sockets

_ENTRY = re.compile(r"^0x[0-9a-f]+: key=(\S+) (.*)$", re.MULTILINE)
_VARIABLE = re.compile(r"value=<(.*)>")
_FORCED_MAINTENANCE = 0x01
_SET_ADDRESS = re.compile(r"changed|no need to change")


@dataclass(frozen=True, slots=True)
class ProxyIdentity:
    """Which process answers. Another pid or start: everything must be filled again."""

    pid: int
    started_s: int
    version: str


class HAProxy:
    """A running HAProxy behind its runtime socket; connects when needed."""

    def __init__(self, runtime_socket: Path) -> None:
        self._path = runtime_socket
        self._runtime: RuntimeSocket | None = None
        self._turn = asyncio.Lock()  # loop and reports share the connection

    async def identify(self) -> ProxyIdentity:
        """Who answers; raises ProxyUnreachable."""
        return _identity((await self._send(["show info"]))[0])

    async def observe(self) -> ActualProxy:
        """Everything that the proxy holds, read back from it; raises ProxyUnreachable."""
        pin_key, mark, hot, slots, numbers, servers, connections = await self._send(
            [
                "get var proc.pin_key",
                "get var proc.mark",
                "show table hot",
                "show table slots",
                "show table numbers",
                f"show servers state {POOL}",
                f"show servers conn {POOL}",
            ]
        )
        slot_numbers = {int(key): data["server_id"] for key, data in _entries(slots)}
        return ActualProxy(
            pin_key=_variable(pin_key),
            mark=_variable(mark),
            routes={key: unpack(data["gpt0"], data["gpc0"]) for key, data in _entries(hot)},
            slots=slot_numbers,
            numbers={int(key): data["gpt0"] == REFUSES_UPGRADES for key, data in _entries(numbers)},
            servers=_servers(servers, _connections(connections)),
            next_slot=max(slot_numbers, default=-1) + 1,
        )

    async def connections(self) -> Mapping[int, int]:
        """Connections in use per server number, upgraded ones included; raises ProxyUnreachable."""
        return _connections((await self._send([f"show servers conn {POOL}"]))[0])

    async def sockets(self) -> tuple[Sockets, ...]:
        """Attached (upgraded) sockets per allocation that has or had any; raises ProxyUnreachable."""
        servers, pins = await self._send(["show table attached_servers", "show table attached data.conn_cur gt 0"])
        holders = Counter(int(key.partition("-")[0]) for key, _ in _entries(pins))
        counts = {int(key): data["conn_cur"] for key, data in _entries(servers)}
        return tuple(
            Sockets(number=number, attached=attached, pins=holders[number])
            for number, attached in sorted(counts.items())
        )

    async def apply(self, commands: Sequence[Command]) -> None:
        """Carry out the commands in order. A refused one stops the plan before the routes that depend on it.

        Raises ProxyRefused or ProxyUnreachable; what the proxy holds is then unknown until `observe`.
        """
        for _, group in groupby(commands, key=lambda command: isinstance(command, SetRoute | ClearRoute)):
            batch = list(group)
            replies = await self._send([command.line() for command in batch])
            for command, reply in zip(batch, replies, strict=True):
                if not _is_accepted(command, reply):
                    raise ProxyRefused(command.line(), reply)

    async def watch(self) -> None:
        """Return when the process at the other end is gone, or cannot be reached at all."""
        try:
            tripwire = await RuntimeSocket.connect(self._path)
        except ProxyUnreachable:
            return
        try:
            await tripwire.closed()
        finally:
            await tripwire.close()

    async def close(self) -> None:
        """Close the connection; the proxy runs on."""
        if self._runtime is not None:
            await self._runtime.close()
            self._runtime = None

    async def _send(self, lines: Sequence[str]) -> list[str]:
        async with self._turn:
            if self._runtime is None:
                self._runtime = await RuntimeSocket.connect(self._path)
            runtime, self._runtime = self._runtime, None  # given up unless every reply was read
            replies = await runtime.send(lines)
            self._runtime = runtime
            return replies


def _is_accepted(command: Command, reply: str) -> bool:
    match command:
        case AddServer():
            return reply == "New server registered."
        case DeleteServer():
            return reply == "Server deleted."
        case MoveServer():
            return _SET_ADDRESS.search(reply) is not None
        case _:
            return not reply


def _identity(info: str) -> ProxyIdentity:
    fields = dict(line.split(": ", 1) for line in info.splitlines() if ": " in line)
    return ProxyIdentity(int(fields["Pid"]), int(fields["Start_time_sec"]), fields["Version"])


def _variable(reply: str) -> str:
    found = _VARIABLE.search(reply)
    return found.group(1) if found else ""


def _entries(dump: str) -> Iterable[tuple[str, dict[str, int]]]:
    """Key and integer fields of each entry of a table's dump."""
    for key, rest in _ENTRY.findall(dump):
        fields = (word.split("=", 1) for word in rest.split() if "=" in word)
        yield key, {name: int(value) for name, value in fields if value.isdigit()}


def _servers(state: str, connections: Mapping[int, int]) -> dict[int, ActualServer]:
    lines = state.splitlines()
    names = lines[1].removeprefix("# ").split()
    servers = {}
    for line in lines[2:]:
        fields = dict(zip(names, line.split(), strict=False))
        number = int(fields["srv_id"])
        stopped = bool(int(fields["srv_admin_state"]) & _FORCED_MAINTENANCE)
        found = ActualServer(fields["srv_addr"], int(fields["srv_port"]), stopped=stopped)
        servers[number] = replace(found, connections=connections.get(number, 0))
    return servers


def _connections(dump: str) -> dict[int, int]:
    """Connections in use from the lines `pool/a12 8/12 127.0.0.1 20012 - 5000 <used> ...`."""
    rows = (line.split() for line in dump.splitlines() if line.startswith(f"{POOL}/"))
    return {int(row[1].partition("/")[2]): int(row[6]) for row in rows}
