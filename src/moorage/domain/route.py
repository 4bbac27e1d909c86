"""Route owner and route epoch: who serves a route key, and under which version of that decision.

A route owner is never an allocation: the record names deployment, artifact and environment. Which ready allocation
of the owner serves a request is chosen at an edge and changes no owner (see `allocation`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class RouteOwner:
    """The control plane's record of who serves `route_key` (a host name without port).

    `epoch` rises by one with every change of owner. `environment` is the environment's number, `deployment` a
    deployment id, `held` says that upgrades wait at the edge (during a hand-over), `cure` that the edge adds a constant
    query to live paths (for apps that cannot resume a stored session without one).
    """

    route_key: str
    epoch: int
    app: str
    environment: int
    deployment: str
    deployment_number: int
    artifact: str
    held: bool = False
    cure: bool = False


class Applied(StrEnum):
    """What a route-event gate says about an incoming log entry."""

    APPLY = "apply"
    DUPLICATE = "duplicate"
    GAP = "gap"
    STALE = "stale"
    FOREIGN = "foreign"  # another incarnation of the log: only a fresh snapshot helps


def decide_log_entry(*, applied_index: int, incoming_index: int, same_incarnation: bool) -> Applied:
    """Whether the entry continues the log: the index must be exactly one more than the last applied one."""
    if not same_incarnation:
        return Applied.FOREIGN
    if incoming_index <= applied_index:
        return Applied.DUPLICATE
    if incoming_index > applied_index + 1:
        return Applied.GAP
    return Applied.APPLY


def decide_epoch(*, applied_epoch: int, incoming_epoch: int) -> Applied:
    """Whether an owner change may replace what the table has for its route key: only a newer epoch may."""
    return Applied.APPLY if incoming_epoch > applied_epoch else Applied.STALE


@dataclass(frozen=True, slots=True)
class Granted:
    """A compare-and-swap that may be committed: the new owner, one epoch on."""

    owner: RouteOwner


@dataclass(frozen=True, slots=True)
class Stale:
    """A compare-and-swap that lost: who owns the route now (None: nobody)."""

    actual: RouteOwner | None


def decide_claim(current: RouteOwner | None, wanted: RouteOwner, *, expected_epoch: int) -> Granted | Stale:
    """Whether `wanted` may become the owner, given the epoch the caller has read (0: no owner).

    `wanted.epoch` is ignored; the granted owner carries `expected_epoch + 1`.
    """
    if (current.epoch if current else 0) != expected_epoch:
        return Stale(current)
    fields = {name: getattr(wanted, name) for name in RouteOwner.__dataclass_fields__}
    return Granted(RouteOwner(**{**fields, "epoch": expected_epoch + 1}))
