"""Idempotency keys: a retry gets the original answer, or attaches to the running operation, never a duplicate.

Source: the IETF draft `draft-ietf-httpapi-idempotency-key-header`. The key's record is written in the transaction of
the mutation; there is one writer, so of any number of concurrent retries one acts and all others find its record.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from moorage.control.context import Control
from moorage.domain.errors import Problem, Refused
from moorage.domain.limits import IDEMPOTENCY_KEY_MAX_CHARS
from moorage.store import operations
from moorage.store.database import Tx
from moorage.wire.message import Message

HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotency-Replayed"
WORKSPACE = "default"  # one workspace until there are tenants; keys are scoped to it


async def change(
    control: Control, request: Request, actor: str, body: Callable[[Tx], Message], *, status: int = 202
) -> Response:
    """Run a mutation once per idempotency key and answer with its message.

    Raises Refused: `idempotency-key-missing` (400), `idempotency-key-invalid` (422), `idempotency-key-reused` (422).
    """
    key = _key(request)
    address = f"{request.method} {request.url.path}?{request.url.query}"
    # Keyed, as the body of a request may be a secret: a plain digest of it would let its value be guessed at.
    fingerprint = control.vault.mark(address.encode(), await request.body())

    def once(tx: Tx) -> tuple[int, str, bool]:
        known = operations.replay(tx, WORKSPACE, key)
        if known:
            if known["fingerprint"] != fingerprint:
                raise Refused(_reused(key))
            return known["status"], known["body"], True
        text = body(tx).model_dump_json()
        operations.remember(tx, WORKSPACE, key, fingerprint, status, text)
        return status, text, False

    code, text, replayed = await control.db.write(once, actor=actor)
    headers = {REPLAYED_HEADER: "true"} if replayed else {}
    return Response(text, status_code=code, media_type="application/json", headers=headers)


def _key(request: Request) -> str:
    key = request.headers.get(HEADER, "")
    if not key:
        raise Refused(
            Problem(
                "idempotency-key-missing",
                f"A request that changes something needs the header {HEADER}",
                hint="Send a fresh random key, and the same one again when you retry.",
                status=400,
            )
        )
    if len(key) > IDEMPOTENCY_KEY_MAX_CHARS or not key.isascii() or not key.isprintable():
        raise Refused(
            Problem(
                "idempotency-key-invalid",
                "The idempotency key is not acceptable",
                f"At most {IDEMPOTENCY_KEY_MAX_CHARS} printable ASCII characters.",
                status=422,
            )
        )
    return key


def _reused(key: str) -> Problem:
    return Problem(
        "idempotency-key-reused",
        "This idempotency key belongs to another request",
        f"The key {key!r} was used with another method, path or body.",
        "Use a fresh key for a new request.",
        status=422,
    )
