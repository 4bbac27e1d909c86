"""What an artifact that was made elsewhere may say: no more than a build here could have written.

Rules: pure. The digest covers what runs, so a change of it is found; these checks are for an archive that was made by
somebody on purpose. Everything that later decisions rely on is held to the rules of the app file.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from moorage.artifacts.failures import ArchiveRefused
from moorage.domain.appkeys import KEYS, Key
from moorage.domain.artifact import FileEntry, Manifest
from moorage.domain.errors import Problem, Refused
from moorage.domain.limits import ARTIFACT_FILES_MAX_COUNT
from moorage.domain.names import check_name
from moorage.domain.source import Entry, Kind, Limits, check_path, check_tree

TOTAL_MAX_BYTES = 4 << 30  # what a build may leave
PATH_MAX_CHARS = 1_024  # below the 4096 bytes of a path on Linux, whatever folder the store lies in
SAID_MAX_BYTES = 900 << 10  # below the limit of a request, in which it is reported
_MODES = (0o644, 0o755)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PATHS = Limits(path_max_chars=PATH_MAX_CHARS)
_SHOWN_CHARS = 100
_TEXT = Key("a text", lambda value: isinstance(value, str))
_YES_OR_NO = Key("true or false", lambda value: isinstance(value, bool))
_COUNT = Key("a number", lambda value: isinstance(value, int) and 0 <= value < 1 << 31)
_FACTS = {
    "native": _TEXT,
    "python": _TEXT,
    "store": _YES_OR_NO,
    "vango": Key("facts of the framework", lambda value: isinstance(value, Mapping)),
}
_VANGO_FACTS = {
    "version": _TEXT,
    "schema_hash": _TEXT,
    "client_script": _TEXT,
    "globals": _COUNT,
    "resume_cure": _YES_OR_NO,
}
_SAME_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Machine:
    """Where artifacts run: `native` like `linux-x86_64`, the version of Python like `3.12.3`."""

    native: str
    python: str


def this_machine() -> Machine:
    """The machine that this process runs on."""
    return Machine(f"{platform.system().lower()}-{platform.machine()}", platform.python_version())


def misfit(manifest: Manifest, machine: Machine) -> Problem | None:
    """Why an artifact cannot run on a machine, as far as it says what it was built for. One without native code runs
    everywhere; native packages of Python are for one minor version of it."""
    native, python = manifest.facts.get("native"), manifest.facts.get("python")
    if native is None:
        return None
    if _one_name(str(native)) != _one_name(machine.native):
        return _other_platform(manifest, f"{native}", machine.native)
    if python is not None and _minor(str(python)) != _minor(machine.python):
        return _other_platform(
            manifest,
            f"Python {_minor(str(python))} on {native}",
            f"Python {_minor(machine.python)} on {machine.native}",
        )
    return None


def other_app(found: str, wanted: str) -> Problem | None:
    """The problem of an archive of another app than the one it is imported as."""
    if found == wanted:
        return None
    return Problem(
        "artifact-other-app",
        "The artifact is of another app",
        f"It is of `{found}`, not of `{wanted}`; the name is part of its digest.",
        f"Import it as `{found}`, or build the source again under the name `{wanted}`.",
        422,
        {"app": found},
    )


def check_manifest(manifest: Manifest) -> None:
    """Raise Refused unless a build here could have written this manifest: `name-invalid`, `name-contains-topology`,
    `archive-invalid`, `archive-path-invalid`, `archive-too-large`."""
    problem = check_name(manifest.app, what="app name")
    if problem is not None:
        raise Refused(problem)
    for name, key, value in _values(manifest):
        if not key.accepts(value):
            raise _not_of_ours(f"its manifest says {name} = {str(value)[:_SHOWN_CHARS]!r}; expected {key.expected}")
    _check_said(manifest)
    check_files(manifest.files)


def _check_said(manifest: Manifest) -> None:
    """What a manifest says beside its files travels in one report, as JSON."""
    said = [manifest.source, manifest.facts, manifest.assets, [asdict(entry) for entry in manifest.state]]
    try:
        size = len(json.dumps(said, allow_nan=False))
    except ValueError as bad:
        raise _not_of_ours(f"its facts are no JSON: {bad}") from bad
    if size > SAID_MAX_BYTES:
        raise too_large(f"{size} bytes of facts and state; {SAID_MAX_BYTES} are allowed")


def check_files(files: tuple[FileEntry, ...]) -> None:
    """Raise ArchiveRefused unless these files make a tree that stays within itself and within the limits:
    `archive-path-invalid`, `archive-invalid`, `archive-too-large`."""
    if len(files) > ARTIFACT_FILES_MAX_COUNT:
        raise too_large(f"{len(files)} files; {ARTIFACT_FILES_MAX_COUNT} are allowed")
    for entry in files:
        problem = check_path(entry.path, _PATHS)
        if problem is not None:
            raise _path_refused(entry.path, problem)
        if entry.mode not in _MODES or entry.size < 0 or not _SHA256.fullmatch(entry.sha256):
            detail = f"`{entry.path}`: mode {entry.mode:o}, {entry.size} bytes, SHA-256 {entry.sha256[:64]!r}"
            raise _not_of_ours(detail)
    total = sum(entry.size for entry in files)
    if total > TOTAL_MAX_BYTES:
        raise too_large(f"{total} bytes of files; {TOTAL_MAX_BYTES} are allowed")
    twice = check_tree(Entry(entry.path, Kind.FILE, entry.size) for entry in files)
    if twice is not None:
        raise _path_refused(str(twice.facts.get("path", "")), twice)


def too_large(detail: str) -> ArchiveRefused:
    """The refusal of an archive beyond a limit."""
    hint = "Leave out what the app does not need to run, deploy it where it is built, and export it again."
    return ArchiveRefused("archive-too-large", "The archive is too large", detail, hint)


def _values(manifest: Manifest) -> Iterator[tuple[str, Key, object]]:
    """(name, what may stand there, what stands there) of everything that decisions rely on."""
    for name, key in KEYS["process"].items():
        yield f"process.{name}", key, getattr(manifest.process, name)
    for migration in manifest.migrations:
        yield from ((f"migration.{name}", key, getattr(migration, name)) for name, key in KEYS["migration"].items())
    promotion = {f"promotion_{name}": key for name, key in KEYS["promotion"].items()}
    yield from _known(manifest.facts, {**promotion, **_FACTS}, "facts")
    vango = manifest.facts.get("vango")
    if isinstance(vango, Mapping):
        yield from _known(vango, _VANGO_FACTS, "facts.vango")


def _known(facts: Mapping[str, object], keys: Mapping[str, Key], where: str) -> Iterator[tuple[str, Key, object]]:
    return ((f"{where}.{name}", key, facts[name]) for name, key in keys.items() if name in facts)


def _path_refused(path: str, problem: Problem) -> ArchiveRefused:
    hint = "Do not unpack this file: Moorage does not write such archives. Export the artifact again."
    safe = path[:PATH_MAX_CHARS].encode("utf-8", "backslashreplace").decode()
    return ArchiveRefused(
        "archive-path-invalid", "A path in the archive is not allowed", problem.detail, hint, path=safe
    )


def _not_of_ours(detail: str) -> ArchiveRefused:
    hint = "Export it again with `moorage artifact export`."
    return ArchiveRefused("archive-invalid", "The archive does not hold an artifact of Moorage", detail, hint)


def _other_platform(manifest: Manifest, needed: str, there: str) -> Problem:
    return Problem(
        "artifact-other-platform",
        f"The artifact of {manifest.app} was built for another platform",
        f"It holds native code for {needed}; apps run on {there} here.",
        "Build it on a machine like this one and export it there.",
        422,
        {"needed": needed, "machine": there},
    )


def _one_name(native: str) -> str:
    """Go and Python have different names for the same machines."""
    system, _, machine = native.partition("-")
    return f"{system}-{_SAME_MACHINES.get(machine, machine)}"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
