"""Each scenario plays as it is written; `python -m tests.scenarios.stage` writes the transcripts anew."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.scenarios.stage import FOLDER, play

FILES = sorted(FOLDER.glob("*.txt"))


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_scenario_plays_as_it_is_written(file: Path, tmp_path: Path) -> None:
    written = file.read_text()
    assert asyncio.run(play(written, tmp_path / "home")) == written
