"""What an installation has for good: tokens, keys and seeds, one private file each under `keys/`, made once."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from moorage.events.server import new_seed
from moorage.system.files import write_private
from moorage.system.rand import new_secret

EDGE = "edge-1"
RUNNER = "runner-1"
KEY_BYTES = 32


@dataclass(frozen=True)
class Keys:
    """The secrets of an installation."""

    admin_token: str
    edge_token: str
    runner_token: str
    signing_key: Ed25519PrivateKey
    vault_key: bytes
    pin_key: str
    nats_control: str
    nats_edge: str
    nats_runner: str

    @property
    def public_key(self) -> Ed25519PublicKey:
        """What edges verify snapshots with."""
        return self.signing_key.public_key()


def load_keys(folder: Path) -> Keys:
    """Read the keys, making those that do not exist yet."""
    return Keys(
        admin_token=_text(folder / "admin.token", new_secret),
        edge_token=_text(folder / f"{EDGE}.token", new_secret),
        runner_token=_text(folder / f"{RUNNER}.token", new_secret),
        signing_key=Ed25519PrivateKey.from_private_bytes(_bytes(folder / "signing.key", _new_signing_key)),
        vault_key=_bytes(folder / "vault.key", lambda: os.urandom(KEY_BYTES)),
        pin_key=_text(folder / "pin.key", lambda: base64.b64encode(os.urandom(KEY_BYTES)).decode()),
        nats_control=_text(folder / "nats-control.seed", new_seed),
        nats_edge=_text(folder / f"nats-{EDGE}.seed", new_seed),
        nats_runner=_text(folder / f"nats-{RUNNER}.seed", new_seed),
    )


def _new_signing_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )


def _text(path: Path, make: Callable[[], str]) -> str:
    return _bytes(path, lambda: make().encode()).decode()


def _bytes(path: Path, make: Callable[[], bytes]) -> bytes:
    if not path.exists():
        write_private(path, make())
    return path.read_bytes()
