"""The framework's own tool: built once for each version of framework and Go, kept, and asked about a source.

Rules: it is built from the very source that the app is compiled with, by its own list of sums, so it needs no more of
the network than the modules that it imports. It works on a scratch copy. Whatever is missing for it is no error of the
app: the answer then is why there is no tool.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from moorage.build.bench import Bench, Spoken, in_thread
from moorage.build.outcome import Blocked
from moorage.build.tree import copy_tree
from moorage.build.vango.sources import bounded
from moorage.build.vango.toolchain import Go
from moorage.domain.errors import Problem
from moorage.system.files import sha256_of
from moorage.vango.companions import (
    COMPANION_MAX_BYTES,
    FAMILIES,
    FOLDER,
    IMPACT_FILE,
    check_verification,
    classification_in,
    read_companion,
    stale_references,
)
from moorage.vango.schema import json_table
from moorage.vango.settings import Unsafe

RESOLVE_TIMEOUT_S = 60.0  # fetching the few modules that only the tool imports
COMPILE_TIMEOUT_S = 300.0  # 50 s of processor time, on a machine that is busy with other builds
ASK_TIMEOUT_S = 300.0  # a second or two; the first time for a set of modules it has Go compile them all
_NAME = re.compile(r"[\w.+-]+")


@dataclass(frozen=True, slots=True)
class Answers:
    """What the tool said of a source: its companions (path below `.vango/` to content), its classification of the
    source against the committed state files, unsafe settings that it names."""

    companions: Mapping[str, bytes]
    classification: str
    unsafe: tuple[Unsafe, ...]


Stage = Callable[[str, str], Awaitable[None]]


class NoTool(Exception):
    """There is no usable tool; the message says why."""


async def find_tool(bench: Bench, go: Go, version: str, folder: Path | None, cache: Path, stage: Stage) -> Path:
    """The tool of this framework version, built if it must be. `folder` is the framework's source as Go unpacked it;
    `stage` hears that it takes a while.

    Raises NoTool.
    """
    if folder is None or not folder.name.endswith(f"@v{version}"):
        raise NoTool("the framework's source is not a released version in Go's module cache")
    place = cache / f"vango-{version}-{go.version}" / "vango"
    if not _NAME.fullmatch(place.parent.name):
        raise NoTool(f"the version {version!r} cannot be a file's name")
    if os.access(place, os.X_OK) and place.is_file():
        return place
    await stage("building", f"compiling the framework's own tool, once for Vango {version}")
    more = {**go.environ, "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    resolved = await bench.attempt((go.program, "list", "-deps", "./cmd/vango"), folder, more, RESOLVE_TIMEOUT_S)
    if not resolved.succeeded:
        raise NoTool(f"its modules could not be fetched: {_why(resolved.lines, RESOLVE_TIMEOUT_S)}")
    try:
        await in_thread(place.parent.mkdir, parents=True, exist_ok=True)
        await _compile(bench, go, folder, more, place)
    except OSError as failed:
        raise NoTool(f"it could not be kept: {failed.strerror}") from failed
    return place


async def _compile(bench: Bench, go: Go, folder: Path, more: Mapping[str, str], place: Path) -> None:
    """Compile the tool; it appears at its place whole. Raises NoTool and OSError."""
    fresh = place.with_name(f"{bench.work.name}.part")
    command = (go.program, "build", "-trimpath", "-buildvcs=false", "-o", str(fresh), "./cmd/vango")
    try:
        built = await bench.attempt(command, folder, more, min(COMPILE_TIMEOUT_S, bench.left_s()))
        if not built.succeeded:
            raise NoTool(f"it could not be compiled: {_why(built.lines, COMPILE_TIMEOUT_S)}")
        await in_thread(fresh.replace, place)
    finally:
        await in_thread(fresh.unlink, missing_ok=True)


async def ask_tool(bench: Bench, tool: Path, environ: Mapping[str, str]) -> Answers:
    """Ask the tool about the source. Raises Blocked for what it finds stale or of an unknown version, and NoTool when
    it does not answer."""
    scratch = bench.work / "framework"
    await in_thread(lambda: copy_tree(bench.source, scratch, at_top_without=("node_modules",)))

    async def ask(*words: str) -> Spoken:
        return await bench.ask((str(tool), *words), scratch, environ, ASK_TIMEOUT_S)

    problem = check_verification(_document(await ask("generated", "verify", "--json"), "generated verify"))
    if problem is not None:
        raise Blocked(problem)
    written = await ask("inspect", "--write", FOLDER)
    if not written.ran.succeeded:
        raise NoTool(f"`vango inspect` failed: {_why(written.ran.lines, ASK_TIMEOUT_S)}")
    valid = _document(await ask("host", "validate", "--json"), "host validate").get("valid")
    if valid is not True:
        raise NoTool("`vango host validate` does not accept what `vango inspect` wrote")
    companions, unsafe = await in_thread(_collect, scratch)
    return Answers(companions, classification_in(companions.get(IMPACT_FILE, b"")), unsafe)


def check_committed(source: Path) -> None:
    """Whether companions that lie in the source are in a version that is known. They are not taken: the build makes
    its own. Raises Blocked."""
    for path in FAMILIES:
        content = bounded(source / FOLDER / path, COMPANION_MAX_BYTES)
        if content is not None:
            read_soundly(path, content)


def _collect(scratch: Path) -> tuple[dict[str, bytes], tuple[Unsafe, ...]]:
    """The companions in a folder, each sound and speaking of the files that are there."""
    companions, unsafe = dict[str, bytes](), list[Unsafe]()
    for path in FAMILIES:
        content = bounded(scratch / FOLDER / path, COMPANION_MAX_BYTES)
        if content is None:
            continue
        found, digests = read_soundly(path, content)
        present = {name: f"sha256:{sha256_of(scratch / name)}" for name in digests if _inside(scratch, name)}
        if other := stale_references(digests, present):
            raise NoTool(f"its {FOLDER}/{path} speaks of another {other[0]}")
        companions[path] = content
        unsafe += found
    return companions, tuple(unsafe)


def read_soundly(path: str, content: bytes) -> tuple[tuple[Unsafe, ...], Mapping[str, str]]:
    """Unsafe settings and digests in a companion. Raises Blocked when it cannot be believed."""
    reading = read_companion(path, content)
    if isinstance(reading, Problem):
        raise Blocked(reading)
    return reading.unsafe, reading.digests


def _inside(folder: Path, name: str) -> bool:
    place = folder / name
    return place.is_file() and place.resolve().is_relative_to(folder.resolve())


def _document(spoken: Spoken, command: str) -> Mapping[str, object]:
    """The JSON object that a command printed, whatever its exit code. Raises NoTool."""
    table = json_table(spoken.output)
    if isinstance(table, str):
        raise NoTool(f"`vango {command}` gave no answer: {_why(spoken.ran.lines, ASK_TIMEOUT_S)}")
    return table


def _why(lines: tuple[str, ...], timeout_s: float) -> str:
    return lines[-1] if lines else f"nothing was said within {timeout_s:g} s"
