"""A worker in a process of its own, for tests that kill it: one job out of a file, a control plane that only agrees."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

from moorage.artifacts.store import ArtifactStore
from moorage.build.worker import Tempo, Worker
from moorage.wire.build import BuildJob, BuildReply, BuildReport


class Agreeing:
    """Hands out the job and hears every report."""

    def __init__(self, home: Path, archive: Path) -> None:
        self._home, self._archive = home, archive

    async def claim(self, wait_s: float) -> BuildJob | None:
        return BuildJob.model_validate_json((self._home / "job.json").read_bytes())

    async def report(self, operation: str, report: BuildReport) -> BuildReply:
        return BuildReply(go_on=True)

    async def fetch_source(self, source: str, target: Path) -> None:
        shutil.copyfile(self._archive, target)


async def main(home: Path, archive: Path) -> None:
    """Build until killed."""
    await Worker(Agreeing(home, archive), ArtifactStore(home / "artifacts"), home / "builds", None, Tempo()).run()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
