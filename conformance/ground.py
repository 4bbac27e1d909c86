"""The ground of a run: a platform on free ports in a temporary home, used by its command line and its public API.

Rules of this room: what is done, a user could do; the store alone is also looked into, as the platform does it, and
never written. The home is removed at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from conformance.asking import Route
from conformance.fixture import APP
from moorage.client.api import Api
from moorage.client.http import Http
from moorage.runner.stores.config import read_store_record
from moorage.sessions.admin import StoreAdmin
from moorage.system.clock import monotonic_s, pause
from moorage.wire.api import AllocationView, OperationView, PromotionReport

MOORAGE: Final = (sys.executable, "-m", "moorage.main")
COMMAND_TIMEOUT_S: Final = 900.0  # a deploy compiles the app, at worst with nothing in Go's cache
OPERATION_TIMEOUT_S: Final = 180.0
PREVIEWS_KEPT: Final = "20"
POLL_S: Final = 0.1
EDGE: Final = "127.0.0.1"


class CommandError(Exception):
    """A command of the platform ended otherwise than it should; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed and how it ended."""

    code: int
    document: Any  # the last JSON document; None without one
    text: str


@dataclass(frozen=True, slots=True)
class Ground:
    """A running platform."""

    home: Path
    api_url: str
    port: int

    @asynccontextmanager
    async def api(self) -> AsyncIterator[Api]:
        """The typed client of the control API."""
        client = Api(Http(self.api_url, (self.home / "keys" / "admin.token").read_text()))
        try:
            yield client
        finally:
            await client.close()

    async def command(self, *words: str, text: str | None = None) -> Said:
        """Run a command of the platform with --json, however it ends."""
        return await asyncio.to_thread(_run, self.home, words, text)

    async def do(self, *words: str, text: str | None = None) -> Any:
        """Run a command that must succeed; its last document. Raises CommandError."""
        said = await self.command(*words, text=text)
        if said.code != 0:
            raise CommandError(f"`moorage {' '.join(words[:2])}` ended with {said.code}: {said.text.strip()[-500:]}")
        return said.document

    async def deploy(self, folder: Path) -> int:
        """Deploy a folder; the deployment's number. Raises CommandError."""
        document = await self.do("deploy", str(folder))
        return int(document["input"]["deployment"])

    def production(self) -> Route:
        """The route that users type."""
        return self._route("production", "production", f"{APP}.localhost")

    def preview(self, number: int) -> Route:
        """The route of a deployment's preview."""
        return self._route("preview", f"preview {number}", f"{number}--{APP}.localhost")

    def _route(self, name: str, environment: str, host: str) -> Route:
        return Route(name, environment, (EDGE, self.port), f"{host}:{self.port}")

    async def report(self, number: int) -> PromotionReport:
        """What promoting a deployment would do now."""
        async with self.api() as api:
            return await api.promotion_report(APP, number)

    async def allocations(self, environment: str = "production") -> list[AllocationView]:
        """The app's allocations in an environment that have not ended, oldest first."""
        async with self.api() as api:
            found = await api.allocations(APP)
        return sorted((a for a in found if a.environment == environment), key=lambda a: a.number)

    async def serving(self) -> AllocationView:
        """The one allocation that takes new sessions of production. Raises LookupError."""
        found = [a for a in await self.allocations() if (a.state, a.posture) == ("ready", "open")]
        if len(found) != 1:
            raise LookupError(f"{len(found)} allocations take new sessions")
        return found[0]

    async def operation(self, *kinds: str) -> OperationView:
        """The app's newest operation of one of these kinds, whatever became of it, once it has ended."""
        async with self.api() as api:
            newest = next(o for o in await api.operations(APP) if o.kind in kinds)
            async with asyncio.timeout(OPERATION_TIMEOUT_S):
                view = await api.operation(newest.id)
                while not view.finished:
                    view = await api.operation(newest.id, after_seq=view.stages[-1].seq, wait_s=5)
        return view

    @asynccontextmanager
    async def store(self) -> AsyncIterator[StoreAdmin]:
        """The store of production, for looking into it. Raises LookupError."""
        async with self.api() as api:
            stores = (await api.status()).stores
        port = next((s.port for s in stores if (s.app, s.environment) == (APP, "production")), None)
        records = [read_store_record(folder) for folder in (self.home / "stores").iterdir()]
        record = next((r for r in records if r and r.desired.port == port), None)
        if record is None:
            raise LookupError("the runner keeps no record of production's store")
        admin = StoreAdmin(record.desired.port, record.desired.admin_password)
        try:
            yield admin
        finally:
            await admin.close()


@asynccontextmanager
async def platform() -> AsyncIterator[Ground]:
    """A platform on a fresh data directory and free ports; stopped and removed at the end. Raises CommandError."""
    folder = Path(tempfile.mkdtemp(prefix="moorage-conformance-"))
    home = folder / "home"
    try:
        said = await asyncio.to_thread(_run, home, ("up", "--detach", "--port", "0"), None)
        if said.code != 0:
            raise CommandError(f"`moorage up` ended with {said.code}: {said.text.strip()[-500:]}")
        try:
            yield Ground(home, said.document["api"], int(said.document["http"].rsplit(":", 1)[1]))
        finally:
            await asyncio.to_thread(_run, home, ("down",), None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def comes(condition: Callable[[], Any], patience_s: float = 30.0) -> bool:
    """Whether an async condition comes true in time; asked again and again."""
    deadline = monotonic_s() + patience_s
    while not await condition():
        if monotonic_s() >= deadline:
            return False
        await pause(POLL_S)
    return True


def _run(home: Path, words: tuple[str, ...], text: str | None) -> Said:
    done = subprocess.run(
        [*MOORAGE, *words, "--json"],
        env={**os.environ, "MOORAGE_HOME": str(home), "MOORAGE_PREVIEWS_KEPT": PREVIEWS_KEPT, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        input=text,
    )
    lines = done.stdout.strip().splitlines()
    document = None
    for line in reversed(lines):
        if line.startswith("{"):
            document = json.loads(line)
            break
    if document is None and lines and lines[0].startswith("{"):
        document = json.loads(done.stdout)
    return Said(done.returncode, document, done.stdout + done.stderr)
