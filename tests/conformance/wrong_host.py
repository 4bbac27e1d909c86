"""Hosts that do it wrong, for checks to find out: one that answers as it is told, and a relay that spoils requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from conformance.asking import Route


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    method: str
    target: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Told:
    """What a wrong host answers."""

    status: int = 200
    body: str = "<!doctype html><p>hello</p>"
    headers: tuple[tuple[str, str], ...] = field(default=(("Content-Type", "text/html"),))


@contextlib.asynccontextmanager
async def wrong_host(answer: Callable[[Asked], Told], environment: str = "production") -> AsyncIterator[Route]:
    """A server that answers every request with what `answer` makes of it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, OSError):
            told = answer(await _asked(reader))
            body = told.body.encode()
            lines = [f"HTTP/1.1 {told.status} Said", f"Content-Length: {len(body)}"]
            lines += [f"{name}: {value}" for name, value in told.headers]
            writer.write("\r\n".join((*lines, "", "")).encode() + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Route("production", environment, ("127.0.0.1", port), f"vango-conformance.localhost:{port}")


async def _asked(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *rest = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, target, headers)


@contextlib.asynccontextmanager
async def relay(route: Route, spoil: Callable[[bytes], bytes]) -> AsyncIterator[Route]:
    """A proxy before a route that changes the head of each connection's first request."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, OSError):
            there, back = await asyncio.open_connection(*route.address)
            back.write(spoil(await reader.readuntil(b"\r\n\r\n")))
            await asyncio.gather(pump(reader, back), pump(there, writer))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Route(route.name, route.environment, server.sockets[0].getsockname()[:2], route.host)
