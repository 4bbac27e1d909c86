"""The artifact store: a folder `sha256/<hex>/` per artifact with `tree/` and `manifest.json`.

Rules: an artifact appears whole, by one rename, or not at all; it is never written again. What is read is checked
against the digest each time. A stored tree that was altered is moved aside (never repaired in place) when the same
artifact is put again. All calls block: use them in a thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moorage.artifacts.failures import (
    ArtifactAltered,
    ArtifactMismatch,
    ArtifactMissing,
    ManifestInvalid,
    TreeRefused,
    store_failure,
)
from moorage.artifacts.manifest import manifest_from_json, manifest_to_json
from moorage.artifacts.tree import hash_tree, links_of
from moorage.domain.artifact import DIGEST_PREFIX, Manifest, artifact_digest, changed_files, is_digest
from moorage.system.files import write_atomic
from moorage.system.rand import new_secret

_MANIFEST = "manifest.json"
_WRITE_BITS = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


class ArtifactStore:
    """Artifacts below `root`. Several processes may use the same folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._stored, self._incoming, self._altered = root / "sha256", root / "incoming", root / "altered"

    def put(self, staged_tree: Path, manifest: Manifest) -> str:
        """Store the tree and return its digest. The staged folder is used up, also when the artifact was there before.

        Raises ArtifactMismatch when the tree is not what the manifest lists, TreeRefused for a tree that cannot be
        stored, ArtifactStoreFailed (`disk-full`, `not-writable`, `storage-failed`) when the disk refuses; in each of
        these cases nothing was stored.
        """
        digest = artifact_digest(manifest)
        with self._failures():
            changed = changed_files(manifest.files, hash_tree(staged_tree))
            if changed:
                raise ArtifactMismatch(digest, changed)
            if self._is_whole(digest):
                _remove_tree(staged_tree)
                return digest
            self._commit(digest, staged_tree, manifest)
        return digest

    def manifest(self, digest: str) -> Manifest:
        """The manifest of an artifact, checked against the digest.

        Raises ArtifactMissing, ArtifactAltered (the manifest is not the one that the digest names).
        """
        try:
            text = (self._folder(digest) / _MANIFEST).read_bytes()
        except FileNotFoundError as missing:
            raise ArtifactMissing(digest) from missing
        try:
            manifest = manifest_from_json(text, where=f"of {digest}")
        except ManifestInvalid as invalid:
            raise ArtifactAltered(digest, [_MANIFEST]) from invalid
        if artifact_digest(manifest) != digest:
            raise ArtifactAltered(digest, [_MANIFEST])
        return manifest

    def verify(self, digest: str) -> None:
        """Hash every file again. Raises ArtifactAltered with the paths that differ, or ArtifactMissing."""
        manifest = self.manifest(digest)
        tree = self._folder(digest) / "tree"
        try:
            found = hash_tree(tree)
        except TreeRefused as refused:
            raise ArtifactAltered(digest, [refused.path]) from refused
        links = [str(link.relative_to(tree)) for link in links_of(tree)]  # the store keeps none: somebody put it there
        changed = sorted({*changed_files(manifest.files, found), *links})
        if changed:
            raise ArtifactAltered(digest, changed)

    def tree(self, digest: str) -> Path:
        """The folder with the artifact's files. Raises ArtifactMissing; does not verify."""
        tree = self._folder(digest) / "tree"
        if not tree.is_dir():
            raise ArtifactMissing(digest)
        return tree

    def has(self, digest: str) -> bool:
        """Whether the artifact is in the store (not whether it is whole)."""
        return (self._folder(digest) / _MANIFEST).is_file()

    def digests(self) -> frozenset[str]:
        """The digests of all artifacts in the store."""
        try:
            names = os.listdir(self._stored)
        except FileNotFoundError:
            return frozenset()
        return frozenset(DIGEST_PREFIX + name for name in names if is_digest(DIGEST_PREFIX + name))

    def remove(self, digest: str) -> bool:
        """Remove an artifact that nothing refers to any more; False when it was not there."""
        with self._failures():
            self._incoming.mkdir(parents=True, exist_ok=True)
            gone = self._incoming / f"removed-{new_secret(9)}"
            try:
                os.rename(self._folder(digest), gone)  # one step: nobody sees half an artifact
            except FileNotFoundError:
                return False
            _remove_tree(gone)
            return True

    def sweep(self) -> int:
        """Remove what an interrupted `put` or `remove` left behind, and artifacts set aside; says how many folders.

        Only for the start of the one process that owns the store: it would take the floor from a running `put`.
        """
        left = [place for folder in (self._incoming, self._altered) if folder.is_dir() for place in folder.iterdir()]
        with self._failures():
            for place in left:
                _remove_tree(place)
        return len(left)

    def _folder(self, digest: str) -> Path:
        if not is_digest(digest):
            raise ArtifactMissing(digest)
        return self._stored / digest.removeprefix(DIGEST_PREFIX)

    def _is_whole(self, digest: str) -> bool:
        """Whether the artifact is there and unaltered; an altered one is set aside."""
        try:
            self.verify(digest)
        except ArtifactMissing:
            return False
        except ArtifactAltered:
            self._altered.mkdir(parents=True, exist_ok=True)
            os.rename(self._folder(digest), self._altered / f"{self._folder(digest).name}-{new_secret(9)}")
            return False
        return True

    def _commit(self, digest: str, staged_tree: Path, manifest: Manifest) -> None:
        self._stored.mkdir(parents=True, exist_ok=True)
        place = self._incoming / new_secret(9)
        place.mkdir(parents=True)
        try:
            _take_tree(staged_tree, place / "tree")
            _resolve_links(place / "tree")
            write_atomic(place / _MANIFEST, manifest_to_json(manifest).encode(), mode=0o444)
            _make_read_only(place / "tree")  # `place` itself stays writable: a folder must be, to be renamed
            _flush(place)
            try:
                os.rename(place, self._folder(digest))
            except OSError as taken:
                if taken.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return  # another process stored the same bytes first
            _flush(self._stored)
        finally:
            if place.exists():
                _remove_tree(place)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as failed:
            raise store_failure(str(self.root), failed) from failed


def _take_tree(source: Path, target: Path) -> None:
    """Move a folder; across file systems copy it, then remove the source."""
    try:
        os.rename(source, target)
    except OSError as failed:
        if failed.errno != errno.EXDEV:
            raise
        try:
            shutil.copytree(source, target, symlinks=True)
        except shutil.Error as several:  # it hides the first error, and with it a full disk
            raise _first_error(several) from several
        _remove_tree(source)


def _first_error(several: shutil.Error) -> OSError:
    text = str(several.args[0][0][2]) if several.args and several.args[0] else str(several)
    full = os.strerror(errno.ENOSPC) in text
    return OSError(errno.ENOSPC if full else errno.EIO, text)


def _resolve_links(tree: Path) -> None:
    """Replace each link by a copy of what it points to (`hash_tree` has seen that all lead inside)."""
    while links := links_of(tree):
        for link in links:
            target = Path(os.path.realpath(link))
            copy = link.with_name(f".{link.name}.{new_secret(6)}")
            if target.is_dir():
                shutil.copytree(target, copy, symlinks=False)
            else:
                shutil.copy(target, copy)
            link.unlink()
            copy.rename(link)


def _make_read_only(root: Path) -> None:
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            place = os.path.join(folder, name)
            executable = os.stat(place).st_mode & stat.S_IXUSR
            os.chmod(place, 0o555 if executable else 0o444)
        os.chmod(folder, 0o555)


def _remove_tree(root: Path) -> None:
    for folder, _, _ in os.walk(root):
        os.chmod(folder, os.stat(folder).st_mode | stat.S_IRWXU)
    shutil.rmtree(root, ignore_errors=False)


def _flush(place: Path) -> None:
    """Bring everything on this file system to the disk: an artifact that was registered survives a power cut."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "syncfs", str(place))
    finally:
        os.close(descriptor)
