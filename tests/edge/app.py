"""A small real HTTP/1.1 and WebSocket server that requests end at. It says its name and what it was sent."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json

_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CLOSE = 0x88  # first byte of a close frame; these clients send nothing else


class App:
    """One allocation's process, as far as the edge can tell."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heads: list[bytes] = []
        self.connections = 0
        self.attached = 0
        self.upgraded = 0
        self.upgraded_at_s: list[float] = []
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head)
                if b"\r\nupgrade: websocket" in head.lower():
                    await self._upgrade(head, reader, writer)
                    return
                await self._answer(head, writer)
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        line, *rest = head.decode("latin-1").split("\r\n")
        headers = [header.split(": ", 1) for header in rest if ": " in header]
        if " /broken" in line:
            raise OSError("the test asked for it")
        status = "503 Service Unavailable" if " /own-503" in line else "200 OK"
        if " /_vango/live" in line:
            status = "400 Bad Request"  # it wants an upgrade
        body = json.dumps({"app": self.name, "line": line, "headers": headers}).encode()
        writer.write(
            b"HTTP/1.1 %s\r\nContent-Type: text/x-own\r\nContent-Length: %d\r\n\r\n" % (status.encode(), len(body))
        )
        writer.write(body)
        await writer.drain()

    async def _upgrade(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fields = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n") if ": " in line)
        key = next(value for name, value in fields.items() if name.lower() == "sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1(key.encode() + _ACCEPT).digest())
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        writer.write(b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        name = self.name.encode()
        writer.write(bytes([0x81, len(name)]) + name)  # one text frame: who is at the other end
        await writer.drain()
        self.attached += 1
        self.upgraded += 1
        self.upgraded_at_s.append(asyncio.get_running_loop().time())
        try:
            while frames := await reader.read(4096):
                if frames[0] == _CLOSE:
                    writer.write(bytes([_CLOSE, 0]))
                    return
        finally:
            self.attached -= 1
