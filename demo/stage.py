"""The stage: narration, the platform under test, and the command line as a person would type it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage.client.api import Api
from moorage.client.http import Http
from moorage.wire.api import OperationView

MOORAGE = (sys.executable, "-m", "moorage.main")
MARK = ".made-by-make-demo"  # only a folder with this file is ever wiped


class DemoFailedError(Exception):
    """The platform said something else than what the people saw, or did not do what it should."""


def say(text: str = "") -> None:
    """One line of narration."""
    print(text, flush=True)


def scene(title: str) -> None:
    """Begins a scene."""
    say()
    say(f"── {title} " + "─" * max(0, 76 - len(title)))


def expect(condition: bool, what: str) -> None:
    """Fails the demo unless the condition holds; says it either way."""
    if not condition:
        raise DemoFailedError(what)
    say(f"   ✓ {what}")


@dataclass
class Stage:
    """A running platform with its command line and its API."""

    home: Path
    api_url: str
    port: int

    @asynccontextmanager
    async def api(self) -> AsyncIterator[Api]:
        """The typed client of the control API."""
        client = Api(Http(self.api_url, (self.home / "keys" / "admin.token").read_text()))
        try:
            yield client
        finally:
            await client.close()

    async def type_command(self, *words: str, code: int = 0, show: bool = True) -> str:
        """Run a command as a person would, show it and what it prints; fails the demo on another exit code."""
        say(f"$ moorage {' '.join(words)}")
        answer = await asyncio.to_thread(_run, self.home, words)
        text = answer.stdout + answer.stderr
        if show or answer.returncode != code:
            for line in text.rstrip().splitlines():
                say(f"  {line}")
        if answer.returncode != code:
            raise DemoFailedError(f"moorage {' '.join(words)} ended with {answer.returncode}, expected {code}")
        return text

    async def ask(self, *words: str, code: int = 0) -> Any:
        """Run a command with --json that answers with one document."""
        answer = await asyncio.to_thread(_run, self.home, (*words, "--json"))
        if answer.returncode != code:
            raise DemoFailedError(f"moorage {' '.join(words)}: {answer.stdout}{answer.stderr}")
        return json.loads(answer.stdout)

    async def newest(self, app: str, *kinds: str) -> OperationView:
        """The newest finished operation of one of these kinds, waited for."""
        async with self.api() as api:
            for operation in await api.operations(app):
                if operation.kind in kinds:
                    return await finished(api, operation.id)
        raise DemoFailedError(f"no operation of kind {' or '.join(kinds)}")


async def finished(api: Api, operation: str, timeout_s: float = 90.0) -> OperationView:
    """The operation, once it has ended."""
    async with asyncio.timeout(timeout_s):
        view = await api.operation(operation)
        while not view.finished:
            view = await api.operation(operation, after_seq=view.stages[-1].seq, wait_s=5)
        return view


def _run(home: Path, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "MOORAGE_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "96"}
    return subprocess.run([*MOORAGE, *words], env=environ, capture_output=True, text=True, timeout=180)


def fresh_home() -> Path:
    """The demo's own data directory, emptied; a platform that an earlier demo left running is stopped."""
    home = Path(os.environ.get("DEMO_HOME", ".demo")).resolve()
    if home.exists():
        if not (home / MARK).exists():
            raise DemoFailedError(f"{home} exists and was not made by the demo; set DEMO_HOME to another folder")
        _run(home, ("down",))
        shutil.rmtree(home)
    home.mkdir(parents=True)
    (home / MARK).touch()
    return home


async def raise_curtain(*, free_ports: bool) -> Stage:
    """Start a platform for the demo."""
    home = fresh_home()
    words = ("up", "--detach", *(("--port", "0") if free_ports else ()), "--json")
    say(f"$ moorage {' '.join(words[:-1])}")
    answer = await asyncio.to_thread(_run, home, words)
    if answer.returncode != 0:
        raise DemoFailedError(f"the platform did not come up:\n{answer.stdout}{answer.stderr}")
    told = json.loads(answer.stdout)
    say(f"  up after {told['after_s']} s: apps at {told['http']}, API at {told['api']}")
    return Stage(home, told["api"], int(told["http"].rsplit(":", 1)[1]))


def close_curtain(stage: Stage) -> None:
    """Stop the demo's platform."""
    _run(stage.home, ("down",))
