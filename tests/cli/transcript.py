"""Golden transcripts: a command and what it prints, in a file that a reviewer can read.

Each test has one file in `transcripts/`. REWRITE_TRANSCRIPTS=1 writes them anew; the change is then read in the diff.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.cli.conftest import Ran, Run

FOLDER = Path(__file__).parent / "transcripts"


class Transcript:
    """The transcript of one test, as it grows."""

    def __init__(self, name: str, run: Run) -> None:
        self._file, self._run, self._text = FOLDER / f"{name}.txt", run, ""

    def step(self, *words: object, stdin: str = "") -> Ran:
        """Run a command and note what it printed and how it ended."""
        ran = self._run(*words, stdin=stdin)
        marked = "".join(f"! {line}\n" for line in ran.err.splitlines())
        self._text += f"$ moorage {' '.join(map(str, words))}\n{ran.out}{marked}[exit {ran.code}]\n\n"
        return ran

    def check(self) -> None:
        """Compare with the file."""
        text = self._text.rstrip("\n") + "\n"
        if os.environ.get("REWRITE_TRANSCRIPTS"):
            FOLDER.mkdir(exist_ok=True)
            self._file.write_text(text, encoding="utf-8")
        assert text == self._file.read_text(encoding="utf-8")
