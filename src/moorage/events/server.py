"""The configuration of the NATS server, as a pure function, and the keys of its users.

Rules of the room: loopback only, no monitoring port, nobody without a key. The server holds public keys; the seeds
belong to the processes that use them, as private files kept by the caller. Permissions are the least that works:
CONSUMER.CREATE in the wrong hands lets the server deliver to subjects its holder may not publish to.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nkeys

from moorage.events import names
from moorage.system.rand import new_secret

STORE_MAX_MB = 1024
MEMORY_MAX_MB = 64
_SEED_BYTES = 32


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """What the server's configuration is made of. Keys are public nkeys, by the name of edge or runner."""

    port: int
    store_dir: Path
    control_key: str
    edge_keys: Mapping[str, str] = field(default_factory=dict)
    runner_keys: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    server_name: str = "moorage"

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{self.host}:{self.port}"


def render_server(plan: ServerPlan) -> str:
    """The configuration file. A running server takes another list of users on SIGHUP, without dropping anybody."""
    users = [_user(plan.control_key, publish=(">",), subscribe=(">",))]
    for edge, key in sorted(plan.edge_keys.items()):
        users.append(_user(key, publish=names.edge_publishes(edge), subscribe=(names.inbox_prefix(edge) + ".>",)))
    for runner, key in sorted(plan.runner_keys.items()):
        users.append(_user(key, publish=(), subscribe=(names.wake_subject(runner),)))
    keys = [plan.control_key, *plan.edge_keys.values(), *plan.runner_keys.values()]
    assert len(set(keys)) == len(keys), "every user has a key of its own"
    return "\n".join(
        [
            f"server_name: {json.dumps(plan.server_name)}",
            f"listen: {json.dumps(f'{plan.host}:{plan.port}')}",
            "jetstream {",
            f"  store_dir: {json.dumps(str(plan.store_dir), ensure_ascii=False)}",
            f"  max_mem: {MEMORY_MAX_MB}MB",
            f"  max_file: {STORE_MAX_MB}MB",
            "  sync_interval: always  # anything less loses whole streams on a power cut",
            "}",
            "authorization { users: [",
            *users,
            "] }",
            "",
        ]
    )


def server_argv(binary: Path, config: Path) -> tuple[str, ...]:
    """The command that runs the server; `SIGHUP` reloads, `SIGTERM` stops it cleanly."""
    return (str(binary), "--config", str(config))


def check_argv(binary: Path, config: Path) -> tuple[str, ...]:
    """The command that only checks a configuration: exit code 0 when it is good."""
    return (str(binary), "-t", "--config", str(config))


def new_seed() -> str:
    """A fresh secret key of a user; keep it in a private file."""
    raw = base64.urlsafe_b64decode(new_secret(_SEED_BYTES) + "=")
    return bytes(nkeys.encode_seed(raw, nkeys.PREFIX_BYTE_USER)).decode()


def public_key(seed: str) -> str:
    """The public key that belongs to a seed."""
    return bytes(nkeys.from_seed(bytearray(seed.encode())).public_key).decode()


def _user(key: str, *, publish: Sequence[str], subscribe: Sequence[str]) -> str:
    granted = f"publish: {_subjects(publish)}, subscribe: {_subjects(subscribe)}"
    return f"  {{ nkey: {key}, permissions: {{ {granted} }} }}"


def _subjects(allowed: Sequence[str]) -> str:
    if not allowed:
        return '{ deny: [">"] }'  # an empty list of allowed subjects would mean all of them
    return "{ allow: [" + ", ".join(json.dumps(subject) for subject in allowed) + "] }"
