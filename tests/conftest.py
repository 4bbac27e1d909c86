"""Fixtures that every room of tests may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.platform import Platform, start_platform, stop_platform


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform for the tests of one module."""
    running = start_platform(tmp_path_factory.mktemp("home"))
    try:
        yield running
    finally:
        stop_platform(running)


@pytest.fixture
def own_platform(tmp_path: Path) -> Iterator[Platform]:
    """A platform for one test that breaks it."""
    running = start_platform(tmp_path / "home")
    try:
        yield running
    finally:
        stop_platform(running)
