"""A plain WebSocket app: HTTP/1.1 and RFC 6455 on asyncio streams, nothing else. Listens on $HOST:$PORT."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import signal
import struct
import sys
import time

STARTED = time.monotonic()
WS_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
HEAD_MAX_BYTES = 16 << 10
MESSAGE_MAX_BYTES = 64 << 10
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
GOING_AWAY, PROTOCOL_ERROR, TOO_BIG = 1001, 1002, 1009

sockets: set[asyncio.StreamWriter] = set()
served = {"requests": 0, "messages": 0}
stopping = asyncio.Event()

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>plain</title>
<style>
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
  body { margin: 0; min-height: 100vh; display: grid; place-content: center; gap: 1rem; text-align: center }
  output { font-size: 5rem; font-weight: 700; font-variant-numeric: tabular-nums }
  button { font: inherit; padding: .6rem 1.4rem; border: 0; border-radius: .6rem; background: #2563eb; color: #fff }
  button:disabled { background: #8886 }
  p { margin: 0; opacity: .75 }
</style>
<main>
  <output id="count">0</output>
  <p><button id="more" disabled>count</button></p>
  <p id="state">connecting…</p>
  <p>deployment <b>%(deployment)s</b>, allocation <b>%(allocation)s</b></p>
</main>
<script>
  const $ = id => document.getElementById(id);
  let tries = 0;
  function connect() {
    const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/ws");
    socket.onopen = () => { tries = 0; $("more").disabled = false; $("state").textContent = "connected"; };
    socket.onmessage = event => { $("count").textContent = event.data.split(" ")[0]; };
    socket.onclose = () => {
      $("more").disabled = true;
      $("state").textContent = "disconnected; the count was in that connection's memory";
      setTimeout(connect, Math.min(8000, 250 * 2 ** tries++) * (.5 + Math.random()));
    };
    $("more").onclick = () => socket.send("more");
  }
  connect();
</script>
</html>
"""


def whoami() -> dict[str, object]:
    """Which allocation of which deployment answers here."""
    return {
        "app": os.environ.get("MOORAGE_APP", "plain"),
        "allocation": os.environ.get("MOORAGE_ALLOCATION", "local"),
        "deployment": os.environ.get("MOORAGE_DEPLOYMENT", "local"),
        "pid": os.getpid(),
        "uptime_s": round(time.monotonic() - STARTED, 3),
        "sockets": len(sockets),
        **served,
    }


async def respond(writer: asyncio.StreamWriter, status: str, kind: str, body: bytes, *, keep: bool, head: bool) -> None:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Cache-Control: no-store"]
    lines.append("Connection: keep-alive" if keep else "Connection: close")
    writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if head else body))
    await writer.drain()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: requests until it closes or becomes a WebSocket."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, version = head[0].split(" ", 2)
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            if headers.get("upgrade", "").lower() == "websocket" and target.split("?")[0] == "/ws":
                await websocket(reader, writer, headers)
                return
            body = await reader.readexactly(min(int(headers.get("content-length", 0)), MESSAGE_MAX_BYTES))
            keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close" and not stopping.is_set()
            status, kind, content = route(target.split("?")[0], method, body)
            await respond(writer, status, kind, content, keep=keep, head=method == "HEAD")
            if not keep:
                return
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # the client went away or does not speak HTTP
    finally:
        writer.close()


def route(path: str, method: str, body: bytes) -> tuple[str, str, bytes]:
    served["requests"] += 1
    if path == "/healthz":
        return "200 OK", "text/plain; charset=utf-8", b"ok\n"
    if path == "/whoami":
        return "200 OK", "application/json", json.dumps(whoami() | {"method": method, "received": len(body)}).encode()
    if path == "/":
        return "200 OK", "text/html; charset=utf-8", (PAGE % whoami()).encode()
    return "404 Not Found", "text/plain; charset=utf-8", b"no such page\n"


def frame(kind: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", 0x80 | kind, size) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", 0x80 | kind, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | kind, 127, size) + payload


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    """(kind, whether it is the last of its message, payload) of a client's frame."""
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
    if size > MESSAGE_MAX_BYTES or not second & 0x80:
        raise ProtocolError(TOO_BIG if second & 0x80 else PROTOCOL_ERROR)
    mask = await reader.readexactly(4)
    payload = await reader.readexactly(size)
    key = (mask * (size // 4 + 1))[:size]
    return (
        first & 0x0F,
        bool(first & 0x80),
        (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big"),
    )


class ProtocolError(Exception):
    """The client broke the rules; carries the close code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


async def websocket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str]) -> None:
    """Count and echo until either side closes. The count lives here and nowhere else."""
    key = headers.get("sec-websocket-key", "").encode()
    accept = base64.b64encode(hashlib.sha1(key + WS_GUID).digest()).decode()
    writer.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
    )
    sockets.add(writer)
    count, message = 0, b""
    try:
        while True:
            kind, last, payload = await read_frame(reader)
            if kind == CLOSE:
                writer.write(frame(CLOSE, payload[:2]))
                await writer.drain()
                return
            if kind == PING:
                writer.write(frame(PONG, payload))
            elif kind != PONG:
                message += payload
                if len(message) > MESSAGE_MAX_BYTES:
                    raise ProtocolError(TOO_BIG)
                if last:
                    count, served["messages"] = count + 1, served["messages"] + 1
                    writer.write(frame(TEXT, f"{count} {message.decode('utf-8', 'replace')}".encode()))
                    message = b""
            await writer.drain()
    except ProtocolError as broken:
        writer.write(frame(CLOSE, struct.pack("!H", broken.code)))
    finally:
        sockets.discard(writer)


async def main() -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8000"))
    server = await asyncio.start_server(serve, host, port, limit=HEAD_MAX_BYTES, backlog=1024)
    print(f"plain: http://{host}:{port}/", file=sys.stderr, flush=True)
    await stopping.wait()
    server.close()
    for writer in list(sockets):
        writer.write(frame(CLOSE, struct.pack("!H", GOING_AWAY)))
    print(f"plain: stopped with {len(sockets)} sockets open", file=sys.stderr, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
