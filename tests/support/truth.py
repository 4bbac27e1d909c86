"""A look at the truth itself: the control database, read beside the platform that writes it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

from tests.support.platform import Platform


def rows(platform: Platform, sql: str, *values: object) -> list[dict[str, Any]]:
    """The rows of one query, committed ones only."""
    with closing(sqlite3.connect(f"file:{platform.home}/control.db?mode=ro", uri=True, timeout=5.0)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(sql, values)]


def owner(platform: Platform, app: str) -> dict[str, Any]:
    """The row of the app's production route owner."""
    (found,) = rows(platform, "select * from route_owners where route_key = ?", f"{app}.localhost")
    return found


def owner_epoch(platform: Platform, app: str) -> int:
    """The epoch of the app's production route; 0 when it was never owned."""
    found = rows(platform, "select epoch from route_owners where route_key = ?", f"{app}.localhost")
    return int(found[0]["epoch"]) if found else 0


def history(platform: Platform, app: str) -> list[dict[str, Any]]:
    """Every owner that the app's production route has had, oldest first."""
    return rows(platform, "select * from route_history where route_key = ? order by epoch", f"{app}.localhost")


def committed_index(platform: Platform) -> int:
    """The index of the newest log entry."""
    return int(rows(platform, "select value from counters where name = 'log_index'")[0]["value"])


def log_events(platform: Platform, after: int = 0) -> list[dict[str, Any]]:
    """The log's events after an index, oldest first, each with its `log_index`."""
    found = rows(platform, "select log_index, event from outbox where log_index > ? order by log_index", after)
    return [{**json.loads(row["event"]), "log_index": row["log_index"]} for row in found]


def audited(platform: Platform, action: str, outcome: str) -> list[dict[str, Any]]:
    """Audit rows of an action that ended so, oldest first."""
    return rows(platform, "select * from audit where action = ? and outcome = ? order by seq", action, outcome)
