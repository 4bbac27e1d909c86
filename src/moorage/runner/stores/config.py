"""The configuration of an environment's Valkey, pure, and the file that remembers its process."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from moorage.runner.record import Identity
from moorage.system.files import write_private
from moorage.wire.message import Message
from moorage.wire.runner import DesiredStore

STORE_MEMORY_MAX_BYTES = 512 << 20  # beyond it the store refuses writes (OOM); it never throws sessions away
STORE_CLIENTS_MAX_COUNT = 10_000
SCRIPT_BUSY_MS = 1000  # an app's script that runs longer can be ended, so that the fence can pass
CONFIG_NAME, USERS_NAME, RECORD_NAME, LOG_NAME = "valkey.conf", "users.acl", "store.json", "valkey.log"


class StoreRecord(Message):
    """What is remembered of a store."""

    format: Literal[1] = 1
    desired: DesiredStore
    identity: Identity | None = None


def render_config(folder: Path, port: int, *, host: str = "127.0.0.1") -> str:
    """The configuration file: every write is on the disk before it is answered; nothing is evicted; no backups of
    its own. `folder` is the store's own."""
    lines = {
        "bind": host,
        "port": port,
        "dir": _quoted(folder),
        "aclfile": _quoted(folder / USERS_NAME),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "aof-load-truncated": "yes",  # an answered write is never in the torn end of the file
        "save": '""',
        "maxmemory": STORE_MEMORY_MAX_BYTES,
        "maxmemory-policy": "noeviction",
        "maxclients": STORE_CLIENTS_MAX_COUNT,
        "tcp-keepalive": 60,
        "loglevel": "notice",
        "logfile": '""',
        "busy-reply-threshold": SCRIPT_BUSY_MS,
        "always-show-logo": "no",
        "enable-debug-command": "no",
        "enable-module-command": "no",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())


def write_store_record(folder: Path, record: StoreRecord) -> None:
    """Replace the store's record (private: it holds the admin's password). Raises OSError."""
    write_private(folder / RECORD_NAME, record.model_dump_json().encode())


def read_store_record(folder: Path) -> StoreRecord | None:
    """The record in a store's folder, or None when there is none that can be read."""
    try:
        return StoreRecord.model_validate_json((folder / RECORD_NAME).read_bytes())
    except (OSError, ValidationError):
        return None


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
