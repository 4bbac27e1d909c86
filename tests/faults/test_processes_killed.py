"""kill -9 of each of the platform's processes, with people at work: what each of them takes with it, and what not."""

from __future__ import annotations

import os
import signal

import pytest

from moorage.main.installation import EDGE
from moorage.system.proc import is_alive
from tests.faults.town import APP, PEOPLE, begin_promote, begin_restart, check_calm, child_of, town
from tests.support.asking import ask_many, stranger
from tests.support.platform import Platform
from tests.support.processes import back, frozen, kill
from tests.support.truth import committed_index, history, owner
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

HOST = f"{APP}.localhost"


async def in_step(board: Platform) -> bool:
    """Whether the edge is live and has everything in force."""
    edge = await board.edge()
    return edge.live and edge.applied_index == committed_index(board)


async def test_an_edge_agent_that_dies_takes_nobody_with_it(board: Platform) -> None:
    """The proxy serves on; the next agent goes on with its table."""
    async with town(board) as people:
        os.kill(board.pid_of("edge"), signal.SIGKILL)
        answers = await ask_many(board, HOST, 50)
        assert {answer.status_code for answer in answers} == {200}
        await back(board, "edge", 0)
        await wait_until(lambda: in_step(board), what="the edge is in step")
        await people.still_typing()
        people.check_untouched()
        done = await board.finished(await begin_promote(board))
        await people.all_back()
    assert (done.state, done.facts["edges_behind"]) == ("healthy", [])
    people.check_moved((await child_of(board, done)).facts["account"])
    await check_calm(board)


async def test_a_frozen_edge_agent_is_named_and_nobody_is_cut_behind_its_back(board: Platform) -> None:
    """It would send those who come back to an allocation that is gone: the hand-over is called off."""
    before, serving = owner(board, APP), await board.allocation(APP)
    async with town(board) as people:
        with frozen(board.pid_of("edge")):
            done = await board.finished(await begin_promote(board))
            assert EDGE in str(done.problem)
            assert (await board.edge()).live is False
            assert {answer.status_code for answer in await ask_many(board, HOST, 20)} == {200}
        await wait_until(lambda: in_step(board), what="the edge is in step")
        await people.still_typing()
        people.check_untouched()
    assert done.state == "rolled_back", done.problem
    assert any(EDGE in stage.note for stage in done.stages), [stage.note for stage in done.stages]
    assert owner(board, APP)["deployment_number"] == before["deployment_number"]
    assert (await check_calm(board)).number == serving.number
    told = (await board.edge()).catch_up
    assert told is not None
    assert told["to_index"] >= committed_index(board) - 1


async def test_a_proxy_that_dies_takes_the_sockets_and_no_session(board: Platform) -> None:
    """The next one is empty: it sends nobody anywhere until it has been filled, and pins go on to hold."""
    serving = await board.allocation(APP)
    async with town(board) as people:
        pid = board.pid_of("haproxy")
        os.kill(pid, signal.SIGKILL)
        await back(board, "haproxy", pid)
        await people.all_back()
        await people.still_typing()
        people.check_nothing_lost()
        assert {p.welcomes[-1].allocation_number for p in people.people} == {serving.number}, "each is where it was"
        await wait_until(lambda: is_attached(board, PEOPLE), what="each socket is counted once")
    answers = await ask_many(board, HOST, 50)
    assert {answer.status_code for answer in answers} == {200}
    async with stranger(board) as client:
        unknown = await client.get("/", headers={"Host": "nobody.localhost"})
    assert unknown.status_code == 404
    assert (await check_calm(board)).number == serving.number


async def is_attached(board: Platform, count: int) -> bool:
    return (await board.allocation(APP)).attached_sockets == count


async def test_an_event_server_that_dies_stops_no_hand_over(board: Platform) -> None:
    """Killed when it is needed most; what edges are told goes another way meanwhile."""
    async with town(board) as people:
        restart = await begin_restart(board)
        await kill(board, "nats")
        done = await board.finished(restart)
        await people.all_back()
        await people.still_typing()
    assert done.state == "settled", done.problem
    people.check_moved((await child_of(board, done)).facts["account"])
    await check_calm(board)
    await wait_until(lambda: in_step(board), what="the edge is in step")


async def test_a_runner_that_dies_leaves_allocations_and_stores_to_the_next(board: Platform) -> None:
    """Same processes, adopted by their pids; and the next runner really runs them."""
    serving, store = await board.allocation(APP), (await board.store(APP)).identity
    async with town(board) as people:
        await kill(board, "runner")
        await people.still_typing()
        people.check_untouched()
        after = await board.allocation(APP)
        assert (after.number, after.pid, after.state) == (serving.number, serving.pid, "ready")
        assert (await board.store(APP)).identity == store
        done = await board.finished(await begin_restart(board))
        await people.all_back()
    assert done.state == "settled", done.problem
    people.check_moved((await child_of(board, done)).facts["account"])
    await check_calm(board)
    await wait_until(lambda: not is_alive(serving.pid or 0, None), what="the adopted process was ended by its runner")


async def test_a_supervisor_that_dies_takes_the_platform_and_no_allocation(board: Platform) -> None:
    """`up` on the same folder brings the rest back; what ran goes on running, sessions and all."""
    serving, store, owners = await board.allocation(APP), (await board.store(APP)).identity, history(board, APP)
    processes = [board.pid_of(name) for name in ("nats", "haproxy", "control", "edge", "runner")]
    async with town(board) as people:
        os.kill(board.pid, signal.SIGKILL)
        await wait_until(lambda: not any(is_alive(pid, None) for pid in processes), what="its processes have ended")
        assert is_alive(serving.pid or 0, None), "the app's has not"
        port, api_port = str(board.http_port), board.api_url.rpartition(":")[2]
        up = await board.run("up", "--detach", "--port", port, "--api-port", api_port, "--json")
        assert up.code == 0, up.out + up.err
        board.pid = up.json["pid"]
        await people.all_back()
        await people.still_typing()
        people.check_nothing_lost()
        assert {p.welcomes[-1].allocation_number for p in people.people} == {serving.number}
    after = await check_calm(board)
    assert (after.number, after.pid) == (serving.number, serving.pid)
    assert (await board.store(APP)).identity == store
    assert history(board, APP) == owners
    async with town(board) as people:
        done = await board.finished(await begin_promote(board))
        await people.all_back()
    assert (done.state, done.facts["edges_behind"]) == ("healthy", [])
    people.check_moved((await child_of(board, done)).facts["account"])
    await check_calm(board)
