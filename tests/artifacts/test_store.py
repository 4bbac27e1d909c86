"""The artifact store: whole or not at all, never written again, altered bytes found by name."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from moorage.artifacts.failures import (
    ArtifactAltered,
    ArtifactMismatch,
    ArtifactMissing,
    ArtifactStoreFailed,
    TreeRefused,
)
from moorage.artifacts.store import ArtifactStore
from moorage.artifacts.tree import hash_tree
from moorage.domain.artifact import Manifest, Process, artifact_digest
from tests.artifacts.test_tree import plant

FILES = {"app/board.py": "print('hello')\n", "site/lib/__init__.py": "", "app/run.sh": "#!/bin/sh\n"}


def staged(root: Path, files: dict[str, str] = FILES) -> tuple[Path, Manifest]:
    tree = plant(root, files)
    if (tree / "app/run.sh").exists():
        (tree / "app/run.sh").chmod(0o755)
    return tree, Manifest("board", "python", Process("python app.py"), hash_tree(tree), source={"commit": "abc"})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def test_what_was_put_is_there_read_only_and_verified(store: ArtifactStore, tmp_path: Path) -> None:
    tree, manifest = staged(tmp_path / "stage")
    digest = store.put(tree, manifest)
    assert digest == artifact_digest(manifest)
    assert store.manifest(digest) == manifest
    store.verify(digest)
    assert store.digests() == {digest}
    assert not tree.exists()
    place = store.tree(digest)
    assert (place / "app/board.py").read_text() == FILES["app/board.py"]
    modes = {p.name: oct(p.stat().st_mode & 0o777) for p in place.rglob("*") if p.is_file()}
    assert modes == {"board.py": "0o444", "__init__.py": "0o444", "run.sh": "0o555"}
    assert place.stat().st_mode & 0o222 == 0
    assert list((store.root / "incoming").iterdir()) == []


def test_the_same_twice_is_one_artifact_and_its_files_stay(store: ArtifactStore, tmp_path: Path) -> None:
    first = store.put(*staged(tmp_path / "one"))
    inode = (store.tree(first) / "app/board.py").stat().st_ino
    assert store.put(*staged(tmp_path / "two")) == first
    assert (store.tree(first) / "app/board.py").stat().st_ino == inode
    assert not (tmp_path / "two").exists()


def test_flipped_byte_is_found_by_name(store: ArtifactStore, tmp_path: Path) -> None:
    digest = store.put(*staged(tmp_path / "one"))
    flip(store.tree(digest) / "app/board.py")
    with pytest.raises(ArtifactAltered) as altered:
        store.verify(digest)
    assert altered.value.files == ("app/board.py",)
    assert altered.value.problem.code == "artifact-altered"
    assert "app/board.py" in altered.value.problem.detail


def flip(place: Path) -> None:
    place.chmod(0o644)
    data = bytearray(place.read_bytes())
    data[0] ^= 1
    place.write_bytes(data)
    place.chmod(0o444)


def _add(tree: Path) -> None:
    (tree / "app/new.py").write_text("x")


def _unlink(tree: Path) -> None:
    (tree / "app/board.py").unlink()


def _make_executable(tree: Path) -> None:
    (tree / "app/board.py").chmod(0o555)


def _link(tree: Path) -> None:
    (tree / "app/board.py").rename(tree / "app/other.py")
    (tree / "app/board.py").symlink_to("other.py")


def _pipe(tree: Path) -> None:
    os.mkfifo(tree / "pipe")


def _other_command(tree: Path) -> None:
    place = tree.with_name("manifest.json")
    place.chmod(0o644)
    place.write_text(place.read_text().replace("python app.py", "python bad.py"))


def _broken_manifest(tree: Path) -> None:
    tree.with_name("manifest.json").chmod(0o644)
    tree.with_name("manifest.json").write_text("{")


def _rename_tree(tree: Path) -> None:
    tree.rename(tree.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (_add, "app/new.py"),
        (_unlink, "app/board.py"),
        (_make_executable, "app/board.py"),
        (_link, "app/board.py"),
        (_pipe, "pipe"),
        (_other_command, "manifest.json"),
        (_broken_manifest, "manifest.json"),
        (_rename_tree, ""),
    ],
)
def test_every_other_harm_is_found_by_name(
    store: ArtifactStore, tmp_path: Path, harm: Callable[[Path], None], named: str
) -> None:
    digest = store.put(*staged(tmp_path / "one"))
    tree = store.tree(digest)
    for folder in (tree, tree / "app"):
        folder.chmod(0o755)
    harm(tree)
    with pytest.raises(ArtifactAltered) as altered:
        store.verify(digest)
    assert any(named in file for file in altered.value.files)


def test_an_altered_artifact_is_set_aside_when_put_again(store: ArtifactStore, tmp_path: Path) -> None:
    digest = store.put(*staged(tmp_path / "one"))
    flip(store.tree(digest) / "app/board.py")
    assert store.put(*staged(tmp_path / "two")) == digest
    store.verify(digest)
    assert len(list((store.root / "altered").iterdir())) == 1
    assert store.sweep() == 1


def test_tree_that_is_not_what_the_manifest_lists_is_not_stored(store: ArtifactStore, tmp_path: Path) -> None:
    tree, manifest = staged(tmp_path / "stage")
    (tree / "app/board.py").write_text("print('other')\n")
    with pytest.raises(ArtifactMismatch) as mismatch:
        store.put(tree, manifest)
    assert mismatch.value.files == ("app/board.py",)
    assert store.digests() == frozenset()


def test_links_become_files(store: ArtifactStore, tmp_path: Path) -> None:
    plant(tmp_path / "stage", {"real/file": "content", "real/sub/more": "more"})
    (tmp_path / "stage/link").symlink_to("real/file")
    (tmp_path / "stage/folder").symlink_to("real")
    (tmp_path / "stage/real/sub/back").symlink_to("../file")
    manifest = Manifest("x", "static", Process("serve"), hash_tree(tmp_path / "stage"))
    digest = store.put(tmp_path / "stage", manifest)
    store.verify(digest)
    assert not any(p.is_symlink() for p in store.tree(digest).rglob("*"))
    assert (store.tree(digest) / "folder/sub/back").read_text() == "content"


def test_bad_tree_is_refused_and_nothing_is_stored(store: ArtifactStore, tmp_path: Path) -> None:
    tree, manifest = staged(tmp_path / "stage")
    (tree / "bad").symlink_to("/etc/passwd")
    with pytest.raises(TreeRefused):
        store.put(tree, manifest)
    assert store.digests() == frozenset()


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "sha256:../../etc", "nonsense", ""])
def test_unknown_digests_are_missing(store: ArtifactStore, digest: str) -> None:
    for ask in (store.manifest, store.verify, store.tree):
        with pytest.raises(ArtifactMissing) as missing:
            ask(digest)
        assert missing.value.problem.code == "artifact-missing"


def test_removed_artifacts_are_gone(store: ArtifactStore, tmp_path: Path) -> None:
    digest = store.put(*staged(tmp_path / "one"))
    assert store.remove(digest)
    assert not store.remove(digest)
    assert not store.has(digest)
    assert list((store.root / "incoming").iterdir()) == []
    assert store.put(*staged(tmp_path / "two")) == digest


def test_what_an_interrupted_put_left_is_swept(store: ArtifactStore, tmp_path: Path) -> None:
    store.put(*staged(tmp_path / "one"))
    plant(store.root / "incoming" / "left", {"tree/file": "x"})
    (store.root / "incoming/left/tree").chmod(0o555)
    assert store.sweep() == 1
    assert len(store.digests()) == 1


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """A real refusal by the kernel to write more (EFBIG instead of ENOSPC: the same path through the code)."""
    before, signal_before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, signal_before)


def test_a_disk_that_refuses_leaves_no_artifact(store: ArtifactStore, tmp_path: Path) -> None:
    tree, manifest = staged(tmp_path / "stage")
    with file_size_limit(10), pytest.raises(ArtifactStoreFailed) as failed:
        store.put(tree, manifest)
    assert failed.value.problem.code == "storage-failed"
    assert store.digests() == frozenset()
    assert list((store.root / "incoming").iterdir()) == []


def test_root_that_is_no_folder_is_a_typed_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    tree, manifest = staged(tmp_path / "stage")
    with pytest.raises(ArtifactStoreFailed):
        ArtifactStore(tmp_path / "file" / "artifacts").put(tree, manifest)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_full_disk_has_its_own_code(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        tree, manifest = staged(tmp_path / "stage", {"big.bin": "x" * 200_000})
        with pytest.raises(ArtifactStoreFailed) as failed:
            ArtifactStore(small / "artifacts").put(tree, manifest)
        assert failed.value.problem.code == "disk-full"
        assert list((small / "artifacts/incoming").iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


_RACER = """
import sys
from pathlib import Path
from moorage.artifacts.store import ArtifactStore
from moorage.artifacts.tree import hash_tree
from moorage.domain.artifact import Manifest, Process
tree = Path(sys.argv[2])
print(ArtifactStore(Path(sys.argv[1])).put(tree, Manifest("x", "static", Process("serve"), hash_tree(tree))))
"""


def test_racing_processes_store_one_artifact(tmp_path: Path) -> None:
    for n in range(4):
        plant(tmp_path / f"stage{n}", {f"f{i}": str(i) * 100 for i in range(50)})
    root = tmp_path / "artifacts"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, root, tmp_path / f"stage{n}"], stdout=subprocess.PIPE, text=True
        )
        for n in range(4)
    ]
    answers = {racer.communicate(timeout=60)[0].strip() for racer in racers}
    assert [racer.returncode for racer in racers] == [0] * 4
    store = ArtifactStore(root)
    assert answers == store.digests()
    store.verify(answers.pop())


def test_another_process_is_another_artifact(store: ArtifactStore, tmp_path: Path) -> None:
    tree, manifest = staged(tmp_path / "one")
    first = store.put(tree, manifest)
    tree, manifest = staged(tmp_path / "two")
    second = store.put(tree, replace(manifest, process=Process("python other.py")))
    assert first != second
    assert store.digests() == {first, second}
