"""Sources that cannot be deployed: the app file, the name, the tree, the archive."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from moorage.cli.call import Exit
from tests.badinput.kit import (
    PROCESS,
    STEADY,
    Member,
    archive,
    ask,
    code_of,
    deployed,
    member,
    nothing_changes,
    owner_stays,
    source,
    upload,
)
from tests.support.platform import Platform
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

MANY_COUNT = 20_001
BIG_BYTES = (128 << 20) + 1
PIECE_BYTES = 120 << 20

APP_FILES = [
    ("broken", 'name = "steady"\nprocess = {\n', "appfile-invalid", 2),
    ("unknown key", 'name = "steady"\n[process]\ncommand = "x"\nhelth = "/"\n', "appfile-invalid", 4),
    ("unknown section", 'name = "steady"\n\n[proces]\ncommand = "x"\n', "appfile-invalid", 3),
    ("wrong type", 'name = "steady"\n[process]\ncommand = "x"\nready_timeout_s = "soon"\n', "appfile-invalid", 4),
    ("unknown impact", f'name = "steady"\n{PROCESS}[[migration]]\nname = "m"\nimpact = "mild"\n', "appfile-invalid", 7),
    ("no name", '[process]\ncommand = "x"\n', "appfile-invalid", 1),
    ("no DNS label", f'name = "Steady_App"\n{PROCESS}', "name-invalid", 1),
    ("two hyphens", f'# the name\nname = "steady--app"\n{PROCESS}', "name-invalid", 2),
    ("a region", f'name = "steady-eu-west-1"\n{PROCESS}', "name-contains-topology", 1),
    ("a cell", f'name = "cell2-steady"\n{PROCESS}', "name-contains-topology", 1),
]


def test_an_invalid_app_file_is_refused_with_its_file_and_line(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("")
    with nothing_changes(platform):
        for what, text, code, line in APP_FILES:
            (tmp_path / "moorage.toml").write_text(text)
            answer = platform.cli("deploy", str(tmp_path), "--json")
            assert (answer.code, answer.json["code"]) == (Exit.REFUSED, code), what
            assert (answer.json["file"], answer.json["line"]) == ("moorage.toml", line), what
            assert answer.json["hint"], what


def test_a_missing_app_file_or_folder_is_refused(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("")
    with nothing_changes(platform):
        for folder, code in ((tmp_path, "appfile-missing"), (tmp_path / "nowhere", "source-missing")):
            answer = platform.cli("deploy", str(folder), "--json")
            assert (answer.code, answer.json["code"]) == (Exit.REFUSED, code)
            assert answer.json["hint"]


def outward_link(folder: Path) -> None:
    (folder / "secret").symlink_to("/etc/passwd")


def upward_link(folder: Path) -> None:
    (folder / "secret").symlink_to("../../other/file")


def dangling_link(folder: Path) -> None:
    (folder / "lost").symlink_to("nothing-here")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def big_file(folder: Path) -> None:
    with (folder / "video").open("wb") as handle:
        handle.truncate(BIG_BYTES)


TREES = {
    outward_link: "source-link-outside",
    upward_link: "source-link-outside",
    dangling_link: "source-link-broken",
    pipe: "source-entry-kind",
    big_file: "source-file-too-large",
}


def test_a_source_that_leads_out_or_is_no_source_is_refused_before_it_is_sent(
    platform: Platform, tmp_path: Path
) -> None:
    with nothing_changes(platform):
        for spoil, code in TREES.items():
            folder = source(tmp_path / spoil.__name__)
            spoil(folder)
            answer = platform.cli("deploy", str(folder), "--json")
            assert (answer.code, answer.json["code"]) == (Exit.REFUSED, code), spoil.__name__


ESCAPED = Path("/tmp/moorage-escaped")
ARCHIVES: dict[str, tuple[Callable[[], list[Member]], str]] = {  # made when it is their turn: some are large
    "a link out of the tree": (lambda: [member("out", kind=tarfile.SYMTYPE, to="/etc/passwd")], "source-link-outside"),
    "a link through a link": (
        lambda: [member("out", kind=tarfile.SYMTYPE, to=".."), member("out/moorage-escaped", b"x")],
        "source-path-invalid",
    ),
    "a hard link": (lambda: [member("out", kind=tarfile.LNKTYPE, to="../../keys/admin.token")], "source-entry-kind"),
    "a path upwards": (lambda: [member("a/../../../moorage-escaped", b"x")], "source-path-invalid"),
    "an absolute path": (lambda: [member(str(ESCAPED), b"x")], "source-path-invalid"),
    "a device": (lambda: [member("disk", kind=tarfile.BLKTYPE)], "source-entry-kind"),
    "a pipe": (lambda: [member("pipe", kind=tarfile.FIFOTYPE)], "source-entry-kind"),
    "a file that is too large": (lambda: [member("zeros", bytes(BIG_BYTES))], "source-file-too-large"),
    "too many bytes in all": (
        lambda: [member(f"zeros{i}", zeros) for zeros in [bytes(PIECE_BYTES)] for i in range(5)],
        "source-too-large",
    ),
    "too many files": (lambda: [member(f"f{i}") for i in range(MANY_COUNT)], "source-too-many-files"),
    "another app's file": (lambda: [], "appfile-other-app"),
}


@pytest.mark.parametrize("name", ARCHIVES)
async def test_a_hostile_archive_blocks_its_own_deploy_and_writes_nothing(platform: Platform, name: str) -> None:
    made, code = ARCHIVES[name]
    app = "somebody" if code == "appfile-other-app" else STEADY
    with owner_stays(platform):
        view = await deployed(platform, archive(*made()), app=app)
    assert (view.state, code_of(view)) == ("blocked", code)
    assert (view.problem or {})["title"]
    await wait_until(lambda: not os.listdir(platform.home / "builds"), what="the refused tree is swept")
    assert [path for path in os.listdir(ESCAPED.parent) if path == ESCAPED.name] == []


async def test_an_archive_that_is_none_is_blocked(platform: Platform) -> None:
    with owner_stays(platform):
        for data in (b"not an archive", archive()[:-100]):
            assert code_of(await deployed(platform, data)) == "source-archive-invalid"


def test_an_upload_that_is_not_what_it_says_is_not_kept(platform: Platform) -> None:
    digest = upload(platform, b"something")
    with nothing_changes(platform):
        answer = ask(platform, "PUT", f"/v1/sources/{'0' * 64}", content=b"something else")
        assert (answer.status_code, answer.json()["code"]) == (422, "source-digest-mismatch")
        answer = ask(platform, "PUT", "/v1/sources/..%2f..%2fkeys", content=b"something")
        assert 400 <= answer.status_code < 500
        answer = ask(platform, "POST", f"/v1/apps/{STEADY}/deployments", json={"source": "f" * 64})
        assert (answer.status_code, answer.json()["code"]) == (404, "source-unknown")
        answer = ask(platform, "POST", f"/v1/apps/{STEADY}/deployments", json={"source": "../control"})
        assert 400 <= answer.status_code < 500
        for bad, code in (("a--b", "name-invalid"), ("Steady", "name-invalid"), ("dc1-app", "name-contains-topology")):
            answer = ask(platform, "POST", f"/v1/apps/{bad}/deployments", json={"source": digest})
            assert (answer.status_code, answer.json()["code"]) == (422, code)
