"""A connection that has carried a verified pin is served faster, and by the very same rules as one that has not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from moorage.domain.allocation import Posture
from moorage.edge.proxy.render import PIN_COOKIE
from tests.edge.kit import HOST, Edge, running_edge
from tests.edge.test_cure import UPGRADE
from tests.edge.test_pins import sign
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

OTHER = "other.localhost"
PIN, OTHER_PIN = sign("1-abc", 1), sign("3-abc", 2)


class Known:
    """One connection to the edge, on which allocation 1 was pinned once and is again."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge

    async def open(self) -> Known:
        self.reader, self.writer = await self.edge.connect()
        for _ in range(2):
            assert await self.ask() == "one"
        return self

    async def ask(self, *, host: str = HOST, cookie: str | None = f"{PIN_COOKIE}={PIN}") -> str:
        """The app or the code that answered; `+pin` when the answer sets one."""
        fields = f"Cookie: {cookie}\r\n" if cookie else ""
        self.writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n{fields}\r\n".encode())
        head, body = await self.edge.read_answer(self.reader)
        sets_pin = b"set-cookie" in head.lower()
        text = body.decode()
        name = text.split('"app": "')[1] if '"app"' in text else text.split('"code": "')[1]
        return name.split('"')[0] + ("+pin" if sets_pin else "")


async def known(edge: Edge) -> Known:
    """Allocations 1 (pinned) and 2 (the owner's) of environment 1, and 3 of environment 2 behind another host."""
    for number, (name, deployment, environment) in enumerate((("one", 1, 1), ("two", 2, 1), ("three", 3, 2)), 1):
        edge.ledger.place(number, (await edge.app(name)).port, deployment=deployment, environment=environment)
    edge.ledger.own(HOST, 2)
    edge.ledger.own(OTHER, 3, environment=2)
    await edge.in_force()
    return await Known(edge).open()


async def test_other_cookies_or_another_host_are_looked_at_anew(edge: Edge) -> None:
    one = await known(edge)
    assert await one.ask(cookie=None) == "two+pin"
    assert await one.ask(cookie=f"{PIN_COOKIE}={sign('2-abc', 1)}") == "two"
    assert await one.ask(cookie=f"{PIN_COOKIE}={OTHER_PIN}") == "two+pin"
    assert await one.ask(cookie=f"a=1; {PIN_COOKIE}={PIN}") == "one"
    assert await one.ask(cookie=f"{PIN_COOKIE}={PIN[:-1]}") == "two+pin"
    assert await one.ask(host=OTHER) == "three+pin"
    assert await one.ask(host=OTHER, cookie=f"{PIN_COOKIE}={OTHER_PIN}") == "three"
    assert await one.ask(cookie=f"{PIN_COOKIE}={OTHER_PIN}") == "two+pin"
    assert await one.ask(host=f"{HOST}:80") == "one"
    assert await one.ask() == "one"


async def test_a_host_that_moved_to_another_environment_takes_no_pins_along(edge: Edge) -> None:
    one = await known(edge)
    edge.ledger.own(HOST, 3, environment=2)
    await edge.in_force()
    assert await one.ask() == "three+pin"
    edge.ledger.own(HOST, 2, environment=1)
    await edge.in_force()
    assert await one.ask() == "one"


async def test_a_route_that_was_removed_is_unknown(edge: Edge) -> None:
    one = await known(edge)
    edge.ledger.remove(HOST)
    await edge.in_force()
    assert await one.ask() == "unknown-host"
    assert await one.ask() == "unknown-host"


@pytest.mark.parametrize("change", [{"posture": Posture.GONE}, {"posture": Posture.CUT}, {"ready": False}])
async def test_an_allocation_that_honours_no_pins_gets_nothing(edge: Edge, change: Mapping[str, Any]) -> None:
    one = await known(edge)
    edge.ledger.place(1, edge.apps["one"].port, **change)
    await edge.in_force()
    assert await one.ask() == "two+pin"


async def test_pins_go_on_when_the_owner_has_nothing_ready(edge: Edge) -> None:
    one = await known(edge)
    edge.ledger.place(2, edge.apps["two"].port, deployment=2, ready=False)
    await edge.in_force()
    assert await one.ask() == "one"
    assert await one.ask(cookie=None) == "no-ready-allocation"
    assert await one.ask(cookie=f"{PIN_COOKIE}={OTHER_PIN}") == "no-ready-allocation"
    assert await one.ask() == "one"


async def test_a_table_that_is_too_old_is_too_old_for_pins_as_well(folder: Path) -> None:
    async with running_edge(folder, agent={"stale_max_s": 0.4}) as edge:
        one = await known(edge)
        edge.ledger.is_down = True

        async def is_closed() -> bool:
            return await one.ask() == "route-table-stale"

        await wait_until(is_closed, what="failing closed")
        edge.ledger.is_down = False

        async def is_open() -> bool:
            return await one.ask() == "one"

        await wait_until(is_open, what="opening again")


async def test_an_upgrade_waits_while_plain_requests_of_its_route_go_on(edge: Edge) -> None:
    one, upgrading = await known(edge), await known_again(edge)
    edge.ledger.hold(HOST, True)
    await edge.in_force()
    cookie = f"Cookie: {PIN_COOKIE}={PIN}\r\n"
    upgrading.writer.write(f"GET /live HTTP/1.1\r\nHost: {HOST}\r\n{UPGRADE}{cookie}\r\n".encode())
    answer = asyncio.create_task(edge.read_answer(upgrading.reader))
    for _ in range(20):
        assert await one.ask() == "one"
    assert edge.apps["one"].upgraded == 0
    edge.ledger.place(1, edge.apps["one"].port, posture=Posture.NO_UPGRADES)
    edge.ledger.hold(HOST, False)
    await edge.in_force()
    head, _ = await answer
    assert head.startswith(b"HTTP/1.1 101")
    assert edge.apps["two"].upgraded == 1
    assert f"set-cookie: {PIN_COOKIE}=2-".encode() in head.lower()
    assert await one.ask() == "one"


async def known_again(edge: Edge) -> Known:
    return await Known(edge).open()
