"""Allocations: durable state, posture and wish; every change is a compare-and-swap by version with its transition row.

What an edge must know (endpoint, readiness, posture) goes to the log in the same transaction; the runner's desired
state is derived from these rows under the `desired` revision.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from moorage.domain.allocation import TERMINAL, Endpoint, Posture, State, may_become, may_move
from moorage.domain.errors import Problem, Refused
from moorage.domain.limits import APP_PORT_FIRST, APP_PORT_LAST
from moorage.store import log
from moorage.store.database import Tx, to_json
from moorage.wire.log import endpoint_event

DESIRED_COUNTER = "desired"
NUMBER_COUNTER = "allocation_number"


@dataclass(frozen=True, slots=True)
class Allocation:
    """A row of the allocations table; times in milliseconds, `log_index` of its newest log entry."""

    number: int
    id: str
    app: str
    environment: str
    environment_number: int
    deployment: str
    deployment_number: int
    artifact: str
    host: str
    port: int
    state: State
    posture: Posture
    want: str
    version: int
    log_index: int
    store_password: str
    store_enabled: bool
    reason: str
    detail: str
    exit_code: int | None
    pid: int | None
    log_tail: tuple[str, ...]
    operation: str
    created_ms: int
    ready_ms: int | None
    ended_ms: int | None

    @property
    def is_over(self) -> bool:
        return self.state in TERMINAL

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(
            number=self.number,
            allocation=self.id,
            environment=self.environment_number,
            deployment=self.deployment,
            host=self.host,
            port=self.port,
            posture=self.posture,
            ready=self.state is State.READY,
            version=self.version,
        )


def plan(
    tx: Tx,
    *,
    id: str,
    app: str,
    environment: str,
    environment_number: int,
    deployment: str,
    deployment_number: int,
    artifact: str,
    host: str,
    store_password: str,
    operation: str,
    acked_index: int,
    usable: Callable[[int], bool] = lambda _port: True,
) -> Allocation:
    """Plan an allocation: number, port and store user are its own for ever.

    `acked_index` is the log index that every edge has acknowledged: the port of a removed allocation is in quarantine
    until then. Raises Refused (`ports-exhausted`).
    """
    number = tx.next(NUMBER_COUNTER)
    port = free_port(tx, acked_index, usable)
    tx.run(
        "insert_allocation",
        number=number,
        id=id,
        app=app,
        environment=environment,
        environment_number=environment_number,
        deployment=deployment,
        deployment_number=deployment_number,
        artifact=artifact,
        host=host,
        port=port,
        log_index=log.committed_index(tx),
        store_password=store_password,
        operation=operation,
        created_ms=tx.now_ms,
    )
    created = get(tx, id)
    assert created is not None
    _remember(tx, created, "planned")
    tx.next(DESIRED_COUNTER)
    return created


def free_port(tx: Tx, acked_index: int, usable: Callable[[int], bool] = lambda _port: True) -> int:
    """A port of the fixed range that nobody has and no edge may still route to; ports are given in turn.

    Each installation begins somewhere else in the range, so that two on one machine rarely meet; `usable` says
    whether a stranger on the host holds a port. Raises Refused (`ports-exhausted`).
    """
    taken = {row["port"] for row in tx.all("ports_taken", acked_index=acked_index)}
    count = APP_PORT_LAST - APP_PORT_FIRST + 1
    start = (zlib.crc32(log.incarnation(tx).encode()) + tx.next("port")) % count
    for offset in range(count):
        port = APP_PORT_FIRST + (start + offset) % count
        if port not in taken and usable(port):
            return port
    raise Refused(
        Problem(
            "ports-exhausted",
            "No port is left for another allocation",
            f"All ports from {APP_PORT_FIRST} to {APP_PORT_LAST} are in use.",
            "Stop previews or apps that are not needed.",
            status=503,
        )
    )


def get(tx: Tx, id: str) -> Allocation | None:
    """One allocation."""
    row = tx.one("allocation", id=id)
    return _allocation(row) if row else None


def live(tx: Tx, environment: int | None = None) -> tuple[Allocation, ...]:
    """Allocations that somebody may still have to act on (posture not gone), by number."""
    rows = tx.all("allocations_live") if environment is None else tx.all("allocations_of", environment=environment)
    return tuple(map(_allocation, rows))


def newest(tx: Tx, limit: int) -> tuple[Allocation, ...]:
    """The newest allocations, gone ones included."""
    return tuple(map(_allocation, tx.all("allocations_all", limit=limit)))


def failed_since(tx: Tx, environment: int, deployment: str, since_ms: int) -> tuple[Allocation, ...]:
    """Allocations of a deployment that failed since then, newest first."""
    rows = tx.all("ended_since", environment=environment, deployment=deployment, since_ms=since_ms)
    return tuple(map(_allocation, rows))


def set_posture(tx: Tx, id: str, posture: Posture, *, reason: str) -> Allocation | None:
    """Move an allocation's posture; None when it is gone already or the move is not in the order (see domain)."""
    current = get(tx, id)
    if current is None or not may_move(current.posture, posture):
        return None
    if current.posture is posture:
        return current
    return _update(tx, current, replace(current, posture=posture), reason)


def set_want(tx: Tx, id: str, want: str, *, reason: str) -> Allocation | None:
    """Say whether the allocation should run."""
    current = get(tx, id)
    if current is None or current.want == want:
        return current
    return _update(tx, current, replace(current, want=want), reason)


def disable_store_user(tx: Tx, id: str, *, reason: str) -> Allocation | None:
    """Record that the allocation's store user must be off; written before the store is told (fence)."""
    current = get(tx, id)
    if current is None or not current.store_enabled:
        return current
    return _update(tx, current, replace(current, store_enabled=False), reason)


def enable_store_user(tx: Tx, id: str, *, reason: str) -> Allocation | None:
    """Take a fence back that was called off before the cut."""
    current = get(tx, id)
    if current is None or current.store_enabled:
        return current
    return _update(tx, current, replace(current, store_enabled=True), reason)


def observe(
    tx: Tx,
    id: str,
    state: State,
    *,
    reason: str = "",
    detail: str = "",
    exit_code: int | None = None,
    pid: int | None = None,
    log_tail: Iterable[str] = (),
    ready_ms: int | None = None,
) -> Allocation | None:
    """Record what a runner has seen; None when nothing changed. A report that the machine does not allow (late, or
    about an allocation that is over) changes nothing and is audited."""
    current = get(tx, id)
    if current is None or (current.state is state and current.pid == pid):
        return None
    if current.state is not state and not may_become(current.state, state):
        if not current.is_over:
            log.audit_once(tx, "allocation.report", id, "refused", state=state, actual=current.state)
        return None
    over = state in TERMINAL
    seen = replace(
        current,
        state=state,
        reason=reason or current.reason if over else reason,
        detail=detail,
        exit_code=exit_code,
        pid=pid,
        log_tail=tuple(log_tail),
        ready_ms=ready_ms or current.ready_ms,
        ended_ms=tx.now_ms if over else None,
    )
    return _update(tx, current, seen, reason or str(state))


def desired_revision(tx: Tx) -> int:
    """The revision of the runner's desired state."""
    row = tx.one("counter", name=DESIRED_COUNTER)
    return int(row["value"]) if row else 0


def transitions(tx: Tx, id: str) -> list[dict[str, Any]]:
    """The transitions of an allocation, oldest first."""
    return tx.all("transitions", allocation=id)


def _update(tx: Tx, current: Allocation, wanted: Allocation, reason: str) -> Allocation:
    before, after = replace(current.endpoint, version=0), replace(wanted.endpoint, version=0)
    version, index = current.version + 1, current.log_index
    if before != after:
        index = log.append(tx, endpoint_event(replace(wanted.endpoint, version=version)))
    if (current.want, current.store_enabled, current.posture) != (wanted.want, wanted.store_enabled, wanted.posture):
        tx.next(DESIRED_COUNTER)
    changed = tx.run(
        "update_allocation",
        id=current.id,
        expected_version=current.version,
        state=wanted.state,
        posture=wanted.posture,
        want=wanted.want,
        log_index=index,
        store_enabled=int(wanted.store_enabled),
        reason=wanted.reason,
        detail=wanted.detail,
        exit_code=wanted.exit_code,
        pid=wanted.pid,
        log_tail=to_json(list(wanted.log_tail)),
        ready_ms=wanted.ready_ms,
        ended_ms=wanted.ended_ms,
    )
    assert changed == 1, "one writer: the version cannot have moved inside a transaction"
    updated = replace(wanted, version=version, log_index=index)
    _remember(tx, updated, reason)
    return updated


def _remember(tx: Tx, allocation: Allocation, reason: str) -> None:
    tx.run(
        "append_transition",
        allocation=allocation.id,
        version=allocation.version,
        at_ms=tx.now_ms,
        actor=tx.actor,
        state=allocation.state,
        posture=allocation.posture,
        reason=reason,
    )


def _allocation(row: dict[str, Any]) -> Allocation:
    return Allocation(
        **{
            **row,
            "state": State(row["state"]),
            "posture": Posture(row["posture"]),
            "store_enabled": bool(row["store_enabled"]),
            "log_tail": tuple(json.loads(row["log_tail"])),
        }
    )
