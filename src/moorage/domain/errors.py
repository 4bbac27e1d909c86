"""Errors with stable codes. A refusal is a value (`Problem`); an exception means the world failed.

Every code is kebab-case, documented in `docs/errors/`, and never renamed once released.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something was refused, as RFC 9457 problem details carry it.

    `code` is the stable machine-readable name, `title` one line for people, `detail` what was found, `hint` what to
    do next, `facts` JSON-able extras (for example `actual_epoch`).
    """

    code: str
    title: str
    detail: str = ""
    hint: str = ""
    status: int = 409
    facts: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        tail = f": {self.detail}" if self.detail else ""
        return f"{self.title}{tail}"


class MoorageError(Exception):
    """Base of everything the platform raises on purpose; carries the problem it will be shown as."""

    retryable = False

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Refused(MoorageError):
    """A request that cannot be granted; the caller must change something first."""


class Unavailable(MoorageError):
    """A part of the world did not answer; the same call may succeed later."""

    retryable = True
