"""What every part of the control plane works with, built once by `main`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from moorage.control.live import Live
from moorage.control.vault import Vault
from moorage.domain.limits import EDGE_ACK_TIMEOUT_S
from moorage.domain.names import production_key
from moorage.domain.route import RouteOwner
from moorage.store import log, routes
from moorage.store.database import Database, Tx
from moorage.system.clock import monotonic_s
from moorage.system.proc import is_port_free


@dataclass(frozen=True)
class ControlSettings:
    """What the control plane must know of its installation: addresses as users see them, paths, tokens."""

    version: str
    home: Path
    artifacts: Path
    sources: Path
    allocations: Path
    processes_file: Path
    bind: str
    base_domain: str
    http_port: int
    api_port: int
    app_host: str
    admin_token: str
    edge_tokens: dict[str, str]
    runner_tokens: dict[str, str]
    pin_key: str
    previews_kept: int
    bake_s: float
    binaries: dict[str, str]


@dataclass
class Control:
    """Database, live reports, keys and settings."""

    settings: ControlSettings
    db: Database
    live: Live
    vault: Vault
    signing_key: Ed25519PrivateKey
    boot: str

    def url(self, route_key: str) -> str:
        """The address of a route as a user types it."""
        port = self.settings.http_port
        return f"http://{route_key}" + ("" if port == 80 else f":{port}")

    def production_key(self, app: str) -> str:
        """The app's production route key."""
        return production_key(app, self.settings.base_domain)

    def owner(self, tx: Tx, app: str) -> RouteOwner | None:
        """Who owns the app's production route."""
        return routes.owner(tx, self.production_key(app))

    async def edges_reach(self, index: int, timeout_s: float = EDGE_ACK_TIMEOUT_S) -> tuple[str, ...]:
        """Wait until every live edge has acknowledged the log index; the names of edges that have not.

        Edges that are known but not live are named at once and not waited for, except by a control plane that has
        just started: they may be well and merely not have reported yet.
        """
        deadline = monotonic_s() + timeout_s
        seen = -1
        while True:
            behind = {name for name, report in self.live.live_edges().items() if report.applied_index < index}
            absent = await self._absent(index)
            left = deadline - monotonic_s()
            if left <= 0 or not (behind or (absent and self.live.is_new)):
                return tuple(sorted(behind | absent))
            seen = await self.db.changes.wait(seen, min(left, 0.5))

    async def _absent(self, index: int) -> set[str]:
        live = self.live.live_edges()
        known = await self.db.read(lambda tx: tx.all("edges"))
        return {row["id"] for row in known if row["id"] not in live and row["acked_index"] < index}

    def port_is_usable(self, port: int) -> bool:
        """Whether no stranger on this host holds an app port (there is one host; a runner would tell too late)."""
        return is_port_free(self.settings.app_host, port)

    def acked_index(self, tx: Tx) -> int:
        """The log index that every known edge has acknowledged (the whole log when there is no edge)."""
        indexes = [row["acked_index"] for row in tx.all("edges")]
        return min(indexes, default=log.committed_index(tx))
