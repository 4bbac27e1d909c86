"""Tier 1 over plain HTTP: pages, redirects, health, the client script, static files."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from typing import Final

from conformance.asking import Answer, Route, ask
from conformance.fixture import SOURCES
from conformance.report import Seen
from conformance.stage import Stage

CODE: Final = "X-Moorage-Code"  # on answers of the edge itself
_CLIENT_SCRIPT: Final = "/_vango/client.js"
_STYLE, _FINGERPRINTED = "/berth.css", "/berth.0a1b2c3d.css"
_WAYS_OUT: Final = (
    "/../go.mod",
    "/%2e%2e/go.mod",
    "/..%2fgo.mod",
    "/public/../../vango.json",
    "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/berth.css/../../vango.json",
    "/vango.json",
    "/server",
    "/.vango/host/vango_host_manifest.json",
)
_INSIDE: Final = (b"example.com/moorage", b"vango.host.v1", b"root:", b"\x7fELF")
_DATA: Final = frozenset({"application/json", "application/ld+json"})


async def ssr_page(stage: Stage, route: Route, seen: Seen) -> None:
    answer = await ask(route, "/")
    seen.expect(answer.status == 200, "GET / -> 200", answer.line)
    kind = answer.header("Content-Type")
    seen.expect(kind.startswith("text/html"), "Content-Type: text/html", kind)
    seen.expect(answer.page.text("count") == "0", "the page shows the counter at 0", answer.page.text("count"))


async def not_runtime_prefixed(stage: Stage, route: Route, seen: Seen) -> None:
    page, below = await ask(route, "/second"), await ask(route, "/_vango/second")
    seen.expect(page.status == 200, "GET /second -> 200", page.line)
    seen.expect(page.page.text("page") == "Second berth", "it is the page itself", page.page.text("page"))
    seen.expect(below.status == 404, "GET /_vango/second -> 404", below.line)
    seen.expect(not below.header(CODE), "the 404 is the app's own", below.header(CODE))


async def canonical_redirect(stage: Stage, route: Route, seen: Seen) -> None:
    for target, place in (("/second/", "/second"), ("/second/?b=2&a=1", "/second?b=2&a=1"), ("//second", "/second")):
        answer = await ask(route, target)
        location = answer.header("Location")
        seen.expect(
            answer.status == 308 and location == place,
            f"GET {target} -> 308, Location: {place}",
            f"{answer.line}, Location: {location}",
        )


async def health(stage: Stage, route: Route, seen: Seen) -> None:
    for target in ("/_vango/health/live", "/_vango/health/ready", "/api/health"):
        answer = await ask(route, target)
        seen.expect(answer.status == 200, f"GET {target} -> 200", answer.line)


async def head_safe(stage: Stage, route: Route, seen: Seen) -> None:
    for target in ("/", _STYLE):
        get, head = await ask(route, target), await ask(route, target, method="HEAD")
        seen.expect(head.status == get.status == 200, f"HEAD {target} -> 200, as GET", f"{head.line}, {get.line}")
        seen.expect(head.body == b"", "without a body", f"{len(head.body)} bytes")
        same = head.header("Content-Type") == get.header("Content-Type")
        seen.expect(same, f"Content-Type: {get.header('Content-Type')} both times", head.header("Content-Type"))


async def not_found(stage: Stage, route: Route, seen: Seen) -> None:
    answer = await ask(route, "/no/such/page")
    seen.expect(answer.status == 404, "GET /no/such/page -> 404", answer.line)
    seen.expect(not answer.header(CODE), "the answer is the app's own", answer.header(CODE))


async def client_script(stage: Stage, route: Route, seen: Seen) -> None:
    runtime = (await ask(route, "/")).page.bootstrap
    if not seen.expect(runtime is not None, "the page names its client script") or runtime is None:
        return
    answer = await ask(route, runtime.client_script)
    seen.expect(answer.status == 200, f"GET {_CLIENT_SCRIPT}?v=... -> 200", answer.line)
    kind = answer.header("Content-Type")
    seen.expect("javascript" in kind, f"Content-Type: {kind}", kind)
    digest = hashlib.sha256(answer.body).hexdigest()
    seen.expect(digest.startswith(runtime.client_hash), "its SHA-256 is the hash that the page names", digest[:16])
    seen.expect(runtime.client_hash in answer.header("ETag"), "ETag has the same hash", answer.header("ETag"))


async def bootstrap_json(stage: Stage, route: Route, seen: Seen) -> None:
    page = (await ask(route, "/")).page
    runtime = page.bootstrap
    if not seen.expect(runtime is not None, "#__vango_bootstrap__ holds JSON") or runtime is None:
        return
    seen.expect(runtime.live_path == "/_vango/live", "livePath: /_vango/live", runtime.live_path)
    seen.expect(bool(runtime.client_hash), "clientHash is there")
    told = runtime.reconnect
    seen.expect(told.enabled and told.retries > 0, f"reconnect: {told.retries} times, from {told.first_ms} ms on")
    seen.expect(bool(page.csrf), "the CSRF token is there")


async def public_runtime_prefix(stage: Stage, route: Route, seen: Seen) -> None:
    runtime = (await ask(route, "/")).page.bootstrap
    assert runtime is not None, "the page has no bootstrap"
    seen.expect(runtime.live_path.startswith("/_vango/"), f"livePath: {runtime.live_path}", runtime.live_path)
    script = runtime.client_script.split("?")[0]
    seen.expect(script == _CLIENT_SCRIPT, f"clientScriptUrl: {script}", script)
    for path in (runtime.live_path, script):
        answer = await ask(route, f"/prefix{path}")
        seen.expect(answer.status == 404, f"GET /prefix{path} -> 404: no other prefix is served", answer.line)


class _Scripts(HTMLParser):
    """Scripts that run, and have no address."""

    def __init__(self) -> None:
        super().__init__()
        self.addressed, self.inline = 0, 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        if tag == "script" and names.get("type") not in _DATA:
            self.addressed += "src" in names
            self.inline += "src" not in names
        self.inline += any(name.startswith("on") for name in names)


async def no_inline_script(stage: Stage, route: Route, seen: Seen) -> None:
    for path in ("/", "/second", "/form"):
        reader = _Scripts()
        reader.feed((await ask(route, path)).text)
        seen.expect(reader.addressed > 0, f"{path}: {reader.addressed} script with an address", "none")
        seen.expect(reader.inline == 0, f"{path}: no inline script, no handler attribute", f"{reader.inline}")


async def asset_served(stage: Stage, route: Route, seen: Seen) -> None:
    answer, there = await ask(route, _STYLE), (SOURCES / "public" / "berth.css").read_bytes()
    seen.expect(answer.status == 200, f"GET {_STYLE} -> 200", answer.line)
    kind = answer.header("Content-Type")
    seen.expect(kind.startswith("text/css"), f"Content-Type: {kind}", kind)
    seen.expect(answer.body == there, f"{len(there)} bytes, those of the file", f"{len(answer.body)} bytes")


async def path_traversal(stage: Stage, route: Route, seen: Seen) -> None:
    for target in _WAYS_OUT:
        answer = await ask(route, target)
        inside = any(mark in answer.body for mark in _INSIDE)
        seen.expect(answer.status >= 300 and not inside, f"GET {target} -> {answer.status}", answer.line)


async def runtime_path_not_shadowed(stage: Stage, route: Route, seen: Seen) -> None:
    script = await ask(route, _CLIENT_SCRIPT)
    runtime = (await ask(route, "/")).page.bootstrap
    assert runtime is not None, "the page has no bootstrap"
    own = hashlib.sha256(script.body).hexdigest().startswith(runtime.client_hash)
    seen.expect(script.status == 200 and own, f"GET {_CLIENT_SCRIPT} -> 200, the framework's own", script.line)
    for target, status in (("/_vango/live?path=%2F", 400), ("/_vango/no-such", 404)):
        answer = await ask(route, target)
        is_own = not answer.header(CODE)
        seen.expect(answer.status == status and is_own, f"GET {target} -> {status}, the app's own", answer.line)


async def cache_headers(stage: Stage, route: Route, seen: Seen) -> None:
    for target, told in (
        (_STYLE, "public, max-age=3600, must-revalidate"),
        (_FINGERPRINTED, "public, max-age=31536000, immutable"),
    ):
        answer = await ask(route, target)
        found = answer.all("Cache-Control")
        seen.expect(found == [told], f"{target}: Cache-Control: {told}", found)
    style = await ask(route, _STYLE)
    since = {"If-Modified-Since": style.header("Last-Modified")}
    _not_modified(seen, _STYLE, "If-Modified-Since", await ask(route, _STYLE, headers=since))
    script = await ask(route, _CLIENT_SCRIPT)
    revalidated = re.search(r"must-revalidate|no-cache", script.header("Cache-Control")) is not None
    seen.expect(revalidated, f"{_CLIENT_SCRIPT}: Cache-Control: {script.header('Cache-Control')}")
    matching = {"If-None-Match": script.header("ETag")}
    _not_modified(seen, _CLIENT_SCRIPT, "If-None-Match", await ask(route, _CLIENT_SCRIPT, headers=matching))


def _not_modified(seen: Seen, target: str, how: str, answer: Answer) -> None:
    seen.expect(answer.status == 304, f"{target} with {how} -> 304", answer.line)
