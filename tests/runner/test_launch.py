"""How a command becomes a process: pure."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.domain.errors import Problem
from moorage.runner.launch import Launch, Layout, Surroundings, plan_launch

AROUND = Surroundings("/usr/bin/python3.11", "/usr/bin", "C.UTF-8")
LAYOUT = Layout(Path("/a/tree"), has_app=True, has_site=True, packages=frozenset({"uvicorn"}))
ENVIRON = {"HOST": "127.0.0.1", "PORT": "20001"}


def launch(command: str, kind: str = "python", layout: Layout = LAYOUT, **environ: str) -> Launch:
    found = plan_launch(command, kind, ENVIRON | environ, Path("/p/home"), layout, AROUND)
    assert isinstance(found, Launch)
    return found


@pytest.mark.parametrize(
    ("kind", "command", "argv"),
    [
        ("python", "python -m uvicorn board:app --port $PORT", "/usr/bin/python3.11 -m uvicorn board:app --port 20001"),
        ("python", "python3 app.py", "/usr/bin/python3.11 app.py"),
        ("python", "python3.9 app.py", "/usr/bin/python3.11 app.py"),
        ("python", "uvicorn board:app", "/usr/bin/python3.11 -m uvicorn board:app"),
        ("python", "gunicorn board:app", "gunicorn board:app"),
        ("python", "./start --bind ${HOST}:$PORT", "./start --bind 127.0.0.1:20001"),
        ("static", "python serve.py public", "/usr/bin/python3.11 serve.py public"),
        ("command", "python app.py", "/usr/bin/python3.11 app.py"),
        ("command", "python3 app.py", "python3 app.py"),
        ("command", "uvicorn board:app", "uvicorn board:app"),
        ("command", "./app '$PORT  x' \"a b\" $HOST$PORT", "./app|20001  x|a b|127.0.0.120001"),
    ],
)
def test_words(kind: str, command: str, argv: str) -> None:
    assert launch(command, kind).argv == tuple(argv.split("|") if "|" in argv else argv.split())


def test_environment_of_python_apps() -> None:
    assert launch("python app.py").environ == ENVIRON | {
        "PATH": "/usr/bin",
        "LANG": "C.UTF-8",
        "HOME": "/p/home",
        "TMPDIR": "/p/home/tmp",
        "PYTHONPATH": "/a/tree/site",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONNOUSERSITE": "1",
    }


def test_the_app_chooses_what_is_its_own_and_not_what_marks_it() -> None:
    environ = launch("python app.py", PATH="/opt", LANG="de_DE", HOME="/root", TMPDIR="/", PYTHONPATH="lib").environ
    assert (environ["PATH"], environ["LANG"]) == ("/opt", "de_DE")
    assert (environ["HOME"], environ["TMPDIR"]) == ("/p/home", "/p/home/tmp")
    assert environ["PYTHONPATH"] == "/a/tree/site:lib"
    assert launch("python app.py", PYTHONDONTWRITEBYTECODE="").environ["PYTHONDONTWRITEBYTECODE"] == "1"
    assert launch("python app.py", PYTHONUNBUFFERED="").environ["PYTHONUNBUFFERED"] == ""


def test_other_apps_get_no_words_about_python() -> None:
    assert not [name for name in launch("./app", "command").environ if name.startswith("PYTHON")]


@pytest.mark.parametrize(("has_app", "folder"), [(True, "/a/tree/app"), (False, "/a/tree")])
def test_folder(has_app: bool, folder: str) -> None:
    assert launch("./app", "command", Layout(Path("/a/tree"), has_app, has_site=False)).folder == Path(folder)


@pytest.mark.parametrize("command", ["", "   ", "app '", "app $NOTHING", "app ${NOTHING}/x"])
def test_commands_that_cannot_be_run(command: str) -> None:
    found = plan_launch(command, "python", ENVIRON, Path("/p"), LAYOUT, AROUND)
    assert isinstance(found, Problem)
    assert found.code == "start-failed"
