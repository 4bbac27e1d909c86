"""The framework's own tool: built from the very source that the fixture is compiled with, run against a route.

Rules of this room: the source is not touched. The tool looks its base URL up with Go's own resolver, which knows no
`*.localhost`: so it is linked to read its hosts from a file `hosts` in the folder that it runs in, instead of the
machine's. No right is needed for that, and nothing of the machine is changed.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from conformance.fixture import SOURCES
from moorage.build.vango.toolchain import cache_folder

MODULE: Final = "github.com/vango-go/vango"
BUILD_TIMEOUT_S: Final = 900.0  # a cold cache on a small machine
RUN_TIMEOUT_S: Final = 120.0
HOSTS: Final = "hosts"
_HOSTS_FLAG: Final = f"-ldflags=-X=net.hostsFilePath={HOSTS}"
_GO_VERSION: Final = re.compile(r"go\d[\w.]*")
_OF_PROXIES: Final = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"})


class NoToolError(Exception):
    """The tool cannot be had here; the message says why."""


@dataclass(frozen=True, slots=True)
class Tool:
    """The built tool, and what it was built with."""

    program: Path
    version: str
    go: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check of the tool at one place: `status` pass, fail or not_applicable, and what it says."""

    name: str
    status: str
    message: str


async def build_tool() -> Tool:
    """The tool of the fixture's framework version, from the cache or built now. Raises NoToolError."""
    program = shutil.which("go")
    if program is None:
        raise NoToolError("this machine has no Go toolchain (https://go.dev/dl): neither app nor tool can be built")
    found = _GO_VERSION.search(await _go(program, "env", "GOVERSION"))
    go = found.group() if found else "an unknown Go"
    module = json.loads(await _go(program, "list", "-m", "-json", MODULE))
    folder, version = module.get("Dir"), str(module["Version"])
    if not folder:
        await _go(program, "mod", "download", MODULE)
        folder = json.loads(await _go(program, "list", "-m", "-json", MODULE))["Dir"]
    beside = cache_folder(os.environ, SOURCES.parent / ".cache")
    place = beside / f"vango-{version.removeprefix('v')}-{go}-own-hosts" / "vango"
    if not os.access(place, os.X_OK):
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f"{os.getpid()}.part")
        flags = ("-trimpath", "-buildvcs=false", _HOSTS_FLAG)
        await _go(program, "build", *flags, "-o", str(fresh), "./cmd/vango", folder=Path(folder))
        fresh.replace(place)
    return Tool(place, version.removeprefix("v"), go)


async def _go(program: str, *words: str, folder: Path = SOURCES) -> str:
    environ = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
    process = await asyncio.create_subprocess_exec(
        program, *words, cwd=folder, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(BUILD_TIMEOUT_S):
            out, errors = await process.communicate()
    except TimeoutError as late:
        process.kill()
        raise NoToolError(f"`go {words[0]}` took more than {BUILD_TIMEOUT_S:.0f} s") from late
    if process.returncode != 0:
        lines = errors.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
        raise NoToolError(f"`go {words[0]}` failed: {lines[-1]}")
    return out.decode("utf-8", "replace")


async def ask(tool: Tool, folder: Path, *words: str) -> dict[str, Any]:
    """The JSON document that a command of the tool prints, whatever its exit code. Raises NoToolError without one."""
    environ = {name: value for name, value in os.environ.items() if name not in _OF_PROXIES}
    process = await asyncio.create_subprocess_exec(
        str(tool.program), *words, cwd=folder, env=environ, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            out, errors = await process.communicate()
        document = json.loads(out)
    except TimeoutError as late:
        process.kill()
        raise NoToolError(f"`vango {words[0]}` took more than {RUN_TIMEOUT_S:.0f} s") from late
    except ValueError as wrong:
        said = errors.decode("utf-8", "replace").strip().splitlines() or ["nothing"]
        raise NoToolError(f"`vango {words[0]}` gave no document; it said: {said[-1]}") from wrong
    assert isinstance(document, dict), "the tool prints objects"
    return document


async def run_checks(
    tool: Tool, folder: Path, base_url: str, hosts: Sequence[str], *, fixtures: Mapping[str, str], source: bool = False
) -> tuple[Verdict, ...]:
    """Run the tool's checks against a base URL; `hosts` resolve to this machine, `fixtures` are its flags for pages of
    the app. `source`: `folder` is the app's, and what lies there is checked as well.

    Raises NoToolError.
    """
    (folder / HOSTS).write_text(f"127.0.0.1 {' '.join(hosts)}\n")
    words = ["conformance", "run", "--base-url", base_url, "--runtime-stress", "--json"]
    words += [] if source else ["--host-only"]
    for flag, value in fixtures.items():
        words += [f"--{flag}", value]
    document = await ask(tool, folder, *words)
    checks = document.get("checks", [])
    return tuple(Verdict(str(c["name"]), str(c["status"]), str(c.get("message", ""))) for c in checks)
