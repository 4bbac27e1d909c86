"""Artifacts as files: what is written, what is sent, and what is refused before anything is sent."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorage.artifacts.archive import archive_name
from moorage.cli.call import Exit
from moorage.cli.words import size
from moorage.domain.artifact import artifact_digest
from moorage.domain.errors import Problem
from moorage.wire.artifact import ArtifactDetail, ArtifactView, MachineView
from tests.artifacts.archives import flipped, forged, honest, manifest_of
from tests.cli.conftest import Ran, Run
from tests.cli.control import DROP, Control
from tests.cli.views import DEPLOY_ID, deployment_view, operation, past, ref

HERE = MachineView(native="linux-x86_64", python="3.12.3")
DIGEST = artifact_digest(manifest_of())
IMPORTED = ("queued", "fetching", "validating", "preview_ready")
UPLOAD, IMPORT = "/v1/sources/", "/v1/apps/carried/imports"


def view(**other: Any) -> ArtifactView:
    """The artifact as a list shows it."""
    fields: dict[str, Any] = {
        "digest": DIGEST,
        "app": "carried",
        "kind": "python",
        "depth": "plain",
        "native": None,
        "state_entries": 1,
        "size_bytes": 1_234,
        "created_ms": past(2),
        "deployments": (5, 3),
    }
    return ArtifactView(**(fields | other))


def detail(**other: Any) -> ArtifactDetail:
    """The artifact with all that is known of it."""
    fields: dict[str, Any] = {
        "process": {"command": "python app.py", "health": "/", "ready_timeout_s": 60.0, "stop_grace_s": 10.0},
        "state": (
            {"state": "a1b2", "field": "", "scope": "session", "kind": "int", "fingerprint": "f", "default": True}
            | {"label": "draft"},
        ),
        "migrations": (),
        "source": {"commit": "4f2a90c1d2e3f4a5", "dirty": True},
        "facts": {"file_count": 3, "checks": {"process": "built"}},
        "present": True,
    }
    return ArtifactDetail(**(view().model_dump() | fields | other))


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    """The archive of an artifact."""
    return honest(tmp_path / "made")


@pytest.fixture
def file(tmp_path: Path, data: bytes) -> Path:
    place = tmp_path / archive_name("carried", 5, DIGEST)
    place.write_bytes(data)
    return place


@pytest.fixture
def exporter(control: Control, data: bytes) -> Control:
    """A control plane whose deployment 5 has the artifact."""
    newest = deployment_view(6, "failed", artifact="sha256:" + "f" * 64)
    found = deployment_view(5, artifact=DIGEST)
    control.on("GET", "/v1/apps/carried/deployments", (newest, found, deployment_view(3)))
    control.on("GET", "/v1/apps/carried/deployments/5", found)
    control.on("GET", f"/v1/artifacts/{DIGEST}", detail())
    control.on("GET", f"/v1/artifacts/{DIGEST}/archive", data)
    return control


@pytest.fixture
def importer(control: Control, data: bytes) -> Control:
    """A control plane that takes the archive and makes deployment 1 of it."""
    control.on("GET", "/v1/machine", HERE)
    control.on("PUT", UPLOAD + hashlib.sha256(data).hexdigest(), ref("", None))
    control.on("POST", IMPORT, ref(DEPLOY_ID, 1))
    done = operation(DEPLOY_ID, "deploy", *IMPORTED, succeeded=True)
    control.on("GET", f"/v1/operations/{DEPLOY_ID}", done)
    control.on("GET", "/v1/apps/carried/deployments/1", deployment_view(1, artifact=DIGEST))
    return control


def refused(ran: Ran) -> str:
    """The code of a refusal."""
    assert ran.code == Exit.REFUSED, ran
    code: str = ran.json["code"]
    return code


# --- export


def test_export_writes_the_newest_preview_under_its_usual_name(
    exporter: Control, run: Run, tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    ran = run("artifact", "export", "carried")
    assert ran.code == Exit.OK
    (file,) = (tmp_path / "here").iterdir()
    assert file.name == f"carried-5-{DIGEST[7:19]}.moorage-artifact"
    assert file.read_bytes() == data
    assert ran.out.splitlines() == [
        f"Exported deployment 5 of carried: 3 files, {size(len(data))}",
        f"Artifact: {DIGEST}",
        f"File: {file.name}",
        f"Next, on the other machine: moorage artifact import {file.name}",
    ]


def test_export_into_a_folder_or_a_file_and_what_programs_are_told(exporter: Control, run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    told = run("artifact", "export", "carried", "-o", tmp_path / "out", "--json").json
    file = Path(told["file"])
    assert file.parent == tmp_path / "out"
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (told["digest"], told["deployment"], told["files"], told["sha256"]) == (DIGEST, 5, 3, sha256)
    other = tmp_path / "other"
    for chosen in (("carried", "--deployment", 5), (DIGEST,)):
        assert run("artifact", "export", *chosen, "-o", other).code == Exit.OK
        assert other.read_bytes() == file.read_bytes()
        other.unlink()


def test_a_download_that_is_altered_or_breaks_off_leaves_no_file(
    exporter: Control, run: Run, tmp_path: Path, data: bytes
) -> None:
    path, out = f"/v1/artifacts/{DIGEST}/archive", tmp_path / "out"
    out.mkdir()
    exporter.on("GET", path, flipped(data, data.index(b"<h1>carried")))
    assert refused(run("artifact", "export", "carried", "-o", out, "--json")) == "archive-altered"
    exporter.on("GET", path, forged(manifest_of({})))
    assert refused(run("artifact", "export", "carried", "-o", out, "--json")) == "artifact-other-digest"
    exporter.on("GET", path, Problem("artifact-altered", "It was altered", "app/app.py"))
    assert refused(run("artifact", "export", "carried", "-o", out, "--json")) == "artifact-altered"
    exporter.on("GET", path, DROP)
    assert run("artifact", "export", "carried", "-o", out, "--json").code == Exit.UNREACHABLE
    assert list(out.iterdir()) == []


def test_a_folder_that_is_not_there_is_said_before_the_download(exporter: Control, run: Run, tmp_path: Path) -> None:
    ran = run("artifact", "export", "carried", "-o", tmp_path / "none" / "x", "--json")
    assert refused(ran) == "file-unusable"
    assert not [s for s in exporter.sent if s.path.endswith("/archive")]


def test_what_has_no_artifact_is_not_exported(exporter: Control, run: Run, tmp_path: Path) -> None:
    exporter.on("GET", "/v1/apps/carried/deployments/7", deployment_view(7, "building", artifact=None))
    exporter.on("GET", "/v1/apps/empty/deployments", ())
    exporter.on("GET", "/v1/artifacts", (view(), view(digest=DIGEST[:20] + "f" * 51)))
    for words, code in (
        (("carried", "--deployment", 7), "deployment-without-artifact"),
        (("empty",), "deployment-without-artifact"),
        (("Carried",), "name-invalid"),
        ((DIGEST[:15],), "artifact-missing"),  # two begin so
        (("sha256:00",), "artifact-missing"),
    ):
        assert refused(run("artifact", "export", *words, "-o", tmp_path, "--json")) == code
    assert run("artifact", "export", DIGEST, "--deployment", 5).code == Exit.USAGE


# --- import


def test_what_people_see_of_an_import(importer: Control, run: Run, file: Path, data: bytes) -> None:
    ran = run("artifact", "import", file)
    assert ran.out.splitlines() == [
        f"Verified 3 files, {size(len(data))}; {DIGEST[:19]} of carried",
        "Deployment 1 of carried",
        "     0.0 s  queued",
        "     1.0 s  fetching",
        "     2.0 s  validating",
        "     3.0 s  preview ready",
        "",
        "Preview: http://1--board.localhost:7080/",
        f"Artifact: {DIGEST[:19]}",
        "Next: moorage promote carried --deployment 1",
    ]


def test_an_import_sends_the_file_under_its_digest_once(importer: Control, run: Run, file: Path, data: bytes) -> None:
    sha256 = hashlib.sha256(data).hexdigest()
    importer.on("PUT", UPLOAD + sha256, DROP, ref("", None))
    importer.on("POST", IMPORT, DROP, ref(DEPLOY_ID, 1))
    ran = run("artifact", "import", file, "--app", "carried", "--digest", DIGEST, "--json", "--idempotency-key", "k")
    *stages, last = ran.json_lines
    assert [line["stage"]["state"] for line in stages] == list(IMPORTED)
    assert last["next"] == "moorage promote carried --deployment 1"
    puts = [s for s in importer.sent if s.method == "PUT"]
    assert [(s.path, s.query, s.body == data) for s in puts] == [(UPLOAD + sha256, {"kind": "artifact"}, True)] * 2
    assert [s.key for s in importer.changes()] == ["k", "k"]
    assert importer.changes()[1].json == {"archive": sha256, "file": file.name}


def test_no_wait_returns_what_was_started(importer: Control, run: Run, file: Path) -> None:
    told = run("artifact", "import", file, "--no-wait", "--json").json
    assert told == {"operation": DEPLOY_ID, "app": "board", "deployment": 1}
    assert not [s for s in importer.sent if s.path.startswith("/v1/operations")]


def test_bad_files_are_refused_before_anything_is_sent(control: Control, run: Run, tmp_path: Path, data: bytes) -> None:
    place = tmp_path / "bad"
    named = replace(manifest_of({}), app="carried-us-east-1")
    for content, code in (
        (b"", "archive-unreadable"),
        (b"PK\3\4" + bytes(9_000), "archive-unreadable"),
        (data[: len(data) // 2], "archive-truncated"),
        (data + b"more", "archive-invalid"),
        (flipped(data, data.index(b"<h1>carried")), "archive-altered"),
        (forged(manifest_of(), said={"format": 3}), "archive-format-unknown"),
        (forged(named), "name-contains-topology"),
    ):
        place.write_bytes(content)
        assert refused(run("artifact", "import", place, "--json")) == code
    assert refused(run("artifact", "import", tmp_path / "nowhere", "--json")) == "file-unusable"
    assert refused(run("artifact", "import", tmp_path, "--json")) == "file-unusable"
    assert control.sent == []


def test_a_file_of_another_app_or_artifact_is_refused(control: Control, run: Run, file: Path) -> None:
    assert refused(run("artifact", "import", file, "--app", "board", "--json")) == "artifact-other-app"
    other = "sha256:" + "0" * 64
    assert refused(run("artifact", "import", file, "--digest", other, "--json")) == "artifact-other-digest"
    assert control.sent == []


def test_an_artifact_for_another_machine_is_not_uploaded(control: Control, run: Run, tmp_path: Path) -> None:
    control.on("GET", "/v1/machine", HERE)
    file = tmp_path / "native"
    for facts in ({"native": "darwin-arm64"}, {"native": "linux-x86_64", "python": "3.11.9"}):
        file.write_bytes(forged(manifest_of(facts=facts)))
        ran = run("artifact", "import", file, "--json")
        assert refused(ran) == "artifact-other-platform"
        assert "linux-x86_64" in ran.json["detail"]
    assert [s.method for s in control.sent] == ["GET", "GET"]


def test_an_import_that_is_blocked_says_why(importer: Control, run: Run, file: Path) -> None:
    problem = {"code": "archive-altered", "title": "The import is blocked", "detail": "`app/app.py`", "hint": "Again."}
    ended = operation(DEPLOY_ID, "deploy", "queued", "fetching", "blocked", succeeded=False, problem=problem)
    importer.on("GET", f"/v1/operations/{DEPLOY_ID}", ended)
    ran = run("artifact", "import", file)
    assert ran.code == Exit.ENDED
    assert "error[archive-altered]: The import is blocked" in ran.err
    assert "Next:" not in ran.out


# --- list and show


def test_the_list(control: Control, run: Run) -> None:
    native = view(digest="sha256:" + "e" * 64, native="linux-x86_64", deployments=(1,), state_entries=0)
    control.on("GET", "/v1/artifacts", (view(), native))
    assert run("artifact", "list").out.splitlines() == [
        "ARTIFACT             APP      KIND    DEPTH  BUILT FOR     STATE    SIZE    SINCE  DEPLOYMENTS",
        f"{DIGEST[:19]}  carried  python  plain  any               1  1.2 kB  2 h ago  5, 3",
        "sha256:eeeeeeeeeeee  carried  python  plain  linux-x86_64      0  1.2 kB  2 h ago  1",
    ]
    assert run("artifact", "list", "carried", "--json").json["items"][0]["digest"] == DIGEST
    assert control.sent[-1].query == {"app": "carried"}
    control.on("GET", "/v1/artifacts", ())
    assert run("artifact", "list").out == "There is no artifact yet.\n"


def test_show_by_app_deployment_and_the_beginning_of_a_digest(exporter: Control, run: Run) -> None:
    exporter.on("GET", "/v1/artifacts", (view(),))
    shown = [
        run("artifact", "show", *words).out for words in (("carried",), ("carried", "--deployment", 5), (DIGEST[:12],))
    ]
    assert shown[0] == shown[1] == shown[2]
    lines = shown[0].splitlines()
    assert any(line.split() == ["artifact", DIGEST] for line in lines)
    assert any("commit 4f2a90c1d2e3 with changes that were not committed" in line for line in lines)
    assert any(line.split() == ["draft", "-", "session", "int", "yes"] for line in lines)
    assert any('{"process": "built"}' in line for line in lines)
    (known,) = exporter.answers["GET", f"/v1/artifacts/{DIGEST}"]
    assert isinstance(known, ArtifactDetail)
    assert run("artifact", "show", DIGEST, "--json").json == known.model_dump(mode="json")


def test_show_says_where_it_came_from_and_what_is_missing(control: Control, run: Run) -> None:
    imported = {"imported": {"file": "carried-5.moorage-artifact"}}
    control.on("GET", f"/v1/artifacts/{DIGEST}", detail(source=imported, present=False, native="linux-x86_64"))
    out = run("artifact", "show", DIGEST).out
    assert "from carried-5.moorage-artifact" in out
    assert "its files are missing" in out
    assert "no commit is known" in out
