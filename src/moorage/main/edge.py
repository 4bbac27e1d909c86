"""The edge process: the agent that keeps HAProxy at the route table. HAProxy itself is the supervisor's child."""

from __future__ import annotations

import asyncio
import signal
import sys

from moorage.client.agents import EdgeClient
from moorage.client.http import Http
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
