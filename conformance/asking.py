"""Requests to a route byte for byte: what is written here is what goes over the wire, and what comes back is not
touched. No library that tidies paths up, follows redirects or keeps cookies stands in between.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from moorage.vango.page import Page, read_page

ANSWER_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the platform under test: a name for people, the environment that it leads to (as the platform names
    it), the edge's address, the Host that leads to the app."""

    name: str
    environment: str
    address: tuple[str, int]
    host: str

    @property
    def url(self) -> str:
        """Its address as users type it."""
        return f"http://{self.host}"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def line(self) -> str:
        """Status and reason."""
        return f"{self.status} {self.reason}".strip()

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    def header(self, name: str) -> str:
        """The first header of this name; empty without one."""
        return next(iter(self.all(name)), "")

    def all(self, name: str) -> list[str]:
        """Every header of this name."""
        return [value for each, value in self.headers if each.lower() == name.lower()]

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies that are set."""
        pairs = (line.split(";", 1)[0].partition("=") for line in self.all("Set-Cookie"))
        return {name.strip(): value.strip() for name, _, value in pairs}

    @property
    def page(self) -> Page:
        """The facts of the page in the body."""
        return read_page(self.text)


async def ask(
    route: Route,
    target: str = "/",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    host: str | None = None,
    address: tuple[str, int] | None = None,
    source: str | None = None,
    cookies: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request and read its answer to the end. Raises OSError, TimeoutError, EOFError (no whole answer)."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {route.host if host is None else host}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if cookies:
        lines.append("Cookie: " + "; ".join(f"{name}={value}" for name, value in cookies.items()))
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    local = None if source is None else (source, 0)
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(*(address or route.address), local_addr=local)
        try:
            writer.write("\r\n".join((*lines, "", "")).encode("latin-1") + body)
            return await _read(reader, method)
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader, method: str) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *rest = head.rstrip("\r\n").split("\r\n")
    _, status, *reason = first.split(" ", 2)
    pairs = (line.partition(":") for line in rest)
    headers = tuple((name.strip(), value.strip()) for name, _, value in pairs)
    answer = Answer(int(status), "".join(reason), headers, b"")
    if method == "HEAD" or answer.status in (204, 304):
        return Answer(answer.status, answer.reason, headers, await reader.read())
    return Answer(answer.status, answer.reason, headers, await _body(reader, answer))


async def _body(reader: asyncio.StreamReader, answer: Answer) -> bytes:
    if "chunked" in answer.header("Transfer-Encoding").lower():
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        return b"".join(parts)
    length = answer.header("Content-Length")
    return await reader.readexactly(int(length)) if length else await reader.read()


def multipart(name: str, content: bytes) -> tuple[str, bytes]:
    """Content type and body of a form with one file."""
    edge = "moorage-conformance-edge"
    head = (
        f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return f"multipart/form-data; boundary={edge}", head.encode() + content + f"\r\n--{edge}--\r\n".encode()


def json_of(answer: Answer) -> Any:
    """The JSON value in an answer. Raises ValueError."""
    return json.loads(answer.body)


def attributes(set_cookie: str) -> Sequence[str]:
    """The attributes of a cookie that is set, without its name and value."""
    return [part.strip() for part in set_cookie.split(";")[1:]]
