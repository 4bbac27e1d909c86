"""A real database on a real disk for each test, with a clock that a test moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.store.database import Database


class Clock:
    """Milliseconds that move when a test says so."""

    def __init__(self) -> None:
        self.now_ms = 1_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def db(tmp_path: Path, clock: Clock) -> Iterator[Database]:
    opened = Database(tmp_path / "control.db", clock)
    yield opened
    opened.close()
