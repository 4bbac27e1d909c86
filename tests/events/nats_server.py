"""A real NATS server with our configuration, which tests start, kill, freeze and rob of its storage."""

from __future__ import annotations

import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from moorage.events import names, server
from moorage.events.consumer import EdgeEvents
from moorage.events.link import Link
from moorage.system import proc
from moorage.system.binaries import find_nats

EDGES = ("edge1", "edge2")
RUNNER = "runner1"
_L = TypeVar("_L", Link, EdgeEvents)


class NatsServer:
    """One server in a folder of its own, on one port for its whole life."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.binary = find_nats().path
        self.control_seed = server.new_seed()
        self.edge_seeds = {edge: server.new_seed() for edge in EDGES}
        self.runner_seed = server.new_seed()
        self.plan = server.ServerPlan(
            port=proc.free_port(),
            store_dir=folder / "store",
            control_key=server.public_key(self.control_seed),
            edge_keys={edge: server.public_key(seed) for edge, seed in self.edge_seeds.items()},
            runner_keys={RUNNER: server.public_key(self.runner_seed)},
        )
        self.config = folder / "nats.conf"
        self.log = folder / "nats.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._links: list[Link | EdgeEvents] = []

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; clients connect as soon as they can."""
        self.config.write_text(server.render_server(self.plan))
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(server.server_argv(self.binary, self.config), stdout=log, stderr=log)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it by a signal and wait until it is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait()

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def tell(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wipe(self) -> None:
        """Delete everything it has stored; it must not run."""
        shutil.rmtree(self.plan.store_dir, ignore_errors=True)

    def without_edge(self, edge: str) -> None:
        """Take an edge's key out of the configuration and reload."""
        keys = {name: key for name, key in self.plan.edge_keys.items() if name != edge}
        self.plan = replace(self.plan, edge_keys=keys)
        self.config.write_text(server.render_server(self.plan))
        self.tell(signal.SIGHUP)

    def control(self) -> Link:
        """The control plane's connection."""
        return self._kept(Link(self.plan.url, self.control_seed, names.CONTROL))

    def as_edge(self, edge: str = "edge1") -> Link:
        """A bare connection with an edge's key."""
        return self._kept(Link(self.plan.url, self.edge_seeds[edge], edge))

    def as_runner(self) -> Link:
        """A bare connection with the runner's key."""
        return self._kept(Link(self.plan.url, self.runner_seed, RUNNER))

    def events(self, edge: str = "edge1") -> EdgeEvents:
        """An edge's reader."""
        return self._kept(EdgeEvents(self.plan.url, self.edge_seeds[edge], edge))

    def _kept(self, link: _L) -> _L:
        self._links.append(link)
        return link

    async def close(self) -> None:
        """Close every connection, then end the server."""
        for link in self._links:
            await link.close()
        self.tell(signal.SIGCONT)
        self.kill()
