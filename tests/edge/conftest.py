"""One edge per test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.edge.kit import Edge, running_edge


@pytest.fixture
def folder() -> AsyncIterator[Path]:
    """A folder whose path is short enough for a unix socket."""
    with TemporaryDirectory(prefix="moorage-edge-") as name:
        yield Path(name)


@pytest.fixture
async def edge(folder: Path) -> AsyncIterator[Edge]:
    async with running_edge(folder) as edge:
        yield edge
