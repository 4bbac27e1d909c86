"""Serves a folder of files over HTTP/1.1. The builder copies this file into the artifact of a static site.

Rules: only the standard library, one file, nothing of the platform. What can be asked for is a table of the folder's
files made at the start, so no request path ever reaches the file system. It listens on $HOST:$PORT.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import html
import mimetypes
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, unquote

HEADER_MAX_BYTES = 16 << 10
IDLE_TIMEOUT_S = 75.0  # longer than the 60 s after which a proxy usually lets go
STOP_TIMEOUT_S = 8.0  # what is being sent may end; below the usual 10 s before SIGKILL
HEALTH_PATH = "/-/health"
WELL_KNOWN = ".well-known"
REQUEST = re.compile(r"^([A-Z]{1,16}) (\S{1,8192}) HTTP/1\.([01])$")
RANGE = re.compile(r"^bytes=(\d{0,15})-(\d{0,15})$")
ADDED_TYPES = {
    ".avif": "image/avif",
    ".mjs": "text/javascript",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/markdown",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
TEXT_TYPES = ("application/json", "application/manifest+json", "application/xml", "image/svg+xml")


@dataclass(frozen=True)
class File:
    """One file: its place, type, and a tag that changes with its content."""

    place: Path
    size: int
    type: str
    tag: str


@dataclass(frozen=True)
class Site:
    """The files by URL path (decoded, without a trailing slash), and the folders that have an index."""

    files: Mapping[str, File]
    folders: frozenset[str]
    spa: bool


@dataclass(frozen=True)
class Request:
    """What matters of a request."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    keep_alive: bool


@dataclass(frozen=True)
class Answer:
    """A status and headers, and as body either bytes or a piece (offset, length) of a file."""

    status: HTTPStatus
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: File | None = None
    piece: tuple[int, int] = (0, 0)


def read_site(root: Path, *, spa: bool) -> Site:
    """The table of a folder. Hidden files are left out, but for `.well-known`."""
    kinds = mimetypes.MimeTypes()  # built-in types only: the host's own tables would change the answers
    files = {f"/{place.relative_to(root).as_posix()}": file_at(place, kinds) for place in _files(root)}
    folders = frozenset(path.removesuffix("/index.html") for path in files if path.endswith("/index.html"))
    return Site(files, folders, spa)


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") or name == WELL_KNOWN]
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def file_at(place: Path, kinds: mimetypes.MimeTypes) -> File:
    """A file with its type and a tag of its content."""
    digest = hashlib.sha256()
    with place.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    kind = ADDED_TYPES.get(place.suffix.lower()) or kinds.guess_type(place.name, strict=True)[0]
    kind = kind or "application/octet-stream"
    if kind.startswith("text/") or kind in TEXT_TYPES:
        kind += "; charset=utf-8"
    return File(place, place.stat().st_size, kind, f'"{digest.hexdigest()[:32]}"')


def decide(site: Site, request: Request) -> Answer:
    """The answer to a request, pure."""
    if request.method not in ("GET", "HEAD"):
        return page(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
    path = unquote(request.path, errors="replace")
    if path == HEALTH_PATH:
        return Answer(
            HTTPStatus.OK, {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}, b"ok\n"
        )
    found = find(site, path)
    if isinstance(found, str):
        tail = f"?{request.query}" if request.query else ""
        return page(HTTPStatus.PERMANENT_REDIRECT, {"Location": quote(found) + tail})
    if found is not None:
        return send(found, request)
    last = path.rsplit("/", 1)[-1]
    if site.spa and "/index.html" in site.files and "." not in last:
        return send(site.files["/index.html"], request)
    if "/404.html" in site.files:
        own = site.files["/404.html"]
        return Answer(HTTPStatus.NOT_FOUND, {"Content-Type": own.type}, file=own, piece=(0, own.size))
    return page(HTTPStatus.NOT_FOUND)


def find(site: Site, path: str) -> File | str | None:
    """The file of a path, or the path to go to instead, or nothing."""
    if path.endswith("/"):
        return site.files.get(f"{path}index.html")
    if path in site.files:
        return site.files[path]
    if path in site.folders:
        return f"{path}/"  # relative links of the index need the slash; the path is one of ours, never a foreign host
    return site.files.get(f"{path}.html")


def send(file: File, request: Request) -> Answer:
    """A file, or the part of it that was asked for, or that the client has it already."""
    headers = {"ETag": file.tag, "Cache-Control": "no-cache", "Accept-Ranges": "bytes"}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if file.tag in known or "*" in known:
        return Answer(HTTPStatus.NOT_MODIFIED, headers)
    headers["Content-Type"] = file.type
    asked = request.headers.get("range")
    if asked is None or request.headers.get("if-range", file.tag) != file.tag:
        return Answer(HTTPStatus.OK, headers, file=file, piece=(0, file.size))
    piece = range_of(asked, file.size)
    if piece is None:  # several ranges, or no range at all: the whole file is a correct answer
        return Answer(HTTPStatus.OK, headers, file=file, piece=(0, file.size))
    offset, length = piece
    if length <= 0:
        return page(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{file.size}"})
    headers["Content-Range"] = f"bytes {offset}-{offset + length - 1}/{file.size}"
    return Answer(HTTPStatus.PARTIAL_CONTENT, headers, file=file, piece=piece)


def range_of(text: str, size: int) -> tuple[int, int] | None:
    """(offset, length) of a single byte range; a length of 0 or less cannot be satisfied; None is no such range."""
    found = RANGE.match(text.strip())
    if found is None or found.group(1) == found.group(2) == "":
        return None
    first, last = found.groups()
    if not first:
        length = min(int(last), size)
        return size - length, length
    end = min(int(last), size - 1) if last else size - 1
    if last and int(last) < int(first):
        return None
    return int(first), end - int(first) + 1


def page(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> Answer:
    """A small page that says what happened."""
    title = html.escape(f"{status.value} {status.phrase}")
    text = f"<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1>\n"
    kind = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store"}
    return Answer(status, {**kind, **(headers or {})}, text.encode())


def parse(head: bytes) -> Request | None:
    """The request in a head, or None when it is not one."""
    lines = head.decode("latin-1").split("\r\n")
    first = REQUEST.match(lines[0])
    if first is None:
        return None
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon and line:
            return None
        headers[name.lower()] = value.strip()
    path, _, query = first.group(2).partition("?")
    if not path.startswith("/"):
        return None
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    closing = "close" in headers.get("connection", "").lower()
    return Request(first.group(1), path, query, headers, first.group(3) == "1" and not closing and not has_body)


class Server:
    """Connections to a site. A connection that waits for its next request is idle and is closed at the stop."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._idle: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def run(self, host: str, port: int) -> None:
        """Serve until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        server = await asyncio.start_server(self._accept, host, port, limit=HEADER_MAX_BYTES, backlog=1024)
        print(f"serving {len(self._site.files)} files on {host}:{port}", file=sys.stderr, flush=True)
        await stop.wait()
        self._stopping = True
        server.close()
        for writer in list(self._idle):
            writer.close()
        if self._open:
            await asyncio.wait(self._open, timeout=STOP_TIMEOUT_S)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            while await self._serve_one(reader, writer) and not self._stopping:
                pass
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass  # the client went away, or said nothing for too long
        finally:
            self._open.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; says whether the connection stays."""
        self._idle.add(writer)
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), IDLE_TIMEOUT_S)
        except asyncio.LimitOverrunError:
            await _write(writer, page(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), keep_alive=False)
            return False
        finally:
            self._idle.discard(writer)
        request = parse(head[:-4])
        if request is None:
            await _write(writer, page(HTTPStatus.BAD_REQUEST), keep_alive=False)
            return False
        keep_alive = request.keep_alive and not self._stopping
        await _write(writer, decide(self._site, request), keep_alive=keep_alive, head_only=request.method == "HEAD")
        return keep_alive


async def _write(writer: asyncio.StreamWriter, answer: Answer, *, keep_alive: bool, head_only: bool = False) -> None:
    length = answer.piece[1] if answer.file else len(answer.body)
    fixed = {"Date": formatdate(usegmt=True), "X-Content-Type-Options": "nosniff"}
    if answer.status is not HTTPStatus.NOT_MODIFIED:
        fixed["Content-Length"] = str(length)
    fixed["Connection"] = "keep-alive" if keep_alive else "close"
    lines = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in {**fixed, **answer.headers}.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    if head_only or answer.status is HTTPStatus.NOT_MODIFIED:
        await writer.drain()
        return
    if answer.file is None:
        writer.write(answer.body)
        await writer.drain()
        return
    offset, count = answer.piece
    await writer.drain()
    if count:
        with answer.file.place.open("rb") as handle:
            await asyncio.get_running_loop().sendfile(writer.transport, handle, offset, count)


def main() -> None:
    """The command line: `serve.py FOLDER [--spa]`."""
    parser = argparse.ArgumentParser(description="Serve a folder on $HOST:$PORT.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--spa", action="store_true", help="answer unknown pages with index.html")
    given = parser.parse_args()
    site = read_site(given.folder.resolve(), spa=given.spa)
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8000"))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Server(site).run(host, port))


if __name__ == "__main__":
    main()
