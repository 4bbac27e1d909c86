"""Allocation: one running instance of a deployment's artifact. It has no route fields and decides no route.

An allocation has a durable state (what its process is) and a durable posture (what the edge, the store and the
runner must do with it). Postures are reached level-triggered and only ever tighten; a hand-over that is called off
may loosen `no_upgrades` and `no_picks` back to `open`, never past `letting_go`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What the process of an allocation is."""

    PLANNED = "planned"
    PULLING = "pulling"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"


TERMINAL = frozenset({State.STOPPED, State.FAILED, State.LOST})

# A runner reports what it sees now, not each step: one that became ready between two reports was never seen starting.
TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.PLANNED: frozenset({State.PULLING, State.STARTING, State.READY, State.STOPPED, State.FAILED, State.LOST}),
    State.PULLING: frozenset({State.STARTING, State.READY, State.STOPPED, State.FAILED, State.LOST}),
    State.STARTING: frozenset({State.READY, State.STOPPED, State.FAILED, State.LOST}),
    State.READY: frozenset({State.DRAINING, State.STOPPED, State.FAILED, State.LOST}),
    State.DRAINING: frozenset({State.READY, State.STOPPED, State.FAILED, State.LOST}),
    State.STOPPED: frozenset(),
    State.FAILED: frozenset(),
    State.LOST: frozenset(),
}


class Posture(StrEnum):
    """What everyone must do with an allocation, from the most open to the most closed."""

    OPEN = "open"
    NO_PICKS = "no_picks"
    NO_UPGRADES = "no_upgrades"
    LETTING_GO = "letting_go"  # its input ends, so that it stores what it holds before anything is cut
    CUT = "cut"
    FENCED = "fenced"
    GONE = "gone"


_ORDER = tuple(Posture)
_REVERSIBLE = frozenset({Posture.OPEN, Posture.NO_PICKS, Posture.NO_UPGRADES})


def may_move(current: Posture, wanted: Posture) -> bool:
    """Whether a posture may change from `current` to `wanted`: tightening always, loosening only before the cut."""
    if _ORDER.index(wanted) >= _ORDER.index(current):
        return True
    return current in _REVERSIBLE and wanted in _REVERSIBLE


def may_become(current: State, wanted: State) -> bool:
    """Whether the transition table has this pair."""
    return wanted in TRANSITIONS[current]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An allocation as an edge sees it. `number` is unique for ever in an installation and equals the HAProxy server
    id; `version` rises with each change of the record."""

    number: int
    allocation: str
    environment: int
    deployment: str
    host: str
    port: int
    posture: Posture
    ready: bool
    version: int


def is_pickable(endpoint: Endpoint, *, environment: int, deployment: str) -> bool:
    """Whether a new session of this owner may be sent to the allocation."""
    return (
        endpoint.ready
        and endpoint.posture is Posture.OPEN
        and endpoint.environment == environment
        and endpoint.deployment == deployment
    )


def honours_pins(endpoint: Endpoint) -> bool:
    """Whether pinned plain requests still go to the allocation."""
    return endpoint.ready and _ORDER.index(endpoint.posture) < _ORDER.index(Posture.CUT)


def honours_upgrades(endpoint: Endpoint) -> bool:
    """Whether pinned upgrades still go to the allocation."""
    return honours_pins(endpoint) and _ORDER.index(endpoint.posture) < _ORDER.index(Posture.NO_UPGRADES)
