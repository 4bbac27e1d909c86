"""Attached sockets are counted exactly: per allocation, and by distinct pin."""

from __future__ import annotations

import asyncio

import pytest

from tests.edge.kit import HOST, Edge
from tests.edge.test_pins import sign
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers


async def test_sockets_and_pins_are_counted_as_they_come_and_go(edge: Edge) -> None:
    one, two = await edge.app("one"), await edge.app("two")
    edge.ledger.place(1, one.port)
    edge.ledger.place(2, two.port)
    edge.ledger.own(HOST, 1)
    await edge.in_force()
    tabs = [await edge.socket(pin=sign("1-same-browser", 1)) for _ in range(3)]
    others = [await edge.socket(pin=sign(f"1-{number}", 1)) for number in range(4)]
    there = [await edge.socket(pin=sign(f"2-{number}", 1)) for number in range(5)]
    fresh = await asyncio.gather(*(edge.socket() for _ in range(10)))
    await wait_until(lambda: one.attached + two.attached == 22, what="all attached")

    def rows() -> dict[int, tuple[int, int]]:
        return {row.number: (row.attached, row.pins) for row in edge.ledger.last_report.sockets}

    on_one = one.attached
    await wait_until(lambda: rows() == {1: (on_one, on_one - 2), 2: (22 - on_one, 22 - on_one)}, what="exact counts")
    for _ in range(30):  # plain requests are no sockets
        await edge.get()
    for socket in (*tabs[:2], *there):
        await socket.close()
    await wait_until(
        lambda: rows() == {1: (on_one - 2, on_one - 2), 2: (17 - on_one, 17 - on_one)}, what="counts after closing"
    )
    for socket in (tabs[2], *others, *fresh):
        await socket.close()
    await wait_until(lambda: rows() == {1: (0, 0), 2: (0, 0)}, what="nothing attached")


async def test_a_client_that_vanishes_without_a_word_is_not_counted(edge: Edge) -> None:
    app = await edge.app("app")
    edge.ledger.place(1, app.port)
    edge.ledger.own(HOST, 1)
    await edge.in_force()
    socket = await edge.socket()
    await edge.counted(1, 1)
    socket.transport.abort()
    await edge.counted(1, 0)


async def test_a_refused_upgrade_is_not_counted(edge: Edge) -> None:
    app = await edge.app("app")
    edge.ledger.place(1, app.port)
    edge.ledger.own(HOST, 1)
    await edge.in_force()
    head, _ = await edge.raw(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    await edge.counted(1, 0)


async def test_the_counts_outlive_the_agent(edge: Edge) -> None:
    app = await edge.app("app")
    edge.ledger.place(1, app.port)
    edge.ledger.own(HOST, 1)
    await edge.in_force()
    async with await edge.socket(), await edge.socket():
        await edge.counted(1, 2)
        await edge.kill_agent()
        edge.start_agent()
        await edge.in_force()
        await edge.counted(1, 2)
