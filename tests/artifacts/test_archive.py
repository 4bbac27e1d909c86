"""Archives of artifacts: the same bytes each time, every byte verified, nothing taken that does not belong there."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.artifacts import archive, foreign
from moorage.artifacts.archive import archive_chunks, archive_name, archive_size, check_archive, unpack_archive
from moorage.artifacts.failures import ArchiveRefused, ArtifactAltered, ArtifactMissing
from moorage.artifacts.foreign import Machine, misfit, this_machine
from moorage.artifacts.manifest import manifest_to_json
from moorage.artifacts.store import ArtifactStore
from moorage.artifacts.tar_blocks import END, member_header, member_size, padding
from moorage.artifacts.tree import hash_tree
from moorage.domain.artifact import FileEntry, Migration, Process
from moorage.domain.errors import Refused
from tests.artifacts.archives import FILES, flipped, forged, honest, manifest_of, odd_member, stored

LONG = "app/" + "/".join(["n" * 60] * 4) + "/größe.txt"  # a name that a plain tar header cannot hold


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def written(tmp_path: Path, data: bytes) -> Path:
    place = tmp_path / "a.moorage-artifact"
    place.write_bytes(data)
    return place


def code(tmp_path: Path, data: bytes) -> str:
    """Why these bytes are refused; checking and unpacking agree."""
    place, folder = written(tmp_path, data), tmp_path / "out"
    with pytest.raises(Refused) as checked:
        check_archive(place)
    shutil.rmtree(folder, ignore_errors=True)
    with pytest.raises(Refused) as unpacked:
        unpack_archive(place, folder)
    assert checked.value.problem == unpacked.value.problem
    assert checked.value.problem.hint
    return checked.value.problem.code


def detail(tmp_path: Path) -> str:
    """What was said of the bytes that `code` has written."""
    with pytest.raises(Refused) as refused:
        check_archive(tmp_path / "a.moorage-artifact")
    return refused.value.problem.detail


# --- what is written


def test_an_artifact_gives_the_same_bytes_and_goes_through_two_stores_unchanged(tmp_path: Path) -> None:
    one, two = ArtifactStore(tmp_path / "one"), ArtifactStore(tmp_path / "two")
    files = {**FILES, LONG: "long", "app/run.sh": "#!/bin/sh\n"}
    digest = stored(one, tmp_path / "stage", files)
    data = b"".join(archive_chunks(one, digest))
    assert data == b"".join(archive_chunks(one, digest))
    head = unpack_archive(written(tmp_path, data), tmp_path / "out")
    assert (head.digest, head.manifest) == (digest, one.manifest(digest))
    assert two.put(tmp_path / "out", head.manifest) == digest
    two.verify(digest)
    assert b"".join(archive_chunks(two, digest)) == data


def test_the_mode_of_a_program_is_kept_whatever_the_umask(tmp_path: Path, store: ArtifactStore) -> None:
    stage = tmp_path / "stage"
    (stage / "app").mkdir(parents=True)
    (stage / "app/run").write_text("#!/bin/sh\n")
    (stage / "app/run").chmod(0o755)
    digest = store.put(stage, replace(manifest_of(), files=hash_tree(stage)))
    place = written(tmp_path, b"".join(archive_chunks(store, digest)))
    before = os.umask(0o077)
    try:
        unpack_archive(place, tmp_path / "out")
    finally:
        os.umask(before)
    assert (tmp_path / "out/app/run").stat().st_mode & 0o777 == 0o755


def test_any_tar_can_list_and_unpack_an_archive(tmp_path: Path) -> None:
    place = written(tmp_path, honest(tmp_path, {**FILES, LONG: "long"}))
    names = ["moorage-artifact.json", "manifest.json", *(f"tree/{path}" for path in sorted([*FILES, LONG]))]
    with tarfile.open(place) as tar:
        assert tar.getnames() == names
        long = tar.extractfile(f"tree/{LONG}")
        assert long is not None
        assert long.read() == b"long"
        assert {(m.uid, m.gid, m.mtime, m.uname) for m in tar.getmembers()} == {(0, 0, 0, "")}
    program = shutil.which("tar")
    if program:
        listed = subprocess.run([program, "-tf", place], capture_output=True, check=True).stdout
        assert listed.count(b"\n") == len(names)


def test_the_size_is_known_before(tmp_path: Path, store: ArtifactStore) -> None:
    digest = stored(store, tmp_path / "stage", {**FILES, LONG: "x" * 2_000_000})
    data = b"".join(archive_chunks(store, digest))
    assert archive_size(store.manifest(digest)) == len(data)
    assert archive_name("board", 3, digest) == f"board-3-{digest[7:19]}.moorage-artifact"


def test_pieces_are_neither_tiny_nor_huge(tmp_path: Path, store: ArtifactStore) -> None:
    many = {f"app/{n}.txt": str(n) for n in range(3_000)} | {"app/big": "x" * 5_000_000}
    pieces = [len(piece) for piece in archive_chunks(store, stored(store, tmp_path / "stage", many))]
    assert max(pieces) < 3 << 20
    assert min(pieces[:-1]) >= 1 << 20


@pytest.mark.parametrize("change", ["content", "size", "gone", "link"])
def test_a_stored_file_that_was_altered_is_not_exported(tmp_path: Path, store: ArtifactStore, change: str) -> None:
    digest = stored(store, tmp_path / "stage")
    place = store.tree(digest) / "app/app.py"
    text = place.read_text()
    place.parent.chmod(0o755)
    place.unlink()
    if change == "link":
        (tmp_path / "elsewhere").write_text(text)
        place.symlink_to(tmp_path / "elsewhere")
    elif change != "gone":
        place.write_text(text.replace("carried", "CARRIED") if change == "content" else text + "#")
    with pytest.raises(ArtifactAltered) as altered:
        list(archive_chunks(store, digest))
    assert altered.value.files == ("app/app.py",)


def test_what_no_other_platform_would_take_is_not_exported(tmp_path: Path, store: ArtifactStore) -> None:
    digest = stored(store, tmp_path / "stage", {"app/a\tb": "tab"})
    with pytest.raises(ArchiveRefused) as refused:
        list(archive_chunks(store, digest))
    assert refused.value.problem.code == "archive-path-invalid"
    with pytest.raises(ArtifactMissing):
        list(archive_chunks(store, "sha256:" + "0" * 64))


# --- what is read


def test_checking_tells_what_is_in_it_and_how_far_it_is(tmp_path: Path) -> None:
    data = honest(tmp_path)
    seen: list[int] = []
    checked = check_archive(written(tmp_path, data), seen.append)
    assert sum(seen) == checked.size_bytes == len(data)
    assert checked.head.manifest == manifest_of()
    assert archive.read_head(tmp_path / "a.moorage-artifact") == checked.head


def test_every_flipped_bit_is_found_and_the_file_is_named(tmp_path: Path) -> None:
    """One bit in each kind of place, and in every 97th byte of the whole."""
    data = honest(tmp_path)
    content = data.index(b"<h1>carried")
    assert code(tmp_path, flipped(data, content)) == "archive-altered"
    assert "app/static/page.html" in detail(tmp_path)
    assert code(tmp_path, flipped(data, data.index(b"4f2a90c1"))) == "archive-altered"  # a fact, not in the digest
    assert "manifest.json" in detail(tmp_path)
    for at in range(0, len(data), 97):
        assert code(tmp_path, flipped(data, at)).startswith("archive-"), at


def test_an_archive_cut_anywhere_is_truncated(tmp_path: Path) -> None:
    data = honest(tmp_path)
    for size in [512, *range(600, len(data), 701), len(data) - 1024, len(data) - 1]:
        assert code(tmp_path, data[:size]) == "archive-truncated", size
        assert str(size) in detail(tmp_path) or "it ends within" in detail(tmp_path)


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"PK\3\4" + bytes(3_000), bytes(10_240), b"x" * 5_000],
    ids=["empty", "text", "zip", "0", "x"],
)
def test_what_is_no_archive(tmp_path: Path, data: bytes) -> None:
    assert code(tmp_path, data) == "archive-unreadable"


def test_a_source_archive_and_a_tar_of_others_are_none(tmp_path: Path) -> None:
    for mode in ("w:gz", "w:"):
        with tarfile.open(tmp_path / "t", mode) as tar:  # type: ignore[call-overload]
            tar.add(__file__, "moorage.toml")
        assert code(tmp_path, (tmp_path / "t").read_bytes()) == "archive-unreadable"


def test_another_version_of_the_format(tmp_path: Path) -> None:
    assert code(tmp_path, forged(manifest_of(), said={"format": 2, "more": "than this version knows"})) == (
        "archive-format-unknown"
    )
    assert "format 2; this version reads 1" in detail(tmp_path)


SAID: list[dict[str, object]] = [
    {"format": "1"},
    {"digest": "sha256:" + "0" * 64},
    {"digest": "md5:0"},
    {"digest": None},
    {"manifest_bytes": -1},
    {"manifest_sha256": "0" * 64},
    {"more": True},
]


@pytest.mark.parametrize("said", SAID, ids=str)
def test_a_first_member_that_does_not_hold(tmp_path: Path, said: dict[str, object]) -> None:
    assert code(tmp_path, forged(manifest_of(), said=said)) == "archive-altered"


def test_a_first_member_that_is_no_json(tmp_path: Path) -> None:
    for text in (b"{", b"[" * 4_000, b"[]", b"\xff"):
        head = member_header("moorage-artifact.json", len(text), 0o644)
        assert code(tmp_path, head + text + padding(len(text)) + END) == "archive-altered", text[:10]


def test_a_manifest_that_promises_too_much_is_not_read(tmp_path: Path) -> None:
    said = {"manifest_bytes": archive.MANIFEST_MAX_BYTES + 1}
    assert code(tmp_path, forged(manifest_of(), said=said)) == "archive-too-large"


PATHS = ["/etc/passwd", "../outside", "app/../../outside", "app//x", "app/./x", "", "app/\x1b[31m", "a/" * 70 + "x"]


@pytest.mark.parametrize("path", [*PATHS, "x" * 300, "/".join(["n" * 200] * 6)], ids=lambda p: p[:20])
def test_paths_that_lead_elsewhere(tmp_path: Path, path: str) -> None:
    files = (FileEntry(path, 0o644, 0, manifest_of().files[1].sha256),)
    assert code(tmp_path, forged(replace(manifest_of(), files=files), {})) == "archive-path-invalid"
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []


def test_a_path_twice_or_below_a_file(tmp_path: Path) -> None:
    one, two, *_ = manifest_of().files
    for files in ((one, one), (one, replace(two, path="app/app.py/below"))):
        assert code(tmp_path, forged(replace(manifest_of(), files=files))) == "archive-path-invalid"


KINDS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]


@pytest.mark.parametrize("kind", KINDS)
def test_links_devices_and_folders(tmp_path: Path, kind: bytes) -> None:
    """In place of a file, and in front of one."""
    odd = odd_member("tree/app/empty.txt", kind, "/etc/passwd")
    place = forged(manifest_of(), members=lambda made: [made[0], odd, made[2]])
    assert code(tmp_path, place) == "archive-entry-kind"
    assert "tree/app/empty.txt" in detail(tmp_path)
    more = forged(manifest_of(), members=lambda made: [odd, *made])
    assert code(tmp_path, more) in ("archive-entry-kind", "archive-invalid")
    assert not list((tmp_path / "out").rglob("passwd"))


def test_other_members_in_another_order_or_too_many(tmp_path: Path) -> None:
    swapped = forged(manifest_of(), members=lambda made: [made[1], made[0], made[2]])
    assert code(tmp_path, swapped) == "archive-altered"
    stranger = (member_header("tree/app/extra", 0, 0o644), b"")
    assert code(tmp_path, forged(manifest_of(), members=lambda made: [*made, stranger])) == "archive-invalid"
    assert code(tmp_path, honest(tmp_path) + bytes(512)) == "archive-invalid"
    executable = forged(
        manifest_of(), members=lambda made: [(made[0][0].replace(b"0000644", b"0000755"), made[0][1]), *made[1:]]
    )
    assert code(tmp_path, executable) == "archive-altered"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"app": "Carried"}, "name-invalid"),
    ({"app": "carried--7"}, "name-invalid"),
    ({"app": "moorage"}, "name-invalid"),
    ({"app": "carried-us-east-1"}, "name-contains-topology"),
    ({"process": Process("")}, "archive-invalid"),
    ({"process": Process("python app.py && rm -r x")}, "archive-invalid"),
    ({"process": Process("python app.py", "no path")}, "archive-invalid"),
    ({"process": Process("python app.py", "/", 1e12)}, "archive-invalid"),
    ({"process": Process("python app.py", "/", 60, -1)}, "archive-invalid"),
    ({"migrations": (Migration("m", "mild"),)}, "archive-invalid"),
    ({"facts": {"promotion_bake_s": "soon"}}, "archive-invalid"),
    ({"facts": {"promotion_mode": "swap"}}, "archive-invalid"),
    ({"facts": {"store": 1}}, "archive-invalid"),
    ({"facts": {"native": ["linux"]}}, "archive-invalid"),
    ({"facts": {"vango": "yes"}}, "archive-invalid"),
    ({"facts": {"vango": {"globals": "many"}}}, "archive-invalid"),
    ({"facts": {"vango": {"resume_cure": 1}}}, "archive-invalid"),
    ({"facts": {"long": "x" * (1 << 20)}}, "archive-too-large"),
    ({"files": (FileEntry("app/x", 0o4755, 0, "0" * 64),)}, "archive-invalid"),
    ({"files": (FileEntry("app/x", 0o644, -1, "0" * 64),)}, "archive-invalid"),
    ({"files": (FileEntry("app/x", 0o644, 0, "0" * 63 + "G"),)}, "archive-invalid"),
]


@pytest.mark.parametrize(("changed", "expected"), WRONG, ids=lambda v: str(v)[:50])
def test_a_manifest_that_no_build_could_have_written(tmp_path: Path, changed: dict[str, Any], expected: str) -> None:
    manifest = replace(manifest_of({}), **changed)
    assert code(tmp_path, forged(manifest)) == expected


def test_a_manifest_of_another_shape(tmp_path: Path) -> None:
    good = json.loads(manifest_to_json(manifest_of()))
    for change in ({"format": 9}, {"manifest": {**good["manifest"], "later": 1}}, {"manifest": None}):
        text = json.dumps({**good, **change}).encode()
        assert code(tmp_path, forged(manifest_of(), text=text)) == "archive-invalid"
    no_number = manifest_to_json(manifest_of()).replace('"facts":{}', '"facts":{"odd":1e999}').encode()
    for text in (b"\xff", no_number):
        assert code(tmp_path, forged(manifest_of(), text=text)) == "archive-invalid"


def test_too_many_files_and_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = honest(tmp_path)
    monkeypatch.setattr(foreign, "ARTIFACT_FILES_MAX_COUNT", 2)
    assert code(tmp_path, data) == "archive-too-large"
    monkeypatch.undo()
    monkeypatch.setattr(foreign, "TOTAL_MAX_BYTES", 100)
    assert code(tmp_path, data) == "archive-too-large"
    monkeypatch.undo()
    monkeypatch.setattr(archive, "ARCHIVE_MAX_BYTES", 1000)
    assert code(tmp_path, data) == "archive-too-large"


# --- the tar itself


NAMES = st.text(st.characters(min_codepoint=33, exclude_categories=["Cs"], exclude_characters="/"), min_size=1)


@settings(max_examples=200, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=8), st.binary(max_size=1_500))
def test_tarfile_reads_what_we_write(parts: list[str], content: bytes) -> None:
    name = "/".join(parts)
    member = member_header(name, len(content), 0o644) + content + padding(len(content))
    assert len(member) % 512 == 0
    assert len(member) == member_size(name, len(content))
    with tarfile.open(fileobj=io.BytesIO(member + END)) as tar:
        (found,) = tar.getmembers()
        read = tar.extractfile(found)
        assert read is not None
        assert (found.name, found.mode, read.read()) == (name, 0o644, content)


# --- machines


def test_an_artifact_fits_the_machine_it_was_built_for() -> None:
    here = Machine("linux-x86_64", "3.12.3")
    cases: list[tuple[dict[str, object], bool]] = [
        ({}, True),
        ({"python": "3.9.1"}, True),  # no native code: the app may well run
        ({"native": "linux-x86_64"}, True),
        ({"native": "linux-amd64"}, True),
        ({"native": "linux-x86_64", "python": "3.12.9"}, True),
        ({"native": "linux-x86_64", "python": "3.11.2"}, False),
        ({"native": "linux-aarch64"}, False),
        ({"native": "darwin-x86_64"}, False),
    ]
    for facts, fits in cases:
        problem = misfit(manifest_of(facts=facts), here)
        assert (problem is None) is fits, facts
        if problem is not None:
            assert problem.code == "artifact-other-platform"
            assert "linux-x86_64" in problem.detail
    assert misfit(manifest_of(facts={"native": this_machine().native}), this_machine()) is None
