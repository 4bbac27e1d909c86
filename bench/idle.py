"""How long `moorage up` takes on a fresh data directory, and what the platform then holds in memory without apps."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from bench.ground import Ground, platform, tell
from bench.noise import quiet
from moorage.system.proc import pss_bytes, tree_pss_bytes

ROUNDS_COUNT = 5
SETTLE_S = 5.0  # imports that happen late have happened, and short-lived helpers are gone
MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Idle:
    """One platform that was started and left alone. Memory in MB of 1024 * 1024 bytes, proportional set size."""

    up_s: float
    pss_mb: float
    processes_mb: dict[str, float]


async def measure(*, rounds: int = ROUNDS_COUNT, patience_s: float = 0.0) -> list[Idle]:
    """Start, wait, weigh, stop; as often as asked. Each start waits up to `patience_s` for a quiet machine."""
    found = []
    for _ in range(rounds):
        await quiet(patience_s)
        async with platform() as ground:
            await asyncio.sleep(SETTLE_S)
            found.append(weigh(ground))
        tell(f"  up after {found[-1].up_s:.2f} s, {found[-1].pss_mb:.0f} MB {found[-1].processes_mb}")
    return found


def weigh(ground: Ground) -> Idle:
    """The memory of the supervisor and everything below it, and of each process it names."""
    document = json.loads((ground.home / "run" / "processes.json").read_text())
    pids = {"supervisor": ground.pid} | {row["name"]: int(row["pid"]) for row in document["processes"]}
    each = {name: round((pss_bytes(pid) or 0) / MEGABYTE, 1) for name, pid in pids.items()}
    return Idle(ground.up_s, tree_pss_bytes(ground.pid) / MEGABYTE, each)
