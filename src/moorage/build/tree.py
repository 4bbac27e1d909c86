"""The tree that becomes the artifact: copied out of the source, without what would differ from build to build."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import shutil
import stat
from collections.abc import Iterator
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

from moorage.build.outcome import Blocked
from moorage.build.plan import is_left_out
from moorage.domain.errors import Problem

# what pip notes about the installation and not about the package; RECORD is written anew
_NOTES = ("INSTALLER", "REQUESTED", "direct_url.json", "RECORD.jws", "RECORD.p7s")
_NOT_SERVED = ("moorage.toml", ".gitignore", ".moorageignore")


def copy_tree(source: Path, target: Path, *, at_top_without: tuple[str, ...] = ()) -> None:
    """Copy files, folders and links, modes 0644 or 0755, without byte code and version control's folders.

    Raises Blocked (`tree-special-file`) at a device, pipe or socket, and OSError.
    """
    target.mkdir(parents=True, exist_ok=True)
    todo = [("", source)]
    while todo:
        prefix, folder = todo.pop()
        with os.scandir(folder) as listing:
            found = list(listing)
        for item in found:
            path = prefix + item.name
            if path in at_top_without or is_left_out(path, is_folder=item.is_dir(follow_symlinks=False)):
                continue
            if item.is_dir(follow_symlinks=False):
                (target / path).mkdir(exist_ok=True)
                todo.append((f"{path}/", Path(item.path)))
            else:
                _copy_one(item, target / path, path)


def copy_site_files(source: Path, target: Path) -> None:
    """Copy what a static site serves: everything but the platform's own files at the top."""
    copy_tree(source, target, at_top_without=_NOT_SERVED)


def _copy_one(item: os.DirEntry[str], place: Path, path: str) -> None:
    mode = item.stat(follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(item.path), place)
    elif stat.S_ISREG(mode):
        shutil.copyfile(item.path, place)
        os.chmod(place, 0o755 if mode & stat.S_IXUSR else 0o644)
    else:
        hint = "Remove it at the end of the build command."
        raise Blocked(Problem("tree-special-file", "The build left a device, pipe or socket", path, hint, 422))


def normalise_site(site: Path) -> tuple[tuple[str, str], ...]:
    """Take out of installed packages what differs from one installation to the next, and name the distributions.

    Console scripts go (they name the builder's interpreter), byte code goes, and each RECORD is written anew.
    """
    shutil.rmtree(site / "bin", ignore_errors=True)
    for folder in [p for p in site.rglob("__pycache__") if p.is_dir()]:
        shutil.rmtree(folder)
    for place in [p for p in site.rglob("*.pyc") if p.is_file()]:
        place.unlink()
    found = sorted(site.glob("*.dist-info"))
    for info in found:
        for name in _NOTES:
            (info / name).unlink(missing_ok=True)
    for info in found:
        _write_record(site, info)
    named = (PathDistribution(info) for info in found)
    return tuple(sorted((_name_of(each), each.version) for each in named))


def _name_of(distribution: Distribution) -> str:
    return str(distribution.metadata["Name"])


def _write_record(site: Path, info: Path) -> None:
    """The list of a distribution's files: those that are still there, sorted."""
    record = info / "RECORD"
    if not record.is_file():
        return
    listed = {row[0] for row in csv.reader(io.StringIO(record.read_text("utf-8"))) if row}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for path in sorted(listed):
        place = site / path
        if ".." in path.split("/") or not place.is_file():
            continue
        own = place == record
        writer.writerow([path, "" if own else f"sha256={_digest(place)}", "" if own else place.stat().st_size])
    record.write_text(out.getvalue(), "utf-8")


def _digest(place: Path) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(place.read_bytes()).digest()).rstrip(b"=").decode()


def runnable_packages(site: Path) -> frozenset[str]:
    """The packages that `python -m` can run."""
    return frozenset(found.parent.name for found in site.glob("*/__main__.py"))


def native_files(site: Path) -> Iterator[Path]:
    """Compiled files: they tie the artifact to this machine's architecture and Python."""
    return site.rglob("*.so")
