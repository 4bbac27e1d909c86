"""Detection: what `moorage init` proposes is a valid app file of the right kind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.appfile import AppFile, parse_appfile
from moorage.domain.detect import Guess, detect, suggest_name

FASTAPI = 'from fastapi import FastAPI\n\napi = FastAPI()\n\n@api.get("/healthz")\ndef h(): ...\n'
BOARD = "class Draft(SessionState, id='board:draft:v1'):\n    text: str = ''\n\napp = Starlette(routes=[])\n"
PROJECT = '[project]\nname = "Team Notes"\n'

CASES = [
    (
        {"requirements.txt": "fastapi", "main.py": FASTAPI},
        Guess.PYTHON,
        "my-folder",
        "uvicorn main:api",
        "/healthz",
        None,
    ),
    ({"pyproject.toml": PROJECT, "board.py": BOARD}, Guess.PYTHON, "team-notes", "uvicorn board:app", "/", "board:app"),
    (
        {"requirements.txt": "", "app.py": "async def app(scope, receive, send): ..."},
        Guess.PYTHON,
        "my-folder",
        "uvicorn app:app",
        "/",
        None,
    ),
    ({"server.py": "print(1)"}, Guess.PYTHON, "my-folder", "python server.py", "/", None),
    ({"index.html": "<h1>"}, Guess.STATIC, "my-folder", "", "/", None),
    (
        {"package.json": '{"scripts": {"build": "vite build"}}', "index.html": ""},
        Guess.COMMAND,
        "my-folder",
        "",
        "/",
        None,
    ),
    (
        {
            "vango.json": "{}",
            "go.mod": "module example.com/team/Notes\n",
            "package.json": '{"scripts": {"build": "x"}}',
        },
        Guess.VANGO,
        "notes",
        "./server",
        "/_vango/health/ready",
        None,
    ),
    ({"go.mod": "module notes\n", "main.go": ""}, Guess.UNKNOWN, "my-folder", "./serve", "/", None),
    ({"vango.json": "{}"}, Guess.UNKNOWN, "my-folder", "./serve", "/", None),
    ({"README.md": ""}, Guess.UNKNOWN, "my-folder", "./serve", "/", None),
]


@pytest.mark.parametrize(("files", "kind", "name", "command", "health", "state"), CASES)
def test_what_is_proposed(
    files: dict[str, str], kind: Guess, name: str, command: str, health: str, state: str | None
) -> None:
    found = detect("My Folder", files)
    parsed = parse_appfile(found.appfile)
    assert isinstance(parsed, AppFile), parsed
    assert (found.kind, parsed.name, parsed.process.health, parsed.state_module) == (kind, name, health, state)
    assert command in parsed.process.command
    assert found.reason
    assert found.complete is (kind is not Guess.UNKNOWN)
    assert (parsed.static is not None) is (kind in (Guess.STATIC, Guess.COMMAND))


@pytest.mark.parametrize(
    ("go_mod", "name"),
    [
        ("module example.com/team/notes/v3\n", "notes"),
        ('// the app\nmodule "example.com/Team_Notes"\n', "team-notes"),
        ("module github.com/v2\n", "github-com"),
        ("go 1.26\n", "my-folder"),
        ("", "my-folder"),
    ],
)
def test_a_vango_app_is_named_after_its_module(go_mod: str, name: str) -> None:
    found = detect("My Folder", {"vango.json": "{}", "go.mod": go_mod})
    assert found.appfile.startswith(f'name = "{name}"\n')
    assert found.reason == "vango.json beside go.mod"


@given(
    st.dictionaries(
        st.sampled_from(["vango.json", "go.mod", *CASES[1][0], *CASES[5][0], "app.py", "x y.py"]), st.text()
    ),
    st.text(),
)
def test_a_proposal_is_always_valid(files: dict[str, str], folder: str) -> None:
    parsed = parse_appfile(detect(folder, files).appfile)
    assert isinstance(parsed, AppFile), parsed


@pytest.mark.parametrize(
    ("text", "name"), [("9 Lives!", "lives"), ("", "app"), ("www", "app"), ("a--b", "a-b"), ("x" * 60, "x" * 40)]
)
def test_names_are_made_valid(text: str, name: str) -> None:
    assert suggest_name(text) == name
