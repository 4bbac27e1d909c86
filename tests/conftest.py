"""Fixtures that every room of tests may use."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.platform import Platform, start_platform, stop_platform

# Some container images forbid to keep bytecode. Then every run, and every Python that a test starts, would compile
# the sources and all tests anew: half of the time that the fast tests take. It is kept beside the sources, unversioned.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("house", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

GARBAGE_AFTER_COUNT = 50_000
gc.set_threshold(GARBAGE_AFTER_COUNT)


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: looking through it for garbage again and again finds none."""
    gc.collect()
    gc.freeze()


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
