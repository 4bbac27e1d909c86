"""The binding file of the host contract (`vango.runtime.service_bindings.v1.0`): which services an app is given.

Rules: what the platform does not provide is absent, so that the framework's own tool names it as missing. A service is
`active` only after it was seen to work, `declared` before; `failed` says that the app did not take it. Files hold
references to secrets, never values. A file is for one operation: the framework's tool blocks every operation for one
missing capability, also when that operation has no use for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage.domain.secrets import PUBSUB_URL, SESSION_STORE_URL
from moorage.vango.variables import Source, StoreBinding

SCHEMA_VERSION = "vango.runtime.service_bindings.v1.0"
PROVIDER = "redis"  # the protocol: the managed store is a Valkey
SESSIONS, GLOBALS, BROADCAST = "vango_session_store", "global_signal_store", "broadcast_backend"

SCALE_TO_ZERO = "scale_to_zero"
# What an operation of the platform may count on. What it cannot do is said, not left out.
HOST_CAPABILITIES: Mapping[str, bool] = {
    "http_routing": True,
    "websocket_upgrade": True,
    "live_path_query_preservation": True,
    "origin_enforcement": True,  # the Host and Origin of the browser arrive as they are; the framework compares them
    "trusted_proxy_headers": True,
    "csrf_secret_management": True,
    "drain_orchestration": True,
    "active_session_counting": True,
    "global_signal_fanout": True,
    "sticky_live_session_routing": True,
    "static_asset_wake_free_serving": True,  # nothing sleeps, so no asset wakes anything
    "wake_routing": False,
    "background_worker_process": False,
}


@dataclass(frozen=True, slots=True)
class Service:
    """A service that an app is given. `probed`: whether it was seen to work; None: nobody has looked."""

    id: str
    service_class: str
    capabilities: tuple[str, ...]
    source: Source
    variable: str
    probed: bool | None = None

    @property
    def state(self) -> str:
        """The word of the contract for what is known of it."""
        return {None: "declared", True: "active", False: "failed"}[self.probed]


def services(binding: StoreBinding, probed: Mapping[str, bool] | None = None) -> tuple[Service, ...]:
    """The services that the platform binds; `probed` tells by class what was seen at the preview."""
    seen = probed or {}
    return (
        Service(
            "service:session-store",
            SESSIONS,
            ("atomic_set", "secret_backed", "touch", "ttl"),
            binding.sessions,
            SESSION_STORE_URL,
            seen.get(SESSIONS),
        ),
        Service(
            "service:global-signal-store",
            GLOBALS,
            ("atomic_set", "consistent_read", "secret_backed"),
            binding.sessions,  # the framework keeps global state in the session store
            SESSION_STORE_URL,
            seen.get(GLOBALS, seen.get(SESSIONS)),
        ),
        Service(
            "service:broadcast-backend",
            BROADCAST,
            ("fanout", "publish", "subscribe"),
            binding.broadcast,
            PUBSUB_URL,
            seen.get(BROADCAST),
        ),
    )


def binding_document(
    bound: tuple[Service, ...],
    *,
    environment: str,
    environment_id: str,
    operation: str = "production_promotion",
    region: str = "local",
    cell: str = "local",
) -> dict[str, Any]:
    """The binding file for an operation, as JSON values. `environment` is `production` or `preview`, `environment_id`
    its public id. Of what only a sleeping app needs, nothing is claimed for `scale_to_zero`."""
    able = dict(HOST_CAPABILITIES)
    if operation == SCALE_TO_ZERO:
        able["static_asset_wake_free_serving"] = False
    return {
        "schema_version": SCHEMA_VERSION,
        "bindings": [
            {
                "service_id": service.id,
                "service_class": service.service_class,
                "provider": PROVIDER,
                "binding_id": f"{environment_id}/{service.id.removeprefix('service:')}",
                "environment": environment,
                "region_id": region,
                "cell_id": cell,
                "secret_ref": f"{environment_id}/{service.variable}",
                "capabilities": {name: True for name in sorted(service.capabilities)},
                "state": service.state,
            }
            for service in bound
        ],
        "host_capabilities": {f"capability:{name.replace('_', '-')}": can for name, can in sorted(able.items())},
    }
