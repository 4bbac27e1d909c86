"""Where one build happens and what is left to it: its folders, the environment of its tools, its time.

`source/` is the unpacked source, `tree/` the artifact to be; whatever else is needed lies beside them and goes with
the work folder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from moorage.build.outcome import FULL_TEXTS, Failed, disk_full
from moorage.build.tools import Ran, run_tool, tool_environ
from moorage.domain.errors import Problem
from moorage.domain.limits import LOG_TAIL_LINES_COUNT
from moorage.system.clock import monotonic_s

OUTPUT_MAX_BYTES = 8 << 20  # what is read of a tool's standard output
_TO_FILE = 'out=$1; shift; exec "$@" >"$out"'
_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(call: Callable[_P, _T], /, *given: _P.args, **named: _P.kwargs) -> _T:
    """Run blocking work in a thread. A cancellation waits for its end: nobody removes the folder under its feet."""
    task = asyncio.create_task(asyncio.to_thread(call, *given, **named))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


@dataclass(frozen=True, slots=True)
class Spoken:
    """How a tool ended, and what it wrote to its standard output."""

    ran: Ran
    output: bytes


class Bench:
    """One build's place of work."""

    def __init__(self, work: Path, host: Mapping[str, str], secrets: Mapping[str, str], timeout_s: float) -> None:
        """`host` is the environment that tools may take their settings from, `secrets` those of scope `build`."""
        self.work, self.source, self.tree = work, work / "source", work / "tree"
        self.environ = tool_environ(host, secrets)
        self.secrets = tuple(secrets.values())
        self._timeout_s = timeout_s
        self._deadline = monotonic_s() + timeout_s

    def left_s(self) -> float:
        """What is left of the build's time, in seconds."""
        return max(self._deadline - monotonic_s(), 0.0)

    async def run(self, argv: Sequence[str], folder: Path, more: Mapping[str, str]) -> Ran:
        """Run a tool within what is left of the build's time. Raises Failed for a deadline or a full disk."""
        ran = await self.attempt(argv, folder, more, self.left_s())
        if ran.exit_code is None:
            detail = f"`{short(' '.join(argv[-1:]))}` was ended after {self._timeout_s:g} s for the whole build"
            hint = "Make the build faster; packages that are compiled can be given as wheels."
            raise Failed(Problem("build-timeout", "The build took too long", detail, hint, 504), last(ran))
        if not ran.succeeded and any(text in line.lower() for line in ran.lines for text in FULL_TEXTS):
            raise disk_full(_full_line(ran), last(ran))
        return ran

    async def attempt(self, argv: Sequence[str], folder: Path, more: Mapping[str, str], timeout_s: float) -> Ran:
        """Run a tool that may fail or take too long (exit code None). Raises OSError when it cannot be started."""
        environ = {**self.environ, **more, "TMPDIR": str(await in_thread(_scratch, self.work))}
        return await run_tool(
            argv, folder=folder, environ=environ, timeout_s=timeout_s, secrets=self.secrets, mark=self.work
        )

    async def ask(
        self, argv: Sequence[str], folder: Path, more: Mapping[str, str], timeout_s: float | None = None
    ) -> Spoken:
        """Run a tool for what it writes to its standard output (at most OUTPUT_MAX_BYTES of it). With a timeout of
        its own it may take too long; without, it raises as `run` does."""
        out = self.work / "said"
        command = ("sh", "-c", _TO_FILE, "sh", str(out), *argv)
        if timeout_s is None:
            ran = await self.run(command, folder, more)
        else:
            ran = await self.attempt(command, folder, more, min(timeout_s, self.left_s()))
        return Spoken(ran, await in_thread(_read, out))


def short(command: str) -> str:
    """A command on one line, for people."""
    line = " ".join(command.split())
    return line if len(line) <= 80 else f"{line[:79]}…"


def last(ran: Ran) -> tuple[str, ...]:
    """The last lines of what a tool said."""
    return ran.lines[-LOG_TAIL_LINES_COUNT:]


def _read(place: Path) -> bytes:
    if not place.is_file():
        return b""
    with place.open("rb") as handle:
        return handle.read(OUTPUT_MAX_BYTES)


def _scratch(work: Path) -> Path:
    """Temporary files of tools lie in the work folder, on the disk that was chosen for builds, and go with it."""
    folder = work / "tmp"
    folder.mkdir(exist_ok=True)
    return folder


def _full_line(ran: Ran) -> str:
    return next(line for line in reversed(ran.lines) if any(text in line.lower() for text in FULL_TEXTS))
