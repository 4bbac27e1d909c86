"""A process of its own that watches for a moment of an operation and sends signals then: see `stages`.

It imports little and competes for no interpreter lock: the moments that it must not miss last about a millisecond.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
from contextlib import closing
from typing import Any

_NEWEST = """select id, state, facts, finished_ms from operations where kind = ?
    order by created_ms desc, id desc limit 1"""
_LOOK_PERIOD_S = 0.001
_nobody = threading.Event()  # never set: waiting for it is a look's pause


def watch(wish: dict[str, Any]) -> str:
    """The operation at which the signals were sent; empty when the moment went by."""
    with closing(sqlite3.connect(wish["database"], isolation_level=None, timeout=0)) as database:
        before = (database.execute(_NEWEST, (wish["kind"],)).fetchone() or ("",))[0]
        print("watching", flush=True)
        while (database.execute(_NEWEST, (wish["kind"],)).fetchone() or ("",))[0] == before:
            _nobody.wait(_LOOK_PERIOD_S)
        while True:
            try:
                database.execute("begin immediate")  # taking turns with the platform: each of its commits is seen
            except sqlite3.OperationalError:
                continue  # its turn; SQLite's own way of waiting would sleep over the next moment
            id, state, facts, finished_ms = database.execute(_NEWEST, (wish["kind"],)).fetchone()
            if state == wish["state"] and _agrees(json.loads(facts), wish["facts"]):
                for pid, number in wish["signals"]:
                    os.kill(pid, number)
                database.execute("rollback")
                return str(id)
            database.execute("rollback")
            if finished_ms is not None:
                return ""


def _agrees(facts: dict[str, Any], wanted: dict[str, bool]) -> bool:
    return all((name in facts) is there for name, there in wanted.items())


if __name__ == "__main__":
    print(watch(json.loads(sys.argv[1])), flush=True)
