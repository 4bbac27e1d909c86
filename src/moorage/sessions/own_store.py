"""A store of the user's own, by its URL: only looked at, to see whether an app really stores there.

The platform has no user of its own there: it can fence nobody and follow nobody.
"""

from __future__ import annotations

from typing import Any

import valkey.asyncio
from valkey.asyncio.retry import Retry
from valkey.backoff import NoBackoff
from valkey.exceptions import ValkeyError

from moorage.domain.errors import Problem, Unavailable

ANSWER_TIMEOUT_S = 3.0


class OwnStoreUnusable(Unavailable):
    """The store behind the user's URL does not answer, or not to this user."""

    def __init__(self, name: str, detail: str) -> None:
        title = f"The store that {name} names cannot be used"
        hint = f"Correct it: moorage secret set APP {name} --scope preview (and runtime), then deploy again."
        super().__init__(Problem("own-store-unusable", title, detail, hint, 422, {"variable": name}))


class OwnStore:
    """The store behind a `redis://` or `rediss://` URL; `name` is the variable it comes from. Close it after use."""

    def __init__(self, name: str, url: str) -> None:
        self._name = name
        connect: Any = valkey.asyncio.from_url
        self._client = connect(
            url,
            socket_timeout=ANSWER_TIMEOUT_S,
            socket_connect_timeout=ANSWER_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            client_name="moorage-probe",
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def has(self, key: str) -> bool:
        """Whether the key is there. Raises OwnStoreUnusable; the URL (it holds a password) is never in its words."""
        try:
            return bool(await self._client.execute_command("EXISTS", key))
        except (ValkeyError, OSError) as failed:
            raise OwnStoreUnusable(self._name, _without_url(failed)) from failed


def _without_url(failed: Exception) -> str:
    """What went wrong, without anything that stood in the URL."""
    kind = type(failed).__name__
    words = str(failed).lower()
    for sign, said in (
        ("wrongpass", "it refuses the user or the password"),
        ("noauth", "it asks for a user and a password"),
        ("noperm", "the user may not look for the session's record"),
        ("name or service", "its host name is not known"),
        ("refused", "nobody listens at its address"),
        ("connect call failed", "nobody listens at its address"),
        ("timed out", f"it did not answer within {ANSWER_TIMEOUT_S:g} s"),
        ("timeout", f"it did not answer within {ANSWER_TIMEOUT_S:g} s"),
    ):
        if sign in words:
            return f"{said[0].upper()}{said[1:]} ({kind})."
    return f"It does not work ({kind})."
