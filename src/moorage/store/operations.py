"""Operations and idempotency records. Every write of a worker carries the token of its lease; an old token changes
nothing, raises LeaseLost and is audited."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from moorage.domain.errors import MoorageError, Problem, Refused
from moorage.domain.operation import Kind, first_state, is_final, may_cancel, may_move
from moorage.store import log
from moorage.store.database import Tx, to_json


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation's row. `facts` is what it has found out and must not lose; `problem` why it did not succeed."""

    id: str
    kind: Kind
    app: str
    parent: str | None
    state: str
    input: dict[str, Any]
    facts: dict[str, Any]
    problem: dict[str, Any] | None
    lease_owner: str | None
    token: int
    cancel: bool
    actor: str
    created_ms: int
    updated_ms: int
    finished_ms: int | None


class LeaseLost(MoorageError):
    """Somebody else works on the operation now: this worker must stop and has changed nothing."""

    def __init__(self, operation: str, token: int) -> None:
        super().__init__(
            Problem(
                "lease-lost",
                "This operation is worked on by somebody else now",
                f"{operation}: token {token} is not the current one.",
                "Nothing of the late report was kept.",
                facts={"operation": operation, "token": token},
            )
        )


def create(tx: Tx, *, id: str, kind: Kind, app: str, input: dict[str, Any], parent: str | None = None) -> Operation:
    """A new operation in its first state."""
    state = first_state(kind)
    tx.run(
        "insert_operation",
        id=id,
        kind=kind,
        app=app,
        parent=parent,
        state=state,
        input=to_json(input),
        actor=tx.actor,
        now_ms=tx.now_ms,
    )
    _stage(tx, id, state, "", {}, token=0)
    return require(tx, id)


def require(tx: Tx, id: str) -> Operation:
    """The operation. Raises Refused (`operation-unknown`)."""
    row = tx.one("operation", id=id)
    if row is None:
        raise Refused(
            Problem("operation-unknown", f"There is no operation {id}", hint="See `moorage ops`.", status=404)
        )
    return _operation(row)


def unfinished(tx: Tx) -> tuple[Operation, ...]:
    """Operations that are not finished, oldest first."""
    return tuple(map(_operation, tx.all("operations_open")))


def newest(tx: Tx, app: str | None, limit: int) -> tuple[Operation, ...]:
    """The newest operations, of one app or of all."""
    if app is None:
        return tuple(map(_operation, tx.all("operations_newest", limit=limit)))
    return tuple(map(_operation, tx.all("operations_of_app", app=app, limit=limit)))


def children(tx: Tx, parent: str) -> tuple[Operation, ...]:
    """The operations that this one has started."""
    return tuple(map(_operation, tx.all("children", parent=parent)))


def lease(tx: Tx, operation: Operation, owner: str) -> Operation | None:
    """Take the lease with a higher token; None when somebody was faster."""
    if not tx.run("take_lease", id=operation.id, owner=owner, expected_token=operation.token):
        return None
    return require(tx, operation.id)


def record(
    tx: Tx,
    operation: str,
    state: str,
    *,
    token: int,
    note: str = "",
    facts: dict[str, Any] | None = None,
    problem: dict[str, Any] | None = None,
    detail: dict[str, Any] | None = None,
) -> Operation:
    """Record a stage under a lease: state, merged `facts`, one line for people.

    Raises LeaseLost when the token is old (audited by the caller's next transaction, see `refuse_late`).
    """
    current = require(tx, operation)
    if current.token != token or current.finished_ms is not None:
        raise LeaseLost(operation, token)
    assert may_move(current.kind, current.state, state), f"{current.kind}: {current.state} > {state}"
    merged = {**current.facts, **(facts or {})}
    finished = tx.now_ms if is_final(current.kind, state) else None
    changed = tx.run(
        "record_state",
        id=operation,
        expected_token=token,
        state=state,
        facts=to_json(merged),
        problem=to_json(problem) if problem else None,
        now_ms=tx.now_ms,
        finished_ms=finished,
    )
    if changed != 1:
        raise LeaseLost(operation, token)
    if state != current.state or note:
        _stage(tx, operation, state, note, detail or {}, token=token)
    return require(tx, operation)


def refuse_late(tx: Tx, operation: str, token: int, what: str) -> None:
    """Audit a report that came with an old token."""
    log.audit(tx, "operation.report", operation, "refused", token=token, what=what)


def request_cancel(tx: Tx, id: str) -> Operation:
    """Ask the operation to stop. Raises Refused (`operation-not-cancelable`) once nothing can be prevented."""
    current = require(tx, id)
    swapped = current.kind in (Kind.PROMOTION, Kind.ROLLBACK) and "epoch" in current.facts
    if current.finished_ms is not None or swapped or not may_cancel(current.kind, current.state):
        raise Refused(
            Problem(
                "operation-not-cancelable",
                "This operation can no longer be canceled",
                f"It is {current.state}; what has been committed stays.",
                "Use `moorage rollback` to change the owner back.",
                facts={"state": current.state},
            )
        )
    tx.run("request_cancel", id=id, now_ms=tx.now_ms)
    log.audit(tx, "operation.cancel", id, "requested", state=current.state)
    return require(tx, id)


def stages(tx: Tx, id: str, after: int = 0) -> list[dict[str, Any]]:
    """The recorded stages after a sequence number, oldest first."""
    rows = tx.all("stages", operation=id, after=after)
    return [{**row, "detail": json.loads(row["detail"])} for row in rows]


def replay(tx: Tx, workspace: str, key: str) -> dict[str, Any] | None:
    """What was answered under this idempotency key, or None."""
    return tx.one("idempotent", workspace=workspace, key=key)


def remember(tx: Tx, workspace: str, key: str, fingerprint: str, status: int, body: str) -> None:
    """Keep the answer in the transaction of the mutation."""
    tx.run(
        "remember_answer",
        workspace=workspace,
        key=key,
        fingerprint=fingerprint,
        status=status,
        body=body,
        created_ms=tx.now_ms,
    )


def has_answers_before(tx: Tx, before_ms: int) -> bool:
    """Whether `forget_answers` would drop anything."""
    return tx.one("answers_before", before_ms=before_ms) is not None


def forget_answers(tx: Tx, before_ms: int) -> None:
    """Drop idempotency records older than this."""
    tx.run("forget_answers", before_ms=before_ms)


def _stage(tx: Tx, operation: str, state: str, note: str, detail: dict[str, Any], *, token: int) -> None:
    tx.run(
        "append_stage",
        operation=operation,
        state=state,
        note=note,
        detail=to_json(detail),
        actor=tx.actor,
        token=token,
        at_ms=tx.now_ms,
    )


def _operation(row: dict[str, Any]) -> Operation:
    return Operation(
        **{
            **row,
            "kind": Kind(row["kind"]),
            "input": json.loads(row["input"]),
            "facts": json.loads(row["facts"]),
            "problem": json.loads(row["problem"]) if row["problem"] else None,
            "cancel": bool(row["cancel"]),
        }
    )
