"""How busy the machine is with other things, said beside every figure; a round may wait until it is quiet."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from bench.ground import tell
from moorage.system.clock import monotonic_s

LOOK_S = 1.0
QUIET_CORES = 0.2
_IDLE_FIELDS = (3, 4)  # idle and iowait in the first line of /proc/stat
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


async def busy_cores(seconds: float = LOOK_S) -> float:
    """Processor cores in use over this time."""
    before = _busy_ticks()
    start = monotonic_s()
    await asyncio.sleep(seconds)
    return (_busy_ticks() - before) / _TICKS_PER_S / (monotonic_s() - start)


async def quiet(patience_s: float) -> float:
    """Wait until the machine is quiet, or the time is over; the cores that were busy last."""
    deadline = monotonic_s() + patience_s
    while True:
        busy = await busy_cores()
        if busy <= QUIET_CORES or monotonic_s() >= deadline:
            tell(f"  {busy:.2f} cores are busy with other things")
            return round(busy, 2)


def _busy_ticks() -> int:
    stat = Path("/proc/stat").read_text()
    fields = [int(word) for word in stat.splitlines()[0].split()[1:9]]  # guests are counted in user already
    return sum(fields) - sum(fields[place] for place in _IDLE_FIELDS)
