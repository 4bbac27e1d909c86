"""Tools are real processes: ended whole, bounded in what they say, told no more than they need."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from moorage.build.tools import LINES_KEPT_COUNT, Ran, Tail, end_leftovers, run_tool, tool_environ
from moorage.system import proc
from moorage.system.clock import monotonic_s
from tests.support.waiting import wait_until

ENVIRON = {"PATH": os.environ["PATH"]}


async def shell(script: str, folder: Path, *, timeout_s: float = 20.0, secrets: tuple[str, ...] = ()) -> Ran:
    return await run_tool(
        ("sh", "-c", script), folder=folder, environ=ENVIRON, timeout_s=timeout_s, secrets=secrets, mark=folder
    )


async def test_exit_code_and_both_streams(tmp_path: Path) -> None:
    ran = await shell("echo out; echo err >&2; printf last; exit 3", tmp_path)
    assert (ran.exit_code, sorted(ran.lines)) == (3, ["err", "last", "out"])


async def test_endless_output_stays_small(tmp_path: Path) -> None:
    ran = await shell(f"{sys.executable} -c \"print('x' * 5000000); [print(i) for i in range(100000)]\"", tmp_path)
    assert len(ran.lines) == LINES_KEPT_COUNT
    assert ran.lines[-1] == "99999"
    assert max(map(len, ran.lines)) <= 400


async def test_the_deadline_ends_the_whole_group(tmp_path: Path) -> None:
    began = monotonic_s()
    ran = await shell("echo begun; sh -c 'echo $$ > inner; sleep 1000' & sleep 1000", tmp_path, timeout_s=1.0)
    assert monotonic_s() - began < 10
    assert (ran.exit_code, ran.lines) == (None, ("begun",))
    inner = int((tmp_path / "inner").read_text())
    await wait_until(lambda: not proc.is_alive(inner), what="the tool's own child is gone")


async def test_what_a_tool_leaves_behind_is_ended_with_it(tmp_path: Path) -> None:
    began = monotonic_s()
    ran = await shell("sleep 1000 & echo $! > left; echo done", tmp_path)
    assert monotonic_s() - began < 9
    assert (ran.exit_code, ran.lines) == (0, ("done",))
    left = int((tmp_path / "left").read_text())
    await wait_until(lambda: not proc.is_alive(left), what="the child left behind is gone")


async def test_a_cancellation_ends_the_tool(tmp_path: Path) -> None:
    task = asyncio.create_task(shell("echo $$ > me; sleep 1000", tmp_path))
    await wait_until(lambda: (tmp_path / "me").exists() and (tmp_path / "me").read_text().strip())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not proc.is_alive(int((tmp_path / "me").read_text()))


async def test_a_program_that_is_not_there_raises_and_leaks_nothing(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(FileNotFoundError):
            await run_tool(("/nowhere/at-all",), folder=tmp_path, environ=ENVIRON, timeout_s=1.0)
    assert len(os.listdir("/proc/self/fd")) <= before + 1


async def test_tools_of_a_killed_worker_die_or_are_found(tmp_path: Path) -> None:
    """The tool itself dies with its worker; what it had started is ended by the next one."""
    script = (
        "import asyncio, sys; from pathlib import Path; from moorage.build.tools import run_tool\n"
        "here = Path(sys.argv[1])\n"
        "command = ('sh', '-c', 'sleep 1000 & echo $! > child; echo $$ > tool; wait')\n"
        "asyncio.run(run_tool(command, folder=here, environ={'PATH': sys.argv[2]}, timeout_s=60, mark=here))\n"
    )
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(tmp_path), os.environ["PATH"])
    try:
        await wait_until(lambda: (tmp_path / "tool").exists() and (tmp_path / "tool").read_text().strip())
        await wait_until(lambda: (tmp_path / "tool.json").exists())
        tool, child = (int((tmp_path / name).read_text()) for name in ("tool", "child"))
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
        await wait_until(lambda: not proc.is_alive(tool), what="the tool died with its worker")
        assert proc.is_alive(child)
        assert end_leftovers(tmp_path) == 1
        await wait_until(lambda: not proc.is_alive(child), what="the next worker ended the rest")
        assert end_leftovers(tmp_path) == 0
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()


def test_the_mark_of_another_group_is_left_alone(tmp_path: Path) -> None:
    """A number that was given anew belongs to a younger process only if the group of the mark is gone."""
    other = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        ticks = proc.started_ticks(other.pid)
        assert ticks is not None
        (tmp_path / "tool.json").write_text(f'{{"group": {other.pid}, "started_ticks": {ticks + 100}}}')
        assert end_leftovers(tmp_path) == 0
        assert other.poll() is None
        (tmp_path / "tool.json").write_text("{")
        assert end_leftovers(tmp_path) == 0
    finally:
        other.kill()
        other.wait()


def test_secrets_are_blanked_out() -> None:
    tail = Tail(("hunter22", "hunter22-and-more", "abc", "two\nlines-of-it"))
    tail.feed(b"token hunter22-and-more, hunter22; abc\nlines-of-")
    tail.feed(b"it\r50%\r100%\n\n")
    assert tail.lines() == ("token ***, ***; abc", "***", "50%", "100%")


def test_a_tool_sees_a_short_environment() -> None:
    host = {
        "PATH": "/opt/bin:/bin",
        "HOME": "/home/me",
        "PIP_INDEX_URL": "https://index",
        "https_proxy": "http://proxy",
        "GOPROXY": "direct",
        "MOORAGE_TOKEN": "t",
        "AWS_SECRET_ACCESS_KEY": "s",
        "PYTHONPATH": "/x",
        "DATABASE_URL": "postgres://",
    }
    given = tool_environ(host, {"NPM_TOKEN": "n", "PIP_INDEX_URL": "https://own"})
    assert given == {
        "PATH": "/opt/bin:/bin",
        "HOME": "/home/me",
        "LANG": "C.UTF-8",
        "PIP_INDEX_URL": "https://own",
        "https_proxy": "http://proxy",
        "GOPROXY": "direct",
        "NPM_TOKEN": "n",
    }
