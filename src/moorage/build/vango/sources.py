"""What a Vango app's source says about itself, read out of the unpacked source and checked before anything is made of
it. Each thing that is wrong ends the build with its own code.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moorage.build.outcome import Blocked
from moorage.domain.errors import Problem
from moorage.vango.schema import (
    MANIFEST_FILE,
    MANIFEST_MAX_BYTES,
    SCHEMA_FILE,
    SCHEMA_MAX_BYTES,
    StateFiles,
    read_state,
)
from moorage.vango.settings import (
    GO_MOD,
    SETTINGS_FILE,
    SETTINGS_MAX_BYTES,
    GoMod,
    Settings,
    framework_missing,
    read_go_mod,
    read_settings,
)

GO_FILE_MAX_BYTES = 4 << 20  # a generated file may be long; what is longer is no source that is looked at
_SKIPPED = frozenset({"node_modules", "vendor", "testdata"})  # the framework looks into none of these either


@dataclass(frozen=True, slots=True)
class Source:
    """A source that holds together: its settings, what go.mod says, its declared state."""

    folder: Path
    settings: Settings
    go_mod: GoMod
    state: StateFiles


def read_source(folder: Path) -> Source:
    """The Vango app in a folder. Raises Blocked with the first thing that is wrong."""
    go_text = (bounded(folder / GO_MOD, SETTINGS_MAX_BYTES) or b"").decode("utf-8", "replace")
    settings = _sound(read_settings(bounded(folder / SETTINGS_FILE, SETTINGS_MAX_BYTES) or b"", go_text))
    go_mod = read_go_mod(go_text)
    if not go_mod.framework:
        raise Blocked(framework_missing())
    manifest = bounded(folder / MANIFEST_FILE, MANIFEST_MAX_BYTES)
    schema = bounded(folder / SCHEMA_FILE, SCHEMA_MAX_BYTES)
    state = read_state(manifest, schema)
    if isinstance(state, Problem):
        raise Blocked(state)
    return Source(folder, settings, go_mod, state)


def _sound(settings: Settings | Problem) -> Settings:
    if isinstance(settings, Problem):
        raise Blocked(settings)
    return settings


def bounded(place: Path, max_bytes: int) -> bytes | None:
    """The content of a file, at most one byte more than `max_bytes` of it; None when there is no such file."""
    if not place.is_file():
        return None
    with place.open("rb") as handle:
        return handle.read(max_bytes + 1)


def go_files(folder: Path) -> Iterator[Path]:
    """The Go files of a source that may become part of a program, in a fixed order: no tests, nothing hidden."""
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")) and name not in _SKIPPED)
        for name in sorted(names):
            place = Path(path, name)
            ours = name.endswith(".go") and not name.endswith("_test.go") and not name.startswith((".", "_"))
            if ours and stat.S_ISREG(place.lstat().st_mode):
                yield place


def text_of(place: Path) -> str:
    """The text of a Go file; what is no UTF-8 stands as a replacement character."""
    return (bounded(place, GO_FILE_MAX_BYTES) or b"").decode("utf-8", "replace")
