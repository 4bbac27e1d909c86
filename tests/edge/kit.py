"""A real HAProxy with the edge's own configuration, an edge agent, and clients that talk to it."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any

import httpx
import websockets.asyncio.client
from websockets.typing import Origin

from moorage.edge.agent import AgentSettings, EdgeAgent
from moorage.edge.proxy.haproxy import HAProxy
from moorage.edge.proxy.launch import check_configuration, proxy_command, write_configuration
from moorage.edge.proxy.render import PIN_COOKIE, ProxySettings
from moorage.edge.proxy.runtime import ProxyUnreachable
from moorage.system.binaries import find_haproxy
from moorage.system.proc import free_port
from tests.edge.app import App
from tests.edge.ledger import Ledger, Stream
from tests.support.waiting import wait_until

HOST = "board.localhost"


def _new_client() -> httpx.AsyncClient:
    """A new connection per request, and no cookies but those that a test sends."""
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncClient(trust_env=False, timeout=30, limits=limits, cookies=no_cookies)


@dataclass
class Edge:
    """One edge under test: its proxy's process, and an agent when one was started."""

    settings: ProxySettings
    process: asyncio.subprocess.Process
    ledger: Ledger
    stream: Stream
    agent: EdgeAgent | None = None
    running: asyncio.Task[None] | None = None
    apps: dict[str, App] = field(default_factory=dict)
    agent_settings: Mapping[str, Any] = field(default_factory=dict)
    proxy_type: type[HAProxy] = HAProxy
    client: httpx.AsyncClient = field(default_factory=_new_client)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.http_port}"

    def proxy(self) -> HAProxy:
        return HAProxy(self.settings.runtime_socket)

    async def app(self, name: str) -> App:
        self.apps[name] = app = App(name)
        await app.start()
        return app

    def start_agent(self) -> None:
        """A new agent; what an earlier one reported is forgotten."""
        self.ledger.reports.clear()
        settings = AgentSettings(
            edge="edge-1",
            copy_path=self.settings.directory / "routes.json",
            public_key=self.ledger.key.public_key(),
            report_period_s=0.05,
        )
        settings = replace(settings, **self.agent_settings)
        proxy = self.proxy_type(self.settings.runtime_socket)
        self.agent = EdgeAgent(settings, self.ledger, self.stream, proxy)
        self.running = asyncio.create_task(self.agent.run())

    async def stop_agent(self) -> None:
        if self.agent and self.running:
            self.agent.stop()
            await asyncio.wait_for(self.running, 10)
            self.agent = self.running = None

    async def kill_agent(self) -> None:
        """No goodbye."""
        assert self.running is not None
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        self.agent = self.running = None

    async def in_force(self) -> None:
        """Wait until the agent has said that everything committed is in force."""
        await wait_until(
            lambda: (
                bool(self.ledger.reports)
                and self.ledger.last_report.applied_index == self.ledger.index
                and self.ledger.last_report.incarnation == self.ledger.incarnation
            ),
            what="the whole log in force",
        )

    async def restart_proxy(self) -> None:
        """kill -9, then a new process with the same configuration."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()
        self.process = await _start(self.settings)

    def attached(self, number: int) -> int | None:
        """Sockets of an allocation in the last report."""
        rows = {sockets.number: sockets.attached for sockets in self.ledger.last_report.sockets}
        return rows.get(number)

    async def counted(self, number: int, count: int) -> None:
        await wait_until(lambda: self.attached(number) == count, what=f"{count} sockets of {number} reported")

    async def get(self, path: str = "/", *, host: str = HOST, pin: str | None = None, **headers: str) -> httpx.Response:
        """One request over a connection of its own."""
        fields = {"Host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if pin is not None:
            fields["Cookie"] = f"{PIN_COOKIE}={pin}"
        return await self.client.get(self.url + path, headers=fields)

    async def connect(self, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw connection to the public port, from this address."""
        port = self.settings.http_port
        return await asyncio.open_connection("127.0.0.1", port, limit=1 << 20, local_addr=(source, 0))

    async def read_answer(self, reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
        """Head and body of one answer with a content length."""
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        return head, await reader.readexactly(int(found.group(1))) if found else b""

    async def raw(self, head: str, source: str = "127.0.0.1") -> tuple[bytes, bytes]:
        """Exactly these bytes on a connection of their own; head and body of the answer."""
        reader, writer = await self.connect(source)
        writer.write(head.encode("latin-1"))
        try:
            return await asyncio.wait_for(self.read_answer(reader), 20)
        finally:
            writer.close()

    async def pin_of(self, host: str = HOST) -> str:
        answer = await self.get(host=host)
        assert answer.status_code == 200, answer.text
        return answer.cookies[PIN_COOKIE]

    async def socket(self, *, host: str = HOST, pin: str | None = None) -> websockets.asyncio.client.ClientConnection:
        """An attached WebSocket; its first message is the app's name."""
        headers = {"Cookie": f"{PIN_COOKIE}={pin}"} if pin else {}
        return await websockets.asyncio.client.connect(
            f"ws://{host}/live",
            host="127.0.0.1",
            port=self.settings.http_port,
            origin=Origin(f"http://{host}"),
            additional_headers=headers,
            open_timeout=40,
            ping_interval=None,
            proxy=None,
        )


def pin_in(socket: websockets.asyncio.client.ClientConnection) -> str | None:
    """The pin that the handshake's answer set."""
    assert socket.response is not None
    for value in socket.response.headers.get_all("set-cookie"):
        if value.startswith(f"{PIN_COOKIE}="):
            return value.partition("=")[2].partition(";")[0]
    return None


async def _start(settings: ProxySettings) -> asyncio.subprocess.Process:
    binary = find_haproxy().path
    config = write_configuration(settings)
    await check_configuration(binary, config)
    with (settings.directory / "haproxy.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(*proxy_command(binary, config), stdout=log, stderr=log)

    async def answers() -> bool:
        assert process.returncode is None, (settings.directory / "haproxy.log").read_text()
        proxy = HAProxy(settings.runtime_socket)
        try:
            return (await proxy.identify()).pid == process.pid
        except ProxyUnreachable:
            return False
        finally:
            await proxy.close()

    await wait_until(answers, what="the proxy's runtime socket")
    return process


@asynccontextmanager
async def running_edge(directory: Path, *, agent: Mapping[str, Any] | None = None, **more: Any) -> AsyncIterator[Edge]:
    """A proxy and an agent over an empty log."""
    settings = ProxySettings(
        directory=directory,
        runtime_socket=directory / "edge.sock",
        bind_host="127.0.0.1",
        http_port=free_port(),
        maxconn=2000,
        **{"threads": 2, **more},
    )
    ledger = Ledger()
    edge = Edge(settings, await _start(settings), ledger, Stream(ledger), agent_settings=agent or {})
    edge.start_agent()
    try:
        await edge.in_force()
        yield edge
    finally:
        if edge.running is not None:
            await edge.kill_agent()
        await edge.client.aclose()
        for app in edge.apps.values():
            await app.close()
        if edge.process.returncode is None:
            edge.process.terminate()
        await edge.process.wait()
