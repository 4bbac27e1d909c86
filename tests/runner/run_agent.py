"""A runner in a process of its own: SIGTERM leaves everything running, SIGINT ends it all."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from moorage.client.agents import RunnerClient
from moorage.client.http import Http
from moorage.runner.agent import Agent
from tests.runner.kit import settings_of


async def main(base: str, home: str) -> None:
    agent = Agent(settings_of(Path(home)), RunnerClient(Http(base, "token"), "run_1"))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, agent.stop)
    loop.add_signal_handler(signal.SIGINT, lambda: agent.stop(end_all=True))
    await agent.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
