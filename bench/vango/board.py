"""The Vango board on a platform of its own: two versions deployed, one of them serving.

Rules of this room: everything happens through the command line and the public API, as a user would; the two signals
that a user would never send are a scenario's own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.ground import Ground, finished, platform, tell
from bench.promotions import EXAMPLES
from bench.vango.crowd import Place
from moorage.client.api import Api
from moorage.system.clock import wait_until
from moorage.system.rand import new_secret
from moorage.wire.api import AllocationView, OperationView, PromoteRequest

APP: Final = "vango-board"
VERSIONS: Final = ("v1", "v2")
OPERATION_STEP_S: Final = 90.0
READY_WITHIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Board:
    """The board on a running platform: its deployments by version."""

    ground: Ground
    api: Api
    numbers: Mapping[str, int]

    @property
    def place(self) -> Place:
        """Where people go."""
        return Place(("127.0.0.1", self.ground.port), f"{APP}.localhost:{self.ground.port}")

    async def begin(self, version: str, **how: Any) -> str:
        """Ask for the promotion of a version, with all that its report wants acknowledged; the operation."""
        number = self.numbers[version]
        report = await self.api.promotion_report(APP, number)
        request = PromoteRequest(deployment=number, expected_epoch=report.epoch, acknowledge=report.acknowledge, **how)
        return (await self.api.promote(APP, request, key=new_secret(16))).operation

    async def promote(self, version: str, **how: Any) -> OperationView:
        """Promote a version; the operation once the version serves. Raises RuntimeError when it does not."""
        view = await finished(self.api, await self.begin(version, **how))
        if view.state != "healthy":
            raise RuntimeError(f"the promotion of {version} ended as {view.state}: {view.problem}")
        return view

    async def serve(self, version: str) -> AllocationView:
        """Let a version serve, when nobody is attached to what served before; its allocation."""
        serving = next(app.serving for app in await self.api.apps() if app.name == APP)
        if serving != self.numbers[version]:
            await self.promote(version, mode="handover")
        return await self.allocation()

    async def allocation(self) -> AllocationView:
        """The only allocation that serves the production route. Raises RuntimeError after a minute without one."""
        found: list[AllocationView] = []

        async def alone() -> bool:
            known = [a for a in await self.api.allocations(APP) if a.environment == "production"]
            found[:] = [a for a in known if a.state == "ready" and a.posture == "open"]
            return len(found) == 1

        if not await wait_until(alone, timeout_s=READY_WITHIN_S, period_s=0.1):
            raise RuntimeError(f"{len(found)} allocations serve, not one")
        return found[0]

    async def child(self, operation: str) -> str:
        """The hand-over or drain that an operation has begun, as soon as it has."""
        found: list[str] = []

        async def begun() -> bool:
            found[:] = (await self.api.operation(operation)).children
            return bool(found)

        if not await wait_until(begun, timeout_s=OPERATION_STEP_S):
            raise RuntimeError(f"{operation} has not begun to move its sessions")
        return found[0]

    async def newest(self, kind: str, *, since_ms: int) -> str:
        """The newest operation of a kind that began since, as soon as there is one."""
        found: list[str] = []

        async def begun() -> bool:
            known = await self.api.operations(APP)
            found[:] = [o.id for o in known if o.kind == kind and o.created_ms >= since_ms]
            return bool(found)

        if not await wait_until(begun, timeout_s=OPERATION_STEP_S):
            raise RuntimeError(f"no {kind} has begun")
        return found[0]


@asynccontextmanager
async def board() -> AsyncIterator[Board]:
    """A platform with both versions of the board built, each with its preview and its probe; none serves yet."""
    async with platform() as ground:
        with tempfile.TemporaryDirectory(prefix="moorage-bench-") as work:
            numbers = {}
            for version in VERSIONS:
                tell(f"building the board, {version}")
                _, numbers[version] = await ground.deploy(materialise(version, Path(work) / version))
        async with ground.api() as api:
            yield Board(ground, api, numbers)


def materialise(version: str, folder: Path) -> Path:
    """Write the sources of a version; the board's folder cannot be imported, so by its own command."""
    command = [sys.executable, str(EXAMPLES / APP / "materialise.py"), version, str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder
