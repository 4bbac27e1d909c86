"""What the runner asks of a driver, whatever it runs allocations with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moorage.runner.launch import Launch
from moorage.runner.record import Identity


@dataclass(frozen=True, slots=True)
class Stranger:
    """Who holds a port that is an allocation's; `pid` None when it cannot be seen."""

    pid: int | None
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.command})" if self.pid else "a process of another user"


class Instance(Protocol):
    """One running allocation or store."""

    @property
    def identity(self) -> Identity: ...

    @property
    def is_over(self) -> bool:
        """Whether its main process has ended."""

    async def ended(self) -> int | None:
        """Wait until the main process has ended; its exit code (negative for a signal), None when nobody can know."""

    def terminate(self) -> None:
        """Ask everything that belongs to it to end. Never raises for what has ended already."""

    async def kill(self) -> None:
        """End everything that belongs to it, also what is frozen or has left its group, and wait until it is gone."""

    def listens(self, host: str, port: int) -> bool:
        """Whether one of its processes listens on the port; cheap when asked again and again."""

    def let_go(self, port: int) -> int:
        """End the input of every connection accepted on the port, without closing one, spread over at most
        LET_GO_WITHIN_S; how many. It blocks for as long. Raises OSError when that cannot be done here."""

    def release(self) -> None:
        """Stop watching; the instance goes on."""


class Driver(Protocol):
    """Starts, adopts and finds instances. `isolation` says what separates apps from each other and the platform."""

    @property
    def name(self) -> str: ...

    @property
    def isolation(self) -> str: ...

    def start(self, launch: Launch, *, log: Path, mark: Path) -> Instance:
        """Start a process whose output is appended to `log`. Raises OSError when it cannot be started.

        `mark` is a folder that is this instance's alone; it is HOME in the launch's environment.
        """

    def adopt(self, identity: Identity, *, mark: Path) -> Instance | None:
        """The instance that an earlier runner started, or None when that process has ended."""

    def find(self, *, mark: Path) -> Instance | None:
        """An instance whose start was interrupted before its identity was written."""

    async def sweep(self, identity: Identity | None, *, mark: Path) -> None:
        """End everything that still belongs to an instance whose main process is gone."""

    def stranger(self, host: str, port: int, instance: Instance | None) -> Stranger | None:
        """Who else listens on a port, or None when nobody does but the instance."""
