"""Runs one tool (pip, a build command, the schema reader): its own process group, short environment, deadline.

Whatever happens (end, deadline, cancellation, worker gone) nothing of the group stays: it is killed as a whole; if the
worker itself was killed, the next one finds the group's number in the work folder and ends it then.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moorage.system import proc

LINES_KEPT_COUNT = 200
LINE_MAX_CHARS = 400
SECRET_MIN_CHARS = 4  # shorter values would blank out ordinary letters
GROUP_FILE = "tool.json"
_PIECE_BYTES = 64 << 10
_REAP_TIMEOUT_S = 10.0
_REST_TIMEOUT_S = 2.0  # for what is still in the pipe; something that left the group may hold it open
_TAKEN_FROM_HOST = frozenset(
    {
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "GOROOT",
        "GOPATH",
        "NODE_EXTRA_CA_CERTS",
    }
)
_PREFIXES_TAKEN = ("PIP_", "UV_", "NPM_CONFIG_", "npm_config_", "SSL_CERT_", "REQUESTS_CA_", "CURL_CA_", "GIT_SSL_")
_PROXIES_AND_GO = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "GOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE")
_GO_TOO = ("GOFLAGS", "GONOPROXY", "GOINSECURE", "GOTOOLCHAIN", "GOCACHE", "GOMODCACHE", "CARGO_HOME", "RUSTUP_HOME")
_PATH_DEFAULT = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Ran:
    """How a tool ended: exit code (None: the deadline came first) and its last lines, secrets blanked out."""

    exit_code: int | None
    lines: tuple[str, ...]

    @property
    def succeeded(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.exit_code == 0


@dataclass(slots=True)
class Tail:
    """The last lines of an output that may be endless."""

    secrets: Sequence[str] = ()
    _lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES_KEPT_COUNT))
    _rest: bytes = b""

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        *whole, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        self._rest = self._rest[-_PIECE_BYTES:]
        for line in whole[-LINES_KEPT_COUNT:]:
            self._add(line)

    def lines(self) -> tuple[str, ...]:
        """The last lines, each shortened."""
        rest = [self._shown(self._rest)] if self._rest.strip() else []
        return (*self._lines, *rest)[-LINES_KEPT_COUNT:]

    def _add(self, line: bytes) -> None:
        if line.strip():
            self._lines.append(self._shown(line))

    def _shown(self, line: bytes) -> str:
        return masked(line.decode("utf-8", "replace"), self.secrets).rstrip()[:LINE_MAX_CHARS]


def masked(text: str, secrets: Sequence[str]) -> str:
    """The text with each secret value replaced by asterisks."""
    for secret in sorted(secrets, key=len, reverse=True):
        for part in secret.splitlines():  # output is looked at line by line
            if len(part) >= SECRET_MIN_CHARS:
                text = text.replace(part, "***")
    return text


def tool_environ(host: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """What a tool sees: where programs, home and caches are, the user's own configuration of package tools and
    proxies, and the app's build-scope secrets. Nothing else of the host."""
    wanted = _TAKEN_FROM_HOST.union(_PROXIES_AND_GO, _GO_TOO)
    taken = {
        name: value
        for name, value in host.items()
        if name in wanted or name.upper() in _PROXIES_AND_GO or name.startswith(_PREFIXES_TAKEN)
    }
    return {"PATH": _PATH_DEFAULT, "LANG": "C.UTF-8", "HOME": "/", **taken, **secrets}


async def run_tool(
    argv: Sequence[str],
    *,
    folder: Path,
    environ: Mapping[str, str],
    timeout_s: float,
    secrets: Sequence[str] = (),
    mark: Path | None = None,
) -> Ran:
    """Run a command to its end or for `timeout_s`. `mark` is the folder in which its group is written down.

    Raises OSError when it cannot be started.
    """
    me, tail = os.getpid(), Tail(secrets)
    # a pipe of our own: asyncio's would let a process that the tool left running delay the news of its end
    output, inlet = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=folder,
            env=dict(environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=inlet,
            stderr=inlet,
            start_new_session=True,
            preexec_fn=lambda: proc.die_with_parent(me, signal.SIGKILL),
        )
    except BaseException:
        os.close(output)
        raise
    finally:
        os.close(inlet)
    reading = asyncio.create_task(_read(output, tail))
    try:
        if mark is not None:
            _write_mark(mark, process.pid)
        code = await asyncio.wait_for(_ended(process), timeout_s)
    except TimeoutError:
        code = None
    finally:
        await _end(process)
        await asyncio.wait({reading}, timeout=_REST_TIMEOUT_S)
        reading.cancel()
    return Ran(code, tail.lines())


async def _ended(process: asyncio.subprocess.Process) -> int:
    """Wait for the tool itself, then end what it left running."""
    code = await process.wait()
    kill_group(process.pid)
    return code


async def _read(descriptor: int, tail: Tail) -> None:
    """Read until nobody holds the pipe any more."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
    )
    try:
        while data := await reader.read(_PIECE_BYTES):
            tail.feed(data)
    finally:
        transport.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:  # else the number may already be somebody else's
        kill_group(process.pid)
        await asyncio.wait_for(process.wait(), _REAP_TIMEOUT_S)


def kill_group(group: int) -> None:
    """End every process of a group that this worker made; fine when there is none."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _write_mark(folder: Path, pid: int) -> None:
    """Without a flush: it matters after the death of this process, not of the machine."""
    (folder / GROUP_FILE).write_text(json.dumps({"group": pid, "started_ticks": proc.started_ticks(pid)}))


def end_leftovers(folder: Path) -> int:
    """Kill what an earlier worker's tool left running; says how many processes. `folder` is a work folder."""
    try:
        mark = json.loads((folder / GROUP_FILE).read_text())
        group, since = int(mark["group"]), int(mark["started_ticks"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    # the kernel gives the number of a living group to no other; a member is never older than the group's first
    left = [p for p in proc.processes() if p.group == group and p.started_ticks >= since and p.state not in "ZX"]
    if left:
        kill_group(group)
    return len(left)
