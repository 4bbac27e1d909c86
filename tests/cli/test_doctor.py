"""Doctor: every finding says what it saw; one that is not fine says what to do; looking changes nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moorage.cli.app import build_app
from moorage.cli.call import Exit
from moorage.cli.verbs.doctor import Finding, Health
from moorage.system.lock import take_lock
from moorage.system.proc import free_port
from moorage.system.settings import Settings
from tests.cli.conftest import Run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A data directory with free ports."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "settings.toml").write_text(f"http_port = {free_port()}\napi_port = {free_port()}\n")
    return folder


def found(run: Run, home: Path) -> dict[str, dict[str, str]]:
    """The findings by name."""
    return {item["what"]: item for item in run("doctor", "--home", home, "--json").json["items"]}


def test_this_machine_can_run_it(run: Run, home: Path) -> None:
    ran = run("doctor", "--home", home, "--json")
    assert ran.code == Exit.OK
    assert ran.json["ok"] is True
    names = {item["what"] for item in ran.json["items"]}
    assert names >= {"Python", "system", "HAProxy", "NATS", "Valkey", "data directory", "HTTP port", "API port", "disk"}
    versions = found(run, home)
    assert versions["HAProxy"]["found"].startswith("2.8.")
    assert versions["NATS"]["found"].startswith("2.15.")


def test_for_people_each_remark_has_its_advice(run: Run, home: Path) -> None:
    ran = run("doctor", "--home", home)
    assert ran.code == Exit.OK
    assert ran.out.splitlines()[0].split() == ["HEALTH", "WHAT", "FOUND"]


def test_looking_makes_no_data_directory(run: Run, tmp_path: Path) -> None:
    assert found(run, tmp_path / "new")["data directory"]["health"] == "ok"
    assert not (tmp_path / "new").exists()


def test_a_port_that_somebody_holds_is_a_fault_with_its_owner(run: Run, home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (home / "settings.toml").write_text(f"http_port = {taken.getsockname()[1]}\napi_port = 0\n")
        ran = run("doctor", "--home", home, "--json")
    item = {i["what"]: i for i in ran.json["items"]}["HTTP port"]
    assert (ran.code, item["health"]) == (Exit.REFUSED, "fault")
    assert f"pid {os.getpid()}" in item["found"]
    assert item["todo"]


def test_the_ports_of_a_running_platform_are_its_own(run: Run, home: Path) -> None:
    with take_lock(home / "moorage.lock", api="http://127.0.0.1:1"):
        assert "Moorage runs" in found(run, home)["HTTP port"]["found"]


def test_what_is_next_depends_on_whether_it_runs(run: Run, home: Path) -> None:
    assert run("doctor", "--home", home).out.splitlines()[-1].endswith("Next: moorage up")
    with take_lock(home / "moorage.lock", api="http://127.0.0.1:1"):
        last = run("doctor", "--home", home).out.splitlines()[-1]
    assert last.startswith("Moorage runs here")
    assert last.endswith("Next: moorage status")


def test_a_data_directory_that_is_a_file_is_a_fault(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    item = found(run, tmp_path / "file" / "home")
    assert item["settings"]["health"] == "fault" if "settings" in item else item["data directory"]["health"] == "fault"


def test_a_binary_that_is_configured_and_missing(run: Run, home: Path) -> None:
    with (home / "settings.toml").open("a") as settings:
        settings.write('[binaries]\nvalkey = "/nowhere/valkey-server"\n')
    ran = run("doctor", "--home", home)
    assert ran.code == Exit.REFUSED
    assert "Valkey: Correct or remove binaries.valkey." in ran.out


def test_settings_that_are_wrong_are_a_finding(run: Run, home: Path) -> None:
    (home / "settings.toml").write_text("http_port = 'many'\n")
    item = found(run, home)["settings"]
    assert item["health"] == "fault"
    assert "settings.toml" in item["found"]


def test_main_adds_checks_of_its_own(home: Path) -> None:
    def clock(settings: Settings) -> Iterable[Finding]:
        yield Finding("clock", Health.WARNING, f"slow at {settings.home.name}", "Wind it up.")

    ran = CliRunner().invoke(build_app(doctor_checks=[clock]), ["doctor", "--home", str(home)])
    assert ran.exit_code == Exit.OK
    assert "clock: Wind it up." in ran.stdout
