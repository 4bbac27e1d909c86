"""The agent against a stream that loses, repeats and reorders, a control plane that is away, a proxy that restarts."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from moorage.domain.allocation import Posture
from moorage.wire.log import sign_snapshot
from tests.edge.kit import HOST, Edge, running_edge
from tests.edge.ledger import Ledger
from tests.edge.test_pins import sign
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers


async def serve(edge: Edge) -> None:
    one, two = await edge.app("one"), await edge.app("two")
    edge.ledger.place(1, one.port)
    edge.ledger.place(2, two.port, deployment=2)
    edge.ledger.own(HOST, 1)
    await edge.in_force()


async def served(edge: Edge) -> str:
    answer = await edge.get(accept="application/json")
    return str(answer.json().get("app") or answer.json()["code"])


async def test_entries_are_acknowledged_only_after_they_are_in_force(edge: Edge) -> None:
    await serve(edge)
    await wait_until(lambda: edge.stream.acked[-1:] == [edge.ledger.index], what="the acknowledgement")
    edge.process.send_signal(signal.SIGSTOP)
    try:
        edge.ledger.own(HOST, 2)
        acked, reports = edge.ledger.index - 1, len(edge.ledger.reports)
        assert edge.stream.acked[-1] == acked
        assert all(report.applied_index <= acked for report in edge.ledger.reports[reports:])
    finally:
        edge.process.send_signal(signal.SIGCONT)
    await edge.in_force()
    assert await served(edge) == "two"
    await wait_until(lambda: edge.stream.acked[-1] == edge.ledger.index, what="the acknowledgement")


async def test_replayed_and_reordered_entries_are_counted_and_change_nothing(edge: Edge) -> None:
    await serve(edge)
    edge.ledger.own(HOST, 2)
    await edge.in_force()
    before = edge.ledger.last_report
    edge.stream.deliver(*reversed(edge.ledger.entries), *edge.ledger.entries)
    count = 2 * len(edge.ledger.entries)
    await wait_until(lambda: edge.ledger.last_report.duplicates == before.duplicates + count, what="duplicates counted")
    assert await served(edge) == "two"
    assert edge.ledger.last_report.applied_index == edge.ledger.index


async def test_a_gap_is_bridged_from_the_log_and_never_skipped(edge: Edge) -> None:
    await serve(edge)
    edge.stream.is_stopped = True
    edge.ledger.place(1, edge.apps["one"].port, posture=Posture.CUT)
    edge.stream.is_stopped = False
    asked = edge.ledger.pages_asked
    edge.ledger.own(HOST, 2)
    await edge.in_force()
    assert await served(edge) == "two"
    assert (await edge.get(pin=sign("1-abc", 1))).json()["app"] == "two"
    assert edge.ledger.last_report.gaps == 1 or edge.ledger.pages_asked > asked
    assert edge.ledger.snapshots_asked == 1


async def test_a_stream_that_stalls_is_made_up_for_from_the_log_and_said(edge: Edge) -> None:
    await serve(edge)
    edge.stream.is_stopped = True
    first = edge.ledger.index
    for turn in range(51):
        edge.ledger.own(HOST, 2 - turn % 2)
    await edge.in_force()
    assert await served(edge) == "two"
    told = [report.catch_up for report in edge.ledger.reports if report.catch_up]
    assert told[0].from_index == first
    assert told[-1].to_index == edge.ledger.index
    assert {catch_up.by for catch_up in told} == {"replay"}


async def test_where_the_log_does_not_reach_a_snapshot_does(edge: Edge) -> None:
    await serve(edge)
    edge.stream.is_stopped = True
    first = edge.ledger.index
    edge.ledger.kept_from = first + 2
    for turn in range(3):
        edge.ledger.own(HOST, 2 - turn % 2)
    await edge.in_force()
    assert await served(edge) == "two"
    told = [report.catch_up for report in edge.ledger.reports if report.catch_up]
    assert "snapshot" in {catch_up.by for catch_up in told}
    assert edge.stream.resets


async def test_another_incarnation_of_the_log_needs_a_fresh_snapshot(edge: Edge) -> None:
    await serve(edge)
    edge.ledger.restart("inc-2")
    edge.ledger.place(7, edge.apps["two"].port, deployment=3)
    edge.ledger.own(HOST, 3)
    await edge.in_force()
    assert await served(edge) == "two"
    assert edge.ledger.last_report.incarnation == "inc-2"
    assert [row.number for row in edge.ledger.last_report.sockets] == [7]


async def test_entries_of_a_foreign_log_are_not_applied(edge: Edge) -> None:
    await serve(edge)
    foreign = Ledger("inc-evil")
    for _ in range(edge.ledger.index):
        foreign.own("filler.localhost", 1)
    edge.stream.deliver(foreign.own(HOST, 2))
    asked = edge.ledger.snapshots_asked
    await wait_until(lambda: edge.ledger.snapshots_asked > asked, what="a fresh snapshot")
    edge.ledger.own("next.localhost", 1)
    await edge.in_force()
    assert await served(edge) == "one"


async def test_while_the_control_plane_is_away_the_edge_serves_on_and_follows_the_stream(edge: Edge) -> None:
    await serve(edge)
    edge.ledger.is_down = True
    edge.ledger.own(HOST, 2)

    async def is_switched() -> bool:
        return await served(edge) == "two"

    await wait_until(is_switched, what="the switch by the stream alone")
    edge.ledger.is_down = False
    await edge.in_force()


async def test_an_agent_that_comes_back_without_a_control_plane_does_not_go_back(edge: Edge) -> None:
    """The signed snapshot on disk is older than what was put in force after it."""
    await serve(edge)
    edge.ledger.own(HOST, 2)
    edge.ledger.place(1, edge.apps["one"].port, posture=Posture.GONE)
    await edge.in_force()
    await edge.kill_agent()
    edge.ledger.is_down = True
    await edge.restart_proxy()
    edge.start_agent()

    async def is_back() -> bool:
        return await served(edge) != "edge-starting"

    await wait_until(is_back, what="the table from disk")
    assert await served(edge) == "two"
    assert (await edge.get(pin=sign("1-abc", 1))).json()["app"] == "two"
    edge.ledger.is_down = False
    await edge.in_force()


async def test_a_proxy_that_is_ahead_of_the_disk_is_left_alone(edge: Edge) -> None:
    await serve(edge)
    edge.ledger.own(HOST, 2)
    await edge.in_force()
    await edge.kill_agent()
    (edge.settings.directory / "routes.json.log").unlink()
    edge.ledger.is_down = True
    edge.start_agent()
    assert edge.agent is not None
    agent = edge.agent
    await wait_until(lambda: bool(agent._follower.table.incarnation), what="the copy loaded")
    assert not await agent.reconcile_once()
    assert await served(edge) == "two"
    edge.ledger.is_down = False
    await edge.in_force()


@pytest.mark.parametrize("damage", ["torn", "forged", "line"])
async def test_a_damaged_or_forged_copy_is_not_used(edge: Edge, damage: str) -> None:
    await serve(edge)
    await edge.kill_agent()
    copy = edge.settings.directory / "routes.json"
    if damage == "torn":
        copy.write_bytes(copy.read_bytes()[:-20])
    elif damage == "forged":
        copy.write_text(sign_snapshot(edge.ledger.fold(), Ed25519PrivateKey.generate()).model_dump_json())
    else:
        copy.with_name("routes.json.log").write_bytes(b'{"index": 1')
    edge.ledger.is_down = True
    await edge.restart_proxy()
    edge.start_agent()
    assert edge.agent is not None
    table = edge.agent._follower.table
    await wait_until(lambda: damage != "line" or bool(table.incarnation), what="the copy read")
    if damage != "line":
        assert await served(edge) == "edge-starting"
        assert table.incarnation == ""
    edge.ledger.is_down = False
    await edge.in_force()
    assert await served(edge) == "one"


async def test_a_snapshot_of_another_signer_is_refused(edge: Edge) -> None:
    await serve(edge)
    real, edge.ledger.key = edge.ledger.key, Ed25519PrivateKey.generate()
    edge.stream.is_stopped = True
    edge.ledger.kept_from = edge.ledger.index + 1
    edge.ledger.own(HOST, 2)
    asked = edge.ledger.snapshots_asked
    await wait_until(lambda: edge.ledger.snapshots_asked > asked, what="a forged snapshot offered")
    assert await served(edge) == "one"
    edge.ledger.key = real
    await edge.in_force()
    assert await served(edge) == "two"


async def test_a_proxy_that_was_killed_is_filled_again(edge: Edge) -> None:
    await serve(edge)
    await edge.restart_proxy()
    await wait_until(lambda: edge.ledger.last_report.proxy_pid == edge.process.pid, what="the new proxy in step")
    assert await served(edge) == "one"
    assert (await edge.get(pin=sign("2-abc", 1))).json()["app"] == "two"


async def test_a_proxy_without_its_table_says_that_it_is_starting(edge: Edge) -> None:
    await serve(edge)
    await edge.kill_agent()
    await edge.restart_proxy()
    answer = await edge.get(accept="application/json")
    assert (answer.status_code, answer.json()["code"]) == (503, "edge-starting")
    assert answer.headers["retry-after"] == "1"


async def test_an_agent_that_was_killed_comes_back_to_sockets_that_never_noticed(edge: Edge) -> None:
    await serve(edge)
    async with await edge.socket() as socket:
        assert await socket.recv() == "one"
        await edge.kill_agent()
        edge.ledger.own(HOST, 2)
        edge.start_agent()
        await edge.in_force()
        assert await served(edge) == "two"
        assert edge.apps["one"].attached == 1
        told = [report.catch_up for report in edge.ledger.reports if report.catch_up]
        assert (told[-1].from_index, told[-1].to_index) == (3, 4)


async def test_whatever_else_changes_the_proxy_is_repaired(edge: Edge) -> None:
    await serve(edge)
    proxy = edge.proxy()
    await proxy._send([f"clear table hot key {HOST}", "clear table numbers key 2", "set server pool/a2 state maint"])
    assert await served(edge) == "unknown-host"
    assert edge.agent is not None
    edge.agent._keeper.doubt()
    edge.ledger.own("another.localhost", 1)
    await edge.in_force()
    assert await served(edge) == "one"
    assert (await edge.get(pin=sign("2-abc", 1))).json()["app"] == "two"
    await proxy.close()


async def test_a_table_that_is_too_old_fails_closed_and_opens_again(folder: Path) -> None:
    async with running_edge(folder, agent={"stale_max_s": 0.4}) as edge:
        await serve(edge)
        edge.ledger.is_down = True

        async def is_closed() -> bool:
            return await served(edge) == "route-table-stale"

        await wait_until(is_closed, what="failing closed")
        answer = await edge.get(pin=sign("1-abc", 1), accept="application/json")
        assert (answer.status_code, answer.json()["code"]) == (503, "route-table-stale")
        edge.ledger.is_down = False

        async def is_open() -> bool:
            return await served(edge) == "one"

        await wait_until(is_open, what="opening again")
        assert any(report.failing_closed for report in edge.ledger.reports)
        await wait_until(lambda: not edge.ledger.last_report.failing_closed, what="the report saying so")


async def test_by_policy_an_old_table_is_served_on(folder: Path) -> None:
    async with running_edge(folder, agent={"stale_max_s": 0.2, "fail_closed": False}) as edge:
        await serve(edge)
        edge.ledger.is_down = True
        assert edge.agent is not None
        follower = edge.agent._follower
        await wait_until(lambda: follower.age_s > 0.6, what="a stale table")
        assert await served(edge) == "one"


async def test_a_new_pin_key_is_taken_from_the_snapshot(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    await serve(edge)
    pin = await edge.pin_of()
    monkeypatch.setattr("tests.edge.ledger.PIN_KEY", "bmV3")
    edge.ledger.restart("inc-2")
    edge.ledger.place(1, edge.apps["one"].port)
    edge.ledger.own(HOST, 1)
    await edge.in_force()
    assert "set-cookie" in (await edge.get(pin=pin)).headers
    assert "set-cookie" not in (await edge.get(pin=sign("1-abc", 1, "bmV3"))).headers


async def test_the_pin_key_is_in_no_file(edge: Edge) -> None:
    await serve(edge)
    key = edge.ledger.fold().pin_key
    for path in edge.settings.directory.iterdir():
        if path.is_file() and path.name not in ("routes.json",):
            assert key.encode() not in path.read_bytes(), path.name
    assert (edge.settings.directory / "routes.json").stat().st_mode & 0o077 == 0
