"""Validation: can the process be started, and which state does the app declare. What cannot be told blocks the build:
a schema that is unreadable is never taken for an empty one.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from moorage.build.outcome import Blocked, Failed
from moorage.build.plan import APP, SITE, Kind, state_target
from moorage.build.tools import Ran, run_tool
from moorage.build.tree import runnable_packages
from moorage.domain.appfile import AppFile
from moorage.domain.artifact import Depth, Process, StateEntry
from moorage.domain.errors import Problem
from moorage.domain.limits import LOG_TAIL_LINES_COUNT

SCHEMA_TIMEOUT_S = 60.0  # importing a large app on a busy machine
SCHEMA_MAX_BYTES = 256 << 10  # it travels in a report, and those end at 1 MiB
_SCHEMA_OUT = "schema.json"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # what the runner gives to apps
_PYTHON = re.compile(r"python(3(\.\d+)?)?")


class _Field(BaseModel):
    """One declared field, as `python -m moorage_app.schema` prints it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str
    field: str
    type: str
    scope: str = "session"
    kind: str = "field"
    default: bool = True


class _Schema(BaseModel):
    """The document of a state schema."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: int
    entries: list[_Field]
    hash: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """The declared state: its fields, where they were read, the schema's own hash."""

    entries: tuple[StateEntry, ...] = ()
    source: str = ""
    hash: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """Which files of a tree are served as they are: a folder of it, and the URL prefix that they are found below."""

    folder: str
    prefix: str

    def paths(self, files: Iterable[str]) -> tuple[str, ...]:
        """The URL paths of those files that lie in the folder."""
        inside = (path.removeprefix(f"{self.folder}/") for path in files if path.startswith(f"{self.folder}/"))
        return tuple(f"{self.prefix.rstrip('/')}/{path}" for path in inside)


@dataclass(frozen=True, slots=True)
class Made:
    """What a build made of a source, besides the files of its tree."""

    depth: Depth
    state: State
    served: Served | None
    facts: Mapping[str, object]


def check_process(process: Process, kind: Kind, tree: Path) -> Problem | None:
    """Whether the command names something that is there, as the runner will look for it."""
    words = shlex.split(process.command)
    app, site = tree / APP, tree / SITE
    if kind is not Kind.COMMAND and words[0] in runnable_packages(site):
        return None
    if _PYTHON.fullmatch(words[0]):
        return _check_python_words(words[1:], app, site)
    if "/" in words[0]:
        place = app / words[0]
        if place.is_file() and os.access(place, os.X_OK):
            return None
        why = "is not executable" if place.is_file() else "is not in the artifact"
        return _not_found(words[0], f"`{words[0]}` {why}", "Name a file that the build leaves, with its execute bit.")
    if shutil.which(words[0], path=_PATH):
        return None
    hint = (
        f"Scripts of packages are not kept: write `python -m {words[0]} ...` and list the package in requirements.txt."
    )
    return _not_found(words[0], f"there is no program `{words[0]}` on this machine nor in the artifact", hint)


def _check_python_words(words: Sequence[str], app: Path, site: Path) -> Problem | None:
    """Whether the script or module of a Python command line exists; options before it are left to Python."""
    for index, word in enumerate(words):
        if word == "-m" and index + 1 < len(words):
            return _check_module(words[index + 1], app, site)
        if word.startswith("-"):
            if word in ("-c", "-"):
                return None
            continue
        if index and words[index - 1] in ("-X", "-W"):
            continue
        if (app / word).exists():
            return None
        return _not_found(word, f"`{word}` is not in the source", "Name a file relative to the folder of moorage.toml.")
    return None


def _check_module(module: str, app: Path, site: Path) -> Problem | None:
    top = module.split(".")[0]
    for folder in (app, site):
        if (folder / top).is_dir() or (folder / f"{top}.py").is_file() or any(folder.glob(f"{top}.*.so")):
            return None
    if top in sys.stdlib_module_names:
        return None
    hint = f"Add `{top}` to requirements.txt, or correct `[process] command`."
    return _not_found(module, f"no module `{top}` in the source nor among the installed packages", hint)


def _not_found(name: str, detail: str, hint: str) -> Problem:
    return Problem("command-not-found", "The app's command cannot be found", detail, hint, 422, {"word": name})


async def read_state(
    appfile: AppFile,
    tree: Path,
    *,
    uses_sdk: bool,
    python: str,
    environ: Mapping[str, str],
    secrets: Sequence[str],
    work: Path,
    timeout_s: float = SCHEMA_TIMEOUT_S,
) -> State:
    """The state that the app declares, read out of the tree that will run.

    Raises Blocked (`state-schema-unreadable`) with what the app said when it was imported.
    """
    if appfile.state_schema is not None:
        text = _read_schema_file(tree / APP, appfile.state_schema)
        return parse_schema(text, appfile.state_schema)
    target = state_target(appfile)
    if not uses_sdk:
        if appfile.state_module is not None:
            raise _unreadable("the app does not install `moorage-app`", "Add `moorage-app` to the app's packages.")
        return State()
    if target is None:
        detail = "the app uses the SDK, and no `[state] module` says where its state is declared"
        raise _unreadable(detail, 'Add `[state] module = "module:app"` to moorage.toml.')
    return await _import_schema(target, tree, python, environ, secrets, work, timeout_s)


async def _import_schema(
    target: str,
    tree: Path,
    python: str,
    environ: Mapping[str, str],
    secrets: Sequence[str],
    work: Path,
    timeout_s: float,
) -> State:
    """Import the app in a process of its own and read what it declares."""
    # the schema goes to a file: what an app prints at import, on either stream, can then not be taken for it
    out = work / _SCHEMA_OUT
    command = ("sh", "-c", 'exec "$0" -m moorage_app.schema "$1" >"$2"', python, target, str(out))
    own = {"PYTHONPATH": str(tree / SITE), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1"}
    ran = await run_tool(
        command, folder=tree / APP, environ={**environ, **own}, timeout_s=timeout_s, secrets=secrets, mark=work
    )
    if ran.exit_code is None:
        raise Failed(_timed_out(target, timeout_s), _last(ran))
    if not ran.succeeded:
        said = ran.lines[-1] if ran.lines else f"exit code {ran.exit_code}"
        hint = f"Run `python -m moorage_app.schema {target}` in the source: it must print the schema."
        raise _unreadable(said, hint, _last(ran))
    return parse_schema(_bounded(out, target), target, _last(ran))


def parse_schema(text: str, source: str, log_tail: Sequence[str] = ()) -> State:
    """The state in a schema document. Raises Blocked (`state-schema-unreadable`)."""
    hint = "The document is what `python -m moorage_app.schema module:app` prints."
    try:
        document = _Schema.model_validate_json(text)
    except ValidationError as wrong:
        first = wrong.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "document"
        raise _unreadable(f"{source}: {place}: {first['msg']}", hint, log_tail) from wrong
    if document.format != 1:
        raise _unreadable(f"{source}: format {document.format} is not known to this platform", hint, log_tail)
    named = [(entry.id, entry.field) for entry in document.entries]
    twice = next((name for name in named if named.count(name) > 1), None) if len(set(named)) < len(named) else None
    if twice is not None:
        raise _unreadable(f"{source}: {'.'.join(twice)} is declared twice", hint, log_tail)
    entries = (StateEntry(e.id, e.field, e.scope, e.kind, e.type, e.default) for e in document.entries)
    return State(tuple(sorted(entries, key=lambda e: (e.state, e.field))), source, document.hash)


def _read_schema_file(app: Path, path: str) -> str:
    place = app / path
    if not place.is_file() or not place.resolve().is_relative_to(app.resolve()):
        raise _unreadable(f"there is no file `{path}`", "Correct `[state] schema` in moorage.toml.")
    return _bounded(place, path)


def _bounded(place: Path, source: str) -> str:
    with place.open("rb") as handle:
        data = handle.read(SCHEMA_MAX_BYTES + 1)
    if len(data) > SCHEMA_MAX_BYTES:
        raise _unreadable(f"{source}: more than {SCHEMA_MAX_BYTES} bytes", "Declare less state.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as bad:
        raise _unreadable(f"{source}: no UTF-8", "Write the document in UTF-8.") from bad


def _unreadable(detail: str, hint: str, log_tail: Sequence[str] = ()) -> Blocked:
    problem = Problem("state-schema-unreadable", "The app's state schema cannot be read", detail, hint, 422)
    return Blocked(problem, log_tail)


def _timed_out(target: str, timeout_s: float) -> Problem:
    hint = "Do the slow work at start-up instead of at import."
    detail = f"importing `{target}` took more than {timeout_s:g} s"
    return Problem("build-timeout", "The state schema took too long to read", detail, hint, 504)


def _last(ran: Ran) -> tuple[str, ...]:
    return ran.lines[-LOG_TAIL_LINES_COUNT:]
