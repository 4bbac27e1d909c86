"""What an app is told of the request, and what is left exactly as it was sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.edge.kit import HOST, Edge, running_edge

pytestmark = pytest.mark.servers

FORGED = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "Forwarded": "for=6.6.6.6;host=evil.example;proto=https",
    "X-Request-Id": "mine",
    "X-Moorage-Allocation": "1",
    "x-moorage-anything": "2",
    "X_Moorage_Under": "3",
}

UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}


async def serve(edge: Edge) -> None:
    app = await edge.app("app")
    edge.ledger.place(1, app.port)
    edge.ledger.own(HOST, 1)
    await edge.in_force()


async def seen(edge: Edge, head: str, source: str = "127.0.0.1") -> dict[str, list[str]]:
    """The headers that reached the app, by lower-case name."""
    await edge.raw(head, source)
    fields: dict[str, list[str]] = {}
    for line in edge.apps["app"].heads[-1].decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(": ")
        fields.setdefault(name.lower(), []).append(value)
    return fields


def request(headers: dict[str, str], path: str = "/", host: str = f"{HOST}:7080") -> str:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n"


async def test_what_a_client_claims_about_itself_is_overwritten(edge: Edge) -> None:
    await serve(edge)
    fields = await seen(edge, request(FORGED))
    assert fields["x-forwarded-for"] == ["127.0.0.1"]
    assert fields["x-forwarded-proto"] == ["http"]
    assert fields["x-forwarded-host"] == [f"{HOST}:7080"]
    assert fields["forwarded"] == [f'for="127.0.0.1";host="{HOST}:7080";proto=http']
    assert fields["host"] == [f"{HOST}:7080"]
    assert fields["x-request-id"] != ["mine"]
    assert len(fields["x-request-id"][0]) == 36
    assert not [name for name in fields if "moorage" in name]


@pytest.mark.parametrize("host", [HOST, f"{HOST}:7080", f"{HOST}:80", HOST.upper(), f"{HOST.title()}:443"])
@pytest.mark.parametrize("upgrade", [False, True])
async def test_the_host_arrives_as_it_was_sent_and_every_header_says_the_same_of_the_client(
    edge: Edge, host: str, upgrade: bool
) -> None:
    """An app that trusts this edge compares Host with Origin, and counts clients by their address."""
    await serve(edge)
    head = request(FORGED | (UPGRADE if upgrade else {}), path="/_vango/live?path=%2F", host=host)
    for source in ("127.0.0.1", "127.0.0.77"):
        fields = await seen(edge, head, source)
        assert fields["host"] == [host]
        assert fields["x-forwarded-host"] == [host]
        assert fields["x-forwarded-for"] == [source]
        assert fields["x-forwarded-proto"] == ["http"]
        assert fields["forwarded"] == [f'for="{source}";host="{host}";proto=http']
        assert ("upgrade" in fields) is upgrade


async def test_repeated_forwarding_headers_leave_one_line(edge: Edge) -> None:
    await serve(edge)
    head = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n" + "X-Forwarded-For: 6.6.6.6\r\n" * 3 + "\r\n"
    assert (await seen(edge, head))["x-forwarded-for"] == ["127.0.0.1"]


async def test_a_trusted_proxy_is_believed(folder: Path) -> None:
    async with running_edge(folder, trusted_proxies=("127.0.0.0/8",)) as edge:
        await serve(edge)
        fields = await seen(edge, request(FORGED | {"X-Forwarded-For": "6.6.6.6, 9.9.9.9"}))
        assert fields["x-forwarded-for"] == ["6.6.6.6, 9.9.9.9, 127.0.0.1"]
        assert fields["x-forwarded-proto"] == ["https"]
        assert fields["x-forwarded-host"] == ["evil.example"]
        assert fields["x-request-id"] == ["mine"]
        assert fields["forwarded"] == [f'for="9.9.9.9";host="{HOST}:7080";proto=https']
        assert not [name for name in fields if "moorage" in name]
        six = await seen(edge, request({"X-Forwarded-For": "2001:db8::7"}))
        assert six["forwarded"] == [f'for="[2001:db8::7]";host="{HOST}:7080";proto=http']
        plain = await seen(edge, request({}))
        assert plain["x-forwarded-for"] == ["127.0.0.1"]


async def test_a_proxy_that_is_not_on_the_list_is_not_believed(folder: Path) -> None:
    async with running_edge(folder, trusted_proxies=("10.0.0.0/8", "2001:db8::/32")) as edge:
        await serve(edge)
        fields = await seen(edge, request(FORGED))
        assert fields["x-forwarded-for"] == ["127.0.0.1"]
        assert fields["x-forwarded-proto"] == ["http"]
        assert fields["forwarded"] == [f'for="127.0.0.1";host="{HOST}:7080";proto=http']


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/a%3Fb",
        "/?a=b%2Fc",
        "/live?next=%2Fx%3Fy%3D1&&=&?",
        "/%2e%2e/a//b/./c/../d",
        "/a%2Fb;c=1?",
        "/%E2%82%AC?q=+%20+",
        "/x?" + "q" * 6000,
        "//board//%2F%2f//x",
        "/a;v=1/..;/b%3b?c;d&e=%26",
        "/_vango/live?path=%2Fboard%2F%2Fx%3Fa%3D1%26b&v=;x",
        "/_vango/client.js?v=%2B+",
    ],
)
async def test_paths_and_queries_arrive_byte_for_byte(edge: Edge, target: str) -> None:
    await serve(edge)
    await edge.raw(request({}, path=target))
    assert edge.apps["app"].heads[-1].split(b" ")[1] == target.encode()


async def test_big_headers_pass_and_too_big_ones_are_refused_clearly(edge: Edge) -> None:
    await serve(edge)
    big = await seen(edge, request({"Cookie": "c=" + "x" * 20_000}))
    assert big["cookie"] == ["c=" + "x" * 20_000]
    head, _ = await edge.raw(request({"Cookie": "c=" + "x" * 40_000}))
    assert head.startswith(b"HTTP/1.1 400")
    assert len(edge.apps["app"].heads) == 1


async def test_one_connection_carries_many_requests_and_so_does_the_apps(edge: Edge) -> None:
    await serve(edge)
    reader, writer = await edge.connect()
    for _ in range(50):
        writer.write(request({}).encode())
        head, _ = await edge.read_answer(reader)
        assert head.startswith(b"HTTP/1.1 200")
    writer.close()
    assert len(edge.apps["app"].heads) == 50
    assert edge.apps["app"].connections <= 2


async def test_host_names_are_compared_without_case_and_port(edge: Edge) -> None:
    await serve(edge)
    for host in (HOST.upper(), f"{HOST}:1", f"{HOST.title()}:65535"):
        assert (await edge.get(host=host)).status_code == 200
    for host, code in ((f"x{HOST}", b"unknown-host"), (f"{HOST}.evil", b"unknown-host")):
        assert code in (await edge.raw(request({}, host=host)))[1]


@pytest.mark.parametrize("host", [f'{HOST}:";for=evil', f'"{HOST}"'])
async def test_a_host_that_could_forge_what_an_app_is_told_is_refused(edge: Edge, host: str) -> None:
    await serve(edge)
    head, body = await edge.raw(request({}, host=host))
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    assert b"bad-request" in body
    assert edge.apps["app"].heads == []
