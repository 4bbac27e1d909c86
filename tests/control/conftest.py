"""A running control plane with stand-in agents for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.control.rig import World


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    started = await World(tmp_path / "home").start()
    yield started
    await started.stop()
