"""Trees: what files a folder holds, as an artifact counts them.

A link to something inside the folder counts as what it points to; a link out of it, a loop, a device, a pipe or a
socket is refused by name. Only one permission bit matters (may it be executed), so that a read-only copy of a tree
has the same entries as the tree. Empty folders do not count.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from moorage.artifacts.failures import TreeRefused
from moorage.domain.artifact import FileEntry
from moorage.domain.limits import ARTIFACT_FILES_MAX_COUNT

_CHUNK_BYTES = 1 << 20
_PLAIN, _EXECUTABLE = 0o644, 0o755


def hash_tree(root: Path) -> tuple[FileEntry, ...]:
    """Every file below `root`, sorted by path. The same content gives the same answer on every machine.

    Raises TreeRefused (`tree-link-outside`, `tree-link-loop`, `tree-link-broken`, `tree-special-file`,
    `tree-name-invalid`, `tree-too-large`, `tree-missing`) and OSError when a file cannot be read.
    """
    top = os.path.realpath(root)
    if not os.path.isdir(top):
        raise TreeRefused("tree-missing", str(root), "It is not a folder.", "Name the folder that was built.")
    entries: list[FileEntry] = []
    for path, place in _walk(top, top, "", (top,)):
        if len(entries) >= ARTIFACT_FILES_MAX_COUNT:
            raise TreeRefused(
                "tree-too-large", path, f"More than {ARTIFACT_FILES_MAX_COUNT} files.", "Leave out what is not needed."
            )
        entries.append(_entry(path, place))
    entries.sort(key=lambda entry: entry.path)
    return tuple(entries)


def links_of(root: Path) -> tuple[Path, ...]:
    """Every symbolic link below `root`, those to folders included; nothing below such a link."""
    found = []
    for folder, folders, files in os.walk(root):
        found += [Path(folder, name) for name in (*folders, *files) if os.path.islink(os.path.join(folder, name))]
    return tuple(sorted(found))


def _walk(top: str, folder: str, prefix: str, above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(path within the tree, real place) of each file; `above` are the real folders on the way down."""
    with os.scandir(folder) as listing:
        for found in listing:
            path = prefix + _name(prefix, found.name)
            place, mode = found.path, found.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                place, mode = _followed(top, path, place)
            if stat.S_ISREG(mode):
                yield path, place
            elif stat.S_ISDIR(mode):
                real = os.path.realpath(place)
                if real in above:
                    raise TreeRefused("tree-link-loop", path, "The link points to a folder around it.", "Remove it.")
                yield from _walk(top, place, path + "/", (*above, real))
            else:
                raise TreeRefused("tree-special-file", path, "It is a device, a pipe or a socket.", "Remove it.")


def _name(prefix: str, name: str) -> str:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as bad:
        shown = (prefix + name).encode("utf-8", "backslashreplace").decode()
        raise TreeRefused("tree-name-invalid", shown, "The name is not UTF-8.", "Rename the file.") from bad
    return name


def _followed(top: str, path: str, place: str) -> tuple[str, int]:
    """The real place a link leads to and its mode."""
    real = os.path.realpath(place)
    if real != top and not real.startswith(top + os.sep):
        raise TreeRefused(
            "tree-link-outside",
            path,
            f"The link points to {os.readlink(place)}, outside the tree.",
            "Copy the file in.",
        )
    try:
        return real, os.stat(real).st_mode
    except OSError as broken:
        detail = f"The link points to {os.readlink(place)}: {broken.strerror}."
        raise TreeRefused("tree-link-broken", path, detail, "Remove it, or add what it points to.") from broken


def _entry(path: str, place: str) -> FileEntry:
    digest, size = hashlib.sha256(), 0
    # O_NONBLOCK: a file that turned into a pipe meanwhile must not block the platform
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(descriptor).st_mode
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    finally:
        os.close(descriptor)
    return FileEntry(path, _EXECUTABLE if mode & stat.S_IXUSR else _PLAIN, size, digest.hexdigest())
