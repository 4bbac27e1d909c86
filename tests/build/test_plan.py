"""What a build would do, and what pip's words mean."""

from __future__ import annotations

import pytest

from moorage.build.plan import (
    Dependencies,
    Kind,
    Plan,
    check_python,
    pip_problem,
    plan_build,
    state_target,
    with_own_sdk,
)
from moorage.domain.appfile import AppFile, parse_appfile
from moorage.domain.errors import Problem

PYTHON, BINARY = 'command = "python -m uvicorn board:app"', 'command = "./serve"'


def app(process: str = "", tail: str = "") -> AppFile:
    section = f"[process]\n{process}\n" if process else ""
    found = parse_appfile(f'name = "demo"\n{section}{tail}')
    assert isinstance(found, AppFile), found
    return found


PROJECT = '[project]\nname = "x"\ndependencies = ["starlette", "uvicorn>=0.3; python_version > \'3\'"]\n'


@pytest.mark.parametrize(
    ("appfile", "requirements", "pyproject", "kind", "wanted"),
    [
        (app(PYTHON), "starlette\n", None, Kind.PYTHON, Dependencies(file="requirements.txt")),
        (app(PYTHON), "starlette\n", PROJECT, Kind.PYTHON, Dependencies(file="requirements.txt")),
        (
            app(PYTHON),
            None,
            PROJECT,
            Kind.PYTHON,
            Dependencies(listed=("starlette", "uvicorn>=0.3; python_version > '3'")),
        ),
        (app(PYTHON), "# nothing\n\n", None, Kind.PYTHON, None),
        (app(PYTHON), None, "[tool.ruff]\n", Kind.PYTHON, None),
        (app(PYTHON), None, None, Kind.PYTHON, None),
        (app(BINARY), None, None, Kind.COMMAND, None),
        (app(BINARY), None, "[tool.ruff]\n", Kind.COMMAND, None),
        (app(tail="[static]\n"), "starlette\n", PROJECT, Kind.STATIC, None),
    ],
)
def test_kind_and_packages(
    appfile: AppFile, requirements: str | None, pyproject: str | None, kind: Kind, wanted: Dependencies | None
) -> None:
    plan = plan_build(appfile, requirements, pyproject)
    assert isinstance(plan, Plan)
    assert (plan.kind, plan.dependencies) == (kind, wanted)


@pytest.mark.parametrize(
    ("appfile", "health"),
    [
        (app(BINARY), "/_vango/health/ready"),
        (app(f'{BINARY}\nhealth = "/up"'), "/up"),
        (app(tail="[vango]\n"), "/_vango/health/ready"),
        (app(BINARY, '[build]\ncommand = "vango build"\noutput = "dist"\n'), "/_vango/health/ready"),
    ],
)
def test_a_vango_source_is_a_vango_app_whatever_else_is_there(appfile: AppFile, health: str) -> None:
    plan = plan_build(appfile, "starlette\n", PROJECT, vango=True)
    assert isinstance(plan, Plan)
    assert (plan.kind, plan.dependencies, plan.process.health) == (Kind.VANGO, None, health)


def test_a_site_beside_vango_json_is_a_site_and_a_section_needs_its_source() -> None:
    plan = plan_build(app(tail="[static]\n"), None, None, vango=True)
    assert isinstance(plan, Plan)
    assert plan.kind is Kind.STATIC
    problem = plan_build(app(tail="[vango]\n"), None, None)
    assert isinstance(problem, Problem)
    assert problem.code == "vango-settings-invalid"


def test_a_static_site_runs_the_platform_s_server() -> None:
    plan = plan_build(app(tail="[static]\nspa = true\n[process]\nstop_grace_s = 2\n"), None, None)
    assert isinstance(plan, Plan)
    assert (plan.process.command, plan.process.health) == ("python serve.py public --spa", "/-/health")
    assert plan.process.stop_grace_s == 2.0


@pytest.mark.parametrize(
    ("pyproject", "code"),
    [
        ("not toml", "python-dependencies-unreadable"),
        ('[project]\nname="x"\ndynamic=["dependencies"]\n', "python-dependencies-unreadable"),
        ('[project]\nname="x"\ndependencies="starlette"\n', "python-dependencies-unreadable"),
        ('[project]\nname="x"\ndependencies=["not a requirement!"]\n', "python-dependencies-unreadable"),
        ('[tool.poetry]\nname="x"\n', "python-dependencies-unreadable"),
        ('[project]\nname="x"\nrequires-python=">=3.99"\n', "python-version-unsupported"),
        ('[project]\nname="x"\nrequires-python="newest"\n', "python-dependencies-unreadable"),
    ],
)
def test_a_project_that_cannot_be_installed(pyproject: str, code: str) -> None:
    answer = plan_build(app(PYTHON), None, pyproject)
    assert isinstance(answer, Problem)
    assert answer.code == code
    assert answer.hint


def test_the_python_that_runs_decides() -> None:
    text = '[project]\nrequires-python = ">=3.12,<4"\n'
    assert check_python(text, (3, 12, 1)) is None
    assert isinstance(check_python(text, (3, 11, 9)), Problem)


LOCAL = ["Processing ./tiny", "ERROR: Package 'tiny' requires a different Python: 3.11.7 not in '>=3.99'"]
IGNORED = (
    "ERROR: Ignored the following versions that require a different python version: "
    "3.0.0 Requires-Python >=3.12; 3.1.0 Requires-Python >=3.12"
)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (LOCAL, "python-version-unsupported"),
        ([IGNORED, "ERROR: No matching distribution found for tiny==3.1.0"], "python-version-unsupported"),
        ([IGNORED, "ERROR: No matching distribution found for tiny==9.9.9"], "dependencies-failed"),
        (
            [IGNORED, "(from versions: none)", "ERROR: No matching distribution found for tiny"],
            "python-version-unsupported",
        ),
        (["ERROR: No matching distribution found for tiny==1"], "dependencies-failed"),
        ([], "dependencies-failed"),
    ],
)
def test_what_pip_says(lines: list[str], code: str) -> None:
    problem = pip_problem(lines, "requirements.txt")
    assert problem.code == code
    assert problem.detail


def test_where_the_state_is_declared() -> None:
    assert state_target(app(PYTHON)) == "board:app"
    assert state_target(app(PYTHON, "[state]\nmodule = 'state:all'\n")) == "state:all"
    assert state_target(app(PYTHON, "[state]\nschema = 's.json'\n")) is None
    assert state_target(app('command = "python app.py 127.0.0.1:80"')) is None


def test_a_lock_line_of_the_sdk_gets_our_address_unless_it_has_a_hash() -> None:
    assert with_own_sdk("a\nmoorage-app\n", "file:///w", "1") == ("a\nmoorage-app\n", "moorage-app @ file:///w\n")
    lock = "a==1 \\\n    --hash=sha256:aa\nMoorage_App==0.1\nmoorage-app-extra==1 --hash=sha256:bb\n"
    text, constraints = with_own_sdk(lock, "file:///w", "1")
    assert text.splitlines()[1:] == ["moorage-app @ file:///w --hash=sha256:1", "moorage-app-extra==1 --hash=sha256:bb"]
    assert constraints == ""
    own = "moorage-app==0.1 \\\n    --hash=sha256:cc\n"
    assert "sha256:cc" in with_own_sdk(own, "file:///w", "1")[0]
