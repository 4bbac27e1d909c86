"""Secrets: where a value comes from, and that it appears nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.cli.call import Exit
from moorage.domain.errors import Problem
from moorage.domain.limits import SECRET_VALUE_MAX_BYTES
from moorage.system.clock import now_ms
from moorage.wire.api import SecretView
from moorage.wire.bindings import BindingView, RotatedSecret, RotationView
from tests.cli.conftest import Run
from tests.cli.control import DROP, Control

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


# --- names and values that a Vango app is given by the platform


@pytest.mark.parametrize("name", ["VANGO_PERSISTENCE_SECRET", "VANGO_CSRF_SECRET", "VANGO_PUBLIC_URL"])
def test_the_platforms_own_variables(vault: Control, run: Run, name: str) -> None:
    ran = run("secret", "set", "board", name, "--json", stdin="x")
    assert (ran.code, ran.json["code"]) == (Exit.REFUSED, "secret-name-sealed")
    assert vault.sent == []


def test_one_that_is_older_than_its_being_refused_can_go(vault: Control, run: Run) -> None:
    name = "VANGO_CSRF_SECRET"
    vault.on("DELETE", f"/v1/apps/board/secrets/{name}", secret_view(name))
    assert run("secret", "unset", "board", name).code == Exit.OK


@pytest.mark.parametrize("name", ["VANGO_SESSION_STORE_URL", "VANGO_PUBSUB_URL"])
def test_the_url_of_an_own_store(vault: Control, run: Run, name: str) -> None:
    ran = run("secret", "set", "board", name, "--json", stdin="postgres://me:s3cret@db.example/board\n")
    assert (ran.code, ran.json["code"]) == (Exit.REFUSED, "store-url-invalid")
    assert "s3cret" not in ran.out + ran.err
    assert vault.sent == []
    vault.on("PUT", f"/v1/apps/board/secrets/{name}", secret_view(name))
    ran = run("secret", "set", "board", name, stdin="rediss://me:s3cret@store.example/0\n")
    assert ran.code == Exit.OK
    assert vault.changes()[0].json["value"] == "rediss://me:s3cret@store.example/0"
    assert "start fresh" in ran.out
    assert "cannot fence" in ran.out
    assert "s3cret" not in ran.out + ran.err


# --- rotation


def secret_view(name: str) -> SecretView:
    return SecretView(name=name, scope="runtime", version=1, updated_ms=now_ms())


def rotated(*names: str, running: tuple[int, ...] = ()) -> RotationView:
    made = tuple(RotatedSecret(name=name, version=2, updated_ms=now_ms()) for name in names)
    return RotationView(app="board", rotated=made, running=running)


ROTATIONS = "/v1/apps/board/rotations"


def test_a_rotation_says_what_stays_readable_and_when_it_holds(control: Control, run: Run) -> None:
    control.on("POST", ROTATIONS, rotated("VANGO_PERSISTENCE_SECRET", running=(3, 4)))
    ran = run("secret", "rotate", "board")
    assert ran.code == Exit.OK
    (sent,) = control.changes()
    assert (sent.json, bool(sent.key)) == ({"csrf": False}, True)
    assert "VANGO_PERSISTENCE_SECRET has a new value (version 2)" in ran.out
    assert "VANGO_CSRF_SECRET stays as it is: --csrf" in ran.out
    assert "(3, 4)" in ran.out
    assert "moorage restart board --handover" in ran.out


def test_a_rotation_of_the_csrf_secret_says_what_it_costs(control: Control, run: Run) -> None:
    control.on("POST", ROTATIONS, rotated("VANGO_PERSISTENCE_SECRET", "VANGO_CSRF_SECRET"))
    ran = run("secret", "rotate", "board", "--csrf")
    assert control.changes()[0].json == {"csrf": True}
    assert "reload once and start fresh sessions" in ran.out
    assert "--csrf rotates it too" not in ran.out
    assert "moorage restart" not in ran.out, "nothing runs that has to be restarted"


@pytest.mark.parametrize(("signed", "lost"), [(3, False), (0, False), (None, True)])
def test_a_rotation_that_drops_a_value_in_an_own_store(
    control: Control, run: Run, signed: int | None, lost: bool
) -> None:
    view = rotated("VANGO_PERSISTENCE_SECRET").model_copy(update={"dropped": True, "signed_anew": signed})
    control.on("POST", ROTATIONS, view)
    assert ("is lost to the app" in run("secret", "rotate", "board").out) is lost


def test_a_rotation_in_json(control: Control, run: Run) -> None:
    control.on("POST", ROTATIONS, rotated("VANGO_PERSISTENCE_SECRET", running=(3,)))
    told = run("secret", "rotate", "board", "--json").json
    assert (told["app"], told["running"], told["rotated"][0]["version"]) == ("board", [3], 2)


def test_a_rotation_that_is_refused(control: Control, run: Run) -> None:
    problem = Problem("rotation-unfinished", "The last rotation has not reached every allocation", status=409)
    control.on("POST", ROTATIONS, problem)
    ran = run("secret", "rotate", "board", "--json")
    assert (ran.code, ran.json["code"]) == (Exit.REFUSED, "rotation-unfinished")


def test_a_lost_answer_is_asked_for_with_the_same_key(control: Control, run: Run) -> None:
    control.on("POST", ROTATIONS, DROP, rotated("VANGO_PERSISTENCE_SECRET"))
    assert run("secret", "rotate", "board").code == Exit.OK
    first, second = control.changes()
    assert first.key == second.key


# --- bindings


def test_bindings(control: Control, run: Run) -> None:
    def view(name: str, source: str, state: str, why: str = "") -> BindingView:
        return BindingView(
            service_class=name, provider="redis", source=source, variable="VANGO_PUBSUB_URL", state=state, why=why
        )

    path = "/v1/apps/board/bindings"
    control.on("GET", path, (view("vango_session_store", "managed", "active"),))
    ran = run("bindings", "board")
    assert ran.out.splitlines()[1].split()[:3] == ["vango_session_store", "redis", "managed"]
    assert "fenced" not in ran.out
    control.on("GET", path, (view("broadcast_backend", "own", "declared", "never seen"),))
    ran = run("bindings", "board")
    assert "never seen" in ran.out
    assert "cannot be fenced" in ran.out
    assert run("bindings", "board", "--json").json["items"][0]["state"] == "declared"
    control.on("GET", path, ())
    assert "is given no services" in run("bindings", "board").out
