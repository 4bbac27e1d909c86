"""The file server of static sites, as a real process: what a browser, a cache and an attacker ask for."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from moorage.build import serve
from moorage.build.serve import Request, decide, parse, range_of, read_site
from moorage.system.proc import free_port
from tests.build.making import write_files
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

FILES: Mapping[str, str | bytes] = {
    "index.html": "<h1>front</h1>",
    "about.html": "about",
    "docs/index.html": "docs",
    "docs/a b.txt": "blank",
    "app.js": "let a = 1;",
    "data.json": "{}",
    "font.woff2": b"\x00\x01",
    "big.bin": bytes(range(256)) * 4096,
    "unknown.zzz": "?",
    "empty.txt": "",
    ".hidden": "no",
    ".git/config": "no",
    ".well-known/security.txt": "yes",
}


@dataclass
class Running:
    process: asyncio.subprocess.Process
    port: int
    client: httpx.AsyncClient


async def start(folder: Path, *arguments: str) -> Running:
    port = free_port()
    environ = {"HOST": "127.0.0.1", "PORT": str(port), "PATH": os.environ["PATH"]}
    # -I: nothing but the standard library, as in an artifact
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", serve.__file__, str(folder), *arguments, env=environ, stderr=asyncio.subprocess.DEVNULL
    )
    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False)

    async def answers() -> bool:
        try:
            return (await client.get("/-/health")).status_code == 200
        except httpx.TransportError:
            return False

    await wait_until(answers, what="the server answers")
    return Running(process, port, client)


async def stop(running: Running) -> int:
    await running.client.aclose()
    if running.process.returncode is None:
        running.process.send_signal(signal.SIGTERM)
    return await asyncio.wait_for(running.process.wait(), 20.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("outside")
    return write_files(tmp_path / "site", FILES)


@pytest_asyncio.fixture
async def site(folder: Path) -> AsyncIterator[Running]:
    running = await start(folder)
    yield running
    await stop(running)


@pytest.mark.parametrize(
    ("path", "status", "kind", "body"),
    [
        ("/", 200, "text/html; charset=utf-8", "<h1>front</h1>"),
        ("/index.html", 200, "text/html; charset=utf-8", "<h1>front</h1>"),
        ("/about", 200, "text/html; charset=utf-8", "about"),
        ("/docs/", 200, "text/html; charset=utf-8", "docs"),
        ("/docs/a%20b.txt?v=1", 200, "text/plain; charset=utf-8", "blank"),
        ("/app.js", 200, "text/javascript; charset=utf-8", "let a = 1;"),
        ("/data.json", 200, "application/json; charset=utf-8", "{}"),
        ("/font.woff2", 200, "font/woff2", "\x00\x01"),
        ("/unknown.zzz", 200, "application/octet-stream", "?"),
        ("/empty.txt", 200, "text/plain; charset=utf-8", ""),
        ("/.well-known/security.txt", 200, "text/plain; charset=utf-8", "yes"),
        ("/nothing", 404, "text/html; charset=utf-8", None),
        ("/.hidden", 404, "text/html; charset=utf-8", None),
        ("/.git/config", 404, "text/html; charset=utf-8", None),
        ("/-/health", 200, "text/plain; charset=utf-8", "ok\n"),
    ],
)
def test_what_is_answered(folder: Path, path: str, status: int, kind: str, body: str | None) -> None:
    asked, _, query = path.partition("?")
    answer = decide(read_site(folder, spa=False), Request("GET", asked, query, {}, True))
    assert (answer.status, answer.headers["Content-Type"]) == (status, kind)
    content = answer.file.place.read_bytes() if answer.file else answer.body
    assert body is None or content == body.encode()


async def test_a_real_client_gets_files_over_one_connection(site: Running) -> None:
    for _ in range(3):
        answer = await site.client.get("/big.bin")
        assert answer.content == FILES["big.bin"]
    head = await site.client.head("/big.bin")
    assert (head.headers["content-length"], head.content) == (str(1 << 20), b"")
    assert head.headers["x-content-type-options"] == "nosniff"
    assert (await site.client.get("/nothing")).status_code == 404
    assert (await site.client.post("/", content=b"x" * 100_000)).status_code == 405
    assert (await site.client.get("/")).text == "<h1>front</h1>"


async def test_a_cache_is_told_that_nothing_changed(site: Running, folder: Path) -> None:
    first = await site.client.get("/app.js")
    again = await site.client.get("/app.js", headers={"If-None-Match": f'W/"x", {first.headers["etag"]}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    other = await site.client.get("/app.js", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200
    assert (await site.client.get("/about")).headers["etag"] != first.headers["etag"]


@pytest.mark.parametrize(
    ("asked", "status", "piece"),
    [
        ("bytes=0-9", 206, (0, 10)),
        ("bytes=10-", 206, (10, 1 << 20)),
        ("bytes=-5", 206, ((1 << 20) - 5, 1 << 20)),
        ("bytes=1048575-9999999", 206, ((1 << 20) - 1, 1 << 20)),
        ("bytes=1048576-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=5-2", 200, (0, 1 << 20)),
        ("bytes=0-1,3-4", 200, (0, 1 << 20)),
        ("lines=0-1", 200, (0, 1 << 20)),
    ],
)
async def test_a_part_of_a_file(site: Running, asked: str, status: int, piece: tuple[int, int] | None) -> None:
    answer = await site.client.get("/big.bin", headers={"Range": asked})
    assert answer.status_code == status
    if piece is None:
        assert answer.headers["content-range"] == f"bytes */{1 << 20}"
    else:
        whole = FILES["big.bin"]
        assert isinstance(whole, bytes)
        assert answer.content == whole[piece[0] : piece[1]]
    stale = await site.client.get("/big.bin", headers={"Range": "bytes=0-9", "If-Range": '"old"'})
    assert stale.status_code == 200


async def test_a_folder_leads_to_its_slash_and_never_elsewhere(site: Running) -> None:
    answer = await site.client.get("/docs?a=1")
    assert (answer.status_code, answer.headers["location"]) == (308, "/docs/?a=1")
    for path in ("//evil.example/docs", "/docs/..%2f..", "//docs"):
        said = await raw(site.port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"404 Not Found" in said
        assert b"evil" not in said.split(b"\r\n\r\n")[0]


async def raw(port: int, text: str | bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(text.encode() if isinstance(text, str) else text)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), 10.0)
    finally:
        writer.close()


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/docs/../../secret.txt",
        "/%00",
        "/%ff",
        "/docs\\..\\x",
    ],
)
async def test_no_path_leads_out(site: Running, path: str) -> None:
    said = await raw(site.port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 404")
    assert b"outside" not in said


@pytest.mark.parametrize(
    "text",
    [
        "nonsense\r\n\r\n",
        "GET http://x/ HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_said_and_closed(site: Running, text: str) -> None:
    assert (await raw(site.port, text)).startswith(b"HTTP/1.1 400")


async def test_an_endless_header_is_ended(site: Running) -> None:
    said = await raw(site.port, "GET / HTTP/1.1\r\nx: " + "y" * 40_000 + "\r\n\r\n")
    assert said == b"" or said.startswith(b"HTTP/1.1 431")


async def test_an_own_page_for_what_is_missing(tmp_path: Path) -> None:
    running = await start(write_files(tmp_path, {"index.html": "front", "404.html": "own page"}))
    try:
        answer = await running.client.get("/nothing")
        assert (answer.status_code, answer.text) == (404, "own page")
    finally:
        await stop(running)


async def test_a_single_page_app_answers_its_routes(tmp_path: Path) -> None:
    running = await start(write_files(tmp_path, {"index.html": "front", "app.js": ""}), "--spa")
    try:
        assert (await running.client.get("/board/17")).text == "front"
        assert (await running.client.get("/gone.js")).status_code == 404  # a missing file is no page
    finally:
        await stop(running)


async def test_sigterm_ends_it_at_once_with_idle_connections(folder: Path) -> None:
    running = await start(folder)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"GET /about HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"about")
    running.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(running.process.wait(), 5.0) == 0
    assert await reader.read() == b""
    writer.close()
    await running.client.aclose()


@given(st.binary(max_size=300))
def test_any_head_is_a_request_or_is_not(head: bytes) -> None:
    found = parse(head)
    assert found is None or found.path.startswith("/")


@given(st.text(alphabet="bytes=-0123456789,", max_size=20), st.integers(0, 50))
def test_a_range_never_leaves_the_file(text: str, size: int) -> None:
    piece = range_of(text, size)
    if piece is not None and piece[1] > 0:
        assert 0 <= piece[0] < piece[0] + piece[1] <= size
