"""The command line against a whole platform: each verb does what it says, and says what is so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.cli.call import Exit
from tests.support.platform import Platform, start_platform, stop_platform

pytestmark = pytest.mark.servers

SERVER = """
import http.server, os, sys
print("hello from", os.environ["MOORAGE_DEPLOYMENT"], os.environ.get("GREETING", "nobody"), flush=True)
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"deployment " + os.environ["MOORAGE_DEPLOYMENT"].encode())
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Answers).serve_forever()
"""
BROKEN = 'import sys\nprint("about to fail")\nsys.exit("there is no database")\n'


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    started = start_platform(tmp_path_factory.mktemp("platform") / "home")
    yield started
    stop_platform(started)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small app; `python` is the one that the platform runs on."""
    folder = tmp_path_factory.mktemp("source") / "greeter"
    folder.mkdir()
    (folder / "moorage.toml").write_text('name = "greeter"\n[process]\ncommand = "python app.py"\nstop_grace_s = 1\n')
    (folder / "app.py").write_text(SERVER)
    return folder


@pytest.fixture(scope="module")
def greeter(platform: Platform, source: Path) -> str:
    """The app, deployed and promoted twice by the command line."""
    for _ in range(2):
        answer = platform.cli("deploy", str(source), "--promote", "--json")
        assert answer.code == Exit.OK, answer.out + answer.err
        (source / "app.py").write_text(SERVER + "# changed\n")
    return "greeter"


def test_a_deploy_ends_in_a_preview_and_a_promotion_in_an_owner(platform: Platform, greeter: str) -> None:
    first, second = sorted(platform.cli("deployments", greeter, "--json").json["items"], key=lambda d: d["number"])
    assert (first["serving"], second["serving"]) == (False, True)
    assert platform.get(f"2--{greeter}.localhost").text == "deployment 2"
    assert platform.get(f"{greeter}.localhost").text == "deployment 2"
    (app,) = platform.cli("apps", "--json").json["items"]
    assert (app["serving"], app["epoch"]) == (2, 2)


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("apps",),
        ("deployments", "greeter"),
        ("routes",),
        ("allocations", "--all"),
        ("sessions", "greeter"),
        ("ops",),
        ("explain", "greeter"),
        ("logs", "greeter"),
        ("open", "greeter"),
        ("secret", "list", "greeter"),
        ("doctor",),
    ],
    ids=" ".join,
)
def test_every_verb_that_looks_works_both_ways(platform: Platform, greeter: str, words: tuple[str, ...]) -> None:
    plain, document = platform.cli(*words), platform.cli(*words, "--json")
    assert (plain.code, plain.err) == (Exit.OK, "")
    assert plain.out.strip()
    assert (document.code, document.err) == (Exit.OK, "")
    assert isinstance(json.loads(document.out), dict)


def test_a_failed_start_shows_the_last_lines_and_leaves_the_owner_alone(
    platform: Platform, greeter: str, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "moorage.toml").write_text((source / "moorage.toml").read_text())
    (tmp_path / "app.py").write_text(BROKEN)
    answer = platform.cli("deploy", str(tmp_path), "--promote")
    assert answer.code == Exit.ENDED
    assert "error[" in answer.err
    assert "  | there is no database" in answer.err.splitlines()
    assert platform.get(f"{greeter}.localhost").text == "deployment 2"
    assert platform.cli("promote", greeter, "--deployment", "3", "--json").code == Exit.REFUSED


def test_secrets_reach_the_app_after_a_restart_and_are_never_shown(platform: Platform, greeter: str) -> None:
    said = platform.cli("secret", "set", greeter, "GREETING", input="from-a-pipe\n")
    assert said.code == Exit.OK, said.err
    answer = platform.cli("restart", greeter)
    assert answer.code == Exit.OK, answer.out + answer.err
    assert "hello from 2 from-a-pipe" in platform.cli("logs", greeter).out
    listed = platform.cli("secret", "list", greeter, "--json")
    assert [item["name"] for item in listed.json["items"]] == ["GREETING"]
    assert "from-a-pipe" not in listed.out + said.out
    assert platform.cli("secret", "unset", greeter, "GREETING").code == Exit.OK
    assert platform.cli("secret", "unset", greeter, "GREETING", "--json").json["code"] == "secret-unknown"


def test_a_rollback_goes_to_the_previous_owner_and_the_same_key_does_it_once(platform: Platform, greeter: str) -> None:
    epoch = next(a["epoch"] for a in platform.cli("apps", "--json").json["items"])
    words = ("rollback", greeter, "--to", "1", "--epoch", str(epoch), "--idempotency-key", "once", "--json")
    first, again = platform.cli(*words), platform.cli(*words)
    assert (first.code, again.code) == (Exit.OK, Exit.OK), first.out + again.out
    assert first.json["id"] == again.json["id"]
    (app,) = platform.cli("apps", "--json").json["items"]
    assert (app["serving"], app["epoch"]) == (1, epoch + 1)
    assert platform.get(f"{greeter}.localhost").text == "deployment 1"


def test_a_stale_epoch_changes_nothing(platform: Platform, greeter: str) -> None:
    before = platform.cli("routes", "--json").json
    answer = platform.cli("promote", greeter, "--deployment", "2", "--epoch", "1", "--json")
    assert answer.code in (Exit.REFUSED, Exit.ENDED)
    assert (answer.json["problem"] or answer.json)["code"] == "epoch-stale"
    assert platform.cli("routes", "--json").json == before


def test_a_deploy_can_be_canceled(platform: Platform, greeter: str, tmp_path: Path) -> None:
    slow = 'name = "greeter"\n[process]\ncommand = "python app.py"\n[build]\ncommand = "sleep 60"\n'
    (tmp_path / "moorage.toml").write_text(slow)
    (tmp_path / "app.py").write_text(SERVER)
    started = platform.cli("deploy", str(tmp_path), "--no-wait", "--json").json["operation"]
    assert platform.cli("ops", started, "--cancel").code == Exit.OK
    answer = platform.cli("ops", started, "--follow", "--json")
    assert (answer.code, answer.json["state"]) == (Exit.ENDED, "canceled")


def test_destroy_leaves_nothing(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<h1>hello</h1>")
    (tmp_path / "moorage.toml").write_text('name = "page"\n[static]\n')
    answer = platform.cli("deploy", str(tmp_path), "--promote")
    assert answer.code == Exit.OK, answer.out + answer.err
    assert platform.get("page.localhost").text == "<h1>hello</h1>"
    assert platform.cli("destroy", "page").code == Exit.REFUSED
    answer = platform.cli("destroy", "page", "--yes")
    assert answer.code == Exit.OK, answer.out + answer.err
    assert platform.get("page.localhost").status_code == 404
    assert platform.cli("deployments", "page", "--json").json["code"] == "app-unknown"


def test_another_platform_on_the_same_home_is_refused(platform: Platform) -> None:
    assert platform.cli("up", "--detach", "--json").json["code"] == "already-running"
