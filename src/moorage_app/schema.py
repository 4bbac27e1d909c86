"""The command `python -m moorage_app.schema board:app`: prints the state schema an app declares.

`{"format": 1, "entries": [{"id", "field", "scope", "kind", "type", "default"}...], "hash": "sha256:..."}`, sorted,
alone on stdout. Rules of this room: it imports the author's module and nothing else happens; what it prints goes to
stderr. Exit codes: 0, 2 for a wrong call, 3 for a module that cannot be imported or declares something wrong.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from moorage_app.declared import Schema, schema_of
from moorage_app.errors import MoorageAppError
from moorage_app.state import declared_states

EXIT_USAGE: Final = 2
EXIT_UNREADABLE: Final = 3


def read_module(target: str) -> Schema:
    """Imports `module[:attribute]` and gives its schema: the attribute's own states if it names some, else all."""
    name, _, attribute = target.partition(":")
    module = importlib.import_module(name)
    found: Any = module
    for part in filter(None, attribute.split(".")):
        found = getattr(found, part)
    states = getattr(found, "states", None)
    return schema_of(states if isinstance(states, tuple) else declared_states())


def main(arguments: Sequence[str]) -> int:
    """Prints the schema; gives the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m moorage_app.schema module[:attribute]", file=sys.stderr)
        return EXIT_USAGE
    sys.path.insert(0, os.getcwd())
    try:
        with contextlib.redirect_stdout(sys.stderr):
            schema = read_module(arguments[0])
    except (ImportError, AttributeError, SyntaxError, NameError, ValueError, MoorageAppError) as error:
        print(f"schema-unreadable: {arguments[0]}: {type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_UNREADABLE
    print(json.dumps(schema.document(), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
