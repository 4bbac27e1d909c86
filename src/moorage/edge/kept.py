"""What an edge keeps on disk: the last verified snapshot, and the log entries that were put in force after it.

An edge that starts while the control plane is away serves from here, and must not go back by a single entry: a port
that was taken from an allocation may belong to another app by now. The snapshot is the signed message itself and is
verified again before it is used; the entries pass the same gate as fresh ones. The snapshot's file time says when the
table was last known to be current.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from moorage.system.files import write_private
from moorage.wire.log import LogEntry, SignedSnapshot, SnapshotInvalid


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot, not yet verified, the entries after it, and when both were last known to be current (ms)."""

    signed: SignedSnapshot
    entries: tuple[LogEntry, ...]
    current_ms: int


class RouteCopy:
    """Two files: `<path>`, replaced as a whole, and `<path>.log`, appended to."""

    def __init__(self, path: Path) -> None:
        self._path, self._log_path = path, path.with_name(f"{path.name}.log")
        self.appended = 0

    def save(self, signed: SignedSnapshot) -> None:
        """Replace the snapshot and drop the entries: it has them. A crash in between leaves only duplicates."""
        write_private(self._path, signed.model_dump_json().encode())
        self._log_path.unlink(missing_ok=True)
        self.appended = 0

    def append(self, entries: Sequence[LogEntry]) -> None:
        """Keep entries that are in force. Not flushed to the disk: it is processes that this outlives."""
        descriptor = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as handle:
            handle.write(b"".join(entry.model_dump_json().encode() + b"\n" for entry in entries))
        self.appended += len(entries)

    def touch(self) -> None:
        """The table that the copy belongs to is known to be current."""
        if self._path.exists():
            os.utime(self._path)

    def load(self) -> Kept | None:
        """What is kept; None when there is nothing. Raises SnapshotInvalid when the snapshot is damaged."""
        try:
            signed = SignedSnapshot.model_validate_json(self._path.read_bytes())
            current_ms = int(self._path.stat().st_mtime * 1000)
        except FileNotFoundError:
            return None
        except ValidationError as wrong:
            raise SnapshotInvalid(f"{self._path} is damaged") from wrong
        entries = tuple(self._entries())
        self.appended = len(entries)
        return Kept(signed, entries, current_ms)

    def _entries(self) -> Iterable[LogEntry]:
        if not self._log_path.exists():
            return
        for line in self._log_path.read_bytes().splitlines():
            try:
                yield LogEntry.model_validate_json(line)
            except ValidationError:
                return  # the line that a crash cut off; what follows would leave a gap
