"""The supervisor process: reads the plan that `up` has written, takes the lock, runs the children.

It lives as long as the platform, so it imports the standard library and `system` only.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moorage.system.children import Child, HttpReady, Ready, TcpReady, UnixReady
from moorage.system.lock import inherited_lock
from moorage.system.supervise import Supervisor

FAILED_EXIT = 1


def main() -> int:
    """Run the plan whose path is the first argument until told to stop; `up` hands its lock on."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    with inherited_lock(Path(plan["lock"]), plan["lock_descriptor"], api=plan["api"]):
        children = [_child(entry) for entry in plan["children"]]
        quiet = plan["quiet"]  # detached: the supervisor's own log is JSON like every other process's
        supervisor = Supervisor(children, state_path=Path(plan["state"]), say=None if quiet else tell)
        failure = asyncio.run(supervisor.run(on_ready=None if quiet else lambda: print(plan["greeting"], flush=True)))
    if failure:
        print(f"error[child-failed]: {failure.child}: {failure.reason}", file=sys.stderr)
        print(failure.log_tail, file=sys.stderr)
        print(f"Its log: {failure.log_path}", file=sys.stderr)
        return FAILED_EXIT
    return 0


def tell(event: str, **facts: object) -> None:
    """What a person at the terminal is told: states of processes, and everything that went wrong."""
    if event == "child":
        pid = f"pid {facts['pid']}" if facts.get("pid") else ""
        print(f"  {facts['child']!s:<10}{facts['state']!s:<12}{pid}".rstrip(), flush=True)
    elif event != "platform ready":
        told = ", ".join(f"{name} {value}" for name, value in facts.items())
        print(f"  {event}: {told}", flush=True)


def _child(entry: Mapping[str, Any]) -> Child:
    return Child(
        name=entry["name"],
        argv=tuple(entry["argv"]),
        environ=entry["environ"],
        log_path=Path(entry["log"]),
        ready=_ready(entry["ready"]),
        depends_on=tuple(entry["depends_on"]),
        stop_signal=signal.Signals[entry["stop_signal"]],
        stop_grace_s=entry["stop_grace_s"],
        parent_death_signal=signal.Signals[entry["parent_death_signal"]],
    )


def _ready(entry: Mapping[str, Any] | None) -> Ready | None:
    if entry is None:
        return None
    match entry["kind"]:
        case "tcp":
            return TcpReady(entry["host"], entry["port"])
        case "unix":
            return UnixReady(Path(entry["path"]))
        case "http":
            return HttpReady(entry["host"], entry["port"], entry["path"])
    raise ValueError(entry)


if __name__ == "__main__":
    sys.exit(main())
