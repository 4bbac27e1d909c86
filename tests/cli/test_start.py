"""The command starts fast, in a process of its own: help loads nothing heavy, and completion answers."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import moorage.cli.app
from moorage.cli.call import Exit

PROGRAM = "from moorage.cli.app import build_app; build_app()()"
HEAVY = ("pydantic", "httpx", "rich", "asyncio", "moorage.client", "moorage.wire", "moorage.system.settings")


def run(*words: str, code: str = PROGRAM, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    env = {"PATH": "/usr/bin:/bin", "COLUMNS": "80", **environ}
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=env, check=False)


def test_help_loads_nothing_heavy() -> None:
    seen = "import sys, atexit; atexit.register(lambda: print('|'.join(sys.modules), file=sys.stderr))\n"
    ended = run("--help", code=seen + PROGRAM)
    assert ended.returncode == Exit.OK
    loaded = set(ended.stderr.strip().split("|"))
    assert "moorage.cli.app" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_help_names_every_verb_in_its_panel() -> None:
    ended = run()
    assert ended.returncode == Exit.OK
    for panel in moorage.cli.app.PANELS:
        assert f"\n{panel}:\n" in ended.stdout
    for verb in ("init", "deploy", "promote", "rollback", "secret", "status", "explain", "doctor"):
        assert f"\n  {verb} " in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 80


def test_every_verb_has_help_that_fits_and_the_flags_of_all() -> None:
    app, environ = moorage.cli.app.build_app(), {"COLUMNS": "80"}
    listed = CliRunner().invoke(app, [], env=environ).stdout.splitlines()
    verbs = {line.split()[0] for line in listed if line.startswith("  ") and line[2].islower()}
    assert len(verbs) >= 18
    for verb in verbs - {"artifact", "secret"}:
        shown = CliRunner().invoke(app, [verb, "-h"], env=environ).stdout
        assert "--json" in shown, verb
        assert "--home" in shown, verb
        assert max(map(len, shown.splitlines())) <= 80, verb


def test_the_version() -> None:
    assert run("--version").stdout.startswith("moorage ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_offers_the_verbs(shell: str) -> None:
    ended = run(
        _MOORAGE_COMPLETE=f"complete_{shell}",
        COMP_WORDS="moorage pro",
        COMP_CWORD="1",
        _TYPER_COMPLETE_ARGS="moorage pro",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert "promote" in ended.stdout


def test_completion_can_be_shown() -> None:
    # The shell is detected from the process above; that is make's `sh` when make runs the tests.
    ended = run("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert ended.returncode == Exit.OK
    assert "_MOORAGE_COMPLETE" in ended.stdout


def test_a_reader_that_has_enough_ends_it_quietly() -> None:
    command = f'"{sys.executable}" -c "{PROGRAM}" --help | head -1'
    ended = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert ended.stdout.startswith("Usage: moorage")
    assert "Traceback" not in ended.stderr
