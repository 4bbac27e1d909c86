"""Sealing of secrets at rest: AES-256-GCM under the installation's key; name and app are authenticated with it."""

from __future__ import annotations

import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from moorage.domain.errors import MoorageError, Problem

NONCE_BYTES = 12  # NIST SP 800-38D section 8.2


class SecretUnreadable(MoorageError):
    """A sealed value that this installation's key does not open."""

    def __init__(self, app: str, name: str) -> None:
        super().__init__(
            Problem(
                "secret-unreadable",
                f"The secret {name} of {app} cannot be opened with this installation's key",
                hint="Restore the keys that belong to this database, or set it again with `moorage secret set`.",
                status=500,
            )
        )


class Vault:
    """Seals and opens values with a 32-byte key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._mark_key = hmac.digest(key, b"marks", hashlib.sha256)

    def mark(self, *parts: bytes) -> str:
        """A keyed digest that tells equal values from others and gives nobody without the key a value to guess at."""
        digest = hmac.new(self._mark_key, digestmod=hashlib.sha256)
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()

    def seal(self, app: str, name: str, value: str) -> bytes:
        """The sealed value: nonce, then ciphertext with tag."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, value.encode(), f"{app}/{name}".encode())

    def open(self, app: str, name: str, sealed: bytes) -> str:
        """The value. Raises SecretUnreadable."""
        try:
            opened = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], f"{app}/{name}".encode())
        except InvalidTag as wrong:
            raise SecretUnreadable(app, name) from wrong
        return opened.decode()
