"""The event server as the control plane's own user: to look at the stream, to delete it, to write into it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from nats.js import JetStreamContext

from tests.support.platform import Platform


def nats_url(platform: Platform) -> str:
    """Where the platform's event server listens."""
    plan = json.loads((platform.home / "run" / "plan.json").read_text())
    (control,) = [child for child in plan["children"] if child["name"] == "control"]
    return next(str(word) for word in control["argv"] if str(word).startswith("nats://"))


@asynccontextmanager
async def jetstream(platform: Platform) -> AsyncIterator[JetStreamContext]:
    """A connection with the control plane's rights."""
    seed = (platform.home / "keys" / "nats-control.seed").read_text()
    client = await nats.connect(nats_url(platform), nkeys_seed_str=seed, inbox_prefix=b"_INBOX_test")
    try:
        yield client.jetstream()
    finally:
        await client.close()
