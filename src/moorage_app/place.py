"""Where and when this process runs: identity from the environment, the clock, randomness.

Rules of this room: the only module of the SDK that reads the environment, the clock or random numbers.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from . import contract


@dataclass(frozen=True, slots=True)
class Place:
    """This allocation, as the platform names it; without a platform a local one with an in-memory store."""

    app: str
    environment: str
    allocation: str
    allocation_number: int
    deployment: int
    store_url: str | None = field(default=None, repr=False)  # holds a password


def read_place(environ: Mapping[str, str] | None = None) -> Place:
    """Reads the platform's variables (contract.ENV_*). Numbers that cannot be read are 0."""
    given = os.environ if environ is None else environ
    return Place(
        app=given.get(contract.ENV_APP) or "app",
        environment=given.get(contract.ENV_ENVIRONMENT) or "local",
        allocation=given.get(contract.ENV_ALLOCATION) or f"local-{secrets.token_hex(4)}",
        allocation_number=_number(given.get(contract.ENV_ALLOCATION_NUMBER)),
        deployment=_number(given.get(contract.ENV_DEPLOYMENT)),
        store_url=given.get(contract.ENV_STORE_URL) or None,
    )


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else 0


def now_ms() -> int:
    """Unix time in ms: for people and for time-outs across machines, never for an order of writes."""
    return time.time_ns() // 1_000_000


def tick_s() -> float:
    """Monotonic seconds of this process."""
    return time.monotonic()


def new_session_id() -> str:
    """192 random bits as text."""
    return secrets.token_urlsafe(24)


def jitter(low: float, high: float) -> float:
    """A number between the two."""
    return random.uniform(low, high)
