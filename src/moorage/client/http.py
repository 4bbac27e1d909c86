"""One HTTP connection pool to the control API; translates problem details into the platform's own errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from moorage.domain.errors import MoorageError, Problem, Refused, Unavailable

CONNECT_TIMEOUT_S = 5.0
REPLY_TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 20


class Http:
    """Requests to `base` (for example `http://127.0.0.1:7400`) with a bearer token."""

    def __init__(self, base: str, token: str) -> None:
        self.base = base
        self._client = httpx.AsyncClient(
            base_url=base,
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(REPLY_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            trust_env=False,
            verify=base.startswith("https"),  # loading the CA bundle costs 50 ms that plain HTTP does not need
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def send(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> httpx.Response:
        """Send one request and return a 2xx answer.

        Raises Refused (4xx, with the server's problem) or Unavailable (no answer, or 5xx).
        """
        timeout = httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s
        try:
            answer = await self._client.request(
                method, path, json=json, content=content, params=query, headers=headers, timeout=timeout
            )
        except httpx.TransportError as lost:
            raise Unavailable(unreachable(self.base, lost)) from lost
        if answer.is_success:
            return answer
        raise _failure(answer)

    async def download(
        self, path: str, target: Path, *, seen: Callable[[int], object] = lambda _bytes: None, timeout_s: float
    ) -> None:
        """Write the body of a GET to `target`, piece by piece; `seen` is told how many more bytes are there.

        Raises as `send`, also when the body breaks off (what came is left behind), and OSError for the file.
        `timeout_s` is how long the answer may be silent.
        """
        try:
            async with self._client.stream("GET", path, timeout=httpx.Timeout(timeout_s)) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise _failure(answer)
                with target.open("wb") as out:
                    async for chunk in answer.aiter_bytes(_CHUNK_BYTES):
                        out.write(chunk)
                        seen(len(chunk))
        except httpx.TransportError as lost:
            raise Unavailable(unreachable(self.base, lost)) from lost


def _failure(answer: httpx.Response) -> MoorageError:
    """The error of an answer that is no success."""
    return (Unavailable if answer.status_code >= 500 else Refused)(problem_of(answer))


def unreachable(base: str, lost: Exception) -> Problem:
    """The problem of a control plane that does not answer."""
    return Problem(
        "control-unreachable",
        f"The control plane at {base} does not answer",
        str(lost) or type(lost).__name__,
        "Start it with `moorage up --detach`, or set MOORAGE_API to its address.",
        status=503,
    )


def problem_of(answer: httpx.Response) -> Problem:
    """The problem details of an answer; a generic one when the body carries none."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or "code" not in body:
        return Problem("http-error", f"HTTP {answer.status_code}", answer.text[:500], status=answer.status_code)
    known = {"code", "title", "detail", "hint", "status", "type", "instance"}
    return Problem(
        code=str(body["code"]),
        title=str(body.get("title", "")),
        detail=str(body.get("detail", "")),
        hint=str(body.get("hint", "")),
        status=answer.status_code,
        facts={name: value for name, value in body.items() if name not in known},
    )
