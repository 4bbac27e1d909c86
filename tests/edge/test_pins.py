"""Pins: signed, bound to an environment, honoured until the allocation may not have them any more."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from moorage.domain.allocation import Posture
from moorage.edge.proxy.render import PIN_COOKIE
from tests.edge.kit import HOST, Edge, pin_in
from tests.edge.ledger import PIN_KEY

pytestmark = pytest.mark.servers


def sign(pin: str, environment: int, key: str = PIN_KEY) -> str:
    """The documented form of a pin, computed independently of the proxy."""
    mac = hmac.new(base64.b64decode(key), f"{pin}:{environment}".encode(), hashlib.sha256).digest()
    return f"{pin}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


async def two_deployments(edge: Edge) -> None:
    """Allocation 1 served before, allocation 2 belongs to the owner now."""
    old, new = await edge.app("old"), await edge.app("new")
    edge.ledger.place(1, old.port)
    edge.ledger.place(2, new.port, deployment=2)
    edge.ledger.own(HOST, 2)
    await edge.in_force()


async def test_the_first_answer_sets_a_pin_and_later_ones_leave_it(edge: Edge) -> None:
    await two_deployments(edge)
    first = await edge.get()
    cookie = first.headers["set-cookie"]
    assert cookie.startswith(f"{PIN_COOKIE}=2-")
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax")
    pin = first.cookies[PIN_COOKIE]
    assert pin == sign(pin.partition(".")[0], 1)
    assert "set-cookie" not in (await edge.get(pin=pin)).headers


async def test_a_valid_pin_leads_to_its_allocation_also_when_the_owner_is_another(edge: Edge) -> None:
    await two_deployments(edge)
    for _ in range(10):
        answer = await edge.get(pin=sign("1-abc", 1))
        assert answer.json()["app"] == "old"
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "pin",
    [
        "1-abc",
        "1-abc.",
        "1-abc." + "A" * 43,
        sign("2-abc", 1).replace("2-", "1-"),
        sign("1-abc", 1) + "A",
        sign("1-abc", 1)[:-1],
        sign("1-abc", 1, base64.b64encode(b"x" * 32).decode()),
        sign("1-abc", 2),
        sign("99-abc", 1),
        "",
        "'; DROP",
    ],
)
async def test_a_pin_that_does_not_hold_is_replaced(edge: Edge, pin: str) -> None:
    await two_deployments(edge)
    answer = await edge.get(pin=pin)
    assert answer.json()["app"] == "new"
    assert answer.cookies[PIN_COOKIE].startswith("2-")


async def test_a_pin_of_one_environment_means_nothing_in_another(edge: Edge) -> None:
    mine, other = await edge.app("mine"), await edge.app("other")
    edge.ledger.place(1, mine.port, environment=1)
    edge.ledger.place(2, other.port, environment=2)
    edge.ledger.own(HOST, 1, environment=1)
    edge.ledger.own("other.localhost", 1, environment=2)
    await edge.in_force()
    pin = await edge.pin_of("other.localhost")
    assert pin.startswith("2-")
    for _ in range(10):
        assert (await edge.get(pin=pin)).json()["app"] == "mine"
    assert other.heads[1:] == []


async def test_a_pin_verified_on_a_connection_does_not_spill_to_another_host_on_it(edge: Edge) -> None:
    """A verified pin is remembered per connection: with its environment, or it would open another one."""
    mine, other = await edge.app("mine"), await edge.app("other")
    edge.ledger.place(1, mine.port, environment=1)
    edge.ledger.place(2, other.port, environment=2)
    edge.ledger.own(HOST, 1, environment=1)
    edge.ledger.own("other.localhost", 1, environment=2)
    await edge.in_force()
    reader, writer = await edge.connect()
    for host, app in ((HOST, "mine"), ("other.localhost", "other"), (HOST, "mine")):
        cookie = f"Cookie: {PIN_COOKIE}={sign('1-abc', 1)}\r\n"
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n".encode())
        head, body = await edge.read_answer(reader)
        assert f'"app": "{app}"' in body.decode()
        assert (b"set-cookie" in head.lower()) is (app == "other")
    writer.close()


async def test_a_pin_whose_allocation_is_gone_falls_back_to_a_pick(edge: Edge) -> None:
    await two_deployments(edge)
    edge.ledger.place(1, edge.apps["old"].port, posture=Posture.GONE)
    await edge.in_force()
    answer = await edge.get(pin=sign("1-abc", 1))
    assert answer.json()["app"] == "new"
    assert answer.cookies[PIN_COOKIE].startswith("2-")


async def test_pins_go_on_when_the_owner_has_nothing_ready(edge: Edge) -> None:
    await two_deployments(edge)
    edge.ledger.place(2, edge.apps["new"].port, deployment=2, ready=False)
    await edge.in_force()
    assert (await edge.get(pin=sign("1-abc", 1))).json()["app"] == "old"
    assert (await edge.get(pin=sign("2-abc", 1))).status_code == 503
    assert (await edge.get()).status_code == 503


async def test_an_upgrade_is_pinned_and_sets_a_pin_like_a_request(edge: Edge) -> None:
    await two_deployments(edge)
    async with await edge.socket() as fresh, await edge.socket(pin=sign("1-abc", 1)) as pinned:
        assert await fresh.recv() == "new"
        assert (pin_in(fresh) or "").startswith("2-")
        assert await pinned.recv() == "old"
        assert pin_in(pinned) is None


@pytest.mark.parametrize(
    "cookie", [f"{PIN_COOKIE}=x", f"a=1; {PIN_COOKIE}=x; b=%3B%20", f"a=1; not_{PIN_COOKIE}=y", "a=1;b=2"]
)
async def test_cookies_reach_the_app_as_they_were_sent(edge: Edge, cookie: str) -> None:
    """The pin among them: taking it out costs a tenth of the proxy's time, and an app can do nothing with it."""
    await two_deployments(edge)
    answer = await edge.get(cookie=cookie)
    assert [value for name, value in answer.json()["headers"] if name.lower() == "cookie"] == [cookie]


async def test_a_pin_among_other_cookies_is_found(edge: Edge) -> None:
    await two_deployments(edge)
    answer = await edge.get(cookie=f"a=1; x{PIN_COOKIE}=2-x; {PIN_COOKIE}={sign('1-abc', 1)}; b=2")
    assert answer.json()["app"] == "old"
