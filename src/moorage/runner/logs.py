"""An app's log: a file that the app itself appends to, so that it needs no runner to go on writing.

Rules: never longer than its limit for more than a moment, never in the app's way. The writer's descriptor appends, so
the file may be emptied under it; what was written between the last read and the emptying is lost, a few lines at most.
"""

from __future__ import annotations

import os
from pathlib import Path

from moorage.domain.limits import LOG_TAIL_LINES_COUNT

LINE_MAX_CHARS = 1000
_TAIL_MAX_BYTES = 64 << 10
_CHUNK_BYTES = 1 << 20


def tail_lines(path: Path, count: int = LOG_TAIL_LINES_COUNT) -> tuple[str, ...]:
    """The last lines of a log, each shortened to LINE_MAX_CHARS; empty when there is none."""
    try:
        with open(path, "rb") as log:
            length = log.seek(0, os.SEEK_END)
            start = max(length - _TAIL_MAX_BYTES, 0)
            log.seek(start)
            lines = log.read(_TAIL_MAX_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return ()
    whole = lines[1:] if start and len(lines) > 1 else lines
    return tuple(line[:LINE_MAX_CHARS] for line in whole if line.strip())[-count:]


def is_too_long(path: Path, size_bytes: int) -> bool:
    """Whether the log is longer than this."""
    try:
        return path.stat().st_size > size_bytes
    except OSError:
        return False


def keep_short(path: Path, size_bytes: int) -> bool:
    """Once the log is longer than this, keep its last half beside it (`.1`) and empty it; says whether it did.

    On a full disk nothing is kept: the log is emptied all the same, since it may be what filled the disk.
    """
    try:
        length = path.stat().st_size
        if length <= size_bytes:
            return False
        try:
            _keep_end(path, length - size_bytes // 2, size_bytes)
        except OSError:
            path.with_name(path.name + ".1").unlink(missing_ok=True)
        os.truncate(path, 0)
    except OSError:
        return False
    return True


def _keep_end(path: Path, start: int, left: int) -> None:
    with open(path, "rb") as log, open(path.with_name(path.name + ".1"), "wb") as older:
        log.seek(start)
        log.readline(_CHUNK_BYTES)  # the rest of a line that was cut
        # At most `left` bytes: an app that writes faster than we copy must not keep us here.
        while left > 0 and (chunk := log.read(min(_CHUNK_BYTES, left))):
            older.write(chunk)
            left -= len(chunk)
