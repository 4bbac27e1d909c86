"""All SQL: `schema.sql`, one file of named queries per noun, and the steps from schema to schema in `migrations`.

A query begins with `-- name: what it does`. `QUERIES[name]` is its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

SCHEMA_VERSION = 2
_MARK = "-- name: "


def _load() -> Mapping[str, str]:
    found: dict[str, str] = {}
    for file in sorted(files(__package__).iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".sql") or file.name == "schema.sql":
            continue
        for block in file.read_text().split(_MARK)[1:]:
            head, _, body = block.partition("\n")
            name = head.split()[0]
            assert name not in found, f"query {name} is defined twice"
            found[name] = body.strip().rstrip(";")
    return found


QUERIES = _load()


def schema() -> str:
    """The whole schema as one script."""
    return (files(__package__) / "schema.sql").read_text()


def migration(to: int) -> str:
    """The statements that make a database of schema `to - 1` one of schema `to`."""
    return (files(__package__) / "migrations" / f"{to:04}.sql").read_text()
