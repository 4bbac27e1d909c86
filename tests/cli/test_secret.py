"""Secrets: where a value comes from, and that it appears nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.cli.call import Exit
from moorage.domain.limits import SECRET_VALUE_MAX_BYTES
from moorage.system.clock import now_ms
from moorage.wire.api import SecretView
from tests.cli.conftest import Run
from tests.cli.control import Control

PATH = "/v1/apps/board/secrets/API_KEY"


@pytest.fixture
def vault(control: Control) -> Control:
    """A control plane that takes one secret."""
    control.on("PUT", PATH, SecretView(name="API_KEY", scope="runtime", version=1, updated_ms=now_ms()))
    control.on("DELETE", PATH, SecretView(name="API_KEY", scope="runtime", version=1, updated_ms=now_ms()))
    return control


@pytest.mark.parametrize(
    ("piped", "value"),
    [("s3cret", "s3cret"), ("s3cret\n", "s3cret"), ("two\nlines\n\n", "two\nlines\n"), ("a\r\n", "a"), (" x ", " x ")],
)
def test_a_pipe_gives_the_value_without_its_last_newline(vault: Control, run: Run, piped: str, value: str) -> None:
    ran = run("secret", "set", "board", "API_KEY", stdin=piped)
    assert ran.code == Exit.OK
    (sent,) = vault.changes()
    assert sent.json == {"value": value, "scope": "runtime"}
    assert sent.key
    assert "s3cret" not in ran.out + ran.err


def test_a_file_is_taken_as_it_is(vault: Control, run: Run, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(b"-----BEGIN\nabc\n")
    assert run("secret", "set", "board", "API_KEY", "--from-file", tmp_path / "key.pem", "--scope", "build").code == 0
    assert vault.changes()[0].json == {"value": "-----BEGIN\nabc\n", "scope": "build"}


def test_a_value_is_no_argument(vault: Control, run: Run) -> None:
    assert run("secret", "set", "board", "API_KEY", "s3cret").code == Exit.USAGE
    assert vault.sent == []


@pytest.mark.parametrize(
    ("stdin", "code"),
    [
        (b"", "secret-empty"),
        (b"\n", "secret-empty"),
        (b"\xff\xfe", "secret-not-text"),
        (b"a\0b", "secret-not-text"),
        (b"x" * (SECRET_VALUE_MAX_BYTES + 1), "secret-too-large"),
    ],
    ids=["nothing", "newline", "bytes", "nul", "large"],
)
def test_values_that_cannot_be(vault: Control, run: Run, stdin: bytes, code: str) -> None:
    ran = run("secret", "set", "board", "API_KEY", "--json", stdin=stdin)
    assert (ran.code, ran.json["code"]) == (Exit.REFUSED, code)
    assert vault.sent == []


def test_the_largest_value_fits(vault: Control, run: Run) -> None:
    assert run("secret", "set", "board", "API_KEY", stdin="x" * SECRET_VALUE_MAX_BYTES + "\n").code == Exit.OK


@pytest.mark.parametrize("name", ["api_key", "1KEY", "A/../B", "PORT", "MOORAGE_X"])
def test_names_that_cannot_be(vault: Control, run: Run, name: str) -> None:
    for verb in ("set", "unset"):
        ran = run("secret", verb, "board", name, "--json", stdin="x")
        assert (ran.code, ran.json["code"]) == (Exit.REFUSED, "secret-name-invalid")
    assert vault.sent == []


def test_a_file_that_is_not_there(vault: Control, run: Run, tmp_path: Path) -> None:
    ran = run("secret", "set", "board", "API_KEY", "--from-file", tmp_path / "none", "--json")
    assert (ran.code, ran.json["code"]) == (Exit.REFUSED, "file-unusable")


def test_unset(vault: Control, run: Run) -> None:
    assert run("secret", "unset", "board", "API_KEY", "--json").json["name"] == "API_KEY"
    assert vault.changes()[0].method == "DELETE"
