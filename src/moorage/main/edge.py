"""The edge process: the agent that keeps HAProxy at the route table. HAProxy itself is the supervisor's child."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
import tempfile
from pathlib import Path

from moorage.client.agents import EdgeClient
from moorage.client.http import Http
from moorage.domain.errors import Problem, Refused
from moorage.edge.agent import AgentSettings, EdgeAgent
from moorage.edge.proxy.haproxy import HAProxy
from moorage.edge.proxy.launch import connections_max_count
from moorage.edge.proxy.render import SOCKET_PATH_MAX_BYTES, ProxySettings
from moorage.events.consumer import EdgeEvents
from moorage.main.installation import EDGE, load_keys
from moorage.system.log import set_up_log
from moorage.system.settings import Settings, load_settings


def main() -> None:
    """Run until SIGTERM. The first argument is the address of the NATS server."""
    settings = load_settings()
    set_up_log(settings.log_level, service="edge")
    asyncio.run(run(settings, sys.argv[1]))


async def run(settings: Settings, nats_url: str) -> None:
    """Follow the log and keep the proxy in step until the process is told to stop."""
    keys = load_keys(settings.paths.keys)
    http = Http(settings.api_url, keys.edge_token)
    events = EdgeEvents(nats_url, keys.nats_edge, EDGE)
    agent = EdgeAgent(
        AgentSettings(edge=EDGE, copy_path=settings.paths.edge / "snapshot.json", public_key=keys.public_key),
        EdgeClient(http, EDGE),
        events,
        HAProxy(proxy_settings(settings).runtime_socket),
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, agent.stop)
    try:
        await agent.run()
    finally:
        await events.close()
        await http.close()


def runtime_socket(settings: Settings) -> Path:
    """HAProxy's runtime socket: in the data directory, or, where that path is too long for a socket, a private folder
    of the system's temporary one."""
    path = settings.paths.run / "proxy.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(settings.home)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"moorage-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise Refused(Problem("home-not-writable", "The data directory's path is too long", str(folder), status=500))
    return folder / "proxy.sock"


def proxy_settings(settings: Settings) -> ProxySettings:
    """What HAProxy's configuration is made of."""
    return ProxySettings(
        directory=settings.paths.edge,
        runtime_socket=runtime_socket(settings),
        bind_host=settings.bind,
        http_port=settings.http_port,
        maxconn=connections_max_count(),
        trusted_proxies=settings.trusted_proxies,
        admission_per_s=settings.admission_per_s,
    )


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
