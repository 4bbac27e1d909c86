"""One platform with one steady app for all tests of bad input that leave it whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.badinput.kit import STEADY, source
from tests.support.platform import Platform, start_platform, stop_platform


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that all modules of this folder share; `steady` is deployed and promoted."""
    running = start_platform(tmp_path_factory.mktemp("home"))
    try:
        name, number = asyncio.run(running.serve(source(tmp_path_factory.mktemp("source") / "app")))
        assert (name, number) == (STEADY, 1)
        yield running
    finally:
        stop_platform(running)
