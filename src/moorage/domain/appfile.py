"""The app file (`moorage.toml`): its keys, what each may hold, and the problem of a file that breaks a rule.

Rules of the room: one table (`KEYS`) names every key; anything else is refused with a suggestion. The CLI and the build
worker run this same function on the same bytes. A problem always says file, line, what was found, what was expected.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from moorage.domain.appkeys import KEYS, REQUIRED_IN_ENTRY, TOP, Key
from moorage.domain.artifact import Migration, Process
from moorage.domain.errors import Problem
from moorage.domain.limits import READY_TIMEOUT_S, STOP_GRACE_S
from moorage.domain.names import check_name

APPFILE_NAME = "moorage.toml"
VANGO_COMMAND, VANGO_HEALTH = "./server", "/_vango/health/ready"  # of a Vango app, where the file says nothing
APPFILE_MAX_BYTES = 64 << 10  # a page or two of settings; anything longer is not an app file
_SHOWN_MAX_CHARS = 80
_TOP_NAMES = [*KEYS[TOP], *(f"[{section}]" for section in KEYS if section != TOP)]
# sixteen parts are far beyond any key here, and tomllib takes seconds for thousands of them
_DEEP_KEY = re.compile(r"""(?:\.[ \t]*(?:"[^"\n]{0,64}"|'[^'\n]{0,64}'|[\w-]{1,64})[ \t]*){16}""")
_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)")

Table = Mapping[str, object]
Path = tuple[str | int, ...]
Finding = tuple[int, Callable[[], Problem]]  # a line, and the problem there: made for the first line only


@dataclass(frozen=True, slots=True)
class Build:
    """How the source becomes what runs: a command for `sh -c` in a copy of the source, the folder that it leaves its
    result in (POSIX path within the source), and what is not packed at all (patterns as in `.gitignore`)."""

    command: str = ""
    output: str = "."
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Static:
    """A site of files: its folder within the build's output; `spa` answers unknown pages with `index.html`."""

    root: str = "."
    spa: bool = False


@dataclass(frozen=True, slots=True)
class Promotion:
    """What a promotion does when its flags say nothing. `None` leaves the choice to the platform."""

    mode: str | None = None
    bake_s: float | None = None
    drain_deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class Vango:
    """What is said about a Vango app: the Go package to build (POSIX path within the source, empty: the usual one),
    and whether the edge may cure the framework's refusal to resume a stored session."""

    main: str = ""
    resume_cure: bool = False


@dataclass(frozen=True, slots=True)
class AppFile:
    """A valid `moorage.toml`. `process.command` is empty only for a static site. At most one of `state_module`
    (`module:attribute`) and `state_schema` (path of a JSON file) is set. `store` None: a store when the app uses the
    SDK or keeps its sessions in one by itself. `vango` None: the file has no such section."""

    name: str
    process: Process
    build: Build = Build()
    static: Static | None = None
    state_module: str | None = None
    state_schema: str | None = None
    migrations: tuple[Migration, ...] = ()
    promotion: Promotion = Promotion()
    store: bool | None = None
    vango: Vango | None = None


def missing_appfile(folder: str) -> Problem:
    """The problem of a source without an app file; `folder` names the source for people."""
    return Problem(
        "appfile-missing",
        f"There is no {APPFILE_NAME} in {folder}",
        f"found: no file {APPFILE_NAME}; expected: one beside the source",
        "Run `moorage init` there: it writes one from what it finds.",
        status=422,
        facts={"file": APPFILE_NAME},
    )


def parse_appfile(content: bytes | str) -> AppFile | Problem:
    """The app file, or the first problem in it (codes `appfile-invalid`, `name-invalid`, `name-contains-topology`);
    never raises."""
    text = _text_of(content)
    if isinstance(text, Problem):
        return text
    table = _load(text)
    if isinstance(table, Problem):
        return table
    at = _Places(text)
    return _check_keys(at, table) or _check_relations(at, table) or _build(table)


def _text_of(content: bytes | str) -> str | Problem:
    """The decoded text, bounded."""
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    if len(raw) > APPFILE_MAX_BYTES:
        return _invalid(1, (), f"{len(raw)} bytes", f"at most {APPFILE_MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as bad:
        line = raw[: bad.start].count(b"\n") + 1
        return _invalid(line, (), f"byte 0x{raw[bad.start]:02x}", "text in UTF-8")


def _load(text: str) -> Table | Problem:
    """The TOML document."""
    deep = _DEEP_KEY.search(text)
    if deep:
        return _invalid(text.count("\n", 0, deep.start()) + 1, (), "a name of more than 16 parts", "plain keys")
    try:
        return tomllib.loads(text)
    except RecursionError:
        return _invalid(1, (), "values nested too deeply", "plain tables and values")
    except ValueError as bad:  # TOMLDecodeError, and integers of thousands of digits
        said = str(bad)
        at = _AT_LINE.search(said)
        line = int(at.group(1)) if at else max(text.count("\n") + (not text.endswith("\n")), 1)
        return _invalid(line, (), _AT_LINE.sub("", said).strip(), "valid TOML")


def _check_keys(at: _Places, table: Table) -> Problem | None:
    """The first key that is unknown or holds a wrong value, in the order of the file."""
    found: list[Finding] = []
    for name, value in table.items():
        if name in KEYS[TOP]:
            found += _check_value(at, (name,), KEYS[TOP][name], value)
        elif name in KEYS and name != TOP:
            found += _check_section(at, name, value)
        else:
            found.append(_finding(at, (name,), partial(_unknown, at, (name,), _TOP_NAMES)))
    return min(found, key=lambda finding: finding[0])[1]() if found else None


def _check_section(at: _Places, name: str, value: object) -> list[Finding]:
    """Problems of one `[section]` or of a list of `[[section]]`."""
    listed = name in REQUIRED_IN_ENTRY
    if listed != isinstance(value, list) or not (listed or isinstance(value, dict)):
        return [
            _finding(
                at,
                (name,),
                partial(_wrong, at, (name,), value, f"a table written as {f'[[{name}]]' if listed else f'[{name}]'}"),
            )
        ]
    if not isinstance(value, list):
        return _check_table(at, (name,), name, value)
    found: list[Finding] = []
    for index, entry in enumerate(value):
        if isinstance(entry, dict):
            found += _check_table(at, (name, index), name, entry)
        else:
            expected = f"tables written as [[{name}]]"
            found.append(_finding(at, (name,), partial(_wrong, at, (name,), entry, expected)))
    return found


def _check_table(at: _Places, path: Path, section: str, value: object) -> list[Finding]:
    """Problems of the keys of one table."""
    assert isinstance(value, dict)
    found: list[Finding] = []
    for name, inner in value.items():
        if name in KEYS[section]:
            found += _check_value(at, (*path, name), KEYS[section][name], inner)
        else:
            found.append(_finding(at, (*path, name), partial(_unknown, at, (*path, name), list(KEYS[section]))))
    for name in REQUIRED_IN_ENTRY.get(section, ()):
        if name not in value:
            expected = f"`{name} = ...` in each [[{section}]]"
            found.append(_finding(at, path, partial(_wrong, at, path, "nothing", expected, quote=False)))
    return found


def _check_value(at: _Places, path: Path, key: Key, value: object) -> list[Finding]:
    """The problem of one value, if any."""
    if key.accepts(value):
        return []
    return [_finding(at, path, partial(_wrong, at, path, value, key.expected))]


def _finding(at: _Places, path: Path, make: Callable[[], Problem]) -> Finding:
    """A problem at the line of a key."""
    return at.line(path), make


def _check_relations(at: _Places, table: Table) -> Problem | None:
    """What one key says about another."""
    name = table.get("name")
    if name is None:
        return _wrong(at, ("name",), "no name", '`name = "..."` at the top of the file', quote=False)
    problem = check_name(str(name), what="app name")
    if problem is not None:
        return _located(problem, at.line(("name",)))
    return _check_process(at, table) or _check_state(at, table) or _check_migrations(at, table)


def _check_process(at: _Places, table: Table) -> Problem | None:
    """A command, unless the platform serves the files itself or knows the usual one; an output only of a command."""
    command, static = _get(table, "process", "command"), table.get("static")
    if static is not None and "vango" in table:
        return _wrong(at, ("vango",), table["vango"], "either `[static]` or `[vango]`, not both")
    if command is None and static is None and "vango" not in table:
        where: Path = ("process",) if "process" in table else ()
        return _wrong(at, where, "no command", '`[process] command = "..."`, or `[static]` for a site', quote=False)
    if command is not None and static is not None:
        return _wrong(at, ("process", "command"), command, "no command beside `[static]`: the platform serves it")
    if _get(table, "build", "output") is not None and _get(table, "build", "command") is None:
        return _wrong(at, ("build", "output"), _get(table, "build", "output"), "a `command` that writes this folder")
    return None


def _check_state(at: _Places, table: Table) -> Problem | None:
    """One way to know the state schema, not two."""
    schema = _get(table, "state", "schema")
    if schema is not None and _get(table, "state", "module") is not None:
        return _wrong(at, ("state", "schema"), schema, "either `module` or `schema`, not both")
    return None


def _check_migrations(at: _Places, table: Table) -> Problem | None:
    """Each migration has a name of its own."""
    seen: set[object] = set()
    entries = table.get("migration", [])
    assert isinstance(entries, list)
    for index, entry in enumerate(entries):
        if entry["name"] in seen:
            return _wrong(at, ("migration", index, "name"), entry["name"], "a name that no other migration has")
        seen.add(entry["name"])
    return None


def _build(table: Table) -> AppFile:
    """The app file of a table that has no problem."""
    build, static, state, promotion, migrations = (
        table.get(section, {}) for section in ("build", "static", "state", "promotion", "migration")
    )
    assert isinstance(build, dict)
    assert isinstance(static, dict)
    assert isinstance(state, dict)
    assert isinstance(promotion, dict)
    assert isinstance(migrations, (dict, list))
    store = _get(table, "store", "enabled")
    return AppFile(
        name=str(table["name"]),
        process=_process(table),
        build=Build(build.get("command", ""), build.get("output", "."), tuple(build.get("exclude", ()))),
        static=Static(static.get("root", "."), static.get("spa", False)) if "static" in table else None,
        state_module=state.get("module"),
        state_schema=state.get("schema"),
        migrations=tuple(Migration(entry["name"], entry["impact"]) for entry in migrations),
        promotion=Promotion(
            promotion.get("mode"), _seconds(promotion.get("bake_s")), _seconds(promotion.get("drain_deadline_s"))
        ),
        store=store if isinstance(store, bool) else None,
        vango=_vango(table),
    )


def _vango(table: Table) -> Vango | None:
    """The `[vango]` section, None where there is none."""
    section = table.get("vango")
    if not isinstance(section, dict):
        return None
    return Vango(section.get("main", ""), section.get("resume_cure", False))


def _process(table: Table) -> Process:
    """The `[process]` section with its defaults."""
    section = table.get("process", {})
    assert isinstance(section, dict)
    of_vango = "vango" in table
    return Process(
        command=section.get("command", VANGO_COMMAND if of_vango else ""),
        health=section.get("health", VANGO_HEALTH if of_vango else "/"),
        ready_timeout_s=float(section.get("ready_timeout_s", READY_TIMEOUT_S)),
        stop_grace_s=float(section.get("stop_grace_s", STOP_GRACE_S)),
    )


def _seconds(value: object) -> float | None:
    """A duration, or None where none was given."""
    return float(value) if isinstance(value, (int, float)) else None


def _get(table: Table, section: str, key: str) -> object:
    """A value two levels down, or None."""
    inner = table.get(section)
    return inner.get(key) if isinstance(inner, dict) else None


def _shown(path: Path) -> str:
    """A key as people write it: `process.health`, `migration[2].name`."""
    out = ""
    for part in path:
        out += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if out else part
    return out


def _quoted(value: object) -> str:
    """A value as it may stand in the file, shortened."""
    if isinstance(value, dict):
        return "a table"
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        return "a deeply nested value"
    return text if len(text) <= _SHOWN_MAX_CHARS else text[: _SHOWN_MAX_CHARS - 1] + "…"


def _unknown(at: _Places, path: Path, names: list[str]) -> Problem:
    """The problem of a key that no table has, with the nearest that exists."""
    near = difflib.get_close_matches(str(path[-1]), [n.strip("[]") for n in names], n=1, cutoff=0.5)
    tail = f"; did you mean `{near[0]}`?" if near else ""
    return _invalid(at.line(path), path, f"the unknown key `{path[-1]}`{tail}", f"one of {', '.join(names)}")


def _wrong(at: _Places, path: Path, found: object, expected: str, *, quote: bool = True) -> Problem:
    """The problem of a value."""
    return _invalid(at.line(path), path, _quoted(found) if quote else str(found), expected)


def _invalid(line: int, path: Path, found: str, expected: str) -> Problem:
    """The problem that every broken rule ends in."""
    key = _shown(path)
    where = f"{APPFILE_NAME}, line {line}" + (f", {key}" if key else "")
    return Problem(
        "appfile-invalid",
        f"{APPFILE_NAME} is not valid",
        f"{where}: found {found}; expected {expected}",
        f"Correct line {line} of {APPFILE_NAME} and run the command again; docs/moorage-toml.md lists every key.",
        status=422,
        facts={"file": APPFILE_NAME, "line": line, "key": key, "found": found, "expected": expected},
    )


def _located(problem: Problem, line: int) -> Problem:
    """A problem of another rule, with its place in this file."""
    return Problem(
        problem.code,
        problem.title,
        f"{APPFILE_NAME}, line {line}, name: {problem.detail}",
        problem.hint,
        problem.status,
        {**problem.facts, "file": APPFILE_NAME, "line": line, "key": "name"},
    )


_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]")
_ASSIGNMENT = re.compile(
    r"^\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*="
)


class _Places:
    """Where each header and key of a text stands."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Path, int] = {}
        for line, path in _written_paths(text):
            for depth in range(1, len(path) + 1):
                self._lines.setdefault(path[:depth], line)

    def line(self, path: Path) -> int:
        """The line (from 1) of a key, else of the nearest thing around it, else 1."""
        return next((self._lines[path[:d]] for d in range(len(path), 0, -1) if path[:d] in self._lines), 1)


def _written_paths(text: str) -> list[tuple[int, Path]]:
    """Each header and key of the text with its line. It reads lines, not TOML: only messages depend on it."""
    out: list[tuple[int, Path]] = []
    counts: dict[str, int] = {}
    here: Path = ()
    closing = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if closing:
            closing = "" if closing in line else closing
            continue
        header, assignment = _HEADER.match(line), _ASSIGNMENT.match(line)
        if header and not assignment:
            here = _split(header.group(2))
            if header.group(1) == "[[":
                counts[header.group(2)] = counts.get(header.group(2), -1) + 1
                here = (*here, counts[header.group(2)])
            out.append((number, here))
        elif assignment:
            out.append((number, (*here, *_split(assignment.group(1)))))
            closing = _opens(line[assignment.end() :])
    return out


def _split(dotted: str) -> Path:
    """The parts of a dotted key."""
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _opens(value: str) -> str:
    """The delimiter of a multi-line string that begins and does not end in this value; empty if none."""
    for mark in ('"""', "'''"):
        if value.count(mark) % 2 == 1:
            return mark
    return ""
