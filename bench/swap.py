"""The peer: what other platforms do on a deploy. New process up and healthy, the proxy switched, the old one SIGTERMed.

Rules of this room: one HAProxy with one server, two uvicorn processes of the same board, no Moorage in between. The
proxy is told over its runtime socket, so that no connection is lost to a reload. With `store` both processes share one
Valkey with the platform's own configuration; without, sessions live in the process, as in most apps.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx

from bench.crowd import Size, Tally, moved
from examples.board.materialise import materialise
from moorage.edge.proxy.launch import proxy_command
from moorage.runner.stores.config import USERS_NAME, render_config
from moorage.system.binaries import find_haproxy, find_valkey
from moorage.system.clock import wait_until
from moorage.system.proc import free_port
from moorage_app.contract import ENV_STORE_URL

READY_TIMEOUT_S = 30.0
STOP_GRACE_S = 10.0  # SIGTERM to SIGKILL, the usual default
HOST = "board.localhost"

_CONFIG = """
global
    maxconn 2000
    noreuseport
    nbthread 1
    stats socket {socket} mode 600 level admin
defaults
    mode http
    timeout connect 3s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend front
    bind 127.0.0.1:{port}
    http-request set-header X-Forwarded-For %[src]
    default_backend app
backend app
    server app 127.0.0.1:{target}
"""


async def measure(crowd_of: Size, *, store: bool) -> Tally:
    """Swap version 1 of the board for version 2 under typing people; the tally."""
    async with AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="moorage-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        environ = {ENV_STORE_URL: await stack.enter_async_context(shared_valkey(folder))} if store else {}
        old_port, new_port, port = free_port(), free_port(), free_port()
        old = await stack.enter_async_context(_board("v1", folder, old_port, environ))
        await stack.enter_async_context(plain_haproxy(folder, port, old_port))

        async def swap() -> None:
            await stack.enter_async_context(_board("v2", folder, new_port, environ))
            await switch_proxy(folder / "haproxy.sock", new_port)
            await ended(old)

        address = ("127.0.0.1", port)
        async with moved(address, f"{HOST}:{port}", swap, crowd_of) as seen:
            return seen.tally


@asynccontextmanager
async def child_process(
    argv: Sequence[str], log: Path, *, folder: Path | None = None, environ: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=folder,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        await ended(process)


async def ended(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, the grace time, SIGKILL."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_GRACE_S)
    except TimeoutError:
        process.kill()
        await process.wait()


@asynccontextmanager
async def _board(
    version: str, folder: Path, port: int, environ: Mapping[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """One version of the board, by the command of its own moorage.toml, once it is healthy."""
    source = materialise(version, folder / version)
    argv = (sys.executable, "-m", "uvicorn", "board:app", "--host", "127.0.0.1", "--port", str(port), "--no-access-log")
    async with (
        child_process(argv, folder / f"{version}.log", folder=source, environ=environ) as process,
        httpx.AsyncClient(trust_env=False) as client,
    ):

        async def healthy() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
            return False

        await require(healthy, f"the board {version}", folder / f"{version}.log")
        yield process


@asynccontextmanager
async def plain_haproxy(folder: Path, port: int, target: int) -> AsyncIterator[None]:
    config, socket = folder / "haproxy.cfg", folder / "haproxy.sock"
    config.write_text(_CONFIG.format(socket=socket, port=port, target=target))
    log = folder / "haproxy.log"
    async with child_process(proxy_command(find_haproxy().path, config), log):
        await require(lambda: _connects(port), "HAProxy", log)
        yield


async def switch_proxy(socket: Path, port: int) -> None:
    """Point the proxy's one server at another port; established connections stay where they are."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    writer.write(f"set server app/app addr 127.0.0.1 port {port}\n".encode())
    await writer.drain()
    said = (await reader.read()).decode().strip()
    writer.close()
    if f"to '{port}'" not in said:
        raise RuntimeError(f"HAProxy did not switch: {said}")


@asynccontextmanager
async def shared_valkey(folder: Path) -> AsyncIterator[str]:
    """A store with the platform's own configuration (every write on the disk before it is answered); its URL."""
    home, port = folder / "valkey", free_port()
    home.mkdir()
    (home / USERS_NAME).write_text("user default on nopass ~* &* +@all\n")
    (home / "valkey.conf").write_text(render_config(home, port))
    log = folder / "valkey.log"
    async with child_process((str(find_valkey().path), str(home / "valkey.conf")), log):
        await require(lambda: _connects(port), "Valkey", log)
        yield f"redis://127.0.0.1:{port}/0"


async def _connects(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def require(condition: Callable[[], Awaitable[bool]], what: str, log: Path) -> None:
    if not await wait_until(condition, timeout_s=READY_TIMEOUT_S):
        raise RuntimeError(f"{what} did not become ready:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
