"""A whole platform of its own for a test: `moorage up` on free ports in a temporary data directory."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from moorage.client.api import Api
from moorage.client.http import Http
from moorage.domain.errors import Unavailable
from moorage.runner.stores.config import StoreRecord, read_store_record
from moorage.sessions.admin import StoreAdmin
from moorage.system.rand import new_secret
from moorage.wire.api import AllocationView, EdgeView, OperationView, PromoteRequest
from tests.support.waiting import wait_until

COMMAND_TIMEOUT_S = 380.0  # a first deploy of a Vango app compiles the framework
MOORAGE = (sys.executable, "-m", "moorage.main")


@dataclass
class Answer:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last JSON document on standard output."""
        return json.loads(self.out.strip().splitlines()[-1])


@dataclass
class Platform:
    """A running platform: its folder, addresses, and ways to use it as a person or a program would."""

    home: Path
    api_url: str
    http_port: int
    pid: int
    after_s: float
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def token(self) -> str:
        return (self.home / "keys" / "admin.token").read_text()

    @asynccontextmanager
    async def api(self) -> AsyncIterator[Api]:
        """The typed client, as the CLI uses it."""
        client = Api(Http(self.api_url, self.token))
        try:
            yield client
        finally:
            await client.close()

    def cli(self, *words: str, input: str | None = None, cwd: Path | None = None) -> Answer:
        """Run the real command line."""
        done = subprocess.run(
            [*MOORAGE, *words],
            env={**os.environ, "MOORAGE_HOME": str(self.home), "NO_COLOR": "1", **self.environ},
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            input=input,
            cwd=cwd,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    async def run(self, *words: str, cwd: Path | None = None) -> Answer:
        """The same without blocking the event loop: clients go on typing."""
        return await asyncio.to_thread(self.cli, *words, cwd=cwd)

    async def deploy(self, folder: Path) -> tuple[str, int]:
        """Deploy a folder to `preview_ready`; the app's name and the deployment's number."""
        answer = await self.run("deploy", str(folder), "--json")
        assert answer.code == 0, answer.out + answer.err
        return answer.json["app"], answer.json["input"]["deployment"]

    async def promote(self, app: str, number: int, *flags: str) -> OperationView:
        """Promote with the command line; the finished operation, whatever it ended as."""
        async with self.api() as api:
            known = {o.id for o in await api.operations(app)}
            answer = await self.run("promote", app, "--deployment", str(number), "--json", *flags)
            started = [o for o in await api.operations(app) if o.kind == "promotion" and o.id not in known]
        assert started, f"no promotion was started: {answer.out}{answer.err}"
        return await self.finished(started[0].id)

    async def begin_promote(self, app: str, number: int, *, epoch: int, **more: Any) -> str:
        """Start a promotion through the API, expecting this epoch; its operation."""
        request = PromoteRequest(deployment=number, expected_epoch=epoch, **more)
        async with self.api() as api:
            return (await api.promote(app, request, key=key())).operation

    async def edge(self) -> EdgeView:
        """The one edge as the control plane sees it."""
        async with self.api() as api:
            (found,) = (await api.status()).edges
        return found

    async def serve(self, folder: Path, *flags: str) -> tuple[str, int]:
        """Deploy and promote a folder; fails unless it is healthy."""
        app, number = await self.deploy(folder)
        view = await self.promote(app, number, *flags)
        assert view.state == "healthy", view.problem
        return app, number

    async def newest(self, app: str, *kinds: str) -> OperationView:
        """The newest operation of one of these kinds, waited for."""
        async with self.api() as api:
            found = [o for o in await api.operations(app) if o.kind in kinds]
        return await self.finished(found[0].id)

    async def allocation(self, app: str, *, environment: str = "production") -> AllocationView:
        """The one allocation that serves the app in this environment now."""
        async with self.api() as api:
            found = [
                a
                for a in await api.allocations(app)
                if a.environment == environment and a.state == "ready" and a.posture == "open"
            ]
        assert len(found) == 1, found
        return found[0]

    def host(self, app: str) -> str:
        """The Host header of an app's production route."""
        return f"{app}.localhost:{self.http_port}"

    def get(self, host: str, path: str = "/", **more: Any) -> httpx.Response:
        """A request through the edge; `host` without port."""
        headers = {"Host": f"{host}:{self.http_port}", **more.pop("headers", {})}
        return httpx.get(f"http://127.0.0.1:{self.http_port}{path}", headers=headers, trust_env=False, **more)

    def pid_of(self, name: str) -> int:
        """The pid of one of the platform's own processes, as its supervisor has it."""
        document = json.loads((self.home / "run" / "processes.json").read_text())
        return next(int(row["pid"]) for row in document["processes"] if row["name"] == name)

    async def store(self, app: str, *, environment: str = "production") -> StoreRecord:
        """What the runner keeps of an environment's store: port, the admin's password, the process."""
        async with self.api() as api:
            port = next(s.port for s in (await api.status()).stores if (s.app, s.environment) == (app, environment))
        records = [read_store_record(folder) for folder in (self.home / "stores").iterdir()]
        return next(record for record in records if record and record.desired.port == port)

    @asynccontextmanager
    async def store_admin(self, app: str) -> AsyncIterator[StoreAdmin]:
        """The store of an app's production as the platform's own admin."""
        found = (await self.store(app)).desired
        admin = StoreAdmin(found.port, found.admin_password)
        try:
            yield admin
        finally:
            await admin.close()

    async def kill_store(self, app: str) -> None:
        """kill -9 of the store of an app's production; returns when its successor answers."""
        dead = (await self.store(app)).identity
        assert dead is not None
        os.kill(dead.pid, signal.SIGKILL)

        async def back() -> bool:
            now = (await self.store(app)).identity
            try:
                async with self.store_admin(app) as admin:
                    await admin.ping()
            except Unavailable:
                return False
            return now is not None and now != dead

        await wait_until(back, timeout_s=40.0, what="the store is back")

    async def finished(self, operation: str, *, timeout_s: float = 90.0) -> OperationView:
        """Wait for the end of an operation."""
        async with self.api() as api:
            deadline = asyncio.get_running_loop().time() + timeout_s
            seq = -1
            while True:
                view = await api.operation(operation, after_seq=seq, wait_s=5)
                if view.finished:
                    return view
                assert asyncio.get_running_loop().time() < deadline, f"{operation} is still {view.state}"
                seq = view.stages[-1].seq if view.stages else 0


def key() -> str:
    """A fresh idempotency key."""
    return new_secret(16)


def start_platform(home: Path, **environ: str) -> Platform:
    """`moorage up --detach --port 0`."""
    done = subprocess.run(
        [*MOORAGE, "up", "--detach", "--port", "0", "--json"],
        env={**os.environ, "MOORAGE_HOME": str(home), **environ},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    assert done.returncode == 0, f"up failed: {done.stdout}\n{done.stderr}"
    told = json.loads(done.stdout)
    port = int(told["http"].rsplit(":", 1)[1])
    return Platform(home, told["api"], port, told["pid"], told["after_s"], environ)


def stop_platform(platform: Platform) -> None:
    """`moorage down`; the platform may have been stopped by the test already."""
    answer = platform.cli("down")
    assert answer.code == 0 or "not-running" in answer.err, answer.err
