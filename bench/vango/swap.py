"""The peer: what other platforms do on a deploy. New process up and healthy, the proxy switched, the old one SIGTERMed.

Rules of this room: one HAProxy with one server, two processes of the same board on one store with the same secrets, no
Moorage in between. The variables that an app is given are those that the platform gives, and the store has the
platform's own configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from bench.crowd import Size
from bench.ground import tell
from bench.swap import child_process, ended, plain_haproxy, require, shared_valkey, switch_proxy
from bench.vango.board import APP, VERSIONS
from bench.vango.crowd import TICK_DONE_S, Place, after_tick, describe, moved, reload_pages
from moorage.system.clock import monotonic_s
from moorage.system.proc import free_port
from moorage.system.rand import new_secret
from moorage.vango.variables import Secrets, host_variables, store_binding
from tests.support.vango.crowd import Tally, tally
from tests.support.vango.ground import READY_PATH, board_folder

SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Swapped:
    """A plain swap: what the people saw, and what they had once those who gave up had loaded their pages anew."""

    tally: Tally
    after_reload: Tally
    unanswered_count: int
    failed_opens: Mapping[str, int]
    busy_cores: float


async def swap(crowd_of: Size) -> Swapped:
    """Swap version 1 of the board for version 2 under typing people. Half of them have been there for a tick of the
    framework: what it stored of them then is what they can find again."""
    for version in VERSIONS:
        await asyncio.to_thread(board_folder, version)
    async with AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="moorage-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        old_port, new_port, port = free_port(), free_port(), free_port()
        place = Place(("127.0.0.1", port), f"{APP}.localhost:{port}")
        given = _given(place, await stack.enter_async_context(shared_valkey(folder)))
        old = await stack.enter_async_context(_board("v1", folder, old_port, given))
        started_s = monotonic_s()
        await stack.enter_async_context(plain_haproxy(folder, port, old_port))

        async def tick() -> None:
            await after_tick(monotonic_s() - started_s, TICK_DONE_S)

        async def switch() -> None:
            await stack.enter_async_context(_board("v2", folder, new_port, given))
            await switch_proxy(folder / "haproxy.sock", new_port)
            await ended(old)

        async with moved(place, switch, crowd_of, late_count=crowd_of.people // 2, meanwhile=tick) as seen:
            await reload_pages(seen.people)
            again = tally(seen.people, seen.before)
            tell(f"  after loading pages anew: {describe(again)}")
            return Swapped(seen.tally, again, seen.unanswered_count, seen.failed_opens, seen.busy_cores)


def _given(place: Place, store_url: str) -> dict[str, str]:
    """What the platform would give an allocation, the same for both."""
    secrets = Secrets(persistence=new_secret(SECRET_BYTES).encode().hex(), csrf=new_secret(SECRET_BYTES))
    return host_variables(f"http://{place.host}", store_binding({}, store_url), secrets)


@asynccontextmanager
async def _board(
    version: str, folder: Path, port: int, given: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """One version of the board, once it is healthy."""
    environ = {**given, "HOST": "127.0.0.1", "PORT": str(port), "MOORAGE_ALLOCATION_NUMBER": version}
    log = folder / f"{version}.log"
    async with (
        child_process(("./server",), log, folder=board_folder(version), environ=environ) as process,
        httpx.AsyncClient(trust_env=False) as client,
    ):

        async def healthy() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await client.get(f"http://127.0.0.1:{port}{READY_PATH}")).status_code == httpx.codes.OK
            return False

        await require(healthy, f"the board {version}", log)
        yield process
