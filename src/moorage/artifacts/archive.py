"""Archives: an artifact as one file, to be carried to another Moorage.

An archive is a tar: `moorage-artifact.json` (version of the format, the artifact's digest, size and SHA-256 of the
manifest), `manifest.json` as the artifact store keeps it, then every file as `tree/<path>` in the manifest's order.

Rules: the same artifact gives the same bytes. What follows the first two members is known from them byte by byte, so
nothing that a tar could also hold (links, devices, other paths, extra members) is ever interpreted: it differs, and is
refused. All calls block: use them in a thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from moorage.artifacts.failures import ArchiveRefused, ArtifactAltered, ManifestInvalid
from moorage.artifacts.foreign import TOTAL_MAX_BYTES, check_files, check_manifest, too_large
from moorage.artifacts.manifest import manifest_from_json, manifest_to_json
from moorage.artifacts.store import ArtifactStore
from moorage.artifacts.tar_blocks import BLOCK_BYTES, END, first_member, member_header, member_size, odd_kind, padding
from moorage.domain.artifact import DIGEST_PREFIX, FileEntry, Manifest, artifact_digest, is_digest
from moorage.wire.message import canonical

FORMAT = 1
SUFFIX = ".moorage-artifact"
MEDIA_TYPE = "application/x-tar"
HEADER, MANIFEST, TREE = "moorage-artifact.json", "manifest.json", "tree/"
HEADER_MAX_BYTES = 4 << 10
MANIFEST_MAX_BYTES = 64 << 20  # 200,000 files with long names
ARCHIVE_MAX_BYTES = TOTAL_MAX_BYTES + (512 << 20)  # a header and up to a block of zeros around each file
_CHUNK_BYTES = 1 << 20
_SHOWN_DIGITS = 12
_MODE = 0o644
_AGAIN = "Export or copy it again."

Seen = Callable[[int], object]  # told how many more bytes are done


@dataclass(frozen=True, slots=True)
class Head:
    """What an archive says it is: verified to be consistent, its files not yet."""

    digest: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Checked:
    """An archive whose every byte was verified. `sha256` (hex) and `size_bytes` are of the file itself."""

    head: Head
    sha256: str
    size_bytes: int


def archive_name(app: str, number: int, digest: str) -> str:
    """The usual file name: `board-3-0123456789ab.moorage-artifact`."""
    return f"{app}-{number}-{digest.removeprefix(DIGEST_PREFIX)[:_SHOWN_DIGITS]}{SUFFIX}"


def archive_size(manifest: Manifest) -> int:
    """How many bytes the archive of this artifact has."""
    text = manifest_to_json(manifest).encode()
    return _size(manifest, len(_header(artifact_digest(manifest), text)), len(text))


def archive_chunks(store: ArtifactStore, digest: str) -> Iterator[bytes]:
    """The archive of a stored artifact, piece by piece; each file is verified while it passes.

    Raises ArtifactMissing, ArtifactAltered (with the file that differs) and ArchiveRefused (`archive-path-invalid`,
    `archive-too-large`: what no other Moorage would take).
    """
    manifest = store.manifest(digest)
    check_files(manifest.files)
    held = bytearray()
    for piece in _pieces(store.tree(digest), digest, manifest):
        held += piece  # an artifact may have ten thousand files of a few bytes: they go out together
        if len(held) >= _CHUNK_BYTES:
            yield bytes(held)
            held.clear()
    yield bytes(held)


def read_head(path: Path) -> Head:
    """What an archive says it is, without its files. Raises ArchiveRefused and Refused (see `check_archive`)."""
    with path.open("rb") as handle:
        return _take_head(_Reader(handle, lambda _bytes: None))


def check_archive(path: Path, seen: Seen = lambda _bytes: None) -> Checked:
    """Verify every byte of an archive; nothing is written.

    Raises ArchiveRefused: `archive-unreadable`, `archive-truncated`, `archive-format-unknown`, `archive-altered`,
    `archive-path-invalid`, `archive-entry-kind`, `archive-too-large`, `archive-invalid`; Refused for an app name that
    is none here; OSError when the file cannot be read.
    """
    with path.open("rb") as handle:
        reader = _Reader(handle, seen, hashlib.sha256())
        head = _take_all(reader, None)
        return Checked(head, reader.sha256, reader.size_bytes)


def unpack_archive(path: Path, folder: Path) -> Head:
    """Write the files of an archive into `folder` (made; must not be there), each verified.

    Raises as `check_archive`; what was written until then is the caller's to remove.
    """
    folder.mkdir(parents=True)
    with path.open("rb") as handle:
        return _take_all(_Reader(handle, lambda _bytes: None), folder)


# --- writing


def _said(digest: str, manifest_bytes: int, manifest_sha256: str) -> dict[str, object]:
    return {
        "format": FORMAT,
        "digest": digest,
        "manifest_bytes": manifest_bytes,
        "manifest_sha256": manifest_sha256,
    }


def _header(digest: str, manifest: bytes) -> bytes:
    return canonical(_said(digest, len(manifest), hashlib.sha256(manifest).hexdigest()))


def _size(manifest: Manifest, header_bytes: int, manifest_bytes: int) -> int:
    files = sum(member_size(TREE + entry.path, entry.size) for entry in manifest.files)
    return member_size(HEADER, header_bytes) + member_size(MANIFEST, manifest_bytes) + files + len(END)


def _pieces(tree: Path, digest: str, manifest: Manifest) -> Iterator[bytes]:
    text = manifest_to_json(manifest).encode()
    for name, content in ((HEADER, _header(digest, text)), (MANIFEST, text)):
        yield member_header(name, len(content), _MODE) + content + padding(len(content))
    for entry in manifest.files:
        yield member_header(TREE + entry.path, entry.size, entry.mode)
        yield from _content(tree, digest, entry)
        yield padding(entry.size)
    yield END


def _content(tree: Path, digest: str, entry: FileEntry) -> Iterator[bytes]:
    """A stored file's content. Raises ArtifactAltered as soon as it is not what the manifest lists."""
    try:
        # O_NONBLOCK: a file that turned into a pipe meanwhile must not block the platform
        descriptor = os.open(tree / entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as gone:
        raise ArtifactAltered(digest, [entry.path]) from gone
    with os.fdopen(descriptor, "rb") as handle:
        state, hashed = os.fstat(descriptor), hashlib.sha256()
        if not stat.S_ISREG(state.st_mode) or state.st_size != entry.size:
            raise ArtifactAltered(digest, [entry.path])
        left = entry.size
        while left and (chunk := handle.read(min(_CHUNK_BYTES, left))):
            hashed.update(chunk)
            left -= len(chunk)
            yield chunk
    if left or hashed.hexdigest() != entry.sha256:
        raise ArtifactAltered(digest, [entry.path])


# --- reading


class _Reader:
    """An archive from its beginning to its end, never more of it at once than is asked for."""

    def __init__(self, handle: BinaryIO, seen: Seen, whole: hashlib._Hash | None = None) -> None:
        self._handle, self._seen, self._whole = handle, seen, whole
        self.size_bytes = os.fstat(handle.fileno()).st_size
        if self.size_bytes > ARCHIVE_MAX_BYTES:
            raise too_large(f"{self.size_bytes} bytes; {ARCHIVE_MAX_BYTES} are allowed")

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of what was read."""
        assert self._whole is not None
        return self._whole.hexdigest()

    def take(self, count: int, what: str) -> bytes:
        """Exactly this many bytes, which belong to `what`. Raises ArchiveRefused (`archive-truncated`)."""
        found = self._handle.read(count)
        if len(found) != count:
            raise _truncated(f"it ends within {what}, after {self._handle.tell()} bytes")
        if self._whole is not None:
            self._whole.update(found)
        self._seen(count)
        return found


def _take_all(reader: _Reader, folder: Path | None) -> Head:
    """The whole archive; its files go into `folder` unless it is None."""
    head = _take_head(reader)
    for entry in head.manifest.files:
        _take_header(reader, TREE + entry.path, entry.size, entry.mode)
        hashed = hashlib.sha256()
        with _place(folder, entry) as out:
            for chunk in _taken(reader, entry):
                hashed.update(chunk)
                out.write(chunk)
        if hashed.hexdigest() != entry.sha256:
            raise _altered(entry.path, "its content is not what the manifest lists")
        _take_padding(reader, entry.path, entry.size)
    if reader.take(len(END), "its end") != END:
        raise _altered("", "something stands where its end belongs")
    return head


def _take_head(reader: _Reader) -> Head:
    """The first two members, consistent with each other and with the size of the file."""
    said = _take_said(reader)
    _take_header(reader, MANIFEST, said.manifest_bytes, _MODE)
    text = reader.take(said.manifest_bytes, MANIFEST)
    if hashlib.sha256(text).hexdigest() != said.manifest_sha256:
        raise _altered(MANIFEST, "it is not the manifest that the archive was made with")
    _take_padding(reader, MANIFEST, len(text))
    try:
        manifest = manifest_from_json(text, where="in the archive")
    except ManifestInvalid as invalid:
        raise _invalid(f"{MANIFEST}: {invalid.problem.detail}") from invalid
    check_manifest(manifest)
    digest = artifact_digest(manifest)
    if digest != said.digest:
        raise _altered(MANIFEST, f"its digest is {digest}, the archive says {said.digest}")
    expected = _size(manifest, said.header_bytes, len(text))
    if reader.size_bytes < expected:
        raise _truncated(f"it has {reader.size_bytes} of {expected} bytes")
    if reader.size_bytes > expected:
        raise _invalid(f"it has {reader.size_bytes} bytes, {expected} belong to the artifact")
    return Head(digest, manifest)


@dataclass(frozen=True, slots=True)
class _Said:
    """What the first member says."""

    digest: str
    manifest_bytes: int
    manifest_sha256: str
    header_bytes: int


def _take_said(reader: _Reader) -> _Said:
    """The first member. Raises ArchiveRefused (`archive-unreadable`, `archive-format-unknown`, `archive-altered`)."""
    if reader.size_bytes < BLOCK_BYTES:
        raise _unreadable(f"it has {reader.size_bytes} bytes")
    block = reader.take(BLOCK_BYTES, HEADER)
    first = first_member(block)
    if first is None or first[0] != HEADER or first[1] > HEADER_MAX_BYTES:
        raise _unreadable(f"it does not begin with {HEADER}")
    if block != member_header(HEADER, first[1], _MODE):
        raise _altered(HEADER, "the entry before it is another one")
    text = reader.take(first[1], HEADER)
    _take_padding(reader, HEADER, len(text))
    return _parse_said(text)


def _parse_said(text: bytes) -> _Said:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as bad:
        raise _altered(HEADER, "it is no JSON") from bad
    if not isinstance(said, dict) or not isinstance(said.get("format"), int):
        raise _altered(HEADER, "it names no format")
    if said["format"] != FORMAT:
        raise ArchiveRefused(
            "archive-format-unknown",
            "The archive has a format that this version does not read",
            f"format {said['format']}; this version reads {FORMAT}",
            "Use the same version of Moorage on both sides: compare `moorage --version`.",
            format=said["format"],
            supported=FORMAT,
        )
    digest, count, sha256 = said.get("digest"), said.get("manifest_bytes"), said.get("manifest_sha256")
    if not isinstance(digest, str) or not isinstance(count, int) or not isinstance(sha256, str):
        raise _altered(HEADER, "a part of it is missing")
    if not is_digest(digest) or count < 0 or canonical(_said(digest, count, sha256)) != text:
        raise _altered(HEADER, "it is not as Moorage writes it")
    if count > MANIFEST_MAX_BYTES:
        raise too_large(f"a manifest of {count} bytes; {MANIFEST_MAX_BYTES} are allowed")
    return _Said(digest, count, sha256, len(text))


def _take_header(reader: _Reader, name: str, size: int, mode: int) -> None:
    """The blocks in front of a member, which must be exactly these; what stands there instead is named."""
    expected = member_header(name, size, mode)
    found = reader.take(len(expected), name)
    if found == expected:
        return
    odd = odd_kind(found[:BLOCK_BYTES])
    if odd is None:
        raise _altered(name.removeprefix(TREE), "the entry before it is another one")
    shown = odd[0].encode("utf-8", "backslashreplace").decode()
    raise ArchiveRefused(
        "archive-entry-kind",
        "The archive contains something that is not a file",
        f"`{shown}` is {odd[1]}; `{name}` belongs there",
        "Do not unpack this file: Moorage does not write such archives. Export the artifact again.",
        path=shown,
    )


def _taken(reader: _Reader, entry: FileEntry) -> Iterator[bytes]:
    left = entry.size
    while left:
        chunk = reader.take(min(_CHUNK_BYTES, left), entry.path)
        left -= len(chunk)
        yield chunk


def _take_padding(reader: _Reader, name: str, size: int) -> None:
    wanted = padding(size)
    if reader.take(len(wanted), name) != wanted:
        raise _altered(name, "something stands behind it")


@contextmanager
def _place(folder: Path | None, entry: FileEntry) -> Iterator[BinaryIO]:
    """Where the content of a file goes. `folder` holds nothing but what this archive made, and no link."""
    if folder is None:
        with open(os.devnull, "wb") as nowhere:
            yield nowhere
        return
    place = folder / entry.path
    place.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, entry.mode)
    with os.fdopen(descriptor, "wb") as out:
        os.fchmod(descriptor, entry.mode)  # whatever the umask
        yield out


# --- refusals


def _unreadable(detail: str) -> ArchiveRefused:
    hint = "Name a file that `moorage artifact export` has written."
    return ArchiveRefused("archive-unreadable", "This is no archive of an artifact", detail, hint)


def _truncated(detail: str) -> ArchiveRefused:
    return ArchiveRefused("archive-truncated", "The archive is not complete", detail, _AGAIN)


def _altered(path: str, detail: str) -> ArchiveRefused:
    hint = f"{_AGAIN} If it is altered again, find out by whom."
    shown = f"`{path}`: {detail}" if path else detail
    return ArchiveRefused("archive-altered", "The archive was altered", shown, hint, path=path)


def _invalid(detail: str) -> ArchiveRefused:
    hint = "Export it again with `moorage artifact export`, with the same version of Moorage as here."
    return ArchiveRefused("archive-invalid", "The archive does not hold an artifact of Moorage", detail, hint)
