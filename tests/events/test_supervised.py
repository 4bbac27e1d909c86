"""The whole chain as it is composed: a supervisor runs the event server, a relay and an edge as processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage.events import server
from moorage.system import proc
from moorage.system.binaries import find_nats
from moorage.system.children import Phase
from moorage.system.clock import monotonic_s
from moorage.system.settings import inherited_environ
from tests.events.outbox import entry
from tests.events.outbox_contract import OutboxContract
from tests.events.platform_processes import FileOutbox
from tests.support.waiting import wait_until
from tests.system.supervised import Platform, start

pytestmark = pytest.mark.servers


class TestFileOutbox(OutboxContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> FileOutbox:
        return FileOutbox(tmp_path / "log.jsonl", "inc_a")

    async def commit(self, source: Any, count: int) -> None:
        commit(source._path.parent, count)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """Event server, relay and edge under a supervisor, as `moorage up` composes them."""
    plan = write_server(tmp_path)
    binary, environ = find_nats().path, inherited_environ()

    def ours(role: str) -> list[str]:
        return [sys.executable, "-m", "tests.events.platform_processes", role, str(tmp_path), plan.url]

    running = start(
        tmp_path,
        [
            {
                "name": "nats",
                "argv": list(server.server_argv(binary, tmp_path / "nats.conf")),
                "environ": environ,
                "ready": ["tcp", plan.host, plan.port],
            },
            {"name": "relay", "argv": ours("relay"), "environ": environ, "depends_on": ["nats"]},
            {"name": "edge", "argv": ours("edge"), "environ": environ, "depends_on": ["nats"]},
        ],
    )
    yield running
    running.end()


def write_server(folder: Path) -> server.ServerPlan:
    """Keys and configuration, as the caller keeps them."""
    seeds = {role: server.new_seed() for role in ("relay", "edge")}
    for role, seed in seeds.items():
        (folder / f"{role}.seed").write_text(seed)
    plan = server.ServerPlan(
        port=proc.free_port(),
        store_dir=folder / "store",
        control_key=server.public_key(seeds["relay"]),
        edge_keys={"edge1": server.public_key(seeds["edge"])},
    )
    (folder / "nats.conf").write_text(server.render_server(plan))
    return plan


def commit(folder: Path, count: int) -> int:
    """Add entries to the log; the newest index."""
    path = folder / "log.jsonl"
    last = len(path.read_text().splitlines()) if path.exists() else 0
    with open(path, "a") as log:
        log.write("".join(entry(last + n).model_dump_json() + "\n" for n in range(1, count + 1)))
    return last + count


def seen(folder: Path) -> list[int]:
    path = folder / "seen.txt"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


async def test_the_chain_survives_the_death_of_each_of_its_parts(platform: Platform, tmp_path: Path) -> None:
    begun = monotonic_s()
    assert "ready" in platform.line()
    print(f"ready after {monotonic_s() - begun:.2f} s")
    commit(tmp_path, 5)
    await wait_until(lambda: seen(tmp_path) == [1, 2, 3, 4, 5], what="the first entries at the edge")
    for name in ("nats", "relay", "nats"):
        await kill(platform, name)
        target = commit(tmp_path, 5)
        await wait_until(lambda: seen(tmp_path)[-1] == target, what=f"entries after the death of {name}")  # noqa: B023
    assert seen(tmp_path) == list(range(1, target + 1))
    assert [each.restarts for each in platform.state().processes] == [2, 1, 0]
    pids = [each.pid for each in platform.state().processes]
    print("PSS of the supervisor:", (proc.pss_bytes(platform.process.pid) or 0) >> 20, "MiB")
    platform.tell(signal.SIGTERM)
    assert platform.wait() == 0
    assert platform.state().phase is Phase.STOPPED
    assert not [pid for pid in pids if pid and proc.is_alive(pid)]
    assert platform.child("nats").last_exit == 0
    assert platform.line() == {"stopped": True}


async def kill(platform: Platform, name: str) -> None:
    before = platform.child(name)
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    await wait_until(lambda: platform.child(name).restarts == before.restarts + 1, what=f"restart of {name}")
    await wait_until(lambda: platform.state().phase is Phase.READY, what="all ready again")
