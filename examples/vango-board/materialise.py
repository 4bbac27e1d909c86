"""Writes one version of the Vango board as a complete app: `python materialise.py v2 /tmp/vango-board`.

This folder itself is version 1, ready to be deployed; a variant replaces some of its files. Its generated bindings are
stored under another name: the framework's tool takes every file of that name below the folder for its own, and deletes
those that it does not know. The go.mod of `variants` keeps Go out of there.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BINDINGS, STORED_AS = "vango_state_bindings_gen.go", "vango_state_bindings_gen.go.txt"
LEFT_OUT = ("variants", "materialise.py", "__pycache__", "dist", ".vango", "*.log")


def versions() -> tuple[str, ...]:
    """Every version there is."""
    return ("v1", *sorted(folder.name for folder in (HERE / "variants").iterdir() if folder.is_dir()))


def materialise(version: str, destination: Path) -> Path:
    """Writes the version's files into `destination`, which is created. Raises ValueError for an unknown version."""
    if version not in versions():
        raise ValueError(f"there is no version {version!r} of the board; there are {', '.join(versions())}")
    shutil.copytree(HERE, destination, ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True)
    if version != "v1":
        shutil.copytree(HERE / "variants" / version, destination, dirs_exist_ok=True)
        for stored in destination.rglob(STORED_AS):
            stored.replace(stored.with_name(BINDINGS))
    return destination


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python materialise.py VERSION DESTINATION")
    try:
        print(materialise(sys.argv[1], Path(sys.argv[2])))
    except ValueError as error:
        sys.exit(str(error))
