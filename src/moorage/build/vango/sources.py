"""What a Vango app's source says about itself, read out of the unpacked source and checked before anything is made of
it. Each thing that is wrong ends the build with its own code.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from moorage.build.outcome import Blocked
from moorage.domain.errors import Problem
from moorage.vango.acknowledgement import (
    ACKNOWLEDGEMENT_FILE,
    ACKNOWLEDGEMENT_MAX_BYTES,
    Acknowledgement,
    read_acknowledgement,
)
from moorage.vango.generated import BINDINGS_FILE, check_bindings
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
    """A source that holds together: its settings, what go.mod says, its declared state, the generated files that bind
    it (path to text), the framework's acknowledgement (a Problem: it cannot be read, which blocks nothing)."""

    folder: Path
    settings: Settings
    go_mod: GoMod
    state: StateFiles
    generated: Mapping[str, str]
    acknowledgement: Acknowledgement | Problem | None


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
    generated = {path.relative_to(folder).as_posix(): text_of(path) for path in _generated_files(folder)}
    problem = check_bindings(state, generated)
    if problem is not None:
        raise Blocked(problem)
    acknowledged = bounded(folder / ACKNOWLEDGEMENT_FILE, ACKNOWLEDGEMENT_MAX_BYTES)
    return Source(folder, settings, go_mod, state, generated, read_acknowledgement(acknowledged))


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
    """The Go files of a source that may become part of a program, in a fixed order: no tests, nothing hidden, no
    module within the module."""
    for place in _walk(folder, into_modules=False):
        if place.suffix == ".go" and not place.name.endswith("_test.go") and not place.name.startswith(("_", ".")):
            yield place


def _generated_files(folder: Path) -> Iterator[Path]:
    """The files of state bindings; the framework takes every one below the folder for the app's own."""
    return (place for place in _walk(folder, into_modules=True) if place.name == BINDINGS_FILE)


def _walk(folder: Path, *, into_modules: bool) -> Iterator[Path]:
    """The files of a source where Go and the framework look for sources."""
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")) and name not in _SKIPPED)
        if not into_modules:
            folders[:] = [name for name in folders if not Path(path, name, GO_MOD).is_file()]
        for name in sorted(names):
            place = Path(path, name)
            if stat.S_ISREG(place.lstat().st_mode):
                yield place


def text_of(place: Path) -> str:
    """The text of a Go file; what is no UTF-8 stands as a replacement character."""
    return (bounded(place, GO_FILE_MAX_BYTES) or b"").decode("utf-8", "replace")
