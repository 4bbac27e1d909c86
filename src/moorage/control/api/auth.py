"""Who is asking: the admin token, or the token of one edge or runner. Compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from starlette.requests import Request

from moorage.domain.errors import Problem, Refused


def bearer(request: Request) -> str:
    """The bearer token of a request; empty when there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def is_same(expected: str, given: str) -> bool:
    """Whether two tokens are equal, in time that does not depend on where they differ."""
    return hmac.compare_digest(expected.encode(), given.encode())


def require_admin(request: Request, admin_token: str) -> str:
    """The actor `admin`. Raises Refused (`unauthorized`)."""
    if not hmac.compare_digest(bearer(request).encode(), admin_token.encode()):
        raise Refused(_unauthorized("the admin token", "Set MOORAGE_TOKEN or use the data directory's own."))
    return "admin"


def require_agent(request: Request, tokens: Mapping[str, str], name: str) -> str:
    """The agent's name, once its own token came with the request. Raises Refused (`unauthorized`)."""
    expected = tokens.get(name, "")
    if not expected or not hmac.compare_digest(bearer(request).encode(), expected.encode()):
        raise Refused(_unauthorized(f"the token of {name}", "An agent uses its own token from the data directory."))
    return name


def _unauthorized(what: str, hint: str) -> Problem:
    return Problem("unauthorized", f"This needs {what}", hint=hint, status=401)
