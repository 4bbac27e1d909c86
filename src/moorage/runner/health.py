"""Health: one HTTP request to an allocation's health path, over a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib

PROBE_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 1.0
_HEAD_MAX_BYTES = 16 << 10
_BODY_READ_BYTES = 64 << 10
_BODY_TIMEOUT_S = 0.2


async def probe(host: str, port: int, path: str, *, timeout_s: float = PROBE_TIMEOUT_S) -> int | None:
    """The status of `GET path`; 0 for an answer that is no HTTP or none in time; None when nobody accepts."""
    try:
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(host, port, limit=_HEAD_MAX_BYTES), _CONNECT_TIMEOUT_S
        )
    except (OSError, TimeoutError):
        return None
    try:
        return await asyncio.wait_for(_status(reader, writer, f"{host}:{port}", path), timeout_s)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
        return 0
    finally:
        writer.transport.abort()  # never waits for a peer that stopped reading


def is_healthy(status: int | None) -> bool:
    """Whether the status means that the app is ready: any 2xx or 3xx."""
    return status is not None and 200 <= status < 400


async def _status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, path: str) -> int:
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: moorage-runner\r\nAccept: */*\r\nConnection: close\r\n"
    writer.write(f"{head}\r\n".encode())
    await writer.drain()
    words = (await reader.readline()).split()
    with contextlib.suppress(TimeoutError):  # to hang up in the middle of an answer would fill the app's log
        await asyncio.wait_for(reader.read(_BODY_READ_BYTES), _BODY_TIMEOUT_S)
    return int(words[1]) if len(words) >= 2 and words[0].startswith(b"HTTP/") else 0
