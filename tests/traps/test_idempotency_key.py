"""Idempotency key: retries create duplicates. The same key is the same change, whoever asks how often."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests.support.deeds import serve, upload
from tests.support.platform import Platform, key
from tests.support.tiny_app import tiny_app
from tests.support.truth import committed_index, rows

pytestmark = pytest.mark.servers

KEY, REPLAYED = "Idempotency-Key", "Idempotency-Replayed"
RETRIES = 100
MUTATIONS = ("post", "put", "patch", "delete")
# Not for people and their programs: agents' reports are a whole picture under a token each, a source is named by its
# digest; saying either twice is saying it once.
REPEATABLE = re.compile(r"/v1/(edges|runners|builds|sources)/")
COUNTS = """select (select count(*) from apps) as apps, (select count(*) from deployments) as deployments,
    (select count(*) from operations) as operations, (select count(*) from secrets) as secrets,
    (select count(*) from route_history) as owners, (select count(*) from idempotency) as keys"""


def client(platform: Platform) -> httpx.AsyncClient:
    """The API without the platform's own client in between."""
    headers = {"Authorization": f"Bearer {platform.token}"}
    return httpx.AsyncClient(base_url=platform.api_url, headers=headers, trust_env=False, timeout=60)


async def test_idempotency_key_makes_one_resource_and_one_operation_of_100_concurrent_retries(
    platform: Platform, tmp_path: Path
) -> None:
    body = {"source": await upload(platform, tiny_app(tmp_path / "once", "once"))}
    path, one = "/v1/apps/once/deployments", key()
    async with client(platform) as api:
        answers = await asyncio.gather(*(api.post(path, json=body, headers={KEY: one}) for _ in range(RETRIES)))
        assert Counter(answer.status_code for answer in answers) == {202: RETRIES}
        assert len({answer.content for answer in answers}) == 1, "each of them heard the same"
        assert sum(REPLAYED not in answer.headers for answer in answers) == 1, "one acted"
        made = answers[0].json()
        check_made_once(platform, made["operation"])
        view = await platform.finished(made["operation"])
        assert (view.state, view.app, view.input["deployment"]) == ("preview_ready", "once", made["deployment"])
        late = await api.post(path, json=body, headers={KEY: one})
        assert (late.status_code, late.json(), late.headers[REPLAYED]) == (202, made, "true")
        check_made_once(platform, made["operation"])


def check_made_once(platform: Platform, operation: str) -> None:
    """One app, one deployment, one operation, one word of it in the audit."""
    assert len(rows(platform, "select id from apps where name = 'once'")) == 1
    assert [row["operation"] for row in rows(platform, "select * from deployments where app = 'once'")] == [operation]
    assert [row["id"] for row in rows(platform, "select * from operations where app = 'once'")] == [operation]
    assert len(rows(platform, "select * from audit where action = 'deploy' and subject = 'once'")) == 1


async def test_idempotency_key_of_another_request_is_refused(platform: Platform, tmp_path: Path) -> None:
    """Another body, another app, another verb: never the old answer, and nothing happens."""
    await serve(platform, tiny_app(tmp_path / "reused", "reused"))
    one, path = key(), "/v1/apps/reused/secrets"
    async with client(platform) as api:
        first = await api.put(f"{path}/COLOUR", json={"value": "green"}, headers={KEY: one})
        assert first.status_code == 200
        before = everything(platform)
        others = [
            ("PUT", f"{path}/COLOUR", {"value": "blue"}),
            ("PUT", f"{path}/SHADE", {"value": "green"}),
            ("DELETE", f"{path}/COLOUR", None),
            ("POST", "/v1/apps/reused/promotions", {"deployment": 1, "expected_epoch": 1}),
            ("DELETE", "/v1/apps/reused", None),
        ]
        for method, where, body in others:
            answer = await api.request(method, where, json=body, headers={KEY: one})
            assert (answer.status_code, answer.json().get("code")) == (422, "idempotency-key-reused"), (method, where)
        assert everything(platform) == before
        again = await api.put(f"{path}/COLOUR", json={"value": "green"}, headers={KEY: one})
        assert (again.content, again.headers[REPLAYED]) == (first.content, "true")
        assert everything(platform) == before


async def test_idempotency_key_is_asked_for_by_every_endpoint_that_changes_something(
    platform: Platform, tmp_path: Path
) -> None:
    """The API's own description lists them; without the key each of them refuses and changes nothing."""
    await serve(platform, tiny_app(tmp_path / "listed", "listed"))
    source = await upload(platform, tmp_path / "listed")
    real = {"app": "listed", "name": "COLOUR", "operation": "op_none", "number": "1"}
    body = {"value": "x", "source": source, "archive": source, "deployment": 1, "expected_epoch": 1}
    async with client(platform) as api:
        document = (await api.get("/openapi.json")).json()
        found = [(m, path) for path, verbs in document["paths"].items() for m in verbs if m in MUTATIONS]
        changing = [(m, path) for m, path in found if not REPEATABLE.match(path)]
        assert len(changing) >= 8
        before = everything(platform)
        for method, path in changing:
            schema = document["paths"][path][method].get("requestBody", {}).get("content", {}).get("application/json")
            wanted = fields_of(document, schema)
            sent = {name: value for name, value in body.items() if name in wanted} if schema else None
            answer = await api.request(method.upper(), path.format(**real), json=sent)
            assert (answer.status_code, answer.json().get("code")) == (400, "idempotency-key-missing"), (method, path)
        assert everything(platform) == before


def fields_of(document: dict[str, object], schema: dict[str, dict[str, str]] | None) -> set[str]:
    """The names that a request body may have."""
    found: object = document
    for part in schema["schema"]["$ref"].removeprefix("#/").split("/") if schema else ():
        assert isinstance(found, dict)
        found = found[part]
    return set(found["properties"]) if isinstance(found, dict) and "properties" in found else set()


def everything(platform: Platform) -> list[object]:
    """What a change would leave behind."""
    return [*rows(platform, COUNTS), committed_index(platform)]


class Recorder(BaseHTTPRequestHandler):
    """Passes requests on to the platform, and notes those that change something; the first answers to those whose
    paths are in `lose` never arrive."""

    upstream = ""
    noted: list[tuple[str, str, str]] = []
    lose: list[str] = []

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self._chunked()
        if self.command.lower() in MUTATIONS:
            self.noted.append((self.command, self.path, self.headers.get(KEY) or ""))
        kept = {name: self.headers[name] for name in ("Authorization", "Content-Type", KEY) if self.headers[name]}
        answer = httpx.request(
            self.command, self.upstream + self.path, content=body, headers=kept, timeout=60, trust_env=False
        )
        if self.command.lower() in MUTATIONS and self.path in self.lose:
            self.lose.remove(self.path)
            self.close_connection = True
            return
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = do_PUT = do_DELETE = _pass_on

    def _chunked(self) -> bytes:
        """A body that came in pieces; nothing for a request without one."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def log_message(self, *_words: object) -> None:
        """Silence."""


@contextmanager
def recorder(platform: Platform, *, lose: tuple[str, ...] = ()) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """An address in front of the API, and the changes (method, path, key) that came through it."""
    noted: list[tuple[str, str, str]] = []
    own = {"upstream": platform.api_url, "noted": noted, "lose": list(lose)}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnRecorder", (Recorder,), own))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", noted
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_idempotency_key_is_sent_by_the_command_line_with_every_change(platform: Platform, tmp_path: Path) -> None:
    source = str(tiny_app(tmp_path / "typed", "typed"))
    with recorder(platform) as (address, noted):
        for words in (
            ("deploy", source, "--promote"),
            ("deploy", source),
            ("promote", "typed", "--deployment", "2"),
            ("rollback", "typed", "--to", "1"),
            ("restart", "typed"),
            ("secret", "set", "typed", "COLOUR"),
            ("secret", "unset", "typed", "COLOUR"),
            ("destroy", "typed", "--yes"),
        ):
            answer = platform.cli("--api", address, *words, input="green\n" if "set" in words else None)
            assert answer.code == 0, (words, answer.out + answer.err)
    changes = [one for one in noted if not REPEATABLE.match(one[1])]
    assert len(changes) == 9
    assert [one for one in changes if len(one[2]) < 16] == [], "each has a key that nobody else would choose"
    assert len({sent for _, _, sent in changes}) == len(changes), "and each its own"


def test_idempotency_key_lets_the_command_line_retry_when_an_answer_was_lost(
    platform: Platform, tmp_path: Path
) -> None:
    """The change is made, its answer never arrives: the retry hears what was made, and nothing is made twice."""
    source, path = str(tiny_app(tmp_path / "unheard", "unheard")), "/v1/apps/unheard/deployments"
    with recorder(platform, lose=(path,)) as (address, noted):
        answer = platform.cli("--api", address, "deploy", source, "--json")
    assert answer.code == 0, answer.out + answer.err
    sent = [one for one in noted if one[1] == path]
    assert len(sent) == 2
    assert len(set(sent)) == 1, "the same key again"
    (made,) = rows(platform, "select id from operations where app = 'unheard'")
    assert answer.json["id"] == made["id"]
