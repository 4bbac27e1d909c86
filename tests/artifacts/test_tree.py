"""What counts as a file of an artifact, and what is refused by name."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from moorage.artifacts.failures import TreeRefused
from moorage.artifacts.tree import hash_tree
from moorage.system.clock import monotonic_s


def plant(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root


def test_entries_are_sorted_and_know_size_mode_and_content(tmp_path: Path) -> None:
    plant(tmp_path, {"b/two.txt": "two", "a.sh": "#!/bin/sh\n", "b.txt": ""})
    (tmp_path / "a.sh").chmod(0o700)
    entries = hash_tree(tmp_path)
    assert [e.path for e in entries] == ["a.sh", "b.txt", "b/two.txt"]
    assert [e.mode for e in entries] == [0o755, 0o644, 0o644]
    assert [e.size for e in entries] == [10, 0, 3]
    assert entries[1].sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_read_only_copy_and_other_times_are_the_same_tree(tmp_path: Path) -> None:
    one, two = (
        plant(tmp_path / "one", {"x": "same", "d/y": "too"}),
        plant(tmp_path / "two", {"d/y": "too", "x": "same"}),
    )
    os.utime(two / "x", (1, 1))
    (two / "x").chmod(0o444)
    (two / "empty").mkdir()
    assert hash_tree(one) == hash_tree(two)


def test_links_inside_count_as_what_they_point_to(tmp_path: Path) -> None:
    plant(tmp_path, {"real/file": "content"})
    (tmp_path / "link").symlink_to("real/file")
    (tmp_path / "folder").symlink_to("real")
    entries = {e.path: e.sha256 for e in hash_tree(tmp_path)}
    assert set(entries) == {"real/file", "link", "folder/file"}
    assert len(set(entries.values())) == 1


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/etc/passwd", "tree-link-outside"),
        ("../outside", "tree-link-outside"),
        ("sub/../../outside", "tree-link-outside"),
        ("nowhere", "tree-link-broken"),
        ("..", "tree-link-outside"),
        (".", "tree-link-loop"),
        ("bad", "tree-link-broken"),
    ],
)
def test_bad_links_are_refused_by_name(tmp_path: Path, target: str, code: str) -> None:
    plant(tmp_path, {"outside": "secret", "tree/sub/file": "x"})
    (tmp_path / "tree" / "bad").symlink_to(target)
    with pytest.raises(TreeRefused) as refused:
        hash_tree(tmp_path / "tree")
    assert (refused.value.problem.code, refused.value.path) == (code, "bad")


def test_sibling_folder_with_the_same_beginning_is_outside(tmp_path: Path) -> None:
    plant(tmp_path, {"tree/file": "x", "tree-two/secret": "y"})
    (tmp_path / "tree" / "bad").symlink_to("../tree-two/secret")
    with pytest.raises(TreeRefused) as refused:
        hash_tree(tmp_path / "tree")
    assert refused.value.problem.code == "tree-link-outside"


def test_pipes_and_sockets_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TreeRefused) as refused:
        hash_tree(tmp_path)
    assert refused.value.problem.code == "tree-special-file"
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "sock"))
        with pytest.raises(TreeRefused):
            hash_tree(tmp_path)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff\xfe", "wb") as bad:
        bad.write(b"x")
    with pytest.raises(TreeRefused) as refused:
        hash_tree(tmp_path)
    assert refused.value.problem.code == "tree-name-invalid"


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TreeRefused) as refused:
        hash_tree(tmp_path / "nothing")
    assert refused.value.problem.code == "tree-missing"


def test_a_usual_tree_is_read_quickly(tmp_path: Path) -> None:
    plant(tmp_path, {f"d{n % 12}/f{n}.py": "x = 1\n" * 500 for n in range(160)})
    hash_tree(tmp_path)  # into the page cache
    best = min(_seconds(tmp_path) for _ in range(5))
    assert best < 0.1  # 10 ms where nothing else runs


def _seconds(root: Path) -> float:
    start = monotonic_s()
    hash_tree(root)
    return monotonic_s() - start
