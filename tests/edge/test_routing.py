"""Routes, picks and the honest answers, through the real proxy."""

from __future__ import annotations

import asyncio
import time

import pytest

from moorage.domain.allocation import Posture
from tests.edge.kit import HOST, Edge
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers


async def test_a_switch_of_owner_moves_new_requests_at_once(edge: Edge) -> None:
    one, two = await edge.app("one"), await edge.app("two")
    edge.ledger.place(1, one.port)
    edge.ledger.own(HOST, 1)
    await edge.in_force()
    assert (await edge.get()).json()["app"] == "one"
    edge.ledger.place(2, two.port, deployment=2)
    edge.ledger.own(HOST, 2)
    await edge.in_force()
    assert {(await edge.get()).json()["app"] for _ in range(20)} == {"two"}


async def test_no_request_fails_while_owners_change(edge: Edge) -> None:
    one, two = await edge.app("one"), await edge.app("two")
    edge.ledger.place(1, one.port)
    edge.ledger.place(2, two.port, deployment=2)
    edge.ledger.own(HOST, 1)
    await edge.in_force()
    done = asyncio.Event()

    async def ask() -> list[int]:
        statuses = []
        while not done.is_set():
            statuses.append((await edge.get()).status_code)
        return statuses

    askers = [asyncio.create_task(ask()) for _ in range(4)]
    for turn in range(60):
        edge.ledger.own(HOST, 1 + turn % 2)
        await edge.in_force()
    done.set()
    statuses = [status for asker in askers for status in await asker]
    assert len(statuses) > 60
    assert set(statuses) == {200}


async def test_a_healthy_allocation_of_a_deployment_that_owns_nothing_gets_nothing(edge: Edge) -> None:
    owner, stranger = await edge.app("owner"), await edge.app("stranger")
    edge.ledger.place(1, owner.port)
    edge.ledger.place(2, stranger.port, deployment=2)
    edge.ledger.own(HOST, 1)
    await edge.in_force()
    for _ in range(50):
        assert (await edge.get()).json()["app"] == "owner"
    assert stranger.heads == []


async def test_a_missing_target_is_a_503_and_never_a_stranger(edge: Edge) -> None:
    """The slot names a server that is not there: with weights the balancer would pick somebody else's."""
    mine, stranger = await edge.app("mine"), await edge.app("stranger")
    edge.ledger.place(1, mine.port)
    edge.ledger.place(2, stranger.port, environment=2, deployment=2)
    edge.ledger.own(HOST, 1)
    edge.ledger.own("other.localhost", 2, environment=2)
    await edge.in_force()
    await edge.kill_agent()  # or it would repair what is broken now
    proxy = edge.proxy()
    slots = (await proxy.observe()).slots
    slot = next(slot for slot, number in slots.items() if number == 1)
    await proxy._send([f"clear table slots key {slot}"])
    answers = [await edge.get(accept="application/json") for _ in range(30)]
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["code"] for answer in answers} == {"allocation-unreachable"}
    assert stranger.heads == []
    await proxy.close()


async def test_new_sessions_spread_over_the_ready_allocations_of_the_owner(edge: Edge) -> None:
    apps = [await edge.app(f"app{number}") for number in (1, 2, 3)]
    for number, app in enumerate(apps, 1):
        edge.ledger.place(number, app.port, ready=number != 3)
    edge.ledger.own(HOST, 1)
    await edge.in_force()
    seen = {(await edge.get()).json()["app"] for _ in range(40)}
    assert seen == {"app1", "app2"}


async def test_an_unknown_host_is_an_honest_404(edge: Edge) -> None:
    page = await edge.get(host="nobody.localhost", accept="text/html,*/*")
    assert page.status_code == 404
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "unknown-host" in page.text
    problem = await edge.get(host="nobody.localhost", accept="application/json")
    assert problem.status_code == 404
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["code"] == "unknown-host"
    assert "retry-after" not in problem.headers


async def test_an_owner_without_a_ready_allocation_is_an_honest_503(edge: Edge) -> None:
    other = await edge.app("other")
    edge.ledger.place(2, other.port, deployment=2)
    edge.ledger.own("other.localhost", 2)
    edge.ledger.own(HOST, 1)
    edge.ledger.place(1, other.port, ready=False)
    await edge.in_force()
    answer = await edge.get(accept="application/json")
    assert (answer.status_code, answer.json()["code"]) == (503, "no-ready-allocation")
    assert answer.headers["retry-after"] == "1"
    assert other.heads == []


async def test_an_allocation_that_does_not_listen_is_said_to_be_unreachable(edge: Edge) -> None:
    app = await edge.app("app")
    port = app.port
    edge.ledger.place(1, port)
    edge.ledger.own(HOST, 1)
    await edge.in_force()
    await app.close()
    problem = await edge.get(accept="application/json")
    assert (problem.status_code, problem.json()["code"]) == (503, "allocation-unreachable")
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.headers["retry-after"] == "1"
    page = await edge.get()
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "127.0.0.1" not in page.text
    assert str(port) not in page.text


async def test_an_answer_that_breaks_off_is_a_502_and_is_not_sent_twice(edge: Edge) -> None:
    app = await edge.app("app")
    edge.ledger.place(1, app.port)
    edge.ledger.own(HOST, 1)
    await edge.in_force()
    problem = await edge.get("/broken", accept="application/json")
    assert (problem.status_code, problem.json()["code"]) == (502, "allocation-broke-off")
    assert len(app.heads) == 1


async def test_an_apps_own_failure_is_left_alone(edge: Edge) -> None:
    app = await edge.app("app")
    edge.ledger.place(1, app.port)
    edge.ledger.own(HOST, 1)
    await edge.in_force()
    answer = await edge.get("/own-503", accept="application/json")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "text/x-own"


async def test_a_removed_route_is_unknown_again(edge: Edge) -> None:
    app = await edge.app("app")
    edge.ledger.place(1, app.port)
    edge.ledger.own(HOST, 1)
    await edge.in_force()
    edge.ledger.remove(HOST)
    await edge.in_force()
    assert (await edge.get()).status_code == 404


async def test_an_allocation_that_is_gone_leaves_the_proxy_and_its_slots_too(edge: Edge) -> None:
    one, two = await edge.app("one"), await edge.app("two")
    edge.ledger.place(1, one.port)
    edge.ledger.own(HOST, 1)
    await edge.in_force()
    assert (await edge.get()).json()["app"] == "one"
    edge.ledger.place(2, two.port, deployment=2)
    edge.ledger.own(HOST, 2)
    edge.ledger.place(1, one.port, posture=Posture.GONE)
    await edge.in_force()
    proxy = edge.proxy()

    async def is_clean() -> bool:
        actual = await proxy.observe()
        return set(actual.servers) == {2} and set(actual.numbers) == {2} and set(actual.slots.values()) == {2}

    await wait_until(is_clean, what="the old allocation out of the proxy")
    await proxy.close()
    assert (await edge.get()).json()["app"] == "two"


async def test_ten_thousand_routes_fill_in_a_moment_and_a_change_stays_quick(edge: Edge) -> None:
    app = await edge.app("app")
    edge.ledger.place(1, app.port)
    for number in range(10_000):
        edge.ledger.own(f"r{number}.localhost", 1)
    await edge.in_force()
    assert (await edge.get(host="r9999.localhost")).status_code == 200
    start = time.perf_counter()
    await edge.restart_proxy()
    await wait_until(lambda: edge.ledger.last_report.proxy_pid == edge.process.pid, what="a report of the new proxy")
    answer = await edge.get(host="r5000.localhost")
    assert answer.status_code == 200
    assert time.perf_counter() - start < 10
