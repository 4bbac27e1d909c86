"""Source archives on a real disk: the same tree is the same bytes, hostile archives are left at the first bad entry."""

from __future__ import annotations

import gzip
import io
import os
import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from moorage.domain.errors import Refused
from moorage.domain.source import Limits
from moorage.system.source_archive import pack, unpack

Member = tuple[tarfile.TarInfo, bytes]


def make(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return folder


def test_the_same_tree_packs_to_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        order = ["b.txt", "a/deep/x.py", "a.txt", "run.sh", "ü.txt"]
        for path in order if name == "one" else reversed(order):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(path)
        (folder / "run.sh").chmod(0o744 if name == "one" else 0o755)
        (folder / "b.txt").chmod(0o600 if name == "one" else 0o664)
        os.symlink("a/deep", folder / "link")
        os.utime(folder / "a.txt", (1, 1) if name == "one" else (2_000_000_000, 2_000_000_000))
    first, second = pack(tmp_path / "one", tmp_path / "1.tgz"), pack(tmp_path / "two", tmp_path / "2.tgz")
    assert first == second
    assert (tmp_path / "1.tgz").read_bytes() == (tmp_path / "2.tgz").read_bytes()
    assert (first.files, first.commit, first.dirty) == (6, None, None)
    (tmp_path / "two" / "b.txt").write_text("c.txt")
    third = pack(tmp_path / "two", tmp_path / "3.tgz")
    assert third.sha256 != first.sha256
    assert third.tree_digest != first.tree_digest


def test_what_was_packed_comes_out(tmp_path: Path) -> None:
    source = make(tmp_path / "source", {"a": "1", "b/c": "2", "bin/run": "#!/bin/sh"})
    (source / "bin" / "run").chmod(0o755)
    (source / "empty").mkdir()
    os.symlink("../a", source / "b" / "up")
    facts = pack(source, tmp_path / "s.tgz")
    got = unpack(tmp_path / "s.tgz", tmp_path / "out")
    assert (got.tree_digest, got.files, got.bytes) == (facts.tree_digest, facts.files, facts.bytes)
    out = tmp_path / "out"
    assert (out / "b" / "c").read_text() == "2"
    assert os.readlink(out / "b" / "up") == "../a"
    assert (out / "bin" / "run").stat().st_mode & 0o777 == 0o755
    assert (out / "empty").is_dir()


def test_rules_leave_out_what_is_no_source(tmp_path: Path) -> None:
    ignore = {
        ".gitignore": "*.log\n/out/\nmoorage.toml\n!keep.log\n",
        ".moorageignore": "big.bin\n",
        "sub/.gitignore": "local.txt\n!x.log\n",
    }
    kept = ["moorage.toml", "main.py", "keep.log", "local.txt", "sub/out/b", "sub/x.log"]
    left_out = [
        ".env",
        "x.log",
        "out/a",
        "sub/local.txt",
        "big.bin",
        "__pycache__/x.txt",
        "node_modules/m/index.js",
        ".git/config",
        "docs/page",
        "main.pyc",
    ]
    source = make(tmp_path / "source", ignore | dict.fromkeys([*kept, *left_out], "text"))
    facts = pack(source, tmp_path / "s.tgz", exclude=["docs/"])
    unpack(tmp_path / "s.tgz", tmp_path / "out")
    got = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert got == {*kept, *ignore}
    assert facts.excluded == len(left_out)


def test_an_env_file_is_taken_when_asked_for(tmp_path: Path) -> None:
    source = make(tmp_path / "source", {".env": "A=1", ".moorageignore": "!.env\n"})
    assert pack(source, tmp_path / "s.tgz").files == 2


def test_git_facts_name_commit_and_changes(tmp_path: Path) -> None:
    source = make(tmp_path / "repo" / "app", {"main.py": "1"})

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path / "repo"), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    facts = pack(source, tmp_path / "s.tgz")
    assert (facts.commit, facts.dirty) == (git("rev-parse", "HEAD"), False)
    make(tmp_path / "repo", {"other": "outside of the app's folder"})
    assert pack(source, tmp_path / "s.tgz").dirty is False
    (source / "main.py").write_text("2")
    assert pack(source, tmp_path / "s.tgz").dirty is True


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(Refused) as raised:
        act()
    return raised.value.problem.code


def test_packing_refuses_what_may_not_be_in_a_source(tmp_path: Path) -> None:
    source = make(tmp_path / "source", {"a": "12345"})
    target = tmp_path / "s.tgz"
    assert refused(lambda: pack(source, target, limits=Limits(file_max_bytes=4))) == "source-file-too-large"
    assert refused(lambda: pack(source, target, limits=Limits(total_max_bytes=4))) == "source-too-large"
    assert refused(lambda: pack(source, target, limits=Limits(files_max_count=0))) == "source-too-many-files"
    assert refused(lambda: pack(tmp_path / "nothing", target)) == "source-missing"
    assert refused(lambda: pack(source / "a", target)) == "source-missing"
    os.symlink("/etc/passwd", source / "link")
    assert refused(lambda: pack(source, target)) == "source-link-outside"
    (source / "link").unlink()
    os.mkfifo(source / "pipe")
    assert refused(lambda: pack(source, target)) == "source-entry-kind"
    (source / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "sock"))
        assert refused(lambda: pack(source, target)) == "source-entry-kind"
    (source / "sock").unlink()
    (source / "a").unlink()
    assert refused(lambda: pack(source, target)) == "source-empty"


def test_a_folder_in_a_folder_without_end_stops(tmp_path: Path) -> None:
    deep = tmp_path / "source"
    for _ in range(70):
        deep = deep / "d"
    deep.mkdir(parents=True)
    assert refused(lambda: pack(tmp_path / "source", tmp_path / "s.tgz")) == "source-path-invalid"


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), link
    info.devmajor = info.devminor = 1
    return info, content


def archive(place: Path, *members: Member) -> Path:
    with tarfile.open(place, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return place


HOSTILE: list[tuple[str, list[Member]]] = [
    ("source-path-invalid", [member("../evil", b"x")]),
    ("source-path-invalid", [member("ok/../../evil", b"x")]),
    ("source-path-invalid", [member("/tmp/evil", b"x")]),
    ("source-path-invalid", [member(".//etc/evil", b"x")]),
    ("source-path-invalid", [member("evil\nname", b"x")]),
    ("source-path-too-long", [member("d/" * 300 + "evil", b"x")]),
    ("source-link-outside", [member("l", kind=tarfile.SYMTYPE, link="/etc/passwd")]),
    ("source-link-outside", [member("l", kind=tarfile.SYMTYPE, link="../outside")]),
    ("source-path-invalid", [member("l", kind=tarfile.SYMTYPE, link=".."), member("l/evil", b"x")]),
    ("source-path-invalid", [member("l", kind=tarfile.SYMTYPE, link="/tmp"), member("l", b"x")]),
    ("source-path-invalid", [member("a", b"x"), member("a/b", b"x")]),
    ("source-path-invalid", [member("a", b"x"), member("a", b"y")]),
    ("source-path-invalid", [member("a/b", b"x"), member("a", b"y")]),
    ("source-entry-kind", [member("h", kind=tarfile.LNKTYPE, link="/etc/passwd")]),
    ("source-entry-kind", [member("d", kind=tarfile.CHRTYPE)]),
    ("source-entry-kind", [member("d", kind=tarfile.BLKTYPE)]),
    ("source-entry-kind", [member("p", kind=tarfile.FIFOTYPE)]),
    ("source-link-broken", [member("a", b"x"), member("l", kind=tarfile.SYMTYPE, link="b")]),
    ("source-archive-invalid", []),
]


@pytest.mark.parametrize(("code", "members"), HOSTILE)
def test_a_hostile_archive_writes_nothing_outside(tmp_path: Path, code: str, members: list[Member]) -> None:
    place = archive(tmp_path / "h.tgz", *members)
    (tmp_path / "in").mkdir()
    before = set(tmp_path.rglob("*"))
    assert refused(lambda: unpack(place, tmp_path / "in" / "out")) == code
    after = {p for p in tmp_path.rglob("*") if (tmp_path / "in") not in p.parents}
    assert after == before
    assert not any(p.is_symlink() for p in tmp_path.rglob("*"))
    assert not Path("/tmp/evil").exists()


def test_a_plain_tar_of_the_folder_is_taken(tmp_path: Path) -> None:
    make(tmp_path / "source", {"a": "1", "b/c": "2"})
    command = ["tar", "-C", str(tmp_path / "source"), "-czf", str(tmp_path / "s.tgz"), "."]
    subprocess.run(command, check=True)
    got = unpack(tmp_path / "s.tgz", tmp_path / "out")
    assert got.files == 2
    assert got.tree_digest == pack(tmp_path / "source", tmp_path / "ours.tgz").tree_digest


def test_a_bomb_is_left_early(tmp_path: Path) -> None:
    zeros = bytes(200_000)
    place = archive(tmp_path / "b.tgz", *(member(f"z{i}", zeros) for i in range(20)))
    limits = Limits(total_max_bytes=500_000)
    assert place.stat().st_size < 20_000
    assert refused(lambda: unpack(place, tmp_path / "out", limits=limits)) == "source-too-large"
    assert sum(p.stat().st_size for p in (tmp_path / "out").iterdir()) <= 500_000


def test_a_huge_header_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 50 << 20
    with gzip.open(tmp_path / "h.tgz", "wb") as stream:
        stream.write(info.tobuf(tarfile.USTAR_FORMAT) + bytes(2 << 20))
    with pytest.raises(Refused) as raised:
        unpack(tmp_path / "h.tgz", tmp_path / "out")
    assert raised.value.problem.code == "source-archive-invalid"
    assert "a header of" in raised.value.problem.detail


@pytest.mark.parametrize("cut", [0, 5, 60, -9, -200])
def test_a_truncated_archive_is_refused(tmp_path: Path, cut: int) -> None:
    whole = archive(tmp_path / "w.tgz", member("a", os.urandom(3_000)), member("b", os.urandom(3_000))).read_bytes()
    (tmp_path / "t.tgz").write_bytes(whole[:cut])
    assert refused(lambda: unpack(tmp_path / "t.tgz", tmp_path / "out")) == "source-archive-invalid"


def test_other_bytes_are_no_archive(tmp_path: Path) -> None:
    for content in (b"PK\x03\x04 something else", gzip.compress(b"no tar" * 1_000), gzip.compress(os.urandom(10_000))):
        (tmp_path / "x").write_bytes(content)
        assert refused(lambda: unpack(tmp_path / "x", tmp_path / "out")) == "source-archive-invalid"
