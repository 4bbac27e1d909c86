"""What a runner remembers of an allocation: `run.json` in its folder, private, replaced as a whole.

A record is written before the process exists (so that an interrupted start is recognised), again with the process's
identity, and at each change of state. It holds the app's environment, and therefore secrets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from moorage.domain.allocation import TERMINAL, State
from moorage.system.files import write_private
from moorage.wire.message import Message
from moorage.wire.runner import AllocationReport, DesiredAllocation

RECORD_NAME = "run.json"
LOG_NAME = "app.log"
PRIVATE_NAME = "home"
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class Identity(Message):
    """A process for good: pid, start in clock ticks since boot, and which boot."""

    pid: int
    started_ticks: int
    boot: str


class Record(Message):
    """What is known of one allocation; times are Unix milliseconds, `exit_code` is negative for a signal."""

    format: Literal[1] = 1
    desired: DesiredAllocation
    state: State
    identity: Identity | None = None
    stopping: bool = False
    started_ms: int | None = None
    ready_ms: int | None = None
    ended_ms: int | None = None
    exit_code: int | None = None
    reason: str = ""
    detail: str = ""
    log_tail: tuple[str, ...] = ()
    adopted: bool = False
    let_go: int | None = None

    @property
    def allocation(self) -> str:
        """The allocation's id."""
        return self.desired.allocation

    @property
    def is_over(self) -> bool:
        """Whether its process has ended for good."""
        return self.state in TERMINAL

    def but(self, **changes: object) -> Record:
        """The same record with these fields changed."""
        return self.model_copy(update=changes)


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of one allocation and what lies in it."""

    folder: Path

    @property
    def record(self) -> Path:
        return self.folder / RECORD_NAME

    @property
    def log(self) -> Path:
        return self.folder / LOG_NAME

    @property
    def private(self) -> Path:
        """HOME of the app; also the mark by which its processes are recognised."""
        return self.folder / PRIVATE_NAME


def is_folder_name(text: str) -> bool:
    """Whether an id may be used as the name of a folder."""
    return _FOLDER_NAME.fullmatch(text) is not None


def write_record(place: Place, record: Record) -> None:
    """Replace `run.json`. Raises OSError."""
    write_private(place.record, record.model_dump_json().encode())


def read_record(place: Place) -> Record | None:
    """The record of a folder, or None when there is none that can be read."""
    try:
        return Record.model_validate_json(place.record.read_bytes())
    except (OSError, ValidationError):
        return None


def report_of(record: Record) -> AllocationReport:
    """What the control plane is told of a record."""
    return AllocationReport(
        allocation=record.allocation,
        state=record.state,
        pid=record.identity.pid if record.identity else None,
        started_ms=record.started_ms,
        ready_ms=record.ready_ms,
        exit_code=record.exit_code,
        reason=record.reason,
        detail=record.detail,
        log_tail=record.log_tail,
        adopted=record.adopted,
        let_go=record.let_go,
    )
