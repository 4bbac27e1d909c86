"""Init and deploy: what is refused before anything is sent, what is uploaded, how a build is followed."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from moorage.cli.call import Exit
from moorage.domain.errors import Problem
from tests.cli.conftest import Ran, Run
from tests.cli.control import DROP, Control
from tests.cli.views import DEPLOY_ID, PROMOTION_ID, app_view, deployment_view, operation, ref, report

BUILT = ("queued", "fetching", "building", "validating", "preview_ready")
APPFILE = 'name = "board"\n\n[process]\ncommand = "python board.py"\n\n[build]\nexclude = ["notes/"]\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder that can be deployed."""
    folder = tmp_path / "board"
    folder.mkdir()
    (folder / "moorage.toml").write_text(APPFILE)
    (folder / "board.py").write_text("print('hello')\n")
    (folder / "notes").mkdir()
    (folder / "notes" / "plan.md").write_text("not for the artifact")
    return folder


@pytest.fixture
def builder(control: Control, source: Path, run: Run) -> Control:
    """A control plane that takes any source and builds deployment 5 of it."""
    sha256 = packed_digest(control, source, run)
    control.sent.clear()
    control.on("PUT", f"/v1/sources/{sha256}", ref("", None))
    control.on("POST", "/v1/apps/board/deployments", ref(DEPLOY_ID, 5))
    building = operation(DEPLOY_ID, "deploy", "queued", "fetching")
    control.on("GET", f"/v1/operations/{DEPLOY_ID}", building, operation(DEPLOY_ID, "deploy", *BUILT, succeeded=True))
    control.on("GET", "/v1/apps/board/deployments/5", deployment_view(5))
    return control


def packed_digest(control: Control, source: Path, run: Run) -> str:
    """The digest under which this folder is uploaded."""
    run("deploy", source)
    return control.sent[0].path.rpartition("/")[2]


def uploaded(control: Control) -> bytes:
    """The archive that arrived."""
    return next(s.body for s in control.sent if s.method == "PUT")


def test_what_people_see_of_a_deploy(builder: Control, run: Run, source: Path) -> None:
    ran = run("deploy", source)
    lines = ran.out.splitlines()
    assert lines[0].startswith("Packed 2 files, ")
    assert "1 left out" in lines[0]
    assert lines[1:] == [
        "Deployment 5 of board",
        "     0.0 s  queued",
        "     1.0 s  fetching",
        "     2.0 s  building",
        "     3.0 s  validating",
        "     4.0 s  preview ready",
        "",
        "Preview: http://5--board.localhost:7080/",
        "Artifact: sha256:0123456789ab",
        "Next: moorage promote board --deployment 5",
    ]


def test_the_archive_is_the_folder_under_its_digest(builder: Control, run: Run, source: Path) -> None:
    assert run("deploy", source).code == Exit.OK
    archive = uploaded(builder)
    (put,) = (s for s in builder.sent if s.method == "PUT")
    assert put.path.endswith(hashlib.sha256(archive).hexdigest())
    with tarfile.open(fileobj=BytesIO(archive), mode="r:gz") as tar:
        assert sorted(tar.getnames()) == ["board.py", "moorage.toml"]
    (started,) = builder.changes()
    assert started.json["source"] == hashlib.sha256(archive).hexdigest()
    assert started.json["facts"]["files"] == 2
    assert started.json["facts"]["commit"] is None


def test_json_ends_in_operation_deployment_and_next_command(builder: Control, run: Run, source: Path) -> None:
    *stages, last = run("deploy", source, "--json").json_lines
    assert [line["stage"]["state"] for line in stages] == list(BUILT)
    assert last["deployment"]["preview_url"] == "http://5--board.localhost:7080/"
    assert last["next"] == "moorage promote board --deployment 5"


@pytest.mark.usefixtures("no_pauses")
def test_an_upload_and_a_start_that_get_lost_are_repeated(builder: Control, run: Run, source: Path) -> None:
    path = next(path for method, path in builder.answers if method == "PUT")
    builder.on("PUT", path, DROP, ref("", None))
    builder.on("POST", "/v1/apps/board/deployments", DROP, ref(DEPLOY_ID, 5))
    assert run("deploy", source).code == Exit.OK
    assert len({s.key for s in builder.changes()}) == 1
    assert len(builder.changes()) == 2


def test_a_failed_build_shows_the_last_lines_and_why(builder: Control, run: Run, source: Path) -> None:
    problem = {
        "code": "app-exited",
        "title": "The app ended before it was ready",
        "detail": "exit code 1",
        "hint": "Look at the log: moorage logs board --deployment 5",
        "log_tail": ["Traceback (most recent call last):", "ValueError: \x1b[31mno\x1b[0m"],
        "status": 422,
    }
    failed = operation(DEPLOY_ID, "deploy", "queued", "validating", "failed", succeeded=False, problem=problem)
    builder.on("GET", f"/v1/operations/{DEPLOY_ID}", failed)
    ran = run("deploy", source)
    assert ran.code == Exit.ENDED
    assert ran.err.splitlines() == [
        "error[app-exited]: The app ended before it was ready",
        "  exit code 1",
        "  | Traceback (most recent call last):",
        "  | ValueError: no",
        "hint: Look at the log: moorage logs board --deployment 5",
    ]
    assert "Next:" not in ran.out
    document = run("deploy", source, "--json").json_lines[-1]
    assert document["next"] is None
    assert document["problem"]["code"] == "app-exited"


def test_deploy_and_promote_do_both_with_two_keys(builder: Control, run: Run, source: Path) -> None:
    builder.on("GET", "/v1/apps", (app_view(serving=5),))
    builder.on("GET", "/v1/apps/board/deployments/5/report", report())
    builder.on("POST", "/v1/apps/board/promotions", ref(PROMOTION_ID, 5))
    healthy = operation(PROMOTION_ID, "promotion", "requested", "healthy", succeeded=True)
    builder.on("GET", f"/v1/operations/{PROMOTION_ID}", healthy)
    assert run("deploy", source, "--promote", "--drain", "--idempotency-key", "k").code == Exit.OK
    assert [(s.path, s.key) for s in builder.changes()] == [
        ("/v1/apps/board/deployments", "k"),
        ("/v1/apps/board/promotions", "k.promote"),
    ]
    assert builder.changes()[1].json["mode"] == "drain"


def test_deploy_and_promote_stop_where_an_acknowledgement_is_needed(builder: Control, run: Run, source: Path) -> None:
    cold = report(verdict="needs_acknowledgement", acknowledge="ack:1")
    builder.on("GET", "/v1/apps/board/deployments/5/report", cold)
    ran = run("deploy", source, "--promote")
    assert ran.code == Exit.ACKNOWLEDGEMENT
    assert "moorage promote board --deployment 5 --acknowledge ack:1" in ran.err
    assert len(builder.changes()) == 1


def test_no_wait_returns_what_was_started(builder: Control, run: Run, source: Path) -> None:
    assert run("deploy", source, "--no-wait", "--json").json == {
        "operation": DEPLOY_ID,
        "app": "board",
        "deployment": 5,
    }
    assert not [s for s in builder.sent if s.path.startswith("/v1/operations")]


@pytest.mark.parametrize(
    "flags",
    [("--promote", "--no-wait"), ("--drain",), ("--acknowledge", "ack:1"), ("--promote", "--drain", "--handover")],
)
def test_flags_that_contradict_each_other_send_nothing(
    builder: Control, run: Run, source: Path, flags: tuple[str]
) -> None:
    assert run("deploy", source, *flags).code == Exit.USAGE
    assert builder.sent == []


def refused(ran: Ran) -> str:
    """The code of a refusal."""
    assert ran.code == Exit.REFUSED
    code: str = ran.json["code"]
    return code


def test_bad_sources_are_refused_before_anything_is_sent(control: Control, run: Run, source: Path) -> None:
    assert refused(run("deploy", source / "nowhere", "--json")) == "source-missing"
    (source / "moorage.toml").write_text('name = "board"\n[process]\ncommand = 5\n')
    invalid = run("deploy", source, "--json")
    assert refused(invalid) == "appfile-invalid"
    assert (invalid.json["line"], invalid.json["key"]) == (3, "process.command")
    (source / "moorage.toml").write_text(APPFILE.replace("board", "us-east-1", 1))
    assert refused(run("deploy", source, "--json")) == "name-contains-topology"
    (source / "moorage.toml").write_text(APPFILE)
    (source / "way-out").symlink_to("/etc/passwd")
    assert refused(run("deploy", source, "--json")) == "source-link-outside"
    (source / "way-out").unlink()
    (source / "moorage.toml").unlink()
    assert refused(run("deploy", source, "--json")) == "appfile-missing"
    assert control.sent == []


def test_an_app_file_that_cannot_be_read_is_a_refusal(control: Control, run: Run, source: Path) -> None:
    (source / "moorage.toml").unlink()
    (source / "moorage.toml").mkdir()
    assert refused(run("deploy", source, "--json")) == "file-unusable"


def test_a_source_that_the_server_refuses(control: Control, run: Run, source: Path) -> None:
    sha256 = packed_digest(control, source, run)
    control.on("PUT", f"/v1/sources/{sha256}", Problem("disk-full", "There is no room", status=507))
    assert refused(run("deploy", source, "--json")) == "disk-full"
    assert len([s for s in control.sent if s.method == "PUT"]) == 2  # the first one found the digest for this test


def test_init_writes_what_it_found_and_the_file_is_valid(control: Control, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "Team Notes"
    folder.mkdir()
    (folder / "requirements.txt").write_text("fastapi\n")
    (folder / "main.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")
    document = run("init", folder, "--json").json
    assert (document["kind"], document["complete"]) == ("python", True)
    assert (folder / "moorage.toml").read_text() == document["appfile"]
    assert 'name = "team-notes"' in document["appfile"]
    assert run("deploy", folder, "--json").json["code"] == "not-found"  # valid: refused by the empty server alone


def test_init_says_what_it_found(control: Control, run: Run, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<h1>hello</h1>")
    ran = run("init", tmp_path / "site")
    assert ran.out.splitlines()[0] == "Found: static (index.html)"
    assert ran.out.splitlines()[-1] == f"Next: moorage deploy {tmp_path / 'site'}"
    assert control.sent == []


def test_init_never_overwrites(control: Control, run: Run, source: Path) -> None:
    assert refused(run("init", source, "--json")) == "appfile-exists"
    assert (source / "moorage.toml").read_text() == APPFILE


def test_init_of_no_folder(control: Control, run: Run, tmp_path: Path) -> None:
    assert refused(run("init", tmp_path / "nowhere", "--json")) == "source-missing"


def test_facts_tell_the_commit_and_what_is_not_in_it(control: Control, run: Run, source: Path) -> None:
    git = ("git", "-C", source, "-c", "user.name=a", "-c", "user.email=a@example.org")
    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "first")):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (source / "board.py").write_text("print('changed')\n")
    assert f"commit {commit[:12]} with changes that are not committed" in run("deploy", source).out
