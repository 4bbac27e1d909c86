"""Ground for people on a Vango board without a platform: the app built from its sources, a store, an edge.

Rules of this room: the edge is a real HAProxy with the edge's own configuration and agent, the store a real Valkey with
one user per allocation, the app a real process with the variables that a host gives. What a control plane would
decide, the test says.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import pytest

from moorage.domain.allocation import Posture
from moorage.sessions.admin import StoreAdmin
from moorage.system.binaries import find_valkey
from moorage.system.proc import free_port
from moorage.vango.variables import Secrets, host_variables, store_binding
from moorage.wire.runner import StoreUser
from tests.edge.kit import Edge, running_edge
from tests.support.waiting import wait_until

needs_go = pytest.mark.skipif(
    shutil.which("go") is None, reason="no Go toolchain on this machine: see go.dev/doc/install"
)
SOURCES: Final = Path(__file__).resolve().parents[3] / "examples" / "vango-board"
READY_PATH: Final = "/_vango/health/ready"
READY_WITHIN_S: Final = 30.0
BUILD_WITHIN_S: Final = 900.0
SECRETS: Final = Secrets(persistence="ab" * 32, csrf="a text that only this ground knows")
ADMIN_PASSWORD: Final = "admin"


def board_folder(version: str = "v1") -> Path:
    """A version of the board with its program `server`; built once per machine and state of its sources."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(SOURCES)).encode() + b"\0" + path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"moorage-vango-board-{os.getuid()}-{digest.hexdigest()[:16]}" / version
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    with (folder.parent / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers may ask at once
        if not (folder / "server").exists():
            shutil.rmtree(folder, ignore_errors=True)
            materialise = [sys.executable, str(SOURCES / "materialise.py"), version, str(folder)]
            subprocess.run(materialise, check=True, capture_output=True)
            build = ["go", "build", "-o", "server", "./cmd/server"]
            subprocess.run(build, cwd=folder, check=True, capture_output=True, timeout=BUILD_WITHIN_S)
    return folder


def digest_of(password: str) -> str:
    """A password as the store's list of users has it."""
    return hashlib.sha256(password.encode()).hexdigest()


@dataclass
class Store:
    """A Valkey with the platform's admin, and a user per allocation."""

    port: int
    process: asyncio.subprocess.Process

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[StoreAdmin]:
        """The platform's own connection."""
        admin = StoreAdmin(self.port, ADMIN_PASSWORD)
        try:
            yield admin
        finally:
            await admin.close()

    async def add(self, user: str) -> str:
        """Makes a user; the URL that its allocation gets."""
        async with self.admin() as admin:
            await admin.set_user(StoreUser(name=user, password_sha256=digest_of(user), enabled=True))
        return f"redis://{user}:{user}@127.0.0.1:{self.port}/0"

    async def fence(self, user: str) -> None:
        """The user can write nothing any more."""
        async with self.admin() as admin:
            await admin.fence(user)


@contextlib.asynccontextmanager
async def running_store(folder: Path) -> AsyncIterator[Store]:
    """A store without persistence; it ends with the block."""
    port, users = free_port(), folder / "users.acl"
    users.write_text(f"user default off resetpass -@all\nuser moorage on #{digest_of(ADMIN_PASSWORD)} ~* &* +@all\n")
    words = [f"--port {port}", "--bind 127.0.0.1", "--appendonly no", f"--dir {folder}", f"--aclfile {users}"]
    command = [str(find_valkey().path), *" ".join(words).split(" "), "--save", ""]
    with (folder / "store.log").open("wb") as log:
        store = Store(port, await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log))
    try:
        await wait_until(lambda: _accepts(port), what="the store accepts connections")
        yield store
    finally:
        store.process.kill()
        await store.process.wait()


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@dataclass
class Board:
    """One allocation: a process of the board."""

    number: int
    port: int
    user: str
    process: asyncio.subprocess.Process
    log: Path

    def signal(self, what: signal.Signals) -> None:
        """Sends a signal to the process."""
        self.process.send_signal(what)

    async def kill(self) -> None:
        """kill -9, and it is over."""
        self.process.kill()
        await self.process.wait()


@dataclass
class Ground:
    """An edge, a store, and boards that a test starts and moves people between."""

    folder: Path
    edge: Edge
    store: Store | None
    name: str = "board.localhost"
    boards: dict[int, Board] = field(default_factory=dict)

    @property
    def address(self) -> tuple[str, int]:
        """Where people connect."""
        return "127.0.0.1", self.edge.settings.http_port

    @property
    def host(self) -> str:
        """What people send as Host."""
        return f"{self.name}:{self.address[1]}"

    async def start(self, number: int, version: str = "v1", *, more: Mapping[str, str] | None = None) -> Board:
        """A new allocation, ready, placed at the edge under a deployment of the same number; it owns nothing yet."""
        port, user, folder = free_port(), f"alc_{number}", await asyncio.to_thread(board_folder, version)
        url = await self.store.add(user) if self.store else ""
        given = host_variables(f"http://{self.host}", store_binding({}, url), SECRETS)
        plain = {
            "PATH": os.environ["PATH"],
            "PORT": str(port),
            "HOST": "127.0.0.1",
            "MOORAGE_ALLOCATION_NUMBER": str(number),
        }
        log = self.folder / f"board-{number}.log"
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                "./server", cwd=folder, env={**plain, **given, **(more or {})}, stdout=out, stderr=out
            )
        board = self.boards[number] = Board(number, port, user, process, log)
        await wait_until(lambda: _is_ready(board), timeout_s=READY_WITHIN_S, what=f"board {number} is ready")
        self.edge.ledger.place(number, port, deployment=number)
        await self.edge.in_force()
        return board

    async def own(self, number: int) -> None:
        """The route belongs to this allocation's deployment now."""
        self.edge.ledger.own(self.name, number)
        await self.edge.in_force()

    async def posture(self, number: int, posture: Posture) -> None:
        """What the edge must do with an allocation."""
        self.edge.ledger.place(number, self.boards[number].port, deployment=number, posture=posture)
        await self.edge.in_force()

    async def hold(self, held: bool) -> None:
        """Whether reconnects wait at the edge."""
        self.edge.ledger.hold(self.name, held)
        await self.edge.in_force()


async def _is_ready(board: Board) -> bool:
    assert board.process.returncode is None, board.log.read_text()[-2000:]
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            return (await client.get(f"http://127.0.0.1:{board.port}{READY_PATH}")).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


@contextlib.asynccontextmanager
async def running_ground(folder: Path, *, with_store: bool = True) -> AsyncIterator[Ground]:
    """An edge and a store; boards that were started end with it."""
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(running_store(folder)) if with_store else None
        edge_folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moorage-edge-")))
        edge = await stack.enter_async_context(running_edge(edge_folder))
        ground = Ground(folder, edge, store)
        try:
            yield ground
        finally:
            for board in ground.boards.values():
                if board.process.returncode is None:
                    await board.kill()
