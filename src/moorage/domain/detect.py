"""Detection: from the names and a few small texts at the top of a folder to what kind of app it is, and to the
`moorage.toml` that `moorage init` proposes. A guess is said with its reason; what cannot be guessed is left to people.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import StrEnum

from moorage.domain.appfile import VANGO_COMMAND, VANGO_HEALTH
from moorage.domain.limits import NAME_LENGTH_MAX_CHARS
from moorage.domain.names import check_name

REQUIREMENTS, PYPROJECT, INDEX = "requirements.txt", "pyproject.toml", "index.html"
VANGO_FILE, GO_MOD = "vango.json", "go.mod"
READ_MAX_BYTES = 64 << 10  # a file beyond this is named to `detect` with an empty text
_APP = re.compile(
    r"^(\w+)(?:\s*:[^=\n]+)?\s*=\s*(?:\w+\.)*(FastAPI|Starlette|Litestar|Quart|Sanic|MoorageApp|Live)\(", re.M
)
_ASGI_FUNCTION = re.compile(r"^async def (\w+)\(scope\b", re.M)
_STATE = re.compile(r"^class \w+\([^)]*\b(?:SessionState|SharedState)\b", re.M)
_HEALTH = re.compile(r"[\"'](/(?:healthz|health|readyz|ready|livez|up))[\"']")
_FIRST_TO_TRY = ("app.py", "main.py", "server.py", "asgi.py", "board.py")
_FALLBACK_NAME = "app"
_MODULE = re.compile(r'^[ \t]*module[ \t]+"?([^\s"]+)', re.M)
_MAJOR = re.compile(r"v\d+")


class Guess(StrEnum):
    """What kind of app a folder holds."""

    PYTHON = "python"
    STATIC = "static"
    VANGO = "vango"
    COMMAND = "command"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What was recognised: `reason` names the file that decided it, `appfile` is the text of a moorage.toml (with a
    placeholder command where `complete` is False)."""

    kind: Guess
    reason: str
    appfile: str
    complete: bool


def detect(folder: str, files: Mapping[str, str]) -> Suggestion:
    """The suggestion for a folder called `folder` with these files at its top: name to text (UTF-8, at most
    READ_MAX_BYTES; empty for what is larger or no text). Never raises."""
    if is_vango(files):
        return _vango(folder, files[GO_MOD])
    name = suggest_name(_declared_name(files) or folder)
    if PYPROJECT in files or REQUIREMENTS in files:
        return _python(name, files, PYPROJECT if PYPROJECT in files else REQUIREMENTS)
    if "package.json" in files and (script := _build_script(files["package.json"])):
        text = _head(name) + _section("build", command=f"npm ci && npm run {script}", output="dist")
        text += "\n[static]\nspa = true\n"
        return Suggestion(
            Guess.COMMAND, "package.json has a build script; its output is taken to be `dist`", text, True
        )
    if INDEX in files:
        return Suggestion(Guess.STATIC, INDEX, _head(name) + "\n[static]\n", True)
    if any(file.endswith(".py") for file in files):
        return _python(name, files, "a Python file")
    text = _head(name) + _section("process", command="./serve --port $PORT", health="/")
    return Suggestion(Guess.UNKNOWN, "nothing that is known", text, False)


def is_vango(names: Container[str]) -> bool:
    """Whether a folder with these names at its top holds a Vango app: its settings lie beside the Go module."""
    return VANGO_FILE in names and GO_MOD in names


def _vango(folder: str, go_mod: str) -> Suggestion:
    """A Vango app, named after its module."""
    name = suggest_name(_module_name(go_mod) or folder)
    text = _head(name) + _section("process", command=VANGO_COMMAND, health=VANGO_HEALTH)
    return Suggestion(Guess.VANGO, f"{VANGO_FILE} beside {GO_MOD}", text, True)


def _module_name(go_mod: str) -> str:
    """The last part of a module's path that is a name and not a version."""
    found = _MODULE.search(go_mod)
    parts = found.group(1).split("/") if found else []
    return next((part for part in reversed(parts) if not _MAJOR.fullmatch(part)), "")


def suggest_name(text: str) -> str:
    """The nearest allowed app name; `app` when there is none."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower())
    name = re.sub(r"^[^a-z]+", "", name)[:NAME_LENGTH_MAX_CHARS].rstrip("-")
    return name if name and check_name(name) is None else _FALLBACK_NAME


def _python(name: str, files: Mapping[str, str], reason: str) -> Suggestion:
    """A Python app: an ASGI object under uvicorn if one is declared, else the file that looks like the program."""
    found = _asgi(files)
    if found is not None:
        module, attribute, text = found
        command = f"python -m uvicorn {module}:{attribute} --host $HOST --port $PORT"
        out = _head(name) + _section("process", command=command, health=_health(text))
        out += _section("state", module=f"{module}:{attribute}") if _STATE.search(text) else ""
        return Suggestion(Guess.PYTHON, f"{reason}; {module}.py has the ASGI app `{attribute}`", out, True)
    program = next((file for file in _in_order(files)), "")
    command = f"python {program or 'app.py'}"
    text = _head(name) + _section("process", command=command, health=_health(files.get(program, "")))
    return Suggestion(Guess.PYTHON, f"{reason}; no ASGI app found at the top of the source", text, bool(program))


def _asgi(files: Mapping[str, str]) -> tuple[str, str, str] | None:
    """(module, attribute, text) of the first ASGI app at the top of the source."""
    for file in _in_order(files):
        text = files[file]
        found = _APP.search(text)
        match = (found.group(1) if found else None) or next(iter(_ASGI_FUNCTION.findall(text)), None)
        if match and file.removesuffix(".py").isidentifier():
            return file.removesuffix(".py"), match, text
    return None


def _in_order(files: Mapping[str, str]) -> list[str]:
    """The Python files, the usual names first; tests and settings are no programs."""
    ours = [f for f in files if f.endswith(".py") and not f.startswith(("test_", "conftest", "setup", "_"))]
    return sorted(ours, key=lambda f: (_FIRST_TO_TRY.index(f) if f in _FIRST_TO_TRY else len(_FIRST_TO_TRY), f))


def _health(text: str) -> str:
    """The health path that the text mentions, else the front page."""
    found = _HEALTH.search(text)
    return found.group(1) if found else "/"


def _declared_name(files: Mapping[str, str]) -> str:
    """The project's own name, if a file declares one."""
    try:
        project = tomllib.loads(files.get(PYPROJECT, "")).get("project")
    except (ValueError, RecursionError):
        return ""
    name = project.get("name") if isinstance(project, dict) else None
    return name if isinstance(name, str) else ""


def _build_script(package: str) -> str:
    """The name of the build script of a package.json, or nothing."""
    try:
        document = json.loads(package)
    except (ValueError, RecursionError):
        return ""
    scripts = document.get("scripts") if isinstance(document, dict) else None
    return "build" if isinstance(scripts, dict) and "build" in scripts else ""


def _head(name: str) -> str:
    return f'name = "{name}"\n'


def _section(header: str, **values: str) -> str:
    """A section with text values."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(["", f"[{header}]", *lines, ""])
