"""The control process: database, API, operations, reconcilers, relay."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from importlib.metadata import version

import uvicorn

from moorage.artifacts.store import ArtifactStore
from moorage.control.api.app import create_app
from moorage.control.builds import Builds
from moorage.control.context import Control, ControlSettings
from moorage.control.live import Live
from moorage.control.loops.allocations import AllocationLoop
from moorage.control.loops.retention import RetentionLoop
from moorage.control.operations import deploy, destroy, drain, handover, promotion, replacement
from moorage.control.operations.engine import Engine
from moorage.control.outbox import Outbox
from moorage.control.vault import Vault
from moorage.domain.ids import Prefix
from moorage.domain.limits import BAKE_S
from moorage.domain.operation import Kind
from moorage.events.link import Link
from moorage.events.relay import Relay
from moorage.main.installation import EDGE, RUNNER, Keys, load_keys
from moorage.store import log
from moorage.store.database import Database
from moorage.system.clock import monotonic_s, now_ms
from moorage.system.log import set_up_log
from moorage.system.rand import new_id
from moorage.system.settings import Settings, load_settings

CODES = {
    Kind.DEPLOY: deploy.run,
    Kind.PROMOTION: promotion.run,
    Kind.ROLLBACK: promotion.run,
    Kind.REPLACEMENT: replacement.run,
    Kind.HANDOVER: handover.run,
    Kind.DRAIN: drain.run,
    Kind.DESTROY: destroy.run,
}


def main() -> None:
    """Run until SIGTERM. The first argument is the address of the NATS server."""
    os.umask(0o077)  # the database holds sealed secrets and sources are people's code
    settings = load_settings()
    set_up_log(settings.log_level, service="control")
    asyncio.run(run(settings, sys.argv[1]))


async def run(settings: Settings, nats_url: str) -> None:
    """Serve the API and run every loop until the process is told to stop."""
    keys = load_keys(settings.paths.keys)
    db = Database(settings.paths.control_db, now_ms)
    await db.write(lambda tx: log.create_incarnation(tx, new_id(Prefix.INCARNATION)))
    live = Live(db.changes.announce, monotonic_s, now_ms)
    control = Control(
        control_settings(settings, keys), db, live, Vault(keys.vault_key), keys.signing_key, new_id(Prefix.OPERATION)
    )
    builds = Builds(control)
    artifacts = ArtifactStore(settings.paths.artifacts)
    link = Link(nats_url, keys.nats_control, "control")
    server = _Server(create_app(control, builds), settings)
    loops = [
        Engine(control, CODES).run(),
        AllocationLoop(control).run(),
        RetentionLoop(control, artifacts.remove).run(),
        Relay(link, Outbox(db), lambda: (EDGE,)).run(),
    ]
    tasks = [asyncio.create_task(loop) for loop in loops]
    serving = asyncio.create_task(server.serve())
    await asyncio.wait([serving, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    server.should_exit = True
    results = await asyncio.gather(serving, *tasks, return_exceptions=True)
    await link.close()
    db.close()
    for result in results:
        if isinstance(result, Exception):
            raise result


class _Server(uvicorn.Server):
    """Uvicorn that stops on SIGTERM at once: long polls of agents are cut, they ask again."""

    def __init__(self, app: object, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                host=settings.bind,
                port=settings.api_port,
                access_log=False,
                log_config=None,
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )


def control_settings(settings: Settings, keys: Keys) -> ControlSettings:
    """The control plane's view of the installation."""
    paths = settings.paths
    return ControlSettings(
        version=version("moorage"),
        home=paths.home,
        artifacts=paths.artifacts,
        sources=paths.sources,
        allocations=paths.allocations,
        processes_file=paths.processes,
        bind=settings.bind,
        base_domain=settings.base_domain,
        http_port=settings.http_port,
        api_port=settings.api_port,
        app_host="127.0.0.1",
        admin_token=keys.admin_token,
        edge_tokens={EDGE: keys.edge_token},
        runner_tokens={RUNNER: keys.runner_token},
        pin_key=keys.pin_key,
        previews_kept=settings.previews_kept,
        bake_s=BAKE_S,
        binaries={},
    )


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the supervisor, which stops everyone in order
    main()
