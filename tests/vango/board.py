"""The Vango board's own files, as the framework's tool wrote them: what pure tests read, and change to break them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moorage.vango.generated import BINDINGS_FILE
from moorage.vango.schema import MANIFEST_FILE, SCHEMA_FILE, Primitive, SessionKey, StateFiles, read_state, schema_hash

BOARD = Path(__file__).resolve().parents[2] / "examples" / "vango-board"
MANIFEST, SCHEMA = (BOARD / MANIFEST_FILE).read_bytes(), (BOARD / SCHEMA_FILE).read_bytes()
Change = Callable[[dict[str, Any]], object]


def changed(content: bytes, change: Change) -> bytes:
    """A JSON file with a change made to its object."""
    table = json.loads(content)
    change(table)
    return json.dumps(table, indent=2).encode()


def rehashed(table: dict[str, Any]) -> None:
    """Give a schema the hash of its content, as somebody would who edits with care."""
    primitives = [
        Primitive(p["stableID"], p["scope"], p["kind"], p["codecFingerprint"]) for p in table["persistedPrimitives"]
    ]
    keys = [SessionKey(k["name"], k["stableID"], k["codecFingerprint"]) for k in table["sessionKeys"] or ()]
    table["schemaHash"] = schema_hash(table["schemaVersion"], primitives, keys)


def board_state() -> StateFiles:
    """The state of the board's first version."""
    state = read_state(MANIFEST, SCHEMA)
    assert isinstance(state, StateFiles), state
    return state


def generated_files(folder: Path = BOARD) -> dict[str, str]:
    """The generated files of the board: path to text."""
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob(BINDINGS_FILE))}


def source_files(folder: Path = BOARD) -> dict[str, str]:
    """The Go files of the board that are its own: path to text."""
    found = (p for p in sorted(folder.rglob("*.go")) if p.name != BINDINGS_FILE)
    paths = {p.relative_to(folder).as_posix(): p for p in found}
    return {path: place.read_text() for path, place in paths.items() if not path.startswith("variants/")}
