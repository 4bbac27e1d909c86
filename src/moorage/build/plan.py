"""What a build does, decided from the app file and from what lies in the source. Pure.

The layout of an artifact: `app/` is the source or the build's output (the working folder of the process), `site/` are
a Python app's packages. A static site has `app/serve.py` and its files below `app/public/`; a Vango app is laid out as
`build.vango.app` says.
"""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from moorage.domain.appfile import VANGO_HEALTH, AppFile
from moorage.domain.artifact import Process
from moorage.domain.errors import Problem

REQUIREMENTS, PYPROJECT = "requirements.txt", "pyproject.toml"
APP, SITE, PUBLIC, SERVER = "app", "site", "public", "serve.py"
STATIC_HEALTH = "/-/health"
SDK = "moorage-app"
_PYTHON = re.compile(r"python(3(\.\d+)?)?")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", re.ASCII)
_DIFFERENT_PYTHON = re.compile(r"requires? a different python:", re.IGNORECASE)
_WANTED = re.compile(r"No matching distribution found for ([A-Za-z0-9._-]+)==([^\s;,]+)")
_FROM_NONE = re.compile(r"\(from versions: none\)")
_CONTINUED = re.compile(r"\\\r?\n")
_SDK_LINE = re.compile(r"\s*moorage[-_.]+app\b(?![-_.])", re.IGNORECASE)
_IGNORED = re.compile(r"Ignored the following versions that require a different python version: (.*)")


class Kind(StrEnum):
    """How an artifact runs."""

    PYTHON = "python"
    STATIC = "static"
    VANGO = "vango"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The packages that a Python app asks for: a file in the format of pip, or a list out of pyproject.toml."""

    file: str = ""
    listed: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The file that they stand in."""
        return self.file or PYPROJECT


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make: the kind, the packages to install (None: no step for packages), the process of the artifact."""

    kind: Kind
    dependencies: Dependencies | None
    process: Process


def plan_build(
    appfile: AppFile, requirements: str | None, pyproject: str | None, *, vango: bool = False
) -> Plan | Problem:
    """The plan for a source with these files (their text, None where there is no such file); `vango`: it has a
    vango.json beside its go.mod."""
    if appfile.static is not None:
        return Plan(Kind.STATIC, None, _static_process(appfile))
    if vango:
        return Plan(Kind.VANGO, None, _vango_process(appfile.process))
    if appfile.vango is not None:
        return _no_vango()
    if requirements is not None:
        unfit = check_python(pyproject) if pyproject else None
        wanted = Dependencies(file=REQUIREMENTS) if _asks_for_something(requirements) else None
        return unfit or Plan(Kind.PYTHON, wanted, appfile.process)
    listed = listed_dependencies(pyproject) if pyproject is not None else None
    if isinstance(listed, Problem):
        return listed
    if listed is not None:
        unfit = check_python(pyproject or "")
        return unfit or Plan(Kind.PYTHON, Dependencies(listed=listed) if listed else None, appfile.process)
    runs_python = bool(_PYTHON.fullmatch(shlex.split(appfile.process.command)[0]))
    return Plan(Kind.PYTHON if runs_python else Kind.COMMAND, None, appfile.process)


def _asks_for_something(requirements: str) -> bool:
    """Whether a requirements file has more than blank lines and comments."""
    return any(line.strip() and not line.strip().startswith("#") for line in requirements.splitlines())


def _static_process(appfile: AppFile) -> Process:
    """The platform's own file server; an app file may still choose health path and times."""
    assert appfile.static is not None
    command = f"python {SERVER} {PUBLIC}" + (" --spa" if appfile.static.spa else "")
    health = appfile.process.health if appfile.process.health != "/" else STATIC_HEALTH
    return replace(appfile.process, command=command, health=health)


def _vango_process(process: Process) -> Process:
    """The front page is the slowest thing to ask a Vango app for; the framework answers a path of its own."""
    return replace(process, health=VANGO_HEALTH) if process.health == "/" else process


def _no_vango() -> Problem:
    detail = "moorage.toml has a section `[vango]`, and the source has no vango.json beside a go.mod"
    hint = "Deploy the folder that holds vango.json, or take the section out of moorage.toml."
    return Problem("vango-settings-invalid", "The source is no Vango app", detail, hint, 422)


def listed_dependencies(pyproject: str) -> tuple[str, ...] | Problem | None:
    """`[project] dependencies`; None when the file describes no project; a Problem when they stand elsewhere."""
    table = _toml(pyproject)
    if isinstance(table, Problem):
        return table
    project = table.get("project")
    if not isinstance(project, dict):
        tool = table.get("tool")
        if isinstance(tool, dict) and "poetry" in tool:
            return _elsewhere("`[tool.poetry]` holds them", "poetry export -o requirements.txt")
        return None
    dynamic = project.get("dynamic")
    if isinstance(dynamic, list) and "dependencies" in dynamic:
        return _elsewhere("they are `dynamic`", "pip-compile pyproject.toml")
    found = project.get("dependencies", [])
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        return _unreadable(f"`[project] dependencies` of {PYPROJECT} is no list of texts")
    for each in found:
        try:
            Requirement(each)
        except InvalidRequirement as bad:
            return _unreadable(f"{PYPROJECT}: {each!r}: {str(bad).splitlines()[0]}")
    return tuple(found)


def check_python(pyproject: str, running: tuple[int, int, int] | None = None) -> Problem | None:
    """Whether the project runs on the platform's Python."""
    table = _toml(pyproject)
    if isinstance(table, Problem):
        return table
    project = table.get("project")
    wanted = project.get("requires-python") if isinstance(project, dict) else None
    if not isinstance(wanted, str):
        return None
    version = ".".join(map(str, running or sys.version_info[:3]))
    try:
        fits = version in SpecifierSet(wanted)
    except InvalidSpecifier:
        return _unreadable(f"{PYPROJECT}: requires-python {wanted!r} is no version specifier")
    return None if fits else python_unfit(f"{PYPROJECT} asks for Python {wanted}; this platform runs {version}")


def python_unfit(detail: str) -> Problem:
    """The problem of an app that needs another Python than the platform's."""
    hint = "Choose versions for this Python, or install Moorage under the Python that the app needs."
    return Problem("python-version-unsupported", "The app needs another Python", detail, hint, 422)


def pip_problem(lines: Sequence[str], source: str) -> Problem:
    """What a failed pip means, from what it said last."""
    text = "\n".join(lines)
    last = next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1] if lines else "")
    if _DIFFERENT_PYTHON.search(text) or _only_other_pythons(text):
        return python_unfit(last.removeprefix("ERROR: "))
    hint = f"Run `pip install -r {source}` yourself, correct {source}, then deploy again."
    detail = last.removeprefix("ERROR: ") or "pip said nothing"
    return Problem("dependencies-failed", "The app's packages could not be installed", detail, hint, 422)


def _only_other_pythons(text: str) -> bool:
    """Whether the version that was asked for exists, for another Python alone."""
    ignored = _IGNORED.search(text)
    if ignored is None:
        return False
    wanted = _WANTED.search(text)
    if wanted is None:
        return bool(_FROM_NONE.search(text))
    return wanted.group(2) in re.split(r"[\s;]+", ignored.group(1))


def with_own_sdk(requirements: str, address: str, sha256: str) -> tuple[str, str]:
    """(requirements, constraints) that make the wheel at `address` the SDK: an address is stronger than any version
    that a registry may offer under the same name.

    Where hashes are demanded a constraint cannot stand in for one, so the line itself is given the address and the
    hash; a line that has a hash of its own is left as it is: then the author has chosen.
    """
    if "--hash" not in requirements:
        return requirements, f"{SDK} @ {address}\n"
    lines = _CONTINUED.sub(" ", requirements).splitlines()
    ours = f"{SDK} @ {address} --hash=sha256:{sha256}"
    return "\n".join(ours if _SDK_LINE.match(line) and "--hash" not in line else line for line in lines) + "\n", ""


def pip_command(python: str, *, site: str, wheels: str, constraints: str, requirements: str) -> tuple[str, ...]:
    """The command line that installs into a folder, the user's own configuration of pip in force."""
    own = ("--target", site, "--no-compile", "--no-warn-script-location", "--find-links", wheels)
    return (python, "-m", "pip", "install", *own, "--constraint", constraints, "--requirement", requirements)


PIP_ENVIRON = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_PROGRESS_BAR": "off",
    "PIP_NO_COLOR": "1",
    "PIP_USER": "0",  # would contradict --target
    "PIP_REQUIRE_VIRTUALENV": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONNOUSERSITE": "1",
}


def state_target(appfile: AppFile) -> str | None:
    """The `module:attribute` that declares the state: as said, else the app that the command names."""
    if appfile.state_module is not None or appfile.state_schema is not None:
        return appfile.state_module
    words = shlex.split(appfile.process.command)
    return next((word for word in words[1:] if _TARGET.fullmatch(word)), None)


def is_left_out(path: str, *, is_folder: bool) -> bool:
    """Whether a build's output leaves this out: what running Python left behind, and version control's folders."""
    name = path.rsplit("/", 1)[-1]
    if is_folder:
        return name in ("__pycache__", ".git")
    return name.endswith(".pyc")


def _toml(text: str) -> dict[str, object] | Problem:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as bad:
        return _unreadable(f"{PYPROJECT}: {bad}")


def _unreadable(detail: str) -> Problem:
    hint = f"Correct {PYPROJECT}, or add a requirements.txt: it is taken first."
    return Problem("python-dependencies-unreadable", "The app's packages cannot be told", detail, hint, 422)


def _elsewhere(why: str, command: str) -> Problem:
    hint = f"Add a requirements.txt, for example by `{command}`."
    return Problem("python-dependencies-unreadable", "The app's packages cannot be told", why, hint, 422)
