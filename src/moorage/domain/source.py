"""Source: what may be in the tree that a user hands over. One set of rules, used by the CLI when it packs a folder
and by the server when it accepts or unpacks an archive.

Paths are POSIX, relative, UTF-8. Links may only lead to something inside the tree; they are resolved entry by entry
over the whole list, because a link behind a link can leave a tree that each of them alone stays in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from moorage.domain.errors import Problem
from moorage.domain.limits import (
    SOURCE_FILE_MAX_BYTES,
    SOURCE_FILES_MAX_COUNT,
    SOURCE_PATH_MAX_CHARS,
    SOURCE_TOTAL_MAX_BYTES,
)

PART_MAX_BYTES = 255  # the longest name in a folder on the usual file systems
LINK_HOPS_MAX_COUNT = 40  # what Linux follows before it answers ELOOP
SOURCE_DEPTH_MAX_COUNT = 64  # folders inside folders

# fmt: off
DEFAULT_EXCLUDES = (
    ".git/", ".hg/", ".svn/",
    ".venv/", "venv/", "__pycache__/", "*.pyc", "*.egg-info/", "node_modules/",
    ".pytest_cache/", ".mypy_cache/", ".ruff_cache/", ".hypothesis/", ".tox/", ".idea/", ".vscode/", ".DS_Store",
    ".env", ".env.*", "!.env.example",  # secrets of the developer's machine never enter an artifact unasked
)
# fmt: on


class Kind(StrEnum):
    """What an entry of a source tree is."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    HARD_LINK = "hard link"
    DEVICE = "device"
    FIFO = "named pipe"
    SOCKET = "socket"
    OTHER = "unknown kind of entry"


class Astray(Enum):
    """How following a link goes wrong."""

    OUTSIDE = "it leads out of the tree"
    CIRCLE = "it leads to itself"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: path relative to the tree, kind, size in bytes (files), target as written (links)."""

    path: str
    kind: Kind
    size: int = 0
    target: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a source may hold."""

    files_max_count: int = SOURCE_FILES_MAX_COUNT
    total_max_bytes: int = SOURCE_TOTAL_MAX_BYTES
    file_max_bytes: int = SOURCE_FILE_MAX_BYTES
    path_max_chars: int = SOURCE_PATH_MAX_CHARS


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Tally:
    """What has been accepted so far: entries and bytes of content."""

    entries: int = 0
    total_bytes: int = 0


def admit(entry: Entry, tally: Tally, limits: Limits = LIMITS) -> Tally | Problem:
    """The tally with this entry, or why the entry cannot be taken. Says nothing about where links lead."""
    problem = check_path(entry.path, limits) or _check_kind(entry) or _check_size(entry, limits)
    if problem is not None:
        return problem
    grown = Tally(tally.entries + 1, tally.total_bytes + entry.size)
    if grown.entries > limits.files_max_count:
        return _problem(
            "source-too-many-files",
            "The source has too many files",
            f"{grown.entries} or more files, links and folders; {limits.files_max_count} are allowed",
            "Exclude what the app does not need in `.moorageignore` or `[build] exclude`.",
            entry,
        )
    if grown.total_bytes > limits.total_max_bytes:
        return _problem(
            "source-too-large",
            "The source is too large",
            f"more than {limits.total_max_bytes} bytes of files (at `{entry.path}`)",
            "Exclude what the app does not need in `.moorageignore` or `[build] exclude`.",
            entry,
        )
    return grown


def check_path(path: str, limits: Limits = LIMITS) -> Problem | None:
    """Whether a path may be in a source: relative, normalised, no `..`, no control characters, not too long."""
    entry = Entry(path, Kind.FILE)
    longest_part = max(len(part.encode("utf-8", "replace")) for part in path.split("/"))
    if len(path) > limits.path_max_chars or longest_part > PART_MAX_BYTES:
        return _problem(
            "source-path-too-long",
            "A path in the source is too long",
            f"`{path[:60]}…` has {len(path)} characters; allowed are {limits.path_max_chars}, and"
            f" {PART_MAX_BYTES} bytes for each name in it",
            "Use shorter names or fewer folders inside folders.",
            entry,
        )
    why = _path_fault(path)
    if not why:
        return None
    return _problem(
        "source-path-invalid",
        "A path in the source is not allowed",
        f"{path!r} {why}",
        "Paths are relative to the source, without `..`, in UTF-8 and without control characters.",
        entry,
    )


def check_tree(entries: Iterable[Entry]) -> Problem | None:
    """Whether these entries (each admitted) make a tree that stays within itself: no path twice, nothing below a file
    or a link, every link inside and leading to something that is there."""
    listed = {}
    for entry in entries:
        if entry.path in listed:
            return _invalid_tree(entry, "is in the source twice")
        listed[entry.path] = entry
    for entry in listed.values():
        for parent in _parents(entry.path):
            above = listed.get(parent)
            if above is not None and above.kind is not Kind.FOLDER:
                return _invalid_tree(entry, f"lies below `{parent}`, which is a {above.kind}")
    present = set(listed) | {parent for path in listed for parent in _parents(path)} | {""}
    links = {entry.path: entry.target for entry in listed.values() if entry.kind is Kind.LINK}
    ends = {path: resolve_link(path, links) for path in links}
    outside = next((path for path, end in ends.items() if end is Astray.OUTSIDE), None)
    if outside is not None:
        return _link_outside(outside, links[outside])
    return next((p for p in (_check_end(path, links[path], end, present) for path, end in ends.items()) if p), None)


def resolve_link(path: str, links: Mapping[str, str]) -> str | Astray:
    """The path that a link finally leads to within the tree (empty: the tree itself), followed part by part as the
    kernel does."""
    todo, done, hops = path.split("/")[::-1], list[str](), 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not done:
                return Astray.OUTSIDE
            done.pop()
            continue
        done.append(part)
        target = links.get("/".join(done))
        if target is None:
            continue
        hops += 1
        if target.startswith("/"):
            return Astray.OUTSIDE
        if hops > LINK_HOPS_MAX_COUNT:
            return Astray.CIRCLE
        done.pop()
        todo += target.split("/")[::-1]
    return "/".join(done)


def _link_outside(path: str, target: str) -> Problem:
    """The problem of a link that leads out of the source."""
    return _problem(
        "source-link-outside",
        "A symbolic link leads out of the source",
        f"`{path}` -> `{target}`",
        "Replace the link by the file itself, or exclude it in `.moorageignore`.",
        Entry(path, Kind.LINK, target=target),
    )


def _check_end(path: str, target: str, end: str | Astray, present: set[str]) -> Problem | None:
    """Whether a link leads to an entry that does not contain it."""
    if isinstance(end, str) and end in present and not _holds(end, path):
        return None
    what = "itself" if end is Astray.CIRCLE else "a folder around it" if end in present else "nothing"
    return _problem(
        "source-link-broken",
        "A symbolic link in the source cannot be followed",
        f"`{path}` -> `{target}` leads to {what}",
        "Point the link at a file or folder that is part of the source, or exclude it in `.moorageignore`.",
        Entry(path, Kind.LINK, target=target),
    )


def _holds(folder: str, path: str) -> bool:
    """Whether a path lies within a folder (or is it)."""
    return folder in ("", path) or path.startswith(f"{folder}/")


def _parents(path: str) -> list[str]:
    """The folders above a path, from the outermost."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _path_fault(path: str) -> str:
    """What is wrong with a path, as the end of a sentence; empty if nothing."""
    parts = path.split("/")
    if not path or path.startswith("/"):
        return "is absolute" if path else "is empty"
    if ".." in parts:
        return "contains `..`"
    if "" in parts or "." in parts:
        return "is not in its shortest form"
    if len(parts) > SOURCE_DEPTH_MAX_COUNT:
        return f"is more than {SOURCE_DEPTH_MAX_COUNT} folders deep"
    if any(c < " " or c == "\x7f" for c in path):
        return "contains control characters"
    return "is not valid UTF-8" if any("\ud800" <= c <= "\udfff" for c in path) else ""


def _check_kind(entry: Entry) -> Problem | None:
    """Files, folders and links only."""
    if entry.kind is Kind.LINK and (not entry.target or any(c < " " for c in entry.target)):
        return _invalid_tree(entry, "is a link without a readable target")
    if entry.kind in (Kind.FILE, Kind.FOLDER, Kind.LINK):
        return None
    return _problem(
        "source-entry-kind",
        "The source contains something that is not a file",
        f"`{entry.path}` is a {entry.kind}",
        "Only files, folders and symbolic links inside the source can be deployed; exclude the rest.",
        entry,
    )


def _check_size(entry: Entry, limits: Limits) -> Problem | None:
    """No single file beyond its limit."""
    if 0 <= entry.size <= limits.file_max_bytes:
        return None
    return _problem(
        "source-file-too-large",
        "A file in the source is too large",
        f"`{entry.path}` has {entry.size} bytes; {limits.file_max_bytes} are allowed",
        "Exclude it in `.moorageignore` or `[build] exclude`, or let the app fetch it.",
        entry,
    )


def _invalid_tree(entry: Entry, why: str) -> Problem:
    return _problem(
        "source-path-invalid",
        "A path in the source is not allowed",
        f"{entry.path!r} {why}",
        "Pack the source anew with `moorage deploy`.",
        entry,
    )


def _problem(code: str, title: str, detail: str, hint: str, entry: Entry) -> Problem:
    safe = entry.path[:SOURCE_PATH_MAX_CHARS].encode("utf-8", "backslashreplace").decode()
    return Problem(code, title, detail.encode("utf-8", "backslashreplace").decode(), hint, 422, {"path": safe})
