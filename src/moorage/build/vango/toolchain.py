"""The Go toolchain: where it is, with what environment it runs, and what its words mean when it fails.

Rules: the user's own configuration is honoured; what it leaves open is set so that the same source gives the same
bytes, and so that nothing around the work folder (a `go.work` above it) is seen. A toolchain is downloaded only where
the user's `GOTOOLCHAIN` says so.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from moorage.build.bench import Bench
from moorage.build.outcome import Blocked, Failed
from moorage.domain.errors import Problem

CACHE = "cache"  # the folder beside those of builds that outlives them
_LOCAL = "local"
_GO_VERSION = re.compile(r"go(\d[\w.]*)")
_WANTS = re.compile(r"requires go >= ([\w.]+)")
_NO_TOOLCHAIN = re.compile(r"go: (?:download go([\w.]+) for|cannot find \"go([\w.]+)\" in PATH)")
_COMPILE_ERROR = re.compile(r"^\S+\.go:\d+")
_NETWORK = (
    "dial tcp",
    "proxyconnect",
    "no such host",
    "i/o timeout",
    "connection refused",
    "connection reset",
    "tls handshake",
    "network is unreachable",
    "module lookup disabled by goproxy=off",
    "502 bad gateway",
    "503 service unavailable",
)


def find_go(environ: Mapping[str, str]) -> str | None:
    """The `go` program on the path of a tool's environment."""
    return shutil.which("go", path=environ.get("PATH", ""))


def go_environ(environ: Mapping[str, str], source: Path, cache: Path) -> dict[str, str]:
    """What Go needs beyond a tool's environment. `cache` is a folder that outlives builds: it holds modules and
    compiled packages when the user has no home to keep them in."""
    own = {"CGO_ENABLED": "0", "GOTOOLCHAIN": environ.get("GOTOOLCHAIN", _LOCAL)}
    if not (source / "go.work").is_file():
        own["GOWORK"] = "off"
    if not _has_home(environ):
        if "GOCACHE" not in environ and "XDG_CACHE_HOME" not in environ:
            own["GOCACHE"] = str(cache / "go-build")
        if "GOMODCACHE" not in environ and "GOPATH" not in environ:
            own["GOMODCACHE"] = str(cache / "go-mod")
    return own


def _has_home(environ: Mapping[str, str]) -> bool:
    home = environ.get("HOME", "/")
    return home != "/" and os.access(home, os.W_OK | os.X_OK)


def cache_folder(environ: Mapping[str, str], beside: Path) -> Path:
    """Where things stay that are made once per framework version: the user's cache, else the folder `beside`."""
    if "XDG_CACHE_HOME" in environ:
        return Path(environ["XDG_CACHE_HOME"]) / "moorage"
    return Path(environ["HOME"]) / ".cache" / "moorage" if _has_home(environ) else beside


class Go:
    """One Go toolchain for one build."""

    def __init__(self, program: str, bench: Bench, more: Mapping[str, str]) -> None:
        self.program, self.environ = program, dict(more)
        self._bench = bench
        self.version, self._flags = "", ""

    async def check(self, wanted: str) -> None:
        """Learn the toolchain's version and the user's flags. Raises Blocked (`go-version-unsupported`) when it is
        older than `wanted` (as go.mod says it, empty: anything) and may not be exchanged for a newer one."""
        version, self._flags, *_ = [*await self.lines("env", "GOVERSION", "GOFLAGS"), "", ""]
        found = _GO_VERSION.match(version.strip())
        self.version = found.group() if found else "an unknown Go"
        fixed = self.environ["GOTOOLCHAIN"] == _LOCAL
        if fixed and found and wanted and _release(found.group(1)) < _release(wanted):
            raise Blocked(version_unsupported(wanted, found.group()))

    async def lines(self, *words: str) -> list[str]:
        """The lines that a go command prints. Raises Blocked or Failed when it fails."""
        spoken = await self._bench.ask((self.program, *words), self._bench.source, self.environ)
        if not spoken.ran.succeeded:
            self.fail(spoken.ran.lines, f"go {words[0]}")
        return spoken.output.decode("utf-8", "replace").splitlines()

    def analysing(self) -> dict[str, str]:
        """The environment for a tool that looks at sources with the help of Go: with the flag that `build` uses, what
        one of them has compiled is not compiled again for the other."""
        return {**self.environ, "GOFLAGS": f"{self._flags} -trimpath".strip()}

    async def build(self, package: str, target: Path, *, tags: Sequence[str], ldflags: str) -> None:
        """Compile a package into a program that has the same bytes wherever it is compiled. Raises Blocked or
        Failed."""
        flags = f"{ldflags} -s -w -buildid=".strip()
        command = [self.program, "build", "-trimpath", "-buildvcs=false", f"-ldflags={flags}", "-o", str(target)]
        command += [f"-tags={','.join(tags)}"] if tags else []
        ran = await self._bench.run((*command, package), self._bench.source, self.environ)
        if not ran.succeeded:
            self.fail(ran.lines, f"go build {package}")

    def fail(self, lines: Sequence[str], command: str) -> None:
        """Raise what a failed go command means."""
        problem, is_the_source = go_problem(lines, command, self.version)
        raise (Blocked if is_the_source else Failed)(problem, tuple(lines[-20:]))


def go_problem(lines: Sequence[str], command: str, version: str) -> tuple[Problem, bool]:
    """What a failed go command means, and whether the source must change (else the world around it)."""
    text = "\n".join(lines)
    wanted = _WANTS.search(text) or _NO_TOOLCHAIN.search(text)
    if wanted is not None:
        return version_unsupported(next(group for group in wanted.groups() if group), version), True
    if any(word in text.lower() for word in _NETWORK):
        line = next(line for line in reversed(lines) if any(word in line.lower() for word in _NETWORK))
        hint = (
            "Check the network and GOPROXY of the machine that builds, then deploy again; `go mod vendor` needs none."
        )
        title = "The app's Go modules could not be fetched"
        return Problem("go-modules-unavailable", title, line, hint, 502), False
    line = next((line for line in lines if _COMPILE_ERROR.match(line)), lines[-1] if lines else "it said nothing")
    hint = f"Run `{command}` (after `go mod tidy`) in a clean copy of the source, correct it, then deploy again."
    return Problem("go-build-failed", "The app does not compile", f"`{command}`: {line}", hint, 422), True


def go_missing() -> Problem:
    """The problem of a machine without Go."""
    hint = (
        "Install Go (https://go.dev/dl) so that `go` is on the PATH that `moorage up` was started with; or build on a"
        " machine that has it and bring the artifact: `moorage artifact export`, then `moorage artifact import`."
    )
    detail = "there is no program `go` on the PATH of the builder"
    return Problem("go-missing", "This machine has no Go toolchain", detail, hint, 422)


def version_unsupported(wanted: str, version: str) -> Problem:
    """The problem of a module that asks for a newer Go."""
    hint = (
        f"Install Go {wanted} or newer on the machine that builds, set GOTOOLCHAIN=auto there to let Go fetch it, or"
        " ask for less in go.mod."
    )
    detail = f"the module asks for go {wanted}; this machine has {version or 'an older one'}"
    facts = {"wanted": wanted, "found": version.removeprefix("go")}
    return Problem("go-version-unsupported", "The app needs a newer Go", detail, hint, 422, facts)


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a Go version, `1.26rc1` counting as 1.26."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    parts = tuple(map(int, numbers.group().split("."))) if numbers else ()
    return (*parts, 0, 0, 0)[:3]
