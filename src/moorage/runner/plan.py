"""What a runner must do next, pure: desired state and what is observed, to actions.

Rules: an allocation is started once in its life; its environment's store comes before it and goes after it. What is
no longer desired is stopped first and forgotten when it has ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from moorage.domain.allocation import State
from moorage.runner.record import is_folder_name
from moorage.wire.runner import Desired, DesiredAllocation, DesiredStore


@dataclass(frozen=True, slots=True)
class ObservedAllocation:
    """An allocation that this runner has started, adopted or declined."""

    allocation: str
    environment: str
    is_over: bool
    is_stopping: bool
    is_letting_go: bool = False


@dataclass(frozen=True, slots=True)
class ObservedStore:
    """A store that this runner has opened or adopted. `users` are those that it is known to admit or refuse;
    `is_confirmed` whether its desired state is from the control plane (or what an earlier runner left)."""

    environment: str
    desired: DesiredStore
    is_confirmed: bool
    is_ready: bool
    is_closing: bool
    is_closed: bool
    users: frozenset[str]


@dataclass(frozen=True, slots=True)
class Start:
    """Start an allocation for the first and only time."""

    desired: DesiredAllocation


@dataclass(frozen=True, slots=True)
class Decline:
    """Record that an allocation is never started here."""

    desired: DesiredAllocation
    state: State
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask an allocation to end."""

    allocation: str


@dataclass(frozen=True, slots=True)
class LetGo:
    """End the input of an allocation's connections, once."""

    allocation: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop an allocation that has ended and is no longer desired; its log is kept for a while."""

    allocation: str


@dataclass(frozen=True, slots=True)
class OpenStore:
    """Start or adopt an environment's store."""

    desired: DesiredStore


@dataclass(frozen=True, slots=True)
class UpdateStore:
    """Tell a store its desired state (users, port)."""

    desired: DesiredStore


@dataclass(frozen=True, slots=True)
class CloseStore:
    """Stop a store that nothing needs any more; its data stays."""

    environment: str


@dataclass(frozen=True, slots=True)
class ForgetStore:
    """Drop a store that was stopped and is no longer desired; its data is kept for a while."""

    environment: str


Action = Start | Decline | Stop | LetGo | Forget | OpenStore | UpdateStore | CloseStore | ForgetStore


def plan_changes(
    desired: Desired, allocations: Mapping[str, ObservedAllocation], stores: Mapping[str, ObservedStore]
) -> tuple[Action, ...]:
    """The next actions, in order. Nothing to do is an empty tuple."""
    return (*_stores(desired, allocations, stores), *_allocations(desired, allocations, stores))


def waits_for_store(wanted: DesiredAllocation, desired: Desired, stores: Mapping[str, ObservedStore]) -> bool:
    """Whether an allocation cannot start yet, since its environment's store is not ready for it."""
    needed = next((s for s in desired.stores if s.environment == wanted.environment and s.want == "run"), None)
    if needed is None:
        return False
    store = stores.get(wanted.environment)
    if store is None or not store.is_ready or store.is_closing:
        return True
    return not store.users >= {user.name for user in needed.users}


def _allocations(
    desired: Desired, observed: Mapping[str, ObservedAllocation], stores: Mapping[str, ObservedStore]
) -> Iterator[Action]:
    wanted = {each.allocation: each for each in desired.allocations}
    for found in observed.values():
        keeps = found.allocation in wanted and wanted[found.allocation].want == "run"
        if not keeps and not found.is_over and not found.is_stopping:
            yield Stop(found.allocation)
        elif found.allocation not in wanted and found.is_over:
            yield Forget(found.allocation)
        elif keeps and wanted[found.allocation].let_go and not found.is_over and not found.is_letting_go:
            yield LetGo(found.allocation)
    for each in desired.allocations:
        if each.allocation not in observed:
            yield from _first(each, desired, stores)


def _first(each: DesiredAllocation, desired: Desired, stores: Mapping[str, ObservedStore]) -> Iterator[Action]:
    """What to do with an allocation that this runner has never seen."""
    if not is_folder_name(each.allocation):
        yield Decline(each, State.FAILED, "start-failed", "Its id cannot name a folder.")
    elif each.want == "stop":
        yield Decline(each, State.STOPPED, "", "It was stopped before it was started.")
    elif not waits_for_store(each, desired, stores):
        yield Start(each)


def _stores(
    desired: Desired, allocations: Mapping[str, ObservedAllocation], observed: Mapping[str, ObservedStore]
) -> Iterator[Action]:
    wanted = {each.environment: each for each in desired.stores if is_folder_name(each.environment)}
    in_use = {found.environment for found in allocations.values() if not found.is_over}
    for environment, each in wanted.items():
        found = observed.get(environment)
        if each.want == "stop":
            continue
        if found is None or found.is_closed:
            yield OpenStore(each)
        elif not found.is_closing and (found.desired != each or not found.is_confirmed):
            yield UpdateStore(each)
    for environment, found in observed.items():
        keeps = environment in wanted and wanted[environment].want == "run"
        if not keeps and not found.is_closed and not found.is_closing and environment not in in_use:
            yield CloseStore(environment)
        elif environment not in wanted and found.is_closed:
            yield ForgetStore(environment)
