"""Source archives: a folder as a deterministic gzip-compressed tar, and back.

The same tree packed twice has the same bytes: sorted, no times, no owners, modes 0644 or 0755. Both ways go through
the rules of `domain/source.py`, entry by entry, so a hostile or huge archive is left at the first entry that breaks
one. Nothing is ever written through a link: links are made last, after the whole tree was checked. All calls block.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import subprocess
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from moorage.domain.errors import Problem, Refused
from moorage.domain.source import DEFAULT_EXCLUDES, LIMITS, Entry, Kind, Limits, Tally, admit, check_tree
from moorage.system.files import sha256_of

_CHUNK_BYTES = 256 << 10
_READ_MAX_BYTES = 1 << 20  # no header of an honest archive is larger; tarfile reads extended headers in one piece
_HEADERS_MAX_BYTES = 64 << 20  # 512 bytes and padding per entry, and long names
_IGNORE_FILES = (".gitignore", ".moorageignore")
_NEVER_EXCLUDED = "moorage.toml"
_GIT_TIMEOUT_S = 10.0
_COMPRESSION_LEVEL = 6


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What was packed. `sha256` names the archive's bytes, `tree_digest` the content however it is compressed;
    `commit` and `dirty` are None outside a git repository; `excluded` counts what rules left out."""

    sha256: str
    archive_bytes: int
    tree_digest: str
    files: int
    bytes: int
    excluded: int
    commit: str | None = None
    dirty: bool | None = None

    def to_json(self) -> dict[str, object]:
        """The facts as JSON values, as `BuildJob.source_facts` carries them."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What an archive held."""

    tree_digest: str
    files: int
    bytes: int


def pack(folder: Path, target: Path, *, exclude: Sequence[str] = (), limits: Limits = LIMITS) -> SourceFacts:
    """Write the folder's source to `target`, without what the default rules, `.gitignore`, `.moorageignore` (in any
    folder) and `exclude` (patterns as in `.gitignore`, from the top) leave out.

    Raises Refused with a `source-*` problem, and OSError when a file cannot be read or the archive not written.
    """
    walk = _Walk(folder, exclude)
    found: list[tuple[Entry, Path]] = []
    tally = Tally()
    for entry, place in walk.entries():
        tally = _granted(admit(entry, tally, limits))
        found.append((entry, place))
    found.sort(key=lambda pair: pair[0].path)
    files = sum(entry.kind is not Kind.FOLDER for entry, _ in found)
    problem = check_tree(entry for entry, _ in found) or (None if files else _empty(folder))
    if problem is not None:
        raise Refused(problem)
    digest = _write(found, target)
    commit, dirty = git_facts(folder)
    return SourceFacts(
        sha256=sha256_of(target),
        archive_bytes=target.stat().st_size,
        tree_digest=digest,
        files=files,
        bytes=tally.total_bytes,
        excluded=walk.excluded,
        commit=commit,
        dirty=dirty,
    )


def unpack(archive: Path, folder: Path, *, limits: Limits = LIMITS) -> Unpacked:
    """Write the archive's tree into `folder` (made if missing; must be empty).

    Raises Refused with a `source-*` problem at the first entry that breaks a rule (nothing beyond it is read), and
    OSError when the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[Entry] = []
    lines: list[str] = []
    tally = Tally()
    try:
        with gzip.open(archive, "rb") as stream:
            reader = _Bounded(stream, limits.total_max_bytes + _HEADERS_MAX_BYTES)
            with tarfile.open(fileobj=reader, mode="r:") as tar:  # type: ignore[call-overload]
                for member in tar:
                    if member.name in (".", "./"):  # how a plain `tar` names the folder itself
                        continue
                    entry = _entry_of(member)
                    tally = _granted(admit(entry, tally, limits))
                    entries.append(entry)
                    lines.append(_line(entry, _executable(member.mode), _extract(tar, member, entry, folder, entries)))
            while reader.read(_CHUNK_BYTES):  # to the end, where gzip keeps its checksum
                pass
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, UnicodeError) as bad:
        raise Refused(_unreadable(str(bad) or type(bad).__name__)) from bad
    problem = check_tree(entries) or (None if entries else _unreadable("it holds no entry"))
    if problem is not None:
        raise Refused(problem)
    for entry in entries:
        if entry.kind is Kind.LINK:
            (folder / entry.path).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(entry.target, folder / entry.path)
    files = sum(entry.kind is not Kind.FOLDER for entry in entries)
    return Unpacked(_digest(lines), files, tally.total_bytes)


def git_facts(folder: Path) -> tuple[str | None, bool | None]:
    """(commit hash, whether the folder has changes that are not committed); (None, None) outside a repository."""
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None, None
    status = _git(folder, "status", "--porcelain", "--untracked-files=normal", "--", ".")
    return commit.strip(), None if status is None else bool(status.strip())


def _git(folder: Path, *arguments: str) -> str | None:
    """What a git command prints; None when it fails or there is no git."""
    environ = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            check=False,
            timeout=_GIT_TIMEOUT_S,
            env=environ,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


class _Walk:
    """The entries of a folder that no rule leaves out, and how many were left out."""

    def __init__(self, folder: Path, exclude: Sequence[str]) -> None:
        self._folder = folder
        self._top = GitIgnoreSpec.from_lines([*DEFAULT_EXCLUDES])
        self._asked = GitIgnoreSpec.from_lines(list(exclude))
        self.excluded = 0

    def entries(self) -> Iterator[tuple[Entry, Path]]:
        """Each entry with its place; a folder that a rule leaves out is not entered."""
        if not self._folder.is_dir():
            raise Refused(_not_a_folder(self._folder))
        yield from self._below("", [("", self._top)])

    def _below(self, prefix: str, specs: list[tuple[str, GitIgnoreSpec]]) -> Iterator[tuple[Entry, Path]]:
        here = self._folder / prefix
        lines = [line for name in _IGNORE_FILES for line in _lines(here / name)]
        specs = [*specs, (prefix, GitIgnoreSpec.from_lines(lines))] if lines else specs
        with os.scandir(here) as listing:
            found = sorted(listing, key=lambda item: item.name)
        for item in found:
            path, is_folder = prefix + item.name, item.is_dir(follow_symlinks=False)
            if self._is_excluded(path + "/" * is_folder, specs):
                self.excluded += 1
                continue
            yield _entry_at(path, item), Path(item.path)
            if is_folder:
                yield from self._below(f"{path}/", specs)

    def _is_excluded(self, path: str, specs: list[tuple[str, GitIgnoreSpec]]) -> bool:
        if path == _NEVER_EXCLUDED:
            return False
        if self._asked.match_file(path):
            return True
        for prefix, spec in reversed(specs):
            said = spec.check_file(path.removeprefix(prefix)).include
            if said is not None:
                return said
        return False


def _lines(place: Path) -> list[str]:
    """The lines of an ignore file, if there is one."""
    try:
        return place.read_text("utf-8", "replace").splitlines() if place.is_file() else []
    except OSError:
        return []


def _entry_at(path: str, item: os.DirEntry[str]) -> Entry:
    """The entry of something in a folder."""
    state = item.stat(follow_symlinks=False)
    if stat.S_ISREG(state.st_mode):
        return Entry(path, Kind.FILE, state.st_size)
    if stat.S_ISLNK(state.st_mode):
        return Entry(path, Kind.LINK, target=os.readlink(item.path))
    kinds = {stat.S_IFDIR: Kind.FOLDER, stat.S_IFIFO: Kind.FIFO, stat.S_IFSOCK: Kind.SOCKET}
    devices = {stat.S_IFCHR: Kind.DEVICE, stat.S_IFBLK: Kind.DEVICE}
    return Entry(path, (kinds | devices).get(stat.S_IFMT(state.st_mode), Kind.OTHER))


def _write(found: Sequence[tuple[Entry, Path]], target: Path) -> str:
    """Write the archive and return the digest of its tree."""
    lines: list[str] = []
    with target.open("wb") as raw:
        stream = gzip.GzipFile("", "wb", _COMPRESSION_LEVEL, raw, mtime=0)
        with stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for entry, place in found:
                executable, content = _add(tar, entry, place)
                lines.append(_line(entry, executable, content))
    return _digest(lines)


def _add(tar: tarfile.TarFile, entry: Entry, place: Path) -> tuple[bool, str]:
    """Add one entry; says whether it is executable, and the SHA-256 of its content."""
    member = tarfile.TarInfo(entry.path)
    member.mode = 0o755
    if entry.kind is Kind.FOLDER:
        member.type = tarfile.DIRTYPE
    elif entry.kind is Kind.LINK:
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, entry.target, 0o777
    else:
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as handle:
            state = os.fstat(handle.fileno())
            if not stat.S_ISREG(state.st_mode) or state.st_size != entry.size:
                raise Refused(_changed(entry.path))
            member.mode, member.size = 0o755 if _executable(state.st_mode) else 0o644, entry.size
            hashing = _Hashing(handle)
            try:
                tar.addfile(member, hashing)
            except OSError as short:
                if str(short) == "unexpected end of data":  # how tarfile says that the file shrank
                    raise Refused(_changed(entry.path)) from short
                raise
            return _executable(state.st_mode), hashing.digest.hexdigest()
    tar.addfile(member)
    return False, ""


class _Hashing(io.RawIOBase):
    """A file that hashes what is read from it."""

    def __init__(self, handle: io.BufferedReader) -> None:
        self._handle, self.digest = handle, hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._handle.read(size)
        self.digest.update(data)
        return data


class _Bounded:
    """A compressed stream that gives no more than a number of bytes, and never a huge piece at once."""

    def __init__(self, stream: gzip.GzipFile, max_bytes: int) -> None:
        self._stream, self._max_bytes = stream, max_bytes

    def read(self, size: int) -> bytes:
        if size > _READ_MAX_BYTES:
            raise Refused(_unreadable(f"a header of {size} bytes"))
        data = self._stream.read(size)
        self._check(self._stream.tell())
        return data

    def seek(self, position: int) -> int:
        self._check(position)
        return self._stream.seek(position)

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self, position: int) -> None:
        if position > self._max_bytes:
            raise Refused(_unreadable(f"more than {self._max_bytes} bytes when decompressed"))


def _entry_of(member: tarfile.TarInfo) -> Entry:
    """The entry that a member of a tar stands for."""
    path = member.name.removeprefix("./")
    if member.isreg() and not member.issparse():
        return Entry(path, Kind.FILE, member.size)
    if member.issym():
        return Entry(path, Kind.LINK, target=member.linkname)
    kinds = {tarfile.DIRTYPE: Kind.FOLDER, tarfile.LNKTYPE: Kind.HARD_LINK, tarfile.FIFOTYPE: Kind.FIFO}
    devices = {tarfile.CHRTYPE: Kind.DEVICE, tarfile.BLKTYPE: Kind.DEVICE}
    return Entry(path, (kinds | devices).get(member.type, Kind.OTHER))


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, entry: Entry, folder: Path, so_far: list[Entry]) -> str:
    """Write one entry (links come later) and return the SHA-256 of its content.

    The folder holds nothing but what this archive made, and no links yet: so no path leads anywhere else.
    """
    place = folder / entry.path
    try:
        if entry.kind is Kind.FOLDER:
            place.mkdir(parents=True, exist_ok=True)
            return ""
        if entry.kind is not Kind.FILE:
            return ""
        place.parent.mkdir(parents=True, exist_ok=True)
        return _copy(tar, member, place)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as twice:
        problem = check_tree(so_far) or _unreadable(f"`{entry.path}` is in it twice")
        raise Refused(problem) from twice


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> str:
    """Write the content of a file and return its SHA-256."""
    content = tar.extractfile(member)
    assert content is not None, "a regular file has content"
    digest, left = hashlib.sha256(), member.size
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755 if _executable(member.mode) else 0o644)
    with os.fdopen(descriptor, "wb") as out:
        while left and (chunk := content.read(min(_CHUNK_BYTES, left))):
            digest.update(chunk)
            out.write(chunk)
            left -= len(chunk)
    if left:
        raise Refused(_unreadable(f"`{member.name}` ends too early"))
    return digest.hexdigest()


def _granted(answer: Tally | Problem) -> Tally:
    """The tally, or the refusal."""
    if isinstance(answer, Problem):
        raise Refused(answer)
    return answer


def _executable(mode: int) -> bool:
    return bool(mode & 0o111)


def _line(entry: Entry, executable: bool, content: str) -> str:
    """One entry as the tree digest counts it."""
    return "\0".join(
        (entry.path, entry.kind, "x" if executable and entry.kind is Kind.FILE else "", entry.target, content)
    )


def _digest(lines: Sequence[str]) -> str:
    """The digest of a tree, independent of order and compression."""
    return "sha256:" + hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _unreadable(why: str) -> Problem:
    safe = why.encode("utf-8", "backslashreplace").decode()[:300]
    hint = "Send a gzip-compressed tar as `moorage deploy` makes it."
    return Problem("source-archive-invalid", "The source archive cannot be read", safe, hint, 422)


def _empty(folder: Path) -> Problem:
    hint = "Check the path and the rules in `.moorageignore`."
    return Problem(
        "source-empty", "There is nothing to deploy", f"{folder} has no files that are not excluded", hint, 422
    )


def _not_a_folder(folder: Path) -> Problem:
    return Problem("source-missing", "The source is not a folder", str(folder), "Name the folder of the app.", 422)


def _changed(path: str) -> Problem:
    hint = "Wait until nothing writes to the source, then deploy again."
    return Problem("source-changed", "The source changed while it was packed", f"`{path}`", hint, 409, {"path": path})
