"""The base of all messages, and canonical bytes: one value, one encoding."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """A frozen message; unknown keys and values of another type are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def canonical(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces, so that equal values have equal bytes and digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
