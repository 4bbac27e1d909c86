"""A small control plane on a real socket: it speaks the wire messages that a test gives it and keeps what it was sent.

It decides nothing. Each path has one answer or a list of answers (the last one stays): a message, a tuple of messages
for a listing, bytes, a `Problem`, or `DROP` for a connection that ends without an answer. Answers are validated
messages, so a change of the wire breaks these tests and not only the real platform's.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from moorage.domain.errors import Problem
from moorage.wire.message import Message
from moorage.wire.problem import CONTENT_TYPE, problem_document

TOKEN = "token-of-the-test"
DROP = "drop"
Answer = Message | tuple[Message, ...] | Problem | bytes | str


@dataclass(frozen=True)
class Sent:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    key: str | None
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass
class Control:
    """The answers by (method, path), and every request in order."""

    url: str = ""
    answers: dict[tuple[str, str], list[Answer]] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)

    def on(self, method: str, path: str, *answers: Answer) -> None:
        """Answer this path, in turn; the last answer stays."""
        self.answers[method, path] = list(answers)

    def changes(self) -> list[Sent]:
        """The requests that change something, uploads aside."""
        return [s for s in self.sent if s.method != "GET" and not s.path.startswith("/v1/sources/")]

    def take(self, sent: Sent, token: str) -> Answer:
        """The answer to a request."""
        self.sent.append(sent)
        if token != f"Bearer {TOKEN}":
            return Problem("unauthorized", "This needs the admin token", status=401)
        waiting = self.answers.get((sent.method, sent.path))
        if not waiting:
            return Problem("not-found", "There is nothing here", f"{sent.method} {sent.path}", status=404)
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


def _requests(control: Control) -> type[BaseHTTPRequestHandler]:
    class Requests(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else the body waits 40 ms for the receipt of the head

        def log_message(self, *_: Any) -> None:
            pass

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            sent = Sent(
                self.command,
                parts.path,
                dict(parse_qsl(parts.query)),
                self.headers.get("Idempotency-Key"),
                _body(self),
            )
            answer = control.take(sent, self.headers.get("Authorization", ""))
            if answer == DROP:
                self.close_connection = True
                return
            status, kind, body = _encoded(answer)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = _serve

    return Requests


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding") != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))
    body = b""
    while size := int(request.rfile.readline(), 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return body


def _encoded(answer: Answer) -> tuple[int, str, bytes]:
    if isinstance(answer, Problem):
        return answer.status, CONTENT_TYPE, json.dumps(problem_document(answer)).encode()
    if isinstance(answer, bytes):
        return 200, "application/octet-stream", answer
    if isinstance(answer, tuple):
        items = [item.model_dump(mode="json") for item in answer]
        return 200, "application/json", json.dumps({"items": items}).encode()
    assert isinstance(answer, Message)
    return 200, "application/json", answer.model_dump_json().encode()


@contextmanager
def running_control() -> Iterator[Control]:
    """A control plane on a free port of the loopback."""
    control = Control()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _requests(control))
    server.daemon_threads = True
    control.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield control
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
