"""The edge process: the agent that keeps HAProxy at the route table. HAProxy itself is the supervisor's child."""

from __future__ import annotations

import asyncio
import signal
import sys

from moorage.client.agents import EdgeClient
from moorage.client.http import Http
from moorage.edge.agent import AgentSettings, EdgeAgent
from moorage.edge.proxy.haproxy import HAProxy
from moorage.edge.proxy.launch import connections_max_count
from moorage.edge.proxy.render import ProxySettings
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


def proxy_settings(settings: Settings) -> ProxySettings:
    """What HAProxy's configuration is made of."""
    return ProxySettings(
        directory=settings.paths.edge,
        runtime_socket=settings.paths.run / "proxy.sock",
        bind_host=settings.bind,
        http_port=settings.http_port,
        maxconn=connections_max_count(),
        trusted_proxies=settings.trusted_proxies,
    )


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
