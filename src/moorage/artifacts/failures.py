"""What can go wrong with artifacts, each with a stable code. A tree that is refused is the builder's to mend; a store
that cannot be written is the operator's; an altered artifact is never run by anybody.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from moorage.domain.errors import Problem, Refused, Unavailable

_NAMED_FILES_COUNT = 10  # an altered tree may differ in thousands of files; ten are enough to recognise it


class TreeRefused(Refused):
    """A folder that cannot become an artifact; `code` says which rule it breaks, `path` where."""

    def __init__(self, code: str, path: str, detail: str, hint: str) -> None:
        self.path = path
        super().__init__(Problem(code, f"{path} cannot be part of an artifact", detail, hint, 422, {"path": path}))


class ManifestInvalid(Refused):
    """A manifest that is no manifest of a version this platform reads."""

    def __init__(self, where: str, detail: str) -> None:
        hint = "Deploy the source again with this version of the platform."
        super().__init__(Problem("manifest-invalid", f"The manifest {where} cannot be read", detail, hint, 422))


class ArtifactMissing(Refused):
    """No artifact of this digest is in the store."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        hint = "Deploy the source again, or promote a deployment whose artifact is present."
        super().__init__(
            Problem("artifact-missing", f"The store has no artifact {digest}", "", hint, 404, {"digest": digest})
        )


class ArtifactMismatch(Refused):
    """The staged tree is not what its manifest lists, so it was not stored."""

    def __init__(self, digest: str, files: Sequence[str]) -> None:
        self.digest, self.files = digest, tuple(files)
        hint = "Something wrote into the build folder after it was hashed; build again."
        facts = {"digest": digest, "files": list(files[:_NAMED_FILES_COUNT])}
        super().__init__(
            Problem("artifact-mismatch", "The staged tree differs from its manifest", _named(files), hint, 409, facts)
        )


class ArtifactAltered(Refused):
    """A stored artifact is no longer what its digest names; `files` are the paths that differ, sorted."""

    def __init__(self, digest: str, files: Sequence[str]) -> None:
        self.digest, self.files = digest, tuple(files)
        hint = "Deploy the same source again to store it anew, or promote another deployment."
        facts = {"digest": digest, "files": list(files[:_NAMED_FILES_COUNT])}
        super().__init__(Problem("artifact-altered", f"{digest} was altered", _named(files), hint, 409, facts))


class ArchiveRefused(Refused):
    """A file that is no archive of an artifact, or one that must not be taken; `facts` name the place."""

    def __init__(self, code: str, title: str, detail: str, hint: str, **facts: object) -> None:
        safe = detail.encode("utf-8", "backslashreplace").decode()
        super().__init__(Problem(code, title, safe, hint, 422, facts))


class ArtifactStoreFailed(Unavailable):
    """The store's folder could not be read or written."""

    def __init__(self, code: str, path: str, detail: str, hint: str) -> None:
        self.path = path
        super().__init__(Problem(code, f"The artifact store at {path} failed", detail, hint, 503, {"path": path}))


def store_failure(path: str, failed: OSError) -> ArtifactStoreFailed:
    """The store's failure that an operating-system error means: `disk-full`, `not-writable` or `storage-failed`."""
    detail = failed.strerror or str(failed)
    if failed.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "Free space on this file system; artifacts that nothing refers to are collected by themselves."
        return ArtifactStoreFailed("disk-full", path, detail, hint)
    if failed.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "Let the user that runs the platform write there."
        return ArtifactStoreFailed("not-writable", path, f"{detail}: {failed.filename}", hint)
    return ArtifactStoreFailed("storage-failed", path, f"{detail}: {failed.filename}", "Check the file system.")


def _named(files: Sequence[str]) -> str:
    shown = ", ".join(files[:_NAMED_FILES_COUNT])
    rest = len(files) - _NAMED_FILES_COUNT
    return f"{shown} and {rest} more" if rest > 0 else shown
