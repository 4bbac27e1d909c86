"""The health probe against peers that answer, answer badly, or do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from moorage.runner.health import is_healthy, probe
from tests.runner.kit import HOST, free_port


@asynccontextmanager
async def peer(answer: bytes | None) -> AsyncIterator[int]:
    """A server that answers these bytes and hangs up; None: it never answers."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await done.wait()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        done.set()
        server.close()


@pytest.mark.parametrize(
    ("answer", "status", "healthy"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", 200, True),
        (b"HTTP/1.0 204 No Content\r\n\r\n", 204, True),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", 302, True),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", 404, False),
        (b"HTTP/1.1 503\r\n\r\n", 503, False),
        (b"SSH-2.0-OpenSSH\r\n", 0, False),
        (b"HTTP/1.1 soon\r\n", 0, False),
        (b"", 0, False),
        (b"x" * 100_000, 0, False),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000, 200, True),
        (None, 0, False),
    ],
)
async def test_answers(answer: bytes | None, status: int, healthy: bool) -> None:
    async with peer(answer) as port:
        found = await probe(HOST, port, "/", timeout_s=0.3)
        assert (found, is_healthy(found)) == (status, healthy)


async def test_nobody() -> None:
    found = await probe(HOST, free_port(), "/")
    assert found is None
    assert not is_healthy(found)
