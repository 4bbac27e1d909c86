"""`moorage doctor`: what this machine lacks to run the platform, and what to do about each thing.

Rules of the room: looking changes nothing; every finding that is not fine says what to do. What only a running
platform can know is asked by checks that `main` hands in.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from moorage.cli.call import Call, Exit
from moorage.cli.words import size
from moorage.domain.errors import MoorageError, Refused

if TYPE_CHECKING:
    from moorage.system.binaries import Binary
    from moorage.system.settings import Settings

PYTHON_MIN = (3, 11)
MACHINES = frozenset({"x86_64", "aarch64", "arm64"})
OPEN_FILES_LOW_COUNT = 4_096  # a live session costs the edge two files; below this a busy app meets the limit soon
DISK_NEEDED_BYTES = 1_000_000_000  # a few artifacts with their dependencies, and the build that makes the next one
DISK_LOW_BYTES = 5_000_000_000


class Health(StrEnum):
    """How a finding stands."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `todo` says what to do when it is not fine."""

    what: str
    health: Health
    found: str
    todo: str = ""


Check = Callable[["Settings"], Iterable[Finding]]


def doctor_verb(more: Sequence[Check] = ()) -> Callable[[Call], Awaitable[Exit | None]]:
    """The verb, with the checks that main adds (they get the settings of the data directory)."""

    async def doctor(call: Call) -> Exit | None:
        """Check what the platform needs on this machine."""
        findings = list(_all(call, more))
        faults = sum(f.health is Health.FAULT for f in findings)
        _show(call, findings, faults)
        if not faults:
            call.screen.say(_next(call, warnings=sum(f.health is Health.WARNING for f in findings), of=len(findings)))
        return Exit.REFUSED if faults else None

    return doctor


def _show(call: Call, findings: Sequence[Finding], faults: int) -> None:
    from rich.text import Text

    from moorage.cli.screen import style_of
    from moorage.cli.table import Column

    items = [{name: getattr(f, name) for name in f.__slots__} for f in findings]
    call.screen.document({"ok": not faults, "items": items})
    rows = [(Text(f.health, style=style_of(f.health)), f.what, f.found) for f in findings]
    call.screen.table((Column("HEALTH"), Column("WHAT"), Column("FOUND", flexible=True)), rows)
    call.screen.say()
    for finding in findings:
        if finding.health is not Health.OK:
            call.screen.paragraph(Text(f"{finding.what}: ", style=style_of(finding.health)), finding.todo)
    if faults:
        call.screen.say(f"{faults} of {len(findings)} checks failed.", style="red")


def _next(call: Call, *, warnings: int, of: int) -> str:
    """What to do where no check failed: start the platform, or look at the one that runs."""
    from moorage.system.lock import lock_holder

    holder = lock_holder(call.settings.paths.lock)
    here = f"Moorage runs here (pid {holder.pid})" if holder else "Everything that Moorage needs is here"
    if warnings:
        here = f"Moorage {'runs' if holder else 'can run'} here; {warnings} of {of} checks have a remark"
    return f"{here}. Next: moorage {'status' if holder else 'up'}"


def _all(call: Call, more: Sequence[Check]) -> Iterator[Finding]:
    yield _python()
    yield _system()
    yield _pip()
    yield _go()
    try:
        settings = call.settings
    except Refused as wrong:
        yield Finding("settings", Health.FAULT, wrong.problem.detail, wrong.problem.hint)
        return
    yield from _binaries(settings)
    yield _home(settings.home)
    yield from _ports(settings)
    yield _open_files()
    yield _disk(settings.home)
    for check in more:
        yield from check(settings)


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info >= PYTHON_MIN:
        return Finding("Python", Health.OK, version)
    needed = ".".join(map(str, PYTHON_MIN))
    return Finding("Python", Health.FAULT, version, f"Install Python {needed} or newer and set Moorage up with it.")


def _system() -> Finding:
    found = f"{platform.system()} {platform.machine()}"
    if platform.system() == "Linux" and platform.machine() in MACHINES:
        return Finding("system", Health.OK, found)
    return Finding(
        "system", Health.FAULT, found, "The servers run on Linux on x86_64 or arm64; use a machine or VM of that kind."
    )


def _pip() -> Finding:
    if find_spec("pip") is not None:
        return Finding("pip", Health.OK, "present")
    return Finding("pip", Health.WARNING, "missing", "Python apps are built with it: python -m ensurepip")


def _go() -> Finding:
    """Not a fault: only Vango apps are built with it, and they can be built elsewhere."""
    found = shutil.which("go")
    return Finding("Go", Health.OK, found or "not installed (only Vango apps are built with it)")


def _binaries(settings: Settings) -> Iterator[Finding]:
    from moorage.system.binaries import find_haproxy, find_nats, find_valkey

    paths = settings.binaries
    finders: tuple[tuple[str, Callable[[str], Binary], str], ...] = (
        ("HAProxy", find_haproxy, paths.haproxy),
        ("NATS", find_nats, paths.nats),
        ("Valkey", find_valkey, paths.valkey),
    )
    for name, find, configured in finders:
        try:
            binary = find(configured)
            yield Finding(name, Health.OK, f"{binary.version()} ({binary.origin}: {binary.path})")
        except MoorageError as wrong:
            yield Finding(name, Health.FAULT, str(wrong.problem), wrong.problem.hint)


def _home(home: Path) -> Finding:
    """Whether the data directory can be written, or made where it is missing."""
    place = home
    while not place.exists() and place != place.parent:
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return Finding("data directory", Health.OK, str(home) if place == home else f"{home} (will be made)")
    why = f"{place} is not writable" if place.is_dir() else f"{place} is not a folder"
    return Finding(
        "data directory", Health.FAULT, why, "Make it writable for this user, or choose another one with MOORAGE_HOME."
    )


def _ports(settings: Settings) -> Iterator[Finding]:
    from moorage.system.lock import lock_holder
    from moorage.system.proc import require_port

    holder = lock_holder(settings.paths.lock)
    for key, port in (("http_port", settings.http_port), ("api_port", settings.api_port)):
        what = key.replace("_", " ").replace("http", "HTTP").replace("api", "API")
        if holder is not None:
            yield Finding(what, Health.OK, f"Moorage runs (pid {holder.pid})")
            continue
        if port == 0:
            yield Finding(what, Health.OK, "any free one")
            continue
        try:
            require_port(settings.bind, port, key=key)
            yield Finding(what, Health.OK, f"{port} is free on {settings.bind}")
        except Refused as wrong:
            yield Finding(what, Health.FAULT, wrong.problem.detail, wrong.problem.hint)


def _open_files() -> Finding:
    """The hard limit decides: the platform raises its soft limit itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return Finding("open files", Health.OK, "no limit")
    if hard >= OPEN_FILES_LOW_COUNT:
        return Finding("open files", Health.OK, f"limit {hard}")
    todo = f"Raise the hard limit above {OPEN_FILES_LOW_COUNT} (ulimit -Hn, limits.conf): sessions are open files."
    return Finding("open files", Health.WARNING, f"limit {hard}", todo)


def _disk(home: Path) -> Finding:
    place = home
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    found = f"{size(free)} free at {place}"
    if free < DISK_NEEDED_BYTES:
        return Finding("disk", Health.FAULT, found, f"Make room: at least {size(DISK_NEEDED_BYTES)} are needed.")
    if free < DISK_LOW_BYTES:
        return Finding("disk", Health.WARNING, found, "Make room before deploying large apps.")
    return Finding("disk", Health.OK, found)
