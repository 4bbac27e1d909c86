"""The runner process: the runner's agent and, on one machine, the build worker beside it."""

from __future__ import annotations

import asyncio
import signal

from moorage.artifacts.store import ArtifactStore
from moorage.build.worker import Worker
from moorage.client.agents import BuildClient, RunnerClient
from moorage.client.http import Http
from moorage.main.installation import RUNNER, load_keys
from moorage.runner.agent import Agent, RunnerSettings
from moorage.system.log import set_up_log
from moorage.system.settings import Settings, load_settings


def main() -> None:
    """Run until a signal. SIGTERM: allocations and stores live on for the next runner; SIGINT: they end first."""
    settings = load_settings()
    set_up_log(settings.log_level, service="runner")
    asyncio.run(run(settings))


async def run(settings: Settings) -> None:
    """Runner and build worker until the process is told to stop."""
    paths = settings.paths
    http = Http(settings.api_url, load_keys(paths.keys).runner_token)
    agent = Agent(
        RunnerSettings(paths.allocations, paths.stores, paths.artifacts, valkey=settings.binaries.valkey),
        RunnerClient(http, RUNNER),
    )
    worker = Worker(BuildClient(http, RUNNER), ArtifactStore(paths.artifacts), paths.builds)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, agent.stop)
    loop.add_signal_handler(signal.SIGINT, lambda: agent.stop(end_all=True))
    building = asyncio.create_task(worker.run())
    try:
        await agent.run()
    finally:
        building.cancel()
        await asyncio.gather(building, return_exceptions=True)
        await http.close()


if __name__ == "__main__":
    main()
