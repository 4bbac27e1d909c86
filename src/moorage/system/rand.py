"""Randomness: ids, secrets, jitter."""

from __future__ import annotations

import random
import secrets
import time

from moorage.domain.ids import Prefix, encode_id


def new_id(prefix: Prefix) -> str:
    """A fresh id of this noun (UUID version 7: 48 bits of milliseconds, 74 random bits)."""
    stamp = time.time_ns() // 1_000_000
    number = (stamp & ((1 << 48) - 1)) << 80 | secrets.randbits(80)
    number = number & ~(0xF << 76) | (0x7 << 76)  # version 7
    number = number & ~(0x3 << 62) | (0x2 << 62)  # variant of RFC 9562
    return encode_id(prefix, number.to_bytes(16, "big"))


def new_secret(size_bytes: int = 32) -> str:
    """An unguessable URL-safe text of this many random bytes."""
    return secrets.token_urlsafe(size_bytes)


def jitter(seconds: float, share: float = 0.2) -> float:
    """`seconds` moved at random by at most `share` of it either way."""
    return seconds * (1 + random.uniform(-share, share))
