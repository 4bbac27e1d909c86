"""How things go wrong: one exit code for each kind, the problem on stderr for people and on stdout for programs."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from moorage.cli.app import build_app
from moorage.cli.call import Call, Exit, as_command
from moorage.domain.errors import Problem
from moorage.system.lock import take_lock
from tests.cli.conftest import Run
from tests.cli.control import DROP, Control
from tests.cli.views import app_view, status_view


@pytest.fixture
def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_exit_codes_are_what_the_documentation_says() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for code in Exit:
        assert f"| {int(code)} |" in documented


def test_a_problem_for_people_has_title_detail_hint_and_code(control: Control, run: Run) -> None:
    control.on(
        "GET",
        "/v1/apps/board/deployments",
        Problem("app-unknown", "There is no app", "board", "See `moorage apps`.", 404),
    )
    ran = run("deployments", "board")
    assert (ran.code, ran.out) == (Exit.REFUSED, "")
    assert ran.err.splitlines() == [
        "error[app-unknown]: There is no app",
        "  board",
        "hint: See `moorage apps`.",
    ]


def test_a_problem_for_programs_is_the_document_of_the_server(control: Control, run: Run) -> None:
    control.on(
        "GET", "/v1/apps/board/deployments", Problem("app-unknown", "No", "board", "hint", 404, {"app": "board"})
    )
    ran = run("deployments", "board", "--json")
    assert (ran.code, ran.err) == (Exit.REFUSED, "")
    assert ran.json == {
        "type": "urn:moorage:error:app-unknown",
        "code": "app-unknown",
        "title": "No",
        "detail": "board",
        "hint": "hint",
        "status": 404,
        "app": "board",
    }


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 3), (401, 3), (404, 3), (409, 3), (422, 3), (507, 3), (500, 1), (502, 6), (503, 6), (504, 6)],
)
def test_the_exit_code_of_a_status(control: Control, run: Run, status: int, code: int) -> None:
    control.on("GET", "/v1/apps", Problem("some-code", "Some title", status=status))
    assert run("apps").code == code


def test_acknowledgements_have_an_exit_code_of_their_own(control: Control, run: Run) -> None:
    control.on("POST", "/v1/apps/board/restarts", Problem("acknowledgement-stale", "Stale"))
    assert run("restart", "board").code == Exit.ACKNOWLEDGEMENT


def test_nobody_at_the_address(run: Run, closed_port: int) -> None:
    ran = run("status", "--api", f"http://127.0.0.1:{closed_port}", "--json")
    assert (ran.code, ran.json["code"]) == (Exit.UNREACHABLE, "control-unreachable")
    assert "moorage up" in ran.json["hint"]


def test_a_connection_that_ends_without_an_answer(control: Control, run: Run) -> None:
    control.on("GET", "/v1/status", DROP)
    assert run("status").code == Exit.UNREACHABLE


def test_a_home_where_nothing_was_started_is_unreachable_and_not_a_token_problem(run: Run, tmp_path: Path) -> None:
    ran = run("status", "--home", tmp_path / "new", "--json", env={"MOORAGE_API": None, "MOORAGE_TOKEN": None})
    assert (ran.code, ran.json["code"]) == (Exit.UNREACHABLE, "control-unreachable")
    assert not (tmp_path / "new").exists()


def test_status_tells_a_home_where_nothing_was_started_from_a_platform_that_is_stopped(
    run: Run, tmp_path: Path, closed_port: int
) -> None:
    home = tmp_path / "home"
    nobody = {"MOORAGE_API": None, "MOORAGE_TOKEN": None}
    assert (
        run("status", "--home", home, "--json", env=nobody).json["title"] == f"No platform was ever started in {home}"
    )
    home.mkdir()
    (home / "settings.toml").write_text(f"api_port = {closed_port}\n")
    assert "ever started" in run("status", "--home", home, "--json", env=nobody).json["title"]
    with take_lock(home / "moorage.lock"):
        pass
    (home / "keys").mkdir()
    (home / "keys" / "admin.token").write_text("token")
    ran = run("status", "--home", home, "--json", env=nobody)
    assert (ran.code, ran.json["code"]) == (Exit.UNREACHABLE, "control-unreachable")
    assert ran.json["title"].endswith("does not answer")


def test_an_address_without_a_token(control: Control, run: Run) -> None:
    ran = run("status", "--json", env={"MOORAGE_TOKEN": None})
    assert (ran.code, ran.json["code"]) == (Exit.REFUSED, "token-missing")
    assert control.sent == []


def test_a_wrong_token_is_told_by_the_server(control: Control, run: Run) -> None:
    control.on("GET", "/v1/status", status_view())
    assert run("status", "--json", env={"MOORAGE_TOKEN": "wrong"}).json["code"] == "unauthorized"


def test_the_lock_of_the_data_directory_names_the_address(control: Control, run: Run, tmp_path: Path) -> None:
    control.on("GET", "/v1/status", status_view())
    home = tmp_path / "home"
    (home / "keys").mkdir(parents=True)
    (home / "keys" / "admin.token").write_text("token-of-the-test\n")
    with take_lock(home / "moorage.lock", api=control.url):
        ran = run("status", "--home", home, "--json", env={"MOORAGE_API": None, "MOORAGE_TOKEN": None})
    assert (ran.code, ran.json["ready"]) == (Exit.OK, True)


def test_an_answer_of_another_version_is_not_a_crash(control: Control, run: Run) -> None:
    control.on("GET", "/v1/status", app_view())
    ran = run("status", "--json")
    assert (ran.code, ran.json["code"]) == (Exit.UNEXPECTED, "answer-not-understood")


def test_settings_that_are_wrong_are_a_refusal(control: Control, run: Run, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("http_prot = 80\n")
    ran = run("status", "--home", tmp_path, "--json", env={"MOORAGE_TOKEN": None})
    assert (ran.code, ran.json["code"]) == (Exit.REFUSED, "settings-invalid")


@pytest.mark.parametrize(
    "words",
    [
        ("stats",),
        ("promote",),
        ("promote", "board", "--foo"),
        ("promote", "board", "--deployment", "five"),
        ("ops", "--follow"),
        ("status", "--api", "127.0.0.1:7400"),
        ("secret",),
        ("secret", "set", "board", "KEY", "--scope", "everywhere"),
    ],
    ids=" ".join,
)
def test_usage_errors(control: Control, run: Run, words: tuple[str, ...]) -> None:
    ran = run(*words)
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert ran.err.startswith("error[usage]: ")
    assert " --help" in ran.err
    ran = run(*words, "--json")
    assert (ran.code, ran.json["code"], ran.err) == (Exit.USAGE, "usage", "")
    assert control.sent == []


@pytest.mark.parametrize("name", ["Board", "a--b", "us-east-1", "board.", "../board", "a" * 41])
def test_a_name_that_cannot_be_is_refused_without_asking(control: Control, run: Run, name: str) -> None:
    ran = run("restart", name, "--json")
    assert (ran.code, ran.json["code"].partition("-")[0]) == (Exit.REFUSED, "name")
    assert control.sent == []


def test_server_text_cannot_steer_the_terminal(control: Control, run: Run) -> None:
    control.on("GET", "/v1/apps", (app_view(newest_state="\x1b]0;gone\x07\x1b[2Jfailed[bold]"),))
    out = run("apps").out
    assert "\x1b" not in out
    assert "failed[bold]" in out


def test_colours_are_for_terminals_and_no_color_is_honoured(control: Control, run: Run) -> None:
    control.on("GET", "/v1/apps", (app_view(),))
    plain = run("apps").out
    assert run("apps", env={"NO_COLOR": "1"}).out == plain
    assert "\x1b" not in plain


def test_a_disk_that_is_full_is_a_problem_and_a_closed_pipe_is_quiet() -> None:
    async def full(call: Call) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/srv/x")

    async def closed(call: Call) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    app = build_app()
    app.command("full")(as_command(full))
    app.command("closed")(as_command(closed))
    ran = CliRunner().invoke(app, ["full", "--json"])
    assert (ran.exit_code, json.loads(ran.stdout)["code"]) == (Exit.REFUSED, "file-unusable")
    ran = CliRunner().invoke(app, ["closed"])
    assert (ran.exit_code, ran.stderr) == (Exit.UNEXPECTED, "")


def test_an_interrupted_verb_ends_like_a_signal() -> None:
    async def interrupted(call: Call) -> None:
        raise KeyboardInterrupt

    async def aborted(call: Call) -> None:
        raise typer.Abort

    app = build_app()
    app.command("interrupted")(as_command(interrupted))
    app.command("aborted")(as_command(aborted))
    for verb in ("interrupted", "aborted"):
        assert CliRunner().invoke(app, [verb]).exit_code == Exit.INTERRUPTED


def test_a_bug_is_not_hidden() -> None:
    async def broken(call: Call) -> None:
        raise ValueError("a bug")

    app = build_app()
    app.command("broken")(as_command(broken))
    ran = CliRunner().invoke(app, ["broken"])
    assert ran.exit_code == Exit.UNEXPECTED
    assert isinstance(ran.exception, ValueError)
