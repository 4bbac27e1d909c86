"""Source rules: entries one by one, and the tree as a whole."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.domain.errors import Problem
from moorage.domain.source import Entry, Kind, Limits, Tally, admit, check_path, check_tree, resolve_link

SMALL = Limits(files_max_count=3, total_max_bytes=100, file_max_bytes=60, path_max_chars=20)


def code_of(answer: object) -> str:
    assert isinstance(answer, Problem), answer
    return answer.code


@pytest.mark.parametrize("path", ["a", "a/b.py", "a b/ü.txt", ".hidden", "a..b", "..a/b..", "-x", "a\\b"])
def test_ordinary_paths_are_fine(path: str) -> None:
    assert check_path(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "..",
        "../a",
        "a/../b",
        "a/..",
        "a//b",
        "./a",
        "a/.",
        "a/",
        "a\nb",
        "a\0b",
        "a\x7f",
        "\udcff",
        "d/" * 70 + "f",
    ],
)
def test_other_paths_are_refused(path: str) -> None:
    assert code_of(check_path(path)) == "source-path-invalid"


def test_a_long_path_or_name_is_refused() -> None:
    assert code_of(check_path("a" * 21, SMALL)) == "source-path-too-long"
    assert code_of(check_path("ü" * 128)) == "source-path-too-long"  # 256 bytes
    assert check_path("ü" * 127) is None


@pytest.mark.parametrize("kind", [Kind.DEVICE, Kind.FIFO, Kind.SOCKET, Kind.HARD_LINK, Kind.OTHER])
def test_only_files_folders_and_links_are_taken(kind: Kind) -> None:
    problem = admit(Entry("x", kind), Tally())
    assert code_of(problem) == "source-entry-kind"
    assert isinstance(problem, Problem)
    assert str(kind) in problem.detail


def test_limits_are_counted_over_the_whole_source() -> None:
    assert admit(Entry("a", Kind.FILE, 60), Tally(), SMALL) == Tally(1, 60)
    assert code_of(admit(Entry("a", Kind.FILE, 61), Tally(), SMALL)) == "source-file-too-large"
    assert code_of(admit(Entry("a", Kind.FILE, -1), Tally(), SMALL)) == "source-file-too-large"
    assert code_of(admit(Entry("a", Kind.FILE, 41), Tally(1, 60), SMALL)) == "source-too-large"
    assert code_of(admit(Entry("a", Kind.FOLDER), Tally(3, 0), SMALL)) == "source-too-many-files"


def test_problems_can_be_written_down() -> None:
    problem = check_path("a/\udcff")
    assert problem is not None
    f"{problem.detail}{problem.facts}".encode()


def tree(*paths: str, **links: str) -> list[Entry]:
    named = [Entry(path, Kind.FOLDER if path.endswith("/") else Kind.FILE) for path in paths]
    plain = [Entry(e.path.rstrip("/"), e.kind) for e in named]
    return plain + [Entry(path.replace("__", "/"), Kind.LINK, target=target) for path, target in links.items()]


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        (tree("a", "b/", "b/c", l="a", b__up="../a", m="b"), ""),
        (tree("b/c", l="b"), ""),  # a folder that only its content tells of
        (tree("a", l="m", m="a"), ""),
        (tree("a", "a"), "source-path-invalid"),
        (tree("a", "a/b"), "source-path-invalid"),
        (tree("l/evil", l="b/"), "source-path-invalid"),
        (tree("a", l="/etc/passwd"), "source-link-outside"),
        (tree("a", l="../x"), "source-link-outside"),
        (tree("d/e/f", d__e__l="../../../x"), "source-link-outside"),
        (tree("d/x/f", d__x__top="../..", l="d/x/top/../f"), "source-link-outside"),  # each stays inside by its letters
        (tree("a", l="m", m="l"), "source-link-broken"),  # a circle
        (tree("a", l="nothing"), "source-link-broken"),
        (tree("d/f", d__l=".."), "source-link-broken"),
        (tree("d/f", d__l="."), "source-link-broken"),
    ],
)
def test_a_tree_stays_within_itself(entries: list[Entry], code: str) -> None:
    problem = check_tree(entries)
    assert (problem.code if problem else "") == code


_NAMES = st.sampled_from(["a", "b", "c"])
_PLACES = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_TARGETS = st.lists(st.sampled_from(["a", "b", "c", "..", "."]), min_size=1, max_size=5).map("/".join)


@settings(max_examples=80)
@given(st.lists(_PLACES, max_size=4), st.dictionaries(_PLACES, _TARGETS, max_size=4))
def test_a_tree_that_passes_never_leads_out_on_a_real_disk(files: list[str], links: dict[str, str]) -> None:
    """The judge is the kernel: what `check_tree` lets through is made for real and followed."""
    entries = [Entry(p, Kind.FILE) for p in files] + [Entry(p, Kind.LINK, target=t) for p, t in links.items()]
    if check_tree(entries) is not None:
        return
    with tempfile.TemporaryDirectory() as name:
        top = Path(name).resolve()
        for entry in entries:
            (top / entry.path).parent.mkdir(parents=True, exist_ok=True)
            if entry.kind is Kind.LINK:
                os.symlink(entry.target, top / entry.path)
            else:
                (top / entry.path).touch()
        for path in links:
            end = (top / path).resolve(strict=True)
            assert end == top or top in end.parents
            said = resolve_link(path, links)
            assert isinstance(said, str)
            assert end == (top / said if said else top)
