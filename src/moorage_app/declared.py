"""The declared state as data: what the platform compares between two deployments, and the SDK at a resume.

Rules of this room: pure. `moorage_app.schema` prints it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .state import Scope, State

SCHEMA_FORMAT: Final = 1

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
