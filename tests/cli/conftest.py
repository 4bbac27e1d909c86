"""A control plane and a command line that talks to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from moorage.cli import call, follow
from moorage.cli.app import build_app
from moorage.cli.verbs import logs
from tests.cli.control import TOKEN, Control, running_control


@dataclass(frozen=True)
class Ran:
    """How an invocation ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        """The documents of a stream, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def control() -> Iterator[Control]:
    with running_control() as running:
        yield running


@pytest.fixture
def run(control: Control, tmp_path: Path) -> Run:
    """Run the command line in this process, against the control plane of the test."""
    app, environ = (
        build_app(),
        {"MOORAGE_API": control.url, "MOORAGE_TOKEN": TOKEN, "MOORAGE_HOME": str(tmp_path / "h")},
    )

    def invoke(*words: object, stdin: str | bytes = "", env: dict[str, str | None] | None = None) -> Ran:
        ended = CliRunner().invoke(app, [str(w) for w in words], input=stdin, env={**environ, **(env or {})})
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return Ran(ended.exit_code, ended.stdout, ended.stderr)

    return invoke


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line that tries again as often as always, and without waiting in between."""
    monkeypatch.setattr(call, "RETRY_PAUSES_S", tuple(0.0 for _ in call.RETRY_PAUSES_S))
    monkeypatch.setattr(follow, "SILENCE_PAUSE_S", 0.0)
    monkeypatch.setattr(logs, "LOST_PAUSE_S", 0.0)
