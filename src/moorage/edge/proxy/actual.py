"""What the proxy holds: read back from it at first, then kept in step by folding in each command that it took. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from moorage.edge.proxy.commands import (
    AddServer,
    ClearNumber,
    ClearRoute,
    ClearSlot,
    Command,
    DeleteServer,
    MoveServer,
    SetMark,
    SetNumber,
    SetPinKey,
    SetRoute,
    SetSlot,
    ShutdownSessions,
    StartServer,
    StopServer,
)
from moorage.edge.proxy.hot import HotEntry


@dataclass(frozen=True, slots=True)
class ActualServer:
    """A server of the pool; `connections` as of the last look, `stopped` once nothing new may reach it."""

    host: str
    port: int
    stopped: bool = False
    connections: int = 0


@dataclass(slots=True)
class ActualProxy:
    """The proxy's state. `numbers` says for each pinned allocation whether it refuses upgrades; `next_slot` is where
    the search for free slots goes on."""

    pin_key: str = ""
    mark: str = ""
    routes: dict[str, HotEntry] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)
    numbers: dict[int, bool] = field(default_factory=dict)
    servers: dict[int, ActualServer] = field(default_factory=dict)
    next_slot: int = 0

    def take(self, commands: Iterable[Command]) -> None:
        """Fold in commands that the proxy has carried out."""
        for command in commands:
            self._take(command)

    def see_connections(self, connections: Mapping[int, int]) -> None:
        """Take over how many connections each server has now."""
        for number, server in self.servers.items():
            self.servers[number] = replace(server, connections=connections.get(number, 0))

    def _take(self, command: Command) -> None:
        match command:
            case SetRoute(key, entry):
                self.routes[key] = entry
            case ClearRoute(key):
                self.routes.pop(key, None)
            case SetSlot(slot, number):
                self.slots[slot] = number
                self.next_slot = slot + 1
            case ClearSlot(slot):
                self.slots.pop(slot, None)
            case SetNumber() | ClearNumber() | SetPinKey() | SetMark():
                self._take_pins(command)
            case _:
                self._take_server(command)

    def _take_pins(self, command: SetNumber | ClearNumber | SetPinKey | SetMark) -> None:
        match command:
            case SetNumber(number, refuses):
                self.numbers[number] = refuses
            case ClearNumber(number):
                self.numbers.pop(number, None)
            case SetPinKey(key):
                self.pin_key = key
            case SetMark(mark):
                self.mark = mark

    def _take_server(
        self, command: AddServer | MoveServer | StartServer | StopServer | ShutdownSessions | DeleteServer
    ) -> None:
        match command:
            case AddServer(number, host, port):
                self.servers[number] = ActualServer(host, port, stopped=True)
            case StartServer(number):
                self.servers[number] = replace(self.servers[number], stopped=False)
            case MoveServer(number, host, port):
                self.servers[number] = replace(self.servers[number], host=host, port=port)
            case StopServer(number):
                self.servers[number] = replace(self.servers[number], stopped=True)
            case DeleteServer(number):
                self.servers.pop(number, None)
            case ShutdownSessions():
                pass  # what it achieved is seen at the next look at the connections
