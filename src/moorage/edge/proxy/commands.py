"""The changes an edge makes to its proxy, as values: each knows its line for the runtime socket. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from moorage.edge.proxy.hot import HotEntry, pack

POOL = "pool"
TAKES_UPGRADES, REFUSES_UPGRADES = 1, 2  # the tag of an allocation number in the numbers table; 0 is no entry


def server_name(number: int) -> str:
    """The proxy's name for an allocation's server."""
    return f"{POOL}/a{number}"


@dataclass(frozen=True, slots=True)
class SetPinKey:
    """The key (base64) that signs pins; it lives in the proxy's memory and in no file."""

    key: str

    def line(self) -> str:
        return f"set var proc.pin_key str({self.key})"


@dataclass(frozen=True, slots=True)
class SetMark:
    """The log and index up to which the proxy has everything."""

    mark: str

    def line(self) -> str:
        return f"set var proc.mark str({self.mark})"


@dataclass(frozen=True, slots=True)
class AddServer:
    """A server, stopped, with weight 0: only a slot or a pin that names it can reach it, never a balancing choice."""

    number: int
    host: str
    port: int

    def line(self) -> str:
        return f"add server {server_name(self.number)} {_address(self.host)}:{self.port} id {self.number} weight 0"


@dataclass(frozen=True, slots=True)
class StartServer:
    """The server may be reached by what names it; a new one is stopped at first."""

    number: int

    def line(self) -> str:
        return f"set server {server_name(self.number)} state ready"


@dataclass(frozen=True, slots=True)
class MoveServer:
    """The server listens elsewhere."""

    number: int
    host: str
    port: int

    def line(self) -> str:
        return f"set server {server_name(self.number)} addr {self.host} port {self.port}"


@dataclass(frozen=True, slots=True)
class StopServer:
    """Nothing new reaches the server, whatever names it."""

    number: int

    def line(self) -> str:
        return f"set server {server_name(self.number)} state maint"


@dataclass(frozen=True, slots=True)
class ShutdownSessions:
    """Everything attached to the server is cut, without a close frame."""

    number: int

    def line(self) -> str:
        return f"shutdown sessions server {server_name(self.number)}"


@dataclass(frozen=True, slots=True)
class DeleteServer:
    """The server goes; its id is never used again."""

    number: int

    def line(self) -> str:
        return f"del server {server_name(self.number)}"


@dataclass(frozen=True, slots=True)
class SetNumber:
    """Pins of this allocation count; its pinned upgrades may be refused."""

    number: int
    refuses_upgrades: bool

    def line(self) -> str:
        tag = REFUSES_UPGRADES if self.refuses_upgrades else TAKES_UPGRADES
        return f"set table numbers key {self.number} data.server_id {self.number} data.gpt0 {tag}"


@dataclass(frozen=True, slots=True)
class ClearNumber:
    """Pins of this allocation count no longer."""

    number: int

    def line(self) -> str:
        return f"clear table numbers key {self.number}"


@dataclass(frozen=True, slots=True)
class SetSlot:
    """A slot stands for an allocation."""

    slot: int
    number: int

    def line(self) -> str:
        return f"set table slots key {self.slot} data.server_id {self.number}"


@dataclass(frozen=True, slots=True)
class ClearSlot:
    """A slot stands for nothing."""

    slot: int

    def line(self) -> str:
        return f"clear table slots key {self.slot}"


@dataclass(frozen=True, slots=True)
class SetRoute:
    """The route's decision changes: one command, so a request sees the old or the new one."""

    key: str
    entry: HotEntry

    def line(self) -> str:
        return f"set table hot key {self.key} data.gpt0 {pack(self.entry)} data.gpc0 {self.entry.environment}"


@dataclass(frozen=True, slots=True)
class ClearRoute:
    """The route is unknown from now on."""

    key: str

    def line(self) -> str:
        return f"clear table hot key {self.key}"


Command = (
    SetPinKey
    | SetMark
    | AddServer
    | StartServer
    | MoveServer
    | StopServer
    | ShutdownSessions
    | DeleteServer
    | SetNumber
    | ClearNumber
    | SetSlot
    | ClearSlot
    | SetRoute
    | ClearRoute
)


def _address(host: str) -> str:
    return f"[{host}]" if ":" in host else host
