"""How an allocation's command becomes a process, pure: words, environment, working folder.

Rules: no shell. The app sees the environment that the control plane gave it, and PATH, LANG, HOME, TMPDIR; nothing of
the platform's own. `python` in a Python or static artifact is the platform's base interpreter, never a virtual
environment, with the artifact's packages in front. A first word that names a package of the artifact runs that
package (`uvicorn ...` is `python -m uvicorn ...`): console scripts are not part of an artifact.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moorage.domain.errors import Problem

PATH_DEFAULT = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LANG_DEFAULT = "C.UTF-8"
_PYTHON_NAME = re.compile(r"python(3(\.\d+)?)?")
_PYTHON_DEFAULTS = {"PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1"}  # output is not held back from the log
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the host gives: the interpreter's path, PATH and LANG for apps."""

    python: str
    path: str = PATH_DEFAULT
    lang: str = LANG_DEFAULT


@dataclass(frozen=True, slots=True)
class Launch:
    """A process to start. `environ` is its whole environment."""

    argv: tuple[str, ...]
    environ: Mapping[str, str]
    folder: Path


@dataclass(frozen=True, slots=True)
class Layout:
    """What of an artifact's tree matters for starting it: `packages` are the names that `python -m` can run from
    `tree/site`; `has_site` and `has_app` whether those folders exist."""

    tree: Path
    has_app: bool
    has_site: bool
    packages: frozenset[str] = frozenset()

    @property
    def folder(self) -> Path:
        """The working folder: the app's own, or the whole tree."""
        return self.tree / "app" if self.has_app else self.tree


def plan_launch(
    command: str, kind: str, environ: Mapping[str, str], private: Path, layout: Layout, around: Surroundings
) -> Launch | Problem:
    """The process of a command. `private` is the allocation's own writable folder.

    Answers a Problem (`start-failed`) for a command that cannot be read or names a variable that is not set.
    """
    given = dict(environ)
    base = {"PATH": around.path, "LANG": around.lang} | given
    base |= {"HOME": str(private), "TMPDIR": str(private / "tmp")}
    try:
        words = [_substituted(word, base) for word in shlex.split(command)]
    except ValueError as unreadable:
        return _failed(f"The command {command!r} cannot be read: {unreadable}.")
    except KeyError as unset:
        return _failed(f"The command {command!r} uses ${unset.args[0]}, which is not set.")
    if not words:
        return _failed("The command is empty.")
    if kind in ("python", "static"):
        words = _python_words(words, layout, around)
        base = _PYTHON_DEFAULTS | base | _python_environ(given, layout)
    elif _PYTHON_NAME.fullmatch(words[0]) and words[0] == "python":
        words[0] = around.python  # hosts that only have `python3` run the same command
    return Launch(tuple(words), base, layout.folder)


def _substituted(word: str, environ: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: environ[found.group(1) or found.group(2)], word)


def _python_words(words: list[str], layout: Layout, around: Surroundings) -> list[str]:
    if _PYTHON_NAME.fullmatch(words[0]):
        return [around.python, *words[1:]]
    if words[0] in layout.packages:
        return [around.python, "-m", *words]
    return words


def _python_environ(given: Mapping[str, str], layout: Layout) -> dict[str, str]:
    """Reading an artifact must not change it, so no byte code is written. Its packages come first."""
    own = {"PYTHONDONTWRITEBYTECODE": "1"}
    if layout.has_site:
        own["PYTHONPATH"] = ":".join([str(layout.tree / "site"), *filter(None, [given.get("PYTHONPATH")])])
    return own


def _failed(detail: str) -> Problem:
    return Problem("start-failed", "The app's command cannot be run", detail, "Correct `[process] command`.", 422)
