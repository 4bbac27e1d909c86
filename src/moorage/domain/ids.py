"""Public ids: `<prefix>_<uuid7 in base32>`; one prefix per noun, no region or cell inside."""

from __future__ import annotations

import re
from enum import StrEnum

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base32: no i, l, o, u
_ENCODED_LENGTH = 26
_PATTERN = re.compile(rf"[a-z]{{3}}_[{_ALPHABET}]{{{_ENCODED_LENGTH}}}")


class Prefix(StrEnum):
    """The noun an id names."""

    APP = "app"
    ENVIRONMENT = "env"
    DEPLOYMENT = "dep"
    ALLOCATION = "alc"
    OPERATION = "opn"
    EDGE = "edg"
    RUNNER = "run"
    INCARNATION = "inc"


def encode_id(prefix: Prefix, uuid7: bytes) -> str:
    """The id of a noun from the 16 bytes of a UUID version 7 (RFC 9562), sortable by creation time."""
    assert len(uuid7) == 16, "a uuid has 16 bytes"
    number = int.from_bytes(uuid7, "big")
    digits = [_ALPHABET[(number >> (5 * i)) & 31] for i in range(_ENCODED_LENGTH)]
    return f"{prefix}_{''.join(reversed(digits))}"


def is_id(text: str, prefix: Prefix) -> bool:
    """Whether the text is a well-formed id of this noun."""
    return bool(_PATTERN.fullmatch(text)) and text.startswith(f"{prefix}_")
