"""The declared state as data: what the platform compares between two deployments, and the SDK at a resume.

Rules of this room: pure, except `main`, which imports the author's module and prints
`{"format": 1, "entries": [...], "hash": "sha256:..."}` (run `python -m moorage_app.schema board:app`).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .errors import MoorageAppError
from .state import Scope, State, declared_states

SCHEMA_FORMAT: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREADABLE: Final = 3

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Schema:
    """Sorted entries and their hash."""

    entries: tuple[Entry, ...]
    hash: str

    def document(self) -> dict[str, Any]:
        """The JSON the command prints."""
        return {"format": SCHEMA_FORMAT, "entries": [dict(entry) for entry in self.entries], "hash": self.hash}


def schema_of(states: Iterable[type[State]], scope: Scope | None = None) -> Schema:
    """The schema of these classes, of one scope or of both."""
    entries = [
        {
            "id": state.declaration.id,
            "field": spec.name,
            "scope": state.declaration.scope,
            "kind": "field",
            "type": spec.shape.fingerprint,
            "default": True,
        }
        for state in states
        if scope in (None, state.declaration.scope)
        for spec in state.declaration.fields.values()
    ]
    ordered = tuple(sorted(entries, key=lambda entry: (str(entry["id"]), str(entry["field"]))))
    return Schema(ordered, schema_hash(ordered))


def schema_hash(entries: Sequence[Entry]) -> str:
    """SHA-256 over the canonical JSON of sorted entries."""
    text = json.dumps([dict(entry) for entry in entries], sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def cold_change(stored: Sequence[Entry], declared: Sequence[Entry]) -> str | None:
    """Why values stored under one schema cannot go on under another; None when they can (additions are fine)."""
    types = {(entry.get("id"), entry.get("field")): entry.get("type") for entry in declared}
    ids = {entry.get("id") for entry in declared}
    for entry in stored:
        state_id, field = entry.get("id"), entry.get("field")
        if state_id not in ids:
            return f"{state_id} is no longer declared"
        if (state_id, field) not in types:
            return f"{state_id}.{field} is no longer declared"
        if types[state_id, field] != entry.get("type"):
            return f"{state_id}.{field} was {entry.get('type')} and is now {types[state_id, field]}"
    return None


def read_module(target: str) -> Schema:
    """Imports `module[:attribute]` and gives its schema: the attribute's own states if it names some, else all."""
    name, _, attribute = target.partition(":")
    sys.path.insert(0, os.getcwd())
    module = importlib.import_module(name)
    found: Any = module
    for part in filter(None, attribute.split(".")):
        found = getattr(found, part)
    states = getattr(found, "states", None)
    return schema_of(states if isinstance(states, tuple) else declared_states())


def main(arguments: Sequence[str]) -> int:
    """The command: prints the schema to stdout; everything an import prints goes to stderr."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m moorage_app.schema module[:attribute]", file=sys.stderr)
        return EXIT_USAGE
    try:
        with contextlib.redirect_stdout(sys.stderr):
            schema = read_module(arguments[0])
    except (ImportError, AttributeError, SyntaxError, MoorageAppError) as error:
        print(f"schema-unreadable: {arguments[0]}: {type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_UNREADABLE
    print(json.dumps(schema.document(), indent=2))
    return 0


if __name__ == "__main__":
    # Run as __main__ this file is a second copy of the module: the classes register with the imported one.
    from moorage_app import schema as imported

    sys.exit(imported.main(sys.argv[1:]))
