"""Signals at an exact moment of an operation: between the commit of one stage and the next one's."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.platform import Platform

WATCHED_FOR_S = 60.0
_PROGRAM = Path(__file__).with_name("watch_stage.py")


@dataclass(frozen=True, slots=True)
class Moment:
    """A state of an operation, and which facts it has or has not recorded by then."""

    state: str
    facts: dict[str, bool] = field(default_factory=dict)


@dataclass
class Watch:
    """A moment that is watched for."""

    process: asyncio.subprocess.Process

    async def met(self) -> str | None:
        """Wait for the moment; the operation's id, None when it went by unseen (a stage may last less than a
        millisecond)."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), WATCHED_FOR_S)
        return line.decode().strip() or None


@asynccontextmanager
async def signals_at(
    platform: Platform, kind: str, moment: Moment, signals: Sequence[tuple[int, signal.Signals]]
) -> AsyncIterator[Watch]:
    """Send signals (pid, number), in order, at a moment of the next operation of this kind.

    The database's write lock is held meanwhile, so that nothing is committed between the look and the last signal.
    """
    wish = {
        "database": str(platform.home / "control.db"),
        "kind": kind,
        "state": moment.state,
        "facts": moment.facts,
        "signals": signals,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-S", str(_PROGRAM), json.dumps(wish), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"watching\n"
        yield Watch(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
