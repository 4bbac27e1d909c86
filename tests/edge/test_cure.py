"""The cure of a live path: on its routes a constant query more and nothing else; on others nothing at all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.edge.kit import HOST, Edge
from tests.edge.test_pins import sign

pytestmark = pytest.mark.servers

LIVE = "/_vango/live"
UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


def cured(target: str) -> str:
    """What the app should be asked for: the rule, written down a second time and without an expression."""
    path, mark, query = target.partition("?")
    parameters = query.split("&")
    for place, parameter in enumerate(parameters):
        name, equals, value = parameter.partition("=")
        if name == "path" and equals:
            has_query = "?" in value or "%3f" in value.lower()
            parameters[place] += ("%26" if has_query else "%3F") + "moorage=1" if value else ""
            break
    return path + mark + "&".join(parameters)


def head(target: str, more: str = UPGRADE) -> str:
    return f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n"


async def serve(edge: Edge, *, cure: bool) -> None:
    app = edge.apps.get("app") or await edge.app("app")
    edge.ledger.place(1, app.port)
    edge.ledger.own(HOST, 1, cure=cure)
    await edge.in_force()


async def arrived(edge: Edge, target: str, more: str = UPGRADE) -> str:
    """The target that the app was asked for."""
    app = edge.apps["app"]
    count = len(app.heads)
    answer, _ = await edge.raw(head(target, more))
    assert len(app.heads) == count + 1, answer
    return app.heads[-1].split(b" ")[1].decode("latin-1")


QUERIES = {
    "?path=%2F": "?path=%2F%3Fmoorage=1",
    "?path=/about": "?path=/about%3Fmoorage=1",
    "?path=%2Fboard%3Fsort%3Dnew": "?path=%2Fboard%3Fsort%3Dnew%26moorage=1",
    "?path=%2fboard%3fsort": "?path=%2fboard%3fsort%26moorage=1",
    "?path=/board?sort=new": "?path=/board?sort=new%26moorage=1",
    "?path=/a%3F": "?path=/a%3F%26moorage=1",
    "?path=/a&lang=de": "?path=/a%3Fmoorage=1&lang=de",
    "?lang=de&path=/a&x=%3F": "?lang=de&path=/a%3Fmoorage=1&x=%3F",
    "?lang=%3F&path=/a": "?lang=%3F&path=/a%3Fmoorage=1",
    "?xpath=/x&path=/a": "?xpath=/x&path=/a%3Fmoorage=1",
    "?path=/a&path=/b?": "?path=/a%3Fmoorage=1&path=/b?",
    "?&&path=/a&&": "?&&path=/a%3Fmoorage=1&&",
    "?path=a=b": "?path=a=b%3Fmoorage=1",
    "?path=/a;b=1": "?path=/a;b=1%3Fmoorage=1",
    "?path=\\1\\0%2": "?path=\\1\\0%2%3Fmoorage=1",
    "?path=%E2%82%AC%26%253F+": "?path=%E2%82%AC%26%253F+%3Fmoorage=1",
    "?path=": "?path=",
    "?path=&path=/b": "?path=&path=/b",
    "?path": "?path",
    "?path&path=/b": "?path&path=/b%3Fmoorage=1",
    "?Path=/a": "?Path=/a",
    "?p%61th=/a": "?p%61th=/a",
    "?a=path=/a": "?a=path=/a",
    "?": "?",
    "": "",
}


async def test_the_table_of_queries(edge: Edge) -> None:
    await serve(edge, cure=True)
    for query, expected in QUERIES.items():
        assert cured(LIVE + query) == LIVE + expected
        for live in (LIVE, "/_vango/ws"):
            assert await arrived(edge, live + query) == live + expected


async def test_without_the_flag_nothing_is_changed(edge: Edge) -> None:
    await serve(edge, cure=False)
    for query in QUERIES:
        assert await arrived(edge, LIVE + query) == LIVE + query


async def test_what_is_no_live_upgrade_is_left_alone(edge: Edge) -> None:
    await serve(edge, cure=True)
    for target in ("/_vango/livex?path=/a", "/_vango/live/?path=/a", "/live?path=/a", f"/x{LIVE}?path=/a", "/?path=/a"):
        assert await arrived(edge, target) == target
    for target in (f"{LIVE}?path=/a", "/_vango/ws?path=/a", "/_vango/client.js?v=1&path=/a"):
        assert await arrived(edge, target, more="") == target


async def test_a_plain_get_of_the_live_path_is_answered_by_the_app(edge: Edge) -> None:
    for cure in (False, True):
        await serve(edge, cure=cure)
        answer = await edge.get(f"{LIVE}?path=/a")
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "text/x-own"
        assert answer.json()["line"] == f"GET {LIVE}?path=/a HTTP/1.1"


async def test_a_pinned_upgrade_is_cured_too_also_on_a_connection_that_is_known(edge: Edge) -> None:
    await serve(edge, cure=True)
    cookie = f"Cookie: moorage_pin={sign('1-abc', 1)}\r\n"
    assert await arrived(edge, f"{LIVE}?path=/a", more=UPGRADE + cookie) == f"{LIVE}?path=/a%3Fmoorage=1"
    reader, writer = await edge.connect()
    for _ in range(3):
        writer.write(head("/", more=cookie).encode())
        assert b"set-cookie" not in (await edge.read_answer(reader))[0].lower()
    writer.write(head(f"{LIVE}?path=/a", more=UPGRADE + cookie).encode())
    assert (await edge.read_answer(reader))[0].startswith(b"HTTP/1.1 101")
    assert edge.apps["app"].heads[-1].startswith(f"GET {LIVE}?path=/a%3Fmoorage=1 HTTP/1.1".encode())
    writer.close()


async def test_an_upgrade_that_was_held_is_cured_by_what_holds_afterwards(edge: Edge) -> None:
    await serve(edge, cure=False)
    edge.ledger.own(HOST, 1, held=True)
    await edge.in_force()
    waiting = asyncio.create_task(edge.raw(head(f"{LIVE}?path=/a")))
    edge.ledger.own(HOST, 1, cure=True)
    await edge.in_force()
    assert (await waiting)[0].startswith(b"HTTP/1.1 101")
    assert edge.apps["app"].heads[-1].split(b" ")[1] == f"{LIVE}?path=/a%3Fmoorage=1".encode()


async def test_the_cure_goes_on_and_off_with_the_owner_and_nothing_is_restarted(edge: Edge) -> None:
    await serve(edge, cure=False)
    pid = edge.ledger.last_report.proxy_pid
    async with await edge.socket() as attached:
        assert await attached.recv() == "app"
        for cure in (True, False, True):
            await serve(edge, cure=cure)
            expected = f"{LIVE}?path=/a{'%3Fmoorage=1' if cure else ''}"
            assert await arrived(edge, f"{LIVE}?path=/a") == expected
        await attached.ping()
    assert edge.ledger.last_report.proxy_pid == pid == edge.process.pid


async def test_another_route_of_the_same_edge_is_not_cured(edge: Edge) -> None:
    await serve(edge, cure=False)
    edge.ledger.own("other.localhost", 1, cure=True)
    await edge.in_force()
    assert await arrived(edge, f"{LIVE}?path=/a") == f"{LIVE}?path=/a"


@pytest.mark.parametrize(
    "query",
    [
        "&" * 29_000 + "path=/a",
        "path=/a" + "&path=" * 4_800,
        "path=" + "%3" * 14_000,
        "path=" + "/" * 30_300,
        "x=" + "y" * 29_000 + "&path=/a?",
    ],
    ids=["separators", "repeated", "half-escaped", "longest", "behind"],
)
async def test_the_longest_queries_pass(edge: Edge, query: str) -> None:
    """Up to the limit of a request's head there is room for what is added, and nothing recurses."""
    await serve(edge, cure=True)
    assert await arrived(edge, f"{LIVE}?{query}") == cured(f"{LIVE}?{query}")
    assert (await edge.get()).status_code == 200


pieces = st.sampled_from(
    [
        "path=",
        "path",
        "&path=",
        "&",
        "?",
        "=",
        "%3F",
        "%3f",
        "%3",
        "%26",
        "/",
        "a",
        ";",
        "+",
        "xpath=",
        "Path=",
        "\\1",
        ".",
    ]
)
letters = st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#")
queries = st.lists(pieces | letters, max_size=14).map("".join)


async def test_any_query_arrives_as_the_rule_says(edge: Edge) -> None:
    await serve(edge, cure=True)
    await asyncio.to_thread(_check_any, edge.settings.http_port, lambda: edge.apps["app"].heads[-1])


def _check_any(port: int, last_head: Callable[[], bytes]) -> None:
    @given(queries)
    @settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def check(query: str) -> None:
        target = f"{LIVE}?{query}"
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(head(target).encode("latin-1"))
            assert connection.recv(4096).startswith(b"HTTP/1.1 101"), target
        assert last_head().split(b" ")[1].decode("latin-1") == cured(target)

    check()
