"""The ground that a bench stands on: a platform of its own, and the commands and questions that it is asked.

Rules of this room: everything happens through the command line and the public API, as a user would; each platform has
a data directory and ports of its own, and is stopped by `moorage down`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage.client.api import Api
from moorage.client.http import Http
from moorage.system.clock import monotonic_s
from moorage.wire.api import OperationView

MOORAGE = (sys.executable, "-m", "moorage.main")
COMMAND_TIMEOUT_S = 300.0
OPERATION_TIMEOUT_S = 120.0


def tell(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Ground:
    """A running platform. `up_s` is how long `moorage up --detach` took, from the command to its end."""

    home: Path
    api_url: str
    port: int
    pid: int
    up_s: float

    @asynccontextmanager
    async def api(self) -> AsyncIterator[Api]:
        """The typed client of the control API."""
        client = Api(Http(self.api_url, (self.home / "keys" / "admin.token").read_text()))
        try:
            yield client
        finally:
            await client.close()

    async def command(self, *words: str) -> Any:
        """Run a command with --json; its last document. Raises RuntimeError with what it said when it fails."""
        return await asyncio.to_thread(_run, self.home, words)

    async def deploy(self, folder: Path) -> tuple[str, int]:
        """Deploy a folder; the app's name and the deployment's number."""
        done = await self.command("deploy", str(folder))
        return done["app"], done["input"]["deployment"]


@asynccontextmanager
async def platform() -> AsyncIterator[Ground]:
    """A platform on a fresh data directory and free ports; stopped and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="moorage-bench-"))
    home = folder / "home"
    try:
        start = monotonic_s()
        told = await asyncio.to_thread(_run, home, ("up", "--detach", "--port", "0"))
        up_s = monotonic_s() - start
        try:
            yield Ground(home, told["api"], int(told["http"].rsplit(":", 1)[1]), told["pid"], up_s)
        finally:
            await asyncio.to_thread(_run, home, ("down",))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def finished(api: Api, operation: str) -> OperationView:
    """The operation once it has ended. Raises TimeoutError."""
    async with asyncio.timeout(OPERATION_TIMEOUT_S):
        view = await api.operation(operation)
        while not view.finished:
            view = await api.operation(operation, after_seq=view.stages[-1].seq, wait_s=5)
        return view


def _run(home: Path, words: tuple[str, ...]) -> Any:
    done = subprocess.run(
        [*MOORAGE, *words, "--json"],
        env={**os.environ, "MOORAGE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise RuntimeError(f"moorage {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])
