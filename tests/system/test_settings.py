"""Settings: where they come from, what is refused and how it is named; the page that documents them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from moorage.domain.errors import Refused
from moorage.system import settings as room
from moorage.system.settings import KEYS, Binaries, Paths, Settings, load_settings, prepare_home, with_ports

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def refusal(home: Path, *, text: str = "", flags: dict[str, object] | None = None, **environ: str) -> tuple[str, str]:
    """Code and place of the refusal that these sources lead to."""
    if text:
        (home / "settings.toml").write_text(text)
    with pytest.raises(Refused) as refused:
        load_settings(flags, {"MOORAGE_HOME": str(home), **environ})
    return refused.value.problem.code, str(refused.value.problem.facts["where"])


def test_defaults() -> None:
    settings = load_settings(environ={})
    assert settings.home == Path("~/.moorage").expanduser()
    assert (settings.bind, settings.http_port, settings.api_port) == ("127.0.0.1", 7080, 7400)
    assert settings.base_domain == "localhost"
    assert settings.api_url == "http://127.0.0.1:7400"


def test_a_later_source_wins_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(
        'http_port = 1001\napi_port = 1002\nprevious = 0\nbind = "0.0.0.0"\n'.replace("previous = 0\n", "")
        + 'trusted_proxies = ["10.0.0.0/8", "::1"]\n[binaries]\nnats = "/opt/nats"\nvalkey = "/opt/valkey"\n'
    )
    environ = {"MOORAGE_HOME": str(tmp_path), "MOORAGE_API_PORT": "2002", "MOORAGE_BINARIES_VALKEY": "/usr/valkey"}
    settings = load_settings({"api_port": 3002, "http_port": None}, environ)
    assert (settings.http_port, settings.api_port) == (1001, 3002)
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1/128")
    assert settings.binaries == Binaries("", "/opt/nats", "/usr/valkey")
    assert settings.api_url == "http://127.0.0.1:3002"


def test_a_child_reads_the_very_same_settings(tmp_path: Path) -> None:
    flags = {"http_port": 1, "trusted_proxies": ("10.0.0.0/8",), "binaries.haproxy": "/x", "log_level": "debug"}
    settings = load_settings({"home": tmp_path, **flags}, {})
    assert load_settings(environ=settings.to_environ()) == settings


def test_unknown_and_unparsable_values_are_named(tmp_path: Path) -> None:
    where = tmp_path / "settings.toml"
    assert refusal(tmp_path, text='# x\nbind = "127.0.0.1"\ncolour = 3\n') == ("settings-invalid", f"{where}:3")
    assert refusal(tmp_path, text="\nhttp_port = true\n") == ("settings-invalid", f"{where}:2")
    assert refusal(tmp_path, text="[binaries]\nnats = 'x'\nbash = 'x'\n") == ("settings-invalid", f"{where}:3")
    assert refusal(tmp_path, text="[colours]\nred = 1\n") == ("settings-invalid", f"{where}:1")
    assert refusal(tmp_path, text="home = '/x'\n") == ("settings-invalid", f"{where}:1")
    code, named = refusal(tmp_path, text="bind = \n")
    assert (code, named) == ("settings-invalid", str(where))
    where.unlink()
    assert refusal(tmp_path, MOORAGE_COLOUR="3") == ("settings-invalid", "variable MOORAGE_COLOUR")
    assert refusal(tmp_path, MOORAGE_BIND="localhost") == ("settings-invalid", "variable MOORAGE_BIND")
    assert refusal(tmp_path, MOORAGE_BASE_DOMAIN="a..b") == ("settings-invalid", "variable MOORAGE_BASE_DOMAIN")
    assert refusal(tmp_path, MOORAGE_TRUSTED_PROXIES="10.0.0.1/8") == (
        "settings-invalid",
        "variable MOORAGE_TRUSTED_PROXIES",
    )
    assert refusal(tmp_path, MOORAGE_LOG_LEVEL="loud") == ("settings-invalid", "variable MOORAGE_LOG_LEVEL")
    assert refusal(tmp_path, flags={"http_port": 65536}) == ("settings-invalid", "flag --http-port")
    assert refusal(tmp_path, flags={"http_port": "-1"}) == ("settings-invalid", "flag --http-port")


def test_the_message_names_line_and_expectation(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('base_domain = "localhost"\nhttp_port = "many"\n')
    with pytest.raises(Refused) as refused:
        load_settings(environ={"MOORAGE_HOME": str(tmp_path)})
    assert "settings.toml:2: http_port = 'many'; expected a port from 0" in refused.value.problem.detail


def test_what_apps_and_the_cli_are_given_is_no_setting(tmp_path: Path) -> None:
    given = {"MOORAGE_TOKEN": "x", "MOORAGE_ALLOCATION": "y", "MOORAGE_SESSION_STORE_URL": "z"}
    assert load_settings(environ={"MOORAGE_HOME": str(tmp_path), **given}).home == tmp_path


def test_port_zero_picks_free_ones() -> None:
    settings = with_ports(load_settings({"http_port": 0, "api_port": 0}, {}))
    assert 0 not in (settings.http_port, settings.api_port)
    assert settings.http_port != settings.api_port


def test_a_taken_port_names_its_owner() -> None:
    taker = (
        "import socket, sys; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen();"
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", taker], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        with pytest.raises(Refused) as refused:
            with_ports(load_settings({"http_port": port, "api_port": 0}, {}))
    finally:
        process.communicate()
    problem = refused.value.problem
    assert (problem.code, problem.facts["pid"], problem.facts["port"]) == ("port-taken", process.pid, port)
    assert str(process.pid) in problem.detail
    assert "import socket" in problem.detail
    assert "http_port" in problem.detail


def test_two_equal_ports_and_a_foreign_address_are_refused() -> None:
    free = with_ports(load_settings({"http_port": 0, "api_port": 0}, {})).http_port
    with pytest.raises(Refused) as refused:
        with_ports(load_settings({"http_port": free, "api_port": free}, {}))
    assert refused.value.problem.code == "settings-invalid"
    with pytest.raises(Refused) as refused:
        with_ports(load_settings({"bind": "192.0.2.1"}, {}))
    assert refused.value.problem.code == "bind-unavailable"


def test_a_listener_on_all_addresses_counts_too() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        with pytest.raises(Refused) as refused:
            with_ports(load_settings({"http_port": taken.getsockname()[1], "api_port": 0}, {}))
    assert refused.value.problem.facts["pid"] == os.getpid()


def test_the_data_directory_is_made_and_private(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "deep" / "home")
    prepare_home(paths)
    prepare_home(paths)
    assert paths.home.stat().st_mode & 0o777 == 0o700
    assert paths.keys.stat().st_mode & 0o777 == 0o700
    assert paths.processes.parent.is_dir()


def test_a_data_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused) as refused:
        prepare_home(Paths(tmp_path / "file" / "home"))
    assert refused.value.problem.code == "home-not-writable"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; others meet the case above")
def test_a_data_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    child = os.fork()
    if child == 0:  # one that may not write there
        code = 1
        try:
            os.setuid(65534)
            prepare_home(Paths(home))
        except Refused as refused:
            code = 42 if refused.problem.code == "home-not-writable" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


def test_the_page_documents_every_key_and_nothing_else() -> None:
    names = {key.name for key in KEYS}
    own = {f.name for f in fields(Settings)} - {"binaries"} | {f"binaries.{f.name}" for f in fields(Binaries)}
    assert names == own
    rows = re.findall(r"^\| `([a-z_.]+)` \| `(MOORAGE_[A-Z_]+)` \| (.+?) \|", PAGE.read_text(), re.MULTILINE)
    assert {(name, variable) for name, variable, _ in rows} == {(key.name, key.variable) for key in KEYS}
    defaults = {name: default.strip("`") for name, _, default in rows}
    for name in ("bind", "base_domain", "http_port", "api_port", "previews_kept", "admission_per_s", "log_level"):
        assert defaults[name] == str(getattr(Settings(Path("/")), name))
    documented = set(re.findall(r"`(MOORAGE_[A-Z_]+)`", PAGE.read_text()))
    assert documented == {key.variable for key in KEYS} | set(room.OTHER_VARIABLES)
