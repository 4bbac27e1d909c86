"""What the runner's tests build: artifacts of small real apps, desired states, and a control plane that records.

The control plane here is a real HTTP server with the two calls a runner makes; it checks every report as the real one
does (strict messages), and answers from what the test wants.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response

from moorage.artifacts.store import ArtifactStore
from moorage.artifacts.tree import hash_tree
from moorage.client.agents import RunnerClient
from moorage.client.http import Http
from moorage.domain.allocation import State
from moorage.domain.artifact import Manifest, Process
from moorage.runner.agent import Agent, RunnerSettings
from moorage.runner.record import Place
from moorage.system.clock import wait_for
from moorage.wire.runner import (
    AllocationReport,
    Desired,
    DesiredAllocation,
    DesiredStore,
    RunnerReport,
    StoreReport,
    StoreUser,
)
from tests.support.waiting import wait_until

HOST = "127.0.0.1"
ADMIN_PASSWORD = "the-admins-own"

# A web app without dependencies: its path decides what it does. It logs its start, one line.
APP = """
import http.server, json, os, signal, subprocess, sys, time

class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = 503 if self.path == "/sick" else 200
        body = json.dumps({"environ": dict(os.environ), "folder": os.getcwd(), "pid": os.getpid()}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/die":
            os._exit(3)
        if self.path == "/close":
            self.server.socket.close()
        if self.path == "/log":
            sys.stdout.write("x" * 1000 * 1000); sys.stdout.flush()
        if self.path == "/child":
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)

    def log_message(self, *words):
        pass

if __name__ == "__main__":
    print("starting on", os.environ["PORT"], flush=True)
    if "STUBBORN" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "EXIT" in os.environ:
        sys.exit(int(os.environ["EXIT"]))
    if "SILENT" in os.environ:
        time.sleep(600)
    http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), App).serve_forever()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def put_app(
    home: Path, files: dict[str, str] | None = None, *, kind: str = "python", command: str = "python app.py"
) -> str:
    """Store an artifact of these files; its digest."""
    stage = home / f"stage-{os.urandom(4).hex()}"
    for path, text in (files or {"app/app.py": APP}).items():
        place = stage / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        if text.startswith("#!"):
            place.chmod(0o755)
    store = ArtifactStore(home / "artifacts")
    return store.put(stage, Manifest("probe", kind, Process(command), hash_tree(stage)))


def wish(artifact: str, name: str = "alc_1", **changes: Any) -> DesiredAllocation:
    """A desired allocation on a free port."""
    port = changes.pop("port", None) or free_port()
    environ = {"HOST": HOST, "PORT": str(port), **changes.pop("environ", {})}
    base: dict[str, Any] = {
        "allocation": name,
        "number": 1,
        "environment": "env_1",
        "app": "probe",
        "deployment_number": 1,
        "artifact": artifact,
        "command": "python app.py",
        "environ": environ,
        "host": HOST,
        "port": port,
        "health": "/",
        "ready_timeout_s": 20.0,
        "stop_grace_s": 5.0,
        "want": "run",
    }
    return DesiredAllocation(**(base | changes))


def store_user(name: str, password: str, *, enabled: bool = True) -> StoreUser:
    return StoreUser(name=name, password_sha256=hashlib.sha256(password.encode()).hexdigest(), enabled=enabled)


def wish_store(port: int, *users: StoreUser, environment: str = "env_1", want: Any = "run") -> DesiredStore:
    return DesiredStore(environment=environment, port=port, admin_password=ADMIN_PASSWORD, users=users, want=want)


@dataclass
class ControlPlane:
    """A control plane for runners: what it desires, and every report it was given."""

    desired: Desired = field(default_factory=lambda: Desired(revision=0, allocations=(), stores=()))
    reports: list[RunnerReport] = field(default_factory=list)
    base: str = ""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def want(self, *allocations: DesiredAllocation, stores: tuple[DesiredStore, ...] = ()) -> None:
        """Desire exactly this from now on."""
        self.desired = Desired(revision=self.desired.revision + 1, allocations=allocations, stores=stores)
        self._changed.set()

    def allocation(self, name: str = "alc_1") -> AllocationReport | None:
        """The latest report of an allocation."""
        found = self.reports[-1].allocations if self.reports else ()
        return next((each for each in found if each.allocation == name), None)

    def store(self, environment: str = "env_1") -> StoreReport | None:
        """The latest report of a store."""
        found = self.reports[-1].stores if self.reports else ()
        return next((each for each in found if each.environment == environment), None)

    async def sees(self, state: State, name: str = "alc_1", *, timeout_s: float = 20.0) -> AllocationReport:
        """Wait until the latest report has the allocation in this state."""
        await wait_until(
            lambda: (each := self.allocation(name)) is not None and each.state is state,
            timeout_s=timeout_s,
            what=f"{name} {state}, last seen {self.reports[-1:]}",
        )
        found = self.allocation(name)
        assert found is not None
        return found

    async def sees_store(self, state: str, environment: str = "env_1", *, timeout_s: float = 20.0) -> StoreReport:
        """Wait until the latest report has the store in this state."""
        await wait_until(
            lambda: (each := self.store(environment)) is not None and each.state == state,
            timeout_s=timeout_s,
            what=f"store {environment} {state}",
        )
        found = self.store(environment)
        assert found is not None
        return found

    def states(self, name: str = "alc_1") -> list[State]:
        """The states that were reported, without repetitions."""
        found: list[State] = []
        for report in self.reports:
            for each in report.allocations:
                if each.allocation == name and found[-1:] != [each.state]:
                    found.append(each.state)
        return found

    def served(self) -> FastAPI:
        """The two calls."""
        served = FastAPI()

        @served.get("/v1/runners/{runner}/desired")
        async def desired(runner: str, after: int, wait_s: float) -> Response:
            if self.desired.revision <= after:
                await wait_for(self._changed, wait_s)
            return Response(self.desired.model_dump_json(), media_type="application/json")

        @served.post("/v1/runners/{runner}/report")
        async def report(runner: str, request: Request) -> Response:
            self.reports.append(RunnerReport.model_validate_json(await request.body()))
            return Response(status_code=204)

        return served


@contextlib.asynccontextmanager
async def control_plane() -> AsyncIterator[ControlPlane]:
    """A served control plane."""
    control, port = ControlPlane(), free_port()
    control.base = f"http://{HOST}:{port}"
    config = uvicorn.Config(control.served(), host=HOST, port=port, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await wait_until(lambda: server.started)
    try:
        yield control
    finally:
        control._changed.set()
        server.should_exit = server.force_exit = True
        await serving


def settings_of(home: Path) -> RunnerSettings:
    return RunnerSettings(home / "allocations", home / "stores", home / "artifacts")


@contextlib.asynccontextmanager
async def runner(home: Path, control: ControlPlane, **settings: Any) -> AsyncIterator[Agent]:
    """A runner in this process; ends everything at the end."""
    http = Http(control.base, "token")
    agent = Agent(replace(settings_of(home), **settings), RunnerClient(http, "run_1"))
    running = asyncio.create_task(agent.run())
    try:
        yield agent
    finally:
        agent.stop(end_all=True)
        await running
        await http.close()


class RunnerProcess:
    """A runner in a process of its own, to be killed."""

    def __init__(self, home: Path, control: ControlPlane) -> None:
        words = [sys.executable, "-m", "tests.runner.run_agent", control.base, str(home)]
        self.process = subprocess.Popen(words, cwd=Path(__file__).parents[2])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def end(self) -> None:
        """End it with everything it runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            await asyncio.to_thread(self.process.wait, 30)


async def ask(port: int, path: str = "/") -> dict[str, Any]:
    """The app's answer."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://{HOST}:{port}{path}", timeout=10)
        return dict(answer.json())


def run_json(home: Path, name: str = "alc_1") -> dict[str, Any]:
    return dict(json.loads(Place(home / "allocations" / name).record.read_text()))


def connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
