"""Operation: a durable piece of work. A worker that dies is replaced by another that goes on from the last stage.

Each kind has its machine: a table of states. `token` fences: it rises with every lease, and a write that carries an
older one changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Kind(StrEnum):
    """What an operation does."""

    DEPLOY = "deploy"
    PROMOTION = "promotion"
    ROLLBACK = "rollback"
    REPLACEMENT = "replacement"
    HANDOVER = "handover"
    DRAIN = "drain"
    DESTROY = "destroy"


_DEPLOY = {
    "queued": ("fetching", "failed", "canceled"),
    "fetching": ("building", "validating", "blocked", "failed", "canceled"),  # an imported artifact is not built
    "building": ("validating", "blocked", "failed", "canceled"),
    "validating": ("preview_ready", "blocked", "failed", "canceled"),
    "preview_ready": (),
    "blocked": (),
    "failed": (),
    "canceled": (),
}
_PROMOTION = {
    "requested": ("policy_check", "rejected", "failed", "canceled"),
    "policy_check": ("route_cas", "rejected", "failed", "canceled"),
    "route_cas": ("propagating", "rejected", "failed", "canceled"),
    "propagating": ("baking", "rolled_back", "failed"),
    "baking": ("healthy", "rolled_back", "failed"),
    "healthy": (),
    "rejected": (),
    "rolled_back": (),
    "failed": (),
    "canceled": (),
}
_HANDOVER = {
    "planned": ("refusing_new", "failed"),
    "refusing_new": ("cutting", "failed"),
    "cutting": ("storing", "failed"),
    "storing": ("fenced", "settled_with_losses"),
    "fenced": ("admitting", "settled_with_losses"),
    "admitting": ("settled", "settled_with_losses"),
    "settled": (),
    "settled_with_losses": (),
    "failed": (),
}
_DRAIN = {
    "draining": ("cutting", "failed"),
    "cutting": ("fenced", "failed"),
    "fenced": ("settled", "settled_with_losses", "failed"),
    "settled": (),
    "settled_with_losses": (),
    "failed": (),
}
_REPLACEMENT = {
    "requested": ("fencing", "starting", "failed", "canceled"),
    "fencing": ("starting", "failed"),
    "starting": ("admitting", "failed", "canceled"),
    "admitting": ("settled", "settled_with_losses", "failed"),
    "settled": (),
    "settled_with_losses": (),
    "failed": (),
    "canceled": (),
}
_DESTROY = {"requested": ("removing", "failed"), "removing": ("destroyed", "failed"), "destroyed": (), "failed": ()}

MACHINES: Mapping[Kind, Mapping[str, tuple[str, ...]]] = {
    Kind.DEPLOY: _DEPLOY,
    Kind.PROMOTION: _PROMOTION,
    Kind.ROLLBACK: _PROMOTION,
    Kind.HANDOVER: _HANDOVER,
    Kind.DRAIN: _DRAIN,
    Kind.REPLACEMENT: _REPLACEMENT,
    Kind.DESTROY: _DESTROY,
}
SUCCESS = frozenset({"preview_ready", "healthy", "settled", "destroyed"})


def first_state(kind: Kind) -> str:
    """The state an operation of this kind begins in."""
    return next(iter(MACHINES[kind]))


def may_move(kind: Kind, current: str, wanted: str) -> bool:
    """Whether the machine has this transition; staying is always allowed (a stage may record progress)."""
    return wanted == current or wanted in MACHINES[kind][current]


def is_final(kind: Kind, state: str) -> bool:
    """Whether nothing follows this state."""
    return not MACHINES[kind][state]


def may_cancel(kind: Kind, state: str) -> bool:
    """Whether a cancel still prevents something: what has been committed stays and is said."""
    return "canceled" in MACHINES[kind][state]
