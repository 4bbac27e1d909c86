"""How a build ends without an artifact: blocked (the source must change) or failed (something around it did)."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from moorage.domain.errors import Problem, Refused, Unavailable

_FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_TEXTS = ("no space left on device", "disk quota exceeded", "errno 28]")


class Blocked(Refused):
    """The source cannot become an artifact until somebody changes it; `log_tail` is what the tool said last."""

    def __init__(self, problem: Problem, log_tail: Sequence[str] = ()) -> None:
        super().__init__(problem)
        self.log_tail = tuple(log_tail)


class Failed(Unavailable):
    """A command failed, took too long, or the disk is full; the same source may build later."""

    def __init__(self, problem: Problem, log_tail: Sequence[str] = ()) -> None:
        super().__init__(problem)
        self.log_tail = tuple(log_tail)


def disk_full(detail: str, log_tail: Sequence[str] = ()) -> Failed:
    """The failure of a build that ran out of disk."""
    return Failed(
        Problem(
            "disk-full",
            "The disk is full",
            detail,
            "Free space on the disk that holds the data directory, then deploy again.",
            507,
        ),
        log_tail,
    )


def disk_failure(failed: OSError) -> Failed:
    """The failure that an operating-system error during a build means."""
    detail = f"{failed.strerror or failed}" + (f": {failed.filename}" if failed.filename else "")
    if failed.errno in _FULL:
        return disk_full(detail)
    hint = "Check the disk and the permissions of the data directory, then deploy again."
    return Failed(Problem("build-storage-failed", "The build could not read or write a file", detail, hint, 500))
