"""The table of every key that `moorage.toml` may hold: what it accepts, and the words for what was expected."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

TOP = ""  # the section of the keys before the first header
COMMAND_MAX_CHARS = 4_000
HEALTH_MAX_CHARS = 200
TIME_MAX_S = 3_600.0
DRAIN_DEADLINE_MAX_S = 7 * 24 * 3_600.0
EXCLUDES_MAX_COUNT = 200
PATH_MAX_CHARS = 200
MIGRATION_NAME_MAX_CHARS = 100
IMPACTS = ("none", "additive", "expand-contract", "data-migration", "destructive", "online-change", "unknown")
MODES = ("handover", "drain")

_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_SHELL_WORDS = frozenset({"&&", "||", "|", ";", "&", ">", ">>", "<", "2>", "2>&1"})


@dataclass(frozen=True, slots=True)
class Key:
    """One key: `accepts` says whether a TOML value may stand there, `expected` completes "expected ..."."""

    expected: str
    accepts: Callable[[object], bool]


def is_inner_path(value: object) -> bool:
    """Whether the value is a relative POSIX path that stays within its folder."""
    if not isinstance(value, str) or not value or len(value) > PATH_MAX_CHARS:
        return False
    return not value.startswith("/") and "\\" not in value and "\0" not in value and ".." not in value.split("/")


def _is_process_command(value: object) -> bool:
    if not _is_command(value):
        return False
    assert isinstance(value, str)
    try:
        words = shlex.split(value)
    except ValueError:
        return False
    return bool(words) and bool(words[0]) and "=" not in words[0] and not _SHELL_WORDS.intersection(words)


def _is_command(value: object) -> bool:
    return isinstance(value, str) and len(value.strip()) > 0 and len(value) <= COMMAND_MAX_CHARS and "\0" not in value


def _is_health(value: object) -> bool:
    if not isinstance(value, str) or not value.startswith("/") or len(value) > HEALTH_MAX_CHARS:
        return False
    return all("!" <= c <= "~" for c in value)


def _is_module(value: object) -> bool:
    return isinstance(value, str) and bool(_MODULE.fullmatch(value))


def _is_migration_name(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value.strip()) <= MIGRATION_NAME_MAX_CHARS


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_patterns(value: object) -> bool:
    if not isinstance(value, list) or len(value) > EXCLUDES_MAX_COUNT:
        return False
    return all(
        isinstance(v, str) and len(v.strip()) > 0 and len(v) <= PATH_MAX_CHARS and v.isprintable() for v in value
    )


def _seconds(low: float, high: float) -> Callable[[object], bool]:
    def accepts(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return low <= value <= high  # false for nan and inf too

    return accepts


def _one_of(choices: tuple[str, ...]) -> Key:
    shown = ", ".join(f'"{choice}"' for choice in choices)
    return Key(f"one of {shown}", lambda value: isinstance(value, str) and value in choices)


_INNER_PATH = Key('a relative path inside the source, for example "public"', is_inner_path)

KEYS: Mapping[str, Mapping[str, Key]] = {
    TOP: {"name": Key('a DNS label in quotes, for example "board"', lambda value: isinstance(value, str))},
    "process": {
        "command": Key(
            "a command line without shell operators or assignments in front (wrap those in `sh -c '...'`)",
            _is_process_command,
        ),
        "health": Key('a path that begins with "/" (printable ASCII, no spaces)', _is_health),
        "ready_timeout_s": Key(f"seconds between 0.1 and {TIME_MAX_S:g}", _seconds(0.1, TIME_MAX_S)),
        "stop_grace_s": Key(f"seconds between 0 and {TIME_MAX_S:g}", _seconds(0, TIME_MAX_S)),
    },
    "build": {
        "command": Key("a shell command in quotes", _is_command),
        "output": _INNER_PATH,
        "exclude": Key(f'a list of at most {EXCLUDES_MAX_COUNT} patterns, for example ["docs/"]', _is_patterns),
    },
    "static": {"root": _INNER_PATH, "spa": Key("true or false", _is_bool)},
    "state": {
        "module": Key('"module:attribute", for example "board:app"', _is_module),
        "schema": Key('the path of a JSON file inside the source, for example "state.json"', is_inner_path),
    },
    "migration": {
        "name": Key(f"a name of at most {MIGRATION_NAME_MAX_CHARS} characters", _is_migration_name),
        "impact": _one_of(IMPACTS),
    },
    "promotion": {
        "mode": _one_of(MODES),
        "bake_s": Key(f"seconds between 0 and {TIME_MAX_S:g}", _seconds(0, TIME_MAX_S)),
        "drain_deadline_s": Key(f"seconds between 0 and {DRAIN_DEADLINE_MAX_S:g}", _seconds(0, DRAIN_DEADLINE_MAX_S)),
    },
    "store": {"enabled": Key("true or false", _is_bool)},
    "vango": {
        "main": Key('the folder of a Go package inside the source, for example "./cmd/server"', is_inner_path),
        "resume_cure": Key("true or false", _is_bool),
    },
}

REQUIRED_IN_ENTRY: Mapping[str, tuple[str, ...]] = {"migration": ("name", "impact")}  # the sections written as [[...]]
