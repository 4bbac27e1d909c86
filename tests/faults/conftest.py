"""One platform with the board for all faults: each test leaves it well, and the next one relies on that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.faults.town import build_board
from tests.support.platform import Platform, start_platform, stop_platform


@pytest.fixture(scope="package")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that serves the board's first deployment; the second one has the same artifact."""
    running = start_platform(tmp_path_factory.mktemp("home"))
    try:
        asyncio.run(build_board(running, tmp_path_factory.mktemp("source")))
        yield running
    finally:
        stop_platform(running)
