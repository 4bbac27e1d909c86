"""A running control plane with stand-in agents for each test; a test may change settings by indirect parameters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.control.rig import World


@pytest_asyncio.fixture
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    started = await World(tmp_path / "home", **getattr(request, "param", {})).start()
    yield started
    await started.stop()
