"""A control plane in this event loop: real database, real API, real engine; agents are stand-ins (see support/agents).

It can be killed at any write and started anew on the same files, like the process that it is.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.types import ASGIApp

from moorage.client.agents import BuildClient, EdgeClient, RunnerClient
from moorage.client.api import Api
from moorage.control.api.app import create_app
from moorage.control.builds import Builds
from moorage.control.context import Control, ControlSettings
from moorage.control.live import Live
from moorage.control.loops.allocations import AllocationLoop
from moorage.control.operations.engine import Engine
from moorage.control.vault import Vault
from moorage.domain.artifact import Manifest
from moorage.domain.errors import Problem, Unavailable
from moorage.domain.ids import Prefix
from moorage.main.control import CODES
from moorage.store import log
from moorage.store.database import Database, Tx
from moorage.system.clock import monotonic_s, now_ms
from moorage.system.rand import new_id, new_secret
from moorage.wire.api import DeployRequest, OperationView, PromoteRequest
from tests.support.agents import InProcess, StandInBuilder, StandInEdge, StandInRunner, end

T = TypeVar("T")
ADMIN = "admin-token"
EDGE, RUNNER = "edge-1", "runner-1"
LOOP = "loop of "
TOKENS = {EDGE: "edge-token", RUNNER: "runner-token"}


class InterruptedDatabase(Database):
    """A database under which a process can die: the write of number `die_at` of the engine's operations never answers.

    To die before a write or after the one before it leaves the same behind. The next `broken_count` writes of its loops
    and operations fail as they do on a full disk.
    """

    def __init__(self, path: Path, clock: Callable[[], int]) -> None:
        super().__init__(path, clock)
        self.die_at, self.count = 0, 0
        self.broken_count = 0
        self.only = str(Prefix.OPERATION)  # the id of one operation, to count its writes alone
        self.dead = asyncio.Event()
        self.go_on = asyncio.Event()

    async def write(self, body: Callable[[Tx], T], *, actor: str = "system") -> T:
        task = asyncio.current_task()
        if self.broken_count > 0 and task is not None and task.get_name().startswith((LOOP, Prefix.OPERATION)):
            self.broken_count -= 1
            raise Unavailable(Problem("database-unavailable", "The control database could not be written", status=503))
        if task is None or not task.get_name().startswith(self.only):
            return await super().write(body, actor=actor)
        self.count += 1
        if self.count == self.die_at:
            self.dead.set()
            await self.go_on.wait()
        return await super().write(body, actor=actor)


_SERVED: list[tuple[Control, Builds, ASGIApp]] = []


def served(control: Control) -> tuple[Control, Builds, ASGIApp]:
    """The one ASGI app of all planes, from now on in front of this control plane.

    Building its routes costs more than most tests do. It reaches everything through the control object that it was
    built with, and that object becomes this one; planes follow one another and never run at the same time.
    """
    if not _SERVED:
        builds = Builds(control)
        _SERVED.append((control, builds, create_app(control, builds)))
    first, builds, app = _SERVED[0]
    vars(first).update(vars(control))
    vars(builds).update(vars(Builds(first)))
    return first, builds, app


@dataclass
class Plane:
    """One control plane process."""

    home: Path
    signing_key: Ed25519PrivateKey
    vault_key: bytes
    changed: dict[str, Any] = field(default_factory=dict)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    async def start(self, *, engine: bool = True) -> Plane:
        """Open the database and run the loops."""
        self.db = InterruptedDatabase(self.home / "control.db", now_ms)
        await self.db.write(lambda tx: log.create_incarnation(tx, new_id(Prefix.INCARNATION)))
        live = Live(self.db.changes.announce, monotonic_s, now_ms)
        control = Control(
            self.settings(), self.db, live, Vault(self.vault_key), self.signing_key, new_id(Prefix.OPERATION)
        )
        self.control, self.builds, self.app = served(control)
        self.engine = Engine(self.control, CODES)
        self.allocations = AllocationLoop(self.control)
        if engine:
            loops = {"engine": self.engine.run(), "allocations": self.allocations.run()}
            self.tasks = [asyncio.create_task(loop, name=LOOP + name) for name, loop in loops.items()]
        return self

    async def stop(self) -> None:
        """End the process; whatever was not committed is gone."""
        await end(self.tasks)
        self.tasks = []
        self.db.close()

    def settings(self) -> ControlSettings:
        """The installation of all control tests."""
        given: dict[str, Any] = {
            "version": "0",
            "home": self.home,
            "artifacts": self.home / "artifacts",
            "sources": self.home / "sources",
            "allocations": self.home / "allocations",
            "processes_file": self.home / "processes.json",
            "bind": "127.0.0.1",
            "base_domain": "localhost",
            "http_port": 7080,
            "api_port": 7400,
            "app_host": "127.0.0.1",
            "admin_token": ADMIN,
            "edge_tokens": {EDGE: TOKENS[EDGE]},
            "runner_tokens": {RUNNER: TOKENS[RUNNER]},
            "pin_key": base64.b64encode(bytes(32)).decode(),
            "previews_kept": 3,
            "bake_s": 0.0,
            "binaries": {},
        }
        return ControlSettings(**{**given, **self.changed})

    def http(self, token: str = ADMIN) -> InProcess:
        """A connection of the typed client."""
        return InProcess(self.app, token)

    async def read(self, body: Callable[[Tx], T]) -> T:
        """Look into the database."""
        return await self.db.read(body)


class World:
    """A control plane with its agents, and the deeds that most tests begin with."""

    def __init__(self, home: Path, **changed: Any) -> None:
        (home / "sources").mkdir(parents=True)
        self.plane = Plane(home, Ed25519PrivateKey.generate(), bytes(range(32)), changed)
        self._agents: list[asyncio.Task[Any]] = []

    async def start(self) -> World:
        """Start control plane and agents."""
        await self.plane.start()
        public = self.plane.signing_key.public_key()
        self.edge = StandInEdge(EdgeClient(self.plane.http(TOKENS[EDGE]), EDGE), self._wake, public)
        self.runner = StandInRunner(RunnerClient(self.plane.http(TOKENS[RUNNER]), RUNNER))
        self.builder = StandInBuilder(BuildClient(self.plane.http(TOKENS[RUNNER]), RUNNER))
        self.api = Api(self.plane.http())
        await self.edge.follow_once()
        self._start_agents()
        return self

    async def stop(self) -> None:
        """Stop all of it; an agent that saw something wrong fails the test here."""
        await end(self._agents)
        self._agents = []
        await self.plane.stop()

    async def restart(self) -> None:
        """Kill the control plane and start it anew; agents keep what they have."""
        await self.stop()
        await self.plane.start()
        self.edge.client = EdgeClient(self.plane.http(TOKENS[EDGE]), EDGE)
        self.runner.client = RunnerClient(self.plane.http(TOKENS[RUNNER]), RUNNER)
        self.builder.client = BuildClient(self.plane.http(TOKENS[RUNNER]), RUNNER)
        self.api = Api(self.plane.http())
        self.runner.revision = -1
        self.edge.say_again()
        await self.edge.follow_once()
        await self.runner.tell()
        self._start_agents()

    def _start_agents(self) -> None:
        runs = {"edge": self.edge.run(), "runner": self.runner.run(), "builder": self.builder.run()}
        self._agents = [asyncio.create_task(run, name=name) for name, run in runs.items()]

    async def without(self, agent: str) -> None:
        """Stop one agent: `edge`, `runner` or `builder`. Who needs builds then is the build worker itself."""
        gone = [task for task in self._agents if task.get_name() == agent]
        self._agents = [task for task in self._agents if task not in gone]
        await end(gone)

    async def _wake(self, seen: int, timeout_s: float) -> int:
        """What the event bus does for a real edge: wake it when the log has grown."""
        deadline = monotonic_s() + timeout_s
        while True:
            seen = await self.plane.db.changes.wait(seen, min(0.05, timeout_s))
            index = self.plane.db.read_now(log.committed_index)
            if index > self.edge.index or self.edge.has_news() or monotonic_s() >= deadline:
                return seen

    # --- deeds

    def source(self, made: Manifest | None, text: str = "") -> str:
        """Pretend that an archive was uploaded whose build gives this artifact; returns its digest."""
        text = text or (repr(made) if made else new_secret())
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        (self.plane.home / "sources" / f"{sha256}.tar.gz").write_bytes(b"archive")
        if made:
            self.builder.manifests[sha256] = made
        return sha256

    async def begin_deploy(self, made: Manifest | None, app: str = "board") -> str:
        """Start a deploy; the operation."""
        ref = await self.api.deploy(app, DeployRequest(source=self.source(made)), key=new_secret())
        return ref.operation

    async def deploy(self, made: Manifest, app: str = "board") -> int:
        """Deploy up to `preview_ready`; the deployment's number."""
        done = await self.ended(await self.begin_deploy(made, app))
        assert done.state == "preview_ready", (done.state, done.problem)
        return int(done.input["deployment"])

    async def begin_promote(
        self, number: int, *, app: str = "board", epoch: int | None = None, rollback: bool = False, **more: Any
    ) -> str:
        """Start a promotion (or rollback) from the epoch as it is now unless one is given; the operation."""
        if epoch is None:
            epoch = (await self.api.promotion_report(app, number)).epoch
        request = PromoteRequest(deployment=number, expected_epoch=epoch, **more)
        verb = self.api.rollback if rollback else self.api.promote
        return (await verb(app, request, key=new_secret())).operation

    async def promote(self, number: int, **how: Any) -> OperationView:
        """Promote and wait for the end."""
        return await self.ended(await self.begin_promote(number, **how))

    async def serve(self, made: Manifest, app: str = "board") -> int:
        """Deploy and promote; the deployment's number."""
        number = await self.deploy(made, app)
        done = await self.promote(number, app=app)
        assert done.state == "healthy", (done.state, done.problem)
        return number

    async def ended(self, operation: str, timeout_s: float = 20.0) -> OperationView:
        """The operation once it is finished."""
        return await self._follow(operation, lambda view: view.finished, timeout_s)

    async def reached(self, operation: str, state: str, timeout_s: float = 20.0) -> OperationView:
        """The operation once it has come to a state."""
        return await self._follow(operation, lambda view: view.state == state, timeout_s)

    async def _follow(self, id: str, enough: Callable[[OperationView], bool], timeout_s: float) -> OperationView:
        deadline, seq = monotonic_s() + timeout_s, -1
        while True:
            view = await self.api.operation(id, after_seq=seq, wait_s=1.0)
            if enough(view):
                return view
            assert not view.finished, f"ended as {view.state}: {view.problem}"
            assert monotonic_s() < deadline, f"{view.kind} is still {view.state}: {[s.note for s in view.stages]}"
            seq = view.stages[-1].seq if view.stages else -1
