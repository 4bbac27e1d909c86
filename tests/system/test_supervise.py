"""The supervisor on real processes: order, restarts, stopping, orphans, and its own violent death."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage.system import children, proc
from moorage.system.children import Child, Phase, State
from moorage.system.supervise import shorten_log, tail
from tests.support.waiting import wait_until
from tests.system.supervised import Platform, start

Start = Callable[..., Platform]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Start]:
    """Starts supervisors and leaves none behind."""
    running: list[Platform] = []

    def begin(*described: dict[str, Any], folder: Path = tmp_path) -> Platform:
        running.append(start(folder, described))
        return running[-1]

    yield begin
    for platform in running:
        platform.end()
    for line in journal_of(tmp_path):
        pid = int(line[2]) if line[0] in ("started", "app") else 0
        if pid and proc.is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def journal_of(folder: Path) -> list[list[str]]:
    path = folder / "journal"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def child(folder: Path, name: str, *options: str, needs: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """A described child that listens on a socket of its own."""
    door = folder / f"{name}.sock"
    argv = [sys.executable, "-m", "tests.system.child", name, str(folder / "journal"), "--listen", str(door), *options]
    return {"name": name, "argv": argv, "ready": ["unix", str(door)], "depends_on": needs, **more}


def noted(folder: Path, *words: str) -> bool:
    return any(line[: len(words)] == list(words) for line in journal_of(folder))


def app_pids(folder: Path) -> list[int]:
    return [int(line[2]) for line in journal_of(folder) if line[0] == "app"]


async def test_children_start_after_what_they_depend_on_and_stop_before_it(tmp_path: Path, up: Start) -> None:
    platform = up(
        child(tmp_path, "control", needs=("bus",)),
        child(tmp_path, "bus"),
        child(tmp_path, "edge", needs=("control", "bus")),
    )
    assert "ready" in platform.line()
    assert [line[1] for line in journal_of(tmp_path)] == ["bus", "control", "edge"]
    assert platform.state().phase is Phase.READY
    platform.tell(signal.SIGTERM)
    assert platform.wait() == 0
    stops = [tuple(line[:2]) for line in journal_of(tmp_path) if line[0] != "started"]
    assert stops == [(word, name) for name in ("edge", "control", "bus") for word in ("stopping", "stopped")]
    state = platform.state()
    assert state.phase is Phase.STOPPED
    assert {each.state for each in state.processes} == {State.STOPPED}
    assert not children.is_running(state)


async def test_a_killed_child_is_started_again_and_the_others_stay(tmp_path: Path, up: Start) -> None:
    platform = up(child(tmp_path, "bus"), child(tmp_path, "control", needs=("bus",)))
    platform.line()
    bus, control = platform.child("bus"), platform.child("control")
    assert bus.pid is not None
    os.kill(bus.pid, signal.SIGKILL)
    await wait_until(lambda: platform.child("bus").restarts == 1, what="a restart")
    await wait_until(lambda: platform.state().phase is Phase.READY, what="all ready again")
    after = platform.child("bus")
    assert (after.last_exit, after.last_reason) == (-signal.SIGKILL, "killed by SIGKILL")
    assert after.pid not in (None, bus.pid)
    assert platform.child("control").pid == control.pid


async def test_apps_of_a_killed_runner_live_on_below_the_supervisor_until_it_stops(tmp_path: Path, up: Start) -> None:
    platform = up(child(tmp_path, "runner", "--apps", "2"))
    platform.line()
    await wait_until(lambda: noted(tmp_path, "started", "runner.app1"), what="the apps")
    apps = app_pids(tmp_path)
    runner = platform.child("runner").pid
    assert runner is not None
    os.kill(runner, signal.SIGKILL)
    await wait_until(lambda: platform.child("runner").restarts == 1, what="a restart")
    await wait_until(lambda: platform.state().phase is Phase.READY, what="all ready again")
    parents = {found.parent for pid in apps if (found := proc.process(pid))}
    assert parents == {platform.process.pid}
    os.kill(apps[0], signal.SIGKILL)  # an orphan that ends is collected, not left as a zombie
    await wait_until(lambda: proc.process(apps[0]) is None, what="the dead app to be collected")
    assert proc.is_alive(apps[1])
    platform.tell(signal.SIGTERM)
    assert platform.wait() == 0
    assert not [pid for pid in app_pids(tmp_path) if proc.is_alive(pid)]
    assert noted(tmp_path, "stopped", "runner.app1", "SIGTERM")


async def test_a_child_and_a_grandchild_that_ignore_sigterm_are_killed(tmp_path: Path, up: Start) -> None:
    deaf = child(tmp_path, "deaf", "--deaf", "--apps", "1", stop_grace_s=0.2)
    platform = up(deaf)
    platform.line()
    await wait_until(lambda: noted(tmp_path, "started", "deaf.app0"), what="the app")
    app = app_pids(tmp_path)[0]
    os.kill(app, signal.SIGSTOP)
    platform.tell(signal.SIGINT)
    assert platform.wait() == 0
    assert platform.child("deaf").last_exit == -signal.SIGKILL
    assert not proc.is_alive(app)


async def test_ctrl_c_reaches_the_supervisor_alone(tmp_path: Path, up: Start) -> None:
    platform = up(child(tmp_path, "bus"), child(tmp_path, "control", needs=("bus",)))
    platform.line()
    os.killpg(platform.process.pid, signal.SIGINT)  # as a terminal does, to the whole foreground group
    assert platform.wait() == 0
    assert [line[1:] for line in journal_of(tmp_path) if line[0] == "stopped"] == [
        ["control", "SIGTERM"],
        ["bus", "SIGTERM"],
    ]


async def test_asked_twice_it_stops_without_grace(tmp_path: Path, up: Start) -> None:
    platform = up(child(tmp_path, "deaf", "--deaf", stop_grace_s=300.0))
    platform.line()
    platform.tell(signal.SIGINT)
    await wait_until(lambda: platform.state().phase is Phase.STOPPING, what="stopping")
    platform.tell(signal.SIGINT)
    assert platform.wait() == 0


async def test_children_end_when_the_supervisor_is_killed(tmp_path: Path, up: Start) -> None:
    platform = up(child(tmp_path, "bus"), child(tmp_path, "deaf", "--deaf", parent_death_signal=signal.SIGKILL))
    platform.line()
    pids = [each.pid for each in platform.state().processes]
    platform.process.kill()
    platform.wait()
    await wait_until(lambda: not any(proc.is_alive(pid) for pid in pids if pid), what="the children's end")
    assert noted(tmp_path, "stopped", "bus", "SIGTERM")


@pytest.mark.servers  # waits out the grace of what was left: seconds
async def test_the_next_supervisor_ends_what_a_killed_one_left(tmp_path: Path, up: Start) -> None:
    platform = up(child(tmp_path, "deaf", "--deaf"))  # ignores the SIGTERM that the supervisor's death sends it
    platform.line()
    left = platform.child("deaf").pid
    assert left is not None
    platform.process.kill()
    platform.wait()
    assert proc.is_alive(left)
    following = up(child(tmp_path, "bus"))
    assert "ready" in following.line()
    assert not proc.is_alive(left)


async def test_a_platform_that_cannot_start_says_which_child_and_why(tmp_path: Path, up: Start) -> None:
    broken = {"name": "broken", "argv": [sys.executable, "-c", "import sys; sys.exit('no such key: colour')"]}
    platform = up(child(tmp_path, "bus"), {**broken, "ready": ["unix", str(tmp_path / "never")]})
    said = platform.line()
    assert (said["failed"], said["exit"]) == ("broken", 1)
    assert "no such key: colour" in said["tail"]
    assert platform.wait() == 1
    assert platform.state().phase is Phase.STOPPED
    assert noted(tmp_path, "stopped", "bus")


async def test_a_missing_program_is_a_failure_too(tmp_path: Path, up: Start) -> None:
    platform = up({"name": "ghost", "argv": [str(tmp_path / "ghost")]})
    said = platform.line()
    assert (said["failed"], said["exit"]) == ("ghost", None)
    assert platform.wait() == 1


async def test_a_child_that_never_becomes_ready_is_a_failure(tmp_path: Path, up: Start) -> None:
    mute = {"name": "mute", "argv": ["sleep", "1000"], "ready": ["unix", str(tmp_path / "never")]}
    platform = up({**mute, "ready_timeout_s": 0.1})
    assert platform.line()["failed"] == "mute"
    assert platform.child("mute").last_reason.startswith("not ready within")


async def test_the_supervisor_stays_small(tmp_path: Path, up: Start) -> None:
    platform = up(child(tmp_path, "bus"))
    platform.line()
    size = proc.pss_bytes(platform.process.pid)
    assert size is not None
    assert size < 32 << 20


def test_backoff_doubles_up_to_its_limit() -> None:
    waits = [children.backoff_s(n) for n in range(9)]
    assert waits[:4] == [0.0, 0.2, 0.4, 0.8]
    assert waits[-1] == children.BACKOFF_MAX_S == children.backoff_s(10_000)


def test_circles_among_children_are_a_bug(tmp_path: Path) -> None:
    def needing(name: str, *needs: str) -> Child:
        return Child(name, ("true",), {}, tmp_path / name, depends_on=needs)

    with pytest.raises(AssertionError):
        children.check_children([needing("a", "b"), needing("b", "a")])
    with pytest.raises(AssertionError):
        children.check_children([needing("a", "nobody")])
    with pytest.raises(AssertionError):
        children.check_children([needing("a"), needing("a")])


def test_a_long_log_is_emptied_under_its_writer_and_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    with open(path, "ab", buffering=0) as writer:
        writer.write(b"old\n" * 100)
        assert not shorten_log(path, 1000)
        assert shorten_log(path, 100)
        writer.write(b"new\n")
    assert path.read_bytes() == b"new\n"
    assert (tmp_path / "x.log.1").read_bytes() == b"old\n" * 100
    assert tail(tmp_path / "x.log.1", 6) == "old\n"


def test_an_unreadable_state_file_is_no_state(tmp_path: Path) -> None:
    path = tmp_path / "processes.json"
    assert children.read_state(path) is None
    for content in ("", "{", "[]", '{"processes": 3}', '{"processes": [], "phase": "nonsense"}'):
        path.write_text(content)
        assert children.read_state(path) is None
