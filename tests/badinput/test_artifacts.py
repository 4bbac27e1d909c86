"""Archives that cannot be imported: refused by name, at the command line and by the API, and nothing is changed."""

from __future__ import annotations

import hashlib
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from moorage.artifacts.foreign import Machine, this_machine
from moorage.cli.call import Exit
from moorage.domain.artifact import FileEntry, Process
from moorage.wire.api import OperationView
from moorage.wire.artifact import ImportRequest
from tests.artifacts.archives import FILES, flipped, forged, honest, manifest_of, odd_member
from tests.badinput.kit import STEADY, ask, code_of, nothing_changes, owner_stays
from tests.support.platform import Platform, key

pytestmark = pytest.mark.servers

APP = "carried"
MACHINE = this_machine()
ELSEWHERE = Machine("plan9-mips", "2.7.18")
EMPTY = hashlib.sha256(b"").hexdigest()


def paths(*names: str) -> bytes:
    """An archive whose manifest lists these files."""
    return forged(replace(manifest_of({}), files=tuple(FileEntry(name, 0o644, 0, EMPTY) for name in names)))


def member_of_kind(kind: bytes) -> bytes:
    """An archive with something else in place of its second file."""
    odd = odd_member("tree/app/empty.txt", kind, "/etc/passwd")
    return forged(manifest_of(), members=lambda made: [made[0], odd, made[2]])


def bad_archives(folder: Path) -> list[tuple[str, bytes, str]]:
    """(what is wrong, the file, the code)."""
    good = honest(folder)
    page = good.index(b"<h1>carried")
    return [
        ("nothing", b"", "archive-unreadable"),
        ("no archive", b"hello, this is no archive" * 100, "archive-unreadable"),
        ("cut in the middle", good[: len(good) // 2], "archive-truncated"),
        ("cut at the end", good[:-1], "archive-truncated"),
        ("another format", forged(manifest_of(), said={"format": 2}), "archive-format-unknown"),
        ("a flipped bit in a file", flipped(good, page), "archive-altered"),
        ("a flipped bit in a fact", flipped(good, good.index(b"4f2a90c1")), "archive-altered"),
        ("another digest", forged(manifest_of(), said={"digest": "sha256:" + "0" * 64}), "archive-altered"),
        ("more behind it", good + bytes(512), "archive-invalid"),
        ("an absolute path", paths("/etc/cron.d/x"), "archive-path-invalid"),
        ("a path out of it", paths("app/../../x"), "archive-path-invalid"),
        ("a path twice", paths("app/x", "app/x"), "archive-path-invalid"),
        ("a file below a file", paths("app/x", "app/x/y"), "archive-path-invalid"),
        ("a symbolic link", member_of_kind(tarfile.SYMTYPE), "archive-entry-kind"),
        ("a hard link", member_of_kind(tarfile.LNKTYPE), "archive-entry-kind"),
        ("a device", member_of_kind(tarfile.CHRTYPE), "archive-entry-kind"),
        ("too many bytes", _promising(5 << 30), "archive-too-large"),
        ("a program with a set-uid bit", _with_mode(0o4755), "archive-invalid"),
        ("a command for a shell", forged(manifest_of({}, process=Process("a && b"))), "archive-invalid"),
        ("no name for an app", forged(manifest_of({}, app="Carried")), "name-invalid"),
        ("a region", forged(manifest_of({}, app="carried-eu-west-1")), "name-contains-topology"),
        ("another machine", forged(manifest_of({}, facts={"native": ELSEWHERE.native})), "artifact-other-platform"),
        ("another Python", forged(manifest_of({}, facts=_native(ELSEWHERE.python))), "artifact-other-platform"),
    ]


def _native(python: str) -> dict[str, object]:
    return {"native": MACHINE.native, "python": python}


def _promising(size: int) -> bytes:
    return forged(replace(manifest_of({}), files=(FileEntry("app/big", 0o644, size, EMPTY),)))


def _with_mode(mode: int) -> bytes:
    return forged(replace(manifest_of({}), files=(FileEntry("app/x", mode, 0, EMPTY),)))


def test_a_bad_file_is_refused_by_the_command_line(platform: Platform, tmp_path: Path) -> None:
    file = tmp_path / "bad.moorage-artifact"
    with nothing_changes(platform):
        for what, data, code in bad_archives(tmp_path / "made"):
            file.write_bytes(data)
            answer = platform.cli("artifact", "import", str(file), "--json")
            assert (answer.code, answer.json["code"]) == (Exit.REFUSED, code), (what, answer.json)
            assert answer.json["hint"], what
        file.unlink()
        answer = platform.cli("artifact", "import", str(file), "--json")
        assert (answer.code, answer.json["code"]) == (Exit.REFUSED, "file-unusable")


def uploaded(platform: Platform, data: bytes) -> str:
    """Upload an archive as it is; its digest."""
    digest = hashlib.sha256(data).hexdigest()
    answer = ask(platform, "PUT", f"/v1/sources/{digest}?kind=artifact", content=data)
    assert answer.status_code == 204, answer.text
    return digest


def begin(platform: Platform, archive: str, app: str = APP, **more: Any) -> httpx.Response:
    return ask(platform, "POST", f"/v1/apps/{app}/imports", json={"archive": archive}, **more)


IN_THE_FILES = ("a flipped bit in a file", "a symbolic link", "a hard link", "a device")


async def imported(platform: Platform, data: bytes, app: str = APP) -> OperationView:
    """Upload an archive and import it through the API; the deploy, once it has ended."""
    digest = uploaded(platform, data)
    async with platform.api() as api:
        started = await api.import_artifact(app, ImportRequest(archive=digest, file="by hand"), key=key())
    return await platform.finished(started.operation)


async def test_a_program_that_sends_one_itself_is_refused_too(platform: Platform, tmp_path: Path) -> None:
    """What an archive says of itself is refused at once; what its files are, by the worker, which stores nothing."""
    artifacts = sorted((platform.home / "artifacts" / "sha256").iterdir())
    with owner_stays(platform):
        for what, data, code in bad_archives(tmp_path / "made"):
            digest = uploaded(platform, data)
            if what in IN_THE_FILES:
                view = await imported(platform, data)
                assert (view.state, code_of(view)) == ("blocked", code), what
                assert "building" not in [stage.state for stage in view.stages]
                continue
            with nothing_changes(platform):
                answer = begin(platform, digest)
                assert answer.json()["code"] == code, (what, answer.text)
                assert 400 <= answer.status_code < 500
    assert sorted((platform.home / "artifacts" / "sha256").iterdir()) == artifacts
    assert list((platform.home / "builds").iterdir()) == []


def test_the_app_must_be_that_of_the_artifact(platform: Platform, tmp_path: Path) -> None:
    """The name is part of the digest: an archive cannot slip under another app's route."""
    digest = uploaded(platform, honest(tmp_path / "made"))
    file = tmp_path / "good.moorage-artifact"
    file.write_bytes(honest(tmp_path / "made again"))
    with nothing_changes(platform):
        answer = begin(platform, digest, STEADY)
        assert (answer.status_code, answer.json()["code"], answer.json()["app"]) == (422, "artifact-other-app", APP)
        refused = platform.cli("artifact", "import", str(file), "--app", STEADY, "--json")
        assert (refused.code, refused.json["code"]) == (Exit.REFUSED, "artifact-other-app")
        other = platform.cli("artifact", "import", str(file), "--digest", f"sha256:{'0' * 64}", "--json")
        assert (other.code, other.json["code"]) == (Exit.REFUSED, "artifact-other-digest")


def test_requests_that_make_no_sense(platform: Platform) -> None:
    never = "0" * 64
    with nothing_changes(platform):
        for path, more, status, code in (
            (f"/v1/apps/{APP}/imports", {"json": {"archive": never}}, 404, "source-unknown"),
            (f"/v1/apps/{APP}/imports", {"json": {"archive": "../../keys/admin.token"}}, 422, "request-invalid"),
            (f"/v1/apps/{APP}/imports", {"json": {"archive": never, "more": 1}}, 422, "request-invalid"),
            (f"/v1/apps/{APP}/imports", {"content": b"x"}, 400, "request-not-json"),
        ):
            answer = ask(platform, "POST", path, **more)
            assert (answer.status_code, answer.json()["code"]) == (status, code), (path, answer.text)
        kind = ask(platform, "PUT", f"/v1/sources/{never}?kind=image", content=b"x")
        assert (kind.status_code, kind.json()["code"]) == (422, "request-invalid")
        other = ask(platform, "PUT", f"/v1/sources/{never}?kind=artifact", content=b"x")
        assert (other.status_code, other.json()["code"]) == (422, "source-digest-mismatch")
        for digest in (f"sha256:{never}", "sha256:..", "..%2f..%2fkeys"):
            for path in (f"/v1/artifacts/{digest}", f"/v1/artifacts/{digest}/archive"):
                answer = ask(platform, "GET", path)
                assert answer.status_code == 404
                assert answer.json()["code"] in ("artifact-missing", "endpoint-unknown")


async def test_the_same_request_twice_is_one_deployment(platform: Platform, tmp_path: Path) -> None:
    """And an app whose preview does not come up is as failed as one that was built here."""
    files = {**FILES, "app/app.py": "raise SystemExit('no good here')\n"}
    digest, same = uploaded(platform, honest(tmp_path / "made", files)), {"headers": {"Idempotency-Key": key()}}
    answers = [begin(platform, digest, **same) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1
    assert begin(platform, digest, STEADY, **same).json()["code"] == "idempotency-key-reused"
    (platform.home / "sources" / f"{digest}.tar.gz").unlink()
    assert begin(platform, digest, **same).text == answers[0].text, "also when the upload has been cleared away"
    view = await platform.finished(answers[0].json()["operation"])
    assert view.state == "failed"
    assert "no good here" in str(view.problem)
    assert view.input["kind"] == "artifact"


def test_what_is_altered_or_gone_in_the_store_is_not_exported(platform: Platform, tmp_path: Path) -> None:
    shown = platform.cli("artifact", "show", STEADY, "--json").json
    place = platform.home / "artifacts" / "sha256" / shown["digest"][7:] / "tree" / "app" / "app.py"
    good, mode = place.read_bytes(), place.stat().st_mode
    os.chmod(place, 0o644)
    try:
        place.write_bytes(flipped(good, 5))
        with nothing_changes(platform):
            answer = platform.cli("artifact", "export", STEADY, "-o", str(tmp_path), "--json")
            assert (answer.code, answer.json["code"]) == (Exit.REFUSED, "artifact-altered")
            assert answer.json["files"] == ["app/app.py"]
            assert list(tmp_path.iterdir()) == []
    finally:
        place.write_bytes(good)
        os.chmod(place, mode)
    with nothing_changes(platform):
        for words, code in ((("nobody",), "app-unknown"), ((STEADY, "--deployment", "99"), "deployment-unknown")):
            answer = platform.cli("artifact", "export", *words, "-o", str(tmp_path), "--json")
            assert (answer.code, answer.json["code"]) == (Exit.REFUSED, code)
