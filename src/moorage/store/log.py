"""The log and the audit: entries are added in the transaction whose change they announce (outbox)."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter

from moorage.domain.ids import Prefix
from moorage.domain.route import RouteOwner
from moorage.store.database import Tx, to_json
from moorage.wire.log import Event, LogEntry, RouteRemoved

LOG_COUNTER = "log_index"
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def incarnation(tx: Tx) -> str:
    """The name of this log; it is written once, when the installation is created."""
    row = tx.one("meta", name="incarnation")
    return str(row["value"]) if row else ""


def create_incarnation(tx: Tx, name: str) -> str:
    """Name the log unless it has a name; returns the name in force."""
    assert name.startswith(Prefix.INCARNATION)
    tx.run("put_meta", name="incarnation", value=name)
    return incarnation(tx)


def append(tx: Tx, event: Event) -> int:
    """Add an entry under the next gapless index and return the index."""
    index = tx.next(LOG_COUNTER)
    tx.run("append_outbox", log_index=index, at_ms=tx.now_ms, event=to_json(event.model_dump(mode="json")))
    return index


def committed_index(tx: Tx) -> int:
    """The index of the newest entry; 0 for an empty log."""
    row = tx.one("counter", name=LOG_COUNTER)
    return int(row["value"]) if row else 0


def entries(tx: Tx, after: int, limit: int) -> tuple[LogEntry, ...]:
    """Entries after an index, oldest first."""
    name = incarnation(tx)
    return tuple(
        LogEntry(
            index=row["log_index"],
            incarnation=name,
            at_ms=row["at_ms"],
            event=_EVENT.validate_json(row["event"]),
        )
        for row in tx.all("outbox_after", after=after, limit=limit)
    )


def reaches_back_to(tx: Tx, after: int) -> bool:
    """Whether the log still has every entry after this index."""
    row = tx.one("outbox_first")
    first = row["log_index"] if row else None
    return after >= committed_index(tx) if first is None else first <= after + 1


def removal(owner: RouteOwner, epoch: int) -> RouteRemoved:
    """The event that takes a route from everybody."""
    return RouteRemoved(route_key=owner.route_key, epoch=epoch)


def audit(tx: Tx, action: str, subject: str, outcome: str, **detail: Any) -> None:
    """Record who did what to what, with which outcome."""
    tx.run(
        "append_audit",
        at_ms=tx.now_ms,
        actor=tx.actor,
        action=action,
        subject=subject,
        outcome=outcome,
        detail=to_json(detail),
    )


def audit_once(tx: Tx, action: str, subject: str, outcome: str, **detail: Any) -> None:
    """Record it unless it is the newest record of the subject: what repeats each second is told once."""
    newest = next(iter(audit_of(tx, subject, 1)), None)
    same = newest and (newest["action"], newest["outcome"], newest["detail"]) == (action, outcome, detail)
    if not same:
        audit(tx, action, subject, outcome, **detail)


def audit_of(tx: Tx, subject: str, limit: int = 50) -> list[dict[str, Any]]:
    """What was done to a subject, newest first."""
    return [{**row, "detail": json.loads(row["detail"])} for row in tx.all("audit_of", subject=subject, limit=limit)]
