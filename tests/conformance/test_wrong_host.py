"""A check that nothing can fail proves nothing: each of these must find out a host that does it wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.checks import forms, live, pages, security
from conformance.ground import Ground
from conformance.report import Seen, Status
from conformance.run import Play, guarded
from conformance.stage import Stage
from conformance.tool import Tool
from tests.conformance.wrong_host import Asked, Told, wrong_host

JSON = (("Content-Type", "application/json"),)
SCRIPT_HASH = "0" * 64
RUNTIME = {"runtime": {"livePath": "/_vango/live", "clientHash": SCRIPT_HASH, "clientScriptUrl": "/_vango/client.js"}}
CSRF = ("Set-Cookie", "__vango_csrf=token")


def a_page(*more: str, script: str = "") -> str:
    """A page with what a runtime needs, and with more in it."""
    bootstrap = f'<script type="application/json" id="__vango_bootstrap__">{json.dumps(RUNTIME)}</script>'
    return f'<!doctype html><body>{bootstrap}{script}<b id="count">0</b>{"".join(more)}'


async def played(play: Play, answer: Callable[[Asked], Told]) -> Seen:
    """What a check sees at a host that answers so."""
    stage = Stage(Ground(Path("nowhere"), "http://127.0.0.1:1", 0), Tool(Path("nothing"), "0.2.4", "go1"), Path("no"))
    seen = Seen()
    async with wrong_host(answer) as route:
        await guarded(lambda: play(stage, route, seen), [seen])
    return seen


def always(told: Told) -> Callable[[Asked], Told]:
    """A host that has one answer to everything."""
    return lambda _asked: told


@pytest.mark.parametrize(
    "play",
    [
        pages.ssr_page,
        pages.not_runtime_prefixed,
        pages.canonical_redirect,
        pages.not_found,
        pages.client_script,
        pages.bootstrap_json,
        pages.no_inline_script,
        pages.asset_served,
        pages.cache_headers,
        security.cookie_samesite,
        security.csp_runtime_compatible,
        security.csp_connect_src,
        forms.csrf_token_present,
        live.upgrade,
        live.legacy_path,
        live.reconnect,
    ],
    ids=lambda play: play.__name__,
)
async def test_a_host_that_greets_everybody(play: Play) -> None:
    """A page of another kind, 200, whatever was asked: the framework's tool calls that a page."""
    assert (await played(play, always(Told()))).status is Status.FAILED


@pytest.mark.parametrize(
    "play", [pages.ssr_page, pages.health, pages.head_safe, pages.asset_served], ids=lambda play: play.__name__
)
async def test_a_host_that_is_starting(play: Play) -> None:
    assert (await played(play, always(Told(503)))).status is Status.FAILED


async def test_an_answer_of_the_edge_is_not_the_apps_own() -> None:
    own = Told(404, headers=(("X-Moorage-Code", "no-ready-allocation"),))
    assert (await played(pages.not_found, always(own))).status is Status.FAILED
    assert (await played(pages.not_found, always(Told(404)))).status is Status.PASSED


async def test_a_file_that_should_not_be_served() -> None:
    leak = Told(200, "module example.com/moorage/vango-conformance")
    seen = await played(pages.path_traversal, lambda asked: leak if "go.mod" in asked.target else Told(404))
    assert seen.status is Status.FAILED
    assert "go.mod" in seen.diagnostics[0].message


async def test_a_redirect_that_was_made_absolute() -> None:
    told = Told(308, headers=(("Location", "http://127.0.0.1/second"),))
    assert (await played(pages.canonical_redirect, always(told))).status is Status.FAILED


async def test_an_inline_script() -> None:
    inline = Told(200, a_page(script='<script src="/x.js"></script><script>run()</script>'))
    assert (await played(pages.no_inline_script, always(inline))).status is Status.FAILED


async def test_a_head_with_a_body() -> None:
    assert (await played(pages.head_safe, always(Told()))).status is Status.FAILED


@pytest.mark.parametrize("play", [security.trusted_proxy_scheme, security.trusted_proxy_client_ip])
async def test_forwarded_headers_that_are_believed(play: Play) -> None:
    """The proxy in front lets pass what the client says of itself."""

    def mirror(asked: Asked) -> Told:
        names = {name.title(): value for name, value in asked.headers.items()}
        return Told(200, json.dumps({"uri": asked.target, "headers": names}), JSON)

    assert (await played(play, mirror)).status is Status.FAILED


async def test_a_query_that_was_tidied_up() -> None:
    def mirror(asked: Asked) -> Told:
        return Told(200, json.dumps({"uri": asked.target.replace("%2F", "/"), "headers": {}}), JSON)

    seen = await played(live.exactness, mirror)
    assert seen.status is Status.FAILED
    assert any("an odd query" in each.message for each in seen.diagnostics)


async def test_a_post_that_is_taken_without_its_token() -> None:
    def lax(asked: Asked) -> Told:
        if asked.method == "POST":
            return Told(303, "", (("Location", "/form"),))
        return Told(200, '{"count": 4}', (*JSON, CSRF))

    seen = await played(forms.missing_token, lax)
    assert seen.status is Status.FAILED
    assert any("4 times" in each.message for each in seen.diagnostics)


async def test_a_post_that_is_sent_twice() -> None:
    def twice(asked: Asked) -> Told:
        if asked.method == "POST":
            return Told(502, "", (("X-Moorage-Code", "allocation-broke-off"),))
        return Told(200, '{"count": 2}', (*JSON, CSRF))

    seen = await played(forms.not_replayed, twice)
    assert [each.message.split("; ")[1] for each in seen.diagnostics] == ["seen: 2 times"] * 2


async def test_an_upload_that_arrives_otherwise() -> None:
    seen = await played(forms.http_upload, always(Told(200, '{"temp_id": "00", "count": 1}', (*JSON, CSRF))))
    assert any("SHA-256" in each.message for each in seen.diagnostics)


async def test_cookies_without_their_attributes() -> None:
    bare = Told(200, a_page(), (CSRF, ("Set-Cookie", "moorage_pin=1-x.y")))
    assert (await played(security.cookie_samesite, always(bare))).status is Status.FAILED


async def test_a_policy_that_names_a_stranger() -> None:
    policy = "default-src 'self'; connect-src 'self' wss://evil.example"
    told = Told(200, a_page(), (("Content-Security-Policy", policy),))
    assert (await played(security.csp_connect_src, always(told))).status is Status.FAILED


async def test_a_host_that_hangs_up_is_at_fault_and_a_harness_that_errs_is_not() -> None:
    async def hang_up() -> None:
        raise EOFError("0 bytes read")

    async def err() -> None:
        raise LookupError("no such allocation")

    host, harness = Seen(), Seen()
    await guarded(hang_up, [host])
    await guarded(err, [harness])
    assert (host.status, harness.status) == (Status.FAILED, Status.BLOCKED)
