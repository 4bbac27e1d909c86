"""What the tests of the build room make: sources, builds in a folder, and how a build that ends badly is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moorage.artifacts.store import ArtifactStore
from moorage.build.assemble import Assembly, Order, Workshop
from moorage.build.outcome import Blocked, Failed
from moorage.domain.artifact import Manifest
from moorage.domain.errors import Problem
from moorage.system.settings import inherited_environ

PLAIN = 'name = "demo"\n[process]\ncommand = "python app.py"\n'


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Make these files below a folder."""
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


class Build:
    """One build of given files in a work folder of its own."""

    def __init__(self, work: Path, files: Mapping[str, str | bytes], **how: Any) -> None:
        self.work, self.stages = work, list[tuple[str, str]]()
        write_files(work / "source", files)
        shop = Workshop(inherited_environ() | how.pop("host", {}), **how.pop("shop", {}))
        self._secrets, self._shop = how.pop("secrets", {}), shop
        self.rename("demo")
        assert not how

    def rename(self, app: str) -> None:
        """The name that the deployment is of."""
        self._assembly = Assembly(self.work, Order(app, {}, self._secrets), self._shop)

    @property
    def tree(self) -> Path:
        return self.work / "tree"

    async def run(self) -> Manifest:
        """Build; the manifest."""
        return await self._assembly.run(self._hear)

    async def stored(self, store: ArtifactStore) -> str:
        """Build and put into a store; the digest."""
        manifest = await self.run()
        return store.put(self.tree, manifest)

    async def ending(self) -> Blocked | Failed:
        """Build and fail; how."""
        try:
            manifest = await self.run()
        except (Blocked, Failed) as ended:
            return ended
        raise AssertionError(f"it was built: {manifest}")

    async def problem(self) -> Problem:
        """Build and fail; the problem."""
        return (await self.ending()).problem

    async def _hear(self, stage: str, progress: str) -> None:
        self.stages.append((stage, progress))
