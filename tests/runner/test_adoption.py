"""A runner that dies takes nothing with it: the next one adopts by pid, start time and boot, and never guesses."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from moorage.domain.allocation import State
from moorage.system import proc
from tests.runner.kit import RunnerProcess, ask, connects, control_plane, put_app, run_json, runner, wish
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers


async def test_killed_runner_leaves_the_app_and_the_next_adopts_it(tmp_path: Path) -> None:
    async with control_plane() as control:
        wanted = wish(put_app(tmp_path))
        control.want(wanted)
        first = RunnerProcess(tmp_path, control)
        try:
            ready = await control.sees(State.READY)
        finally:
            first.kill()
        assert (await ask(wanted.port))["pid"] == ready.pid
        second = RunnerProcess(tmp_path, control)
        try:
            await wait_until(lambda: (each := control.allocation()) is not None and each.adopted)
            adopted = await control.sees(State.READY)
            assert (adopted.pid, adopted.started_ms, adopted.ready_ms) == (
                ready.pid,
                ready.started_ms,
                ready.ready_ms,
            )
            assert ready.pid is not None
            os.kill(ready.pid, signal.SIGKILL)
            failed = await control.sees(State.FAILED)
            assert (failed.reason, failed.exit_code, failed.adopted) == ("exited", None, True)
        finally:
            await second.end()


async def test_adopted_process_can_be_stopped_even_frozen(tmp_path: Path) -> None:
    async with control_plane() as control:
        wanted = wish(put_app(tmp_path), stop_grace_s=0.3)
        control.want(wanted)
        first = RunnerProcess(tmp_path, control)
        ready = await control.sees(State.READY)
        first.kill()
        assert ready.pid is not None
        os.kill(ready.pid, signal.SIGSTOP)
        async with runner(tmp_path, control):
            await wait_until(lambda: (each := control.allocation()) is not None and each.adopted)
            control.want(wanted.model_copy(update={"want": "stop"}))
            stopped = await control.sees(State.STOPPED)
            assert stopped.exit_code is None
            assert not proc.is_alive(ready.pid)


async def test_process_that_ended_unseen_is_lost(tmp_path: Path) -> None:
    async with control_plane() as control:
        control.want(wish(put_app(tmp_path)))
        first = RunnerProcess(tmp_path, control)
        ready = await control.sees(State.READY)
        first.kill()
        assert ready.pid is not None
        os.kill(ready.pid, signal.SIGKILL)
        await wait_until(lambda: not proc.is_alive(ready.pid or 0))
        async with runner(tmp_path, control):
            lost = await control.sees(State.LOST)
            assert (lost.reason, lost.exit_code) == ("exited-unseen", None)


@pytest.mark.parametrize("change", ["pid", "started_ticks", "boot"])
async def test_a_number_used_by_somebody_else_is_not_adopted(tmp_path: Path, change: str) -> None:
    async with control_plane() as control:
        wanted = wish(put_app(tmp_path))
        control.want(wanted)
        first = RunnerProcess(tmp_path, control)
        ready = await control.sees(State.READY)
        first.kill()
        assert ready.pid is not None
        stranger = await asyncio.create_subprocess_exec("sleep", "600")
        try:
            found = run_json(tmp_path)
            found["identity"][change] = {"pid": stranger.pid, "started_ticks": 1, "boot": "another"}[change]
            (tmp_path / "allocations/alc_1/run.json").write_text(json.dumps(found))
            async with runner(tmp_path, control):
                lost = await control.sees(State.LOST)
                assert lost.reason == "exited-unseen"
                assert proc.is_alive(stranger.pid)
                await wait_until(lambda: not connects(wanted.port))  # what carries the mark does not serve on
        finally:
            stranger.kill()
            await stranger.wait()


async def test_interrupted_start_is_found_by_its_mark(tmp_path: Path) -> None:
    async with control_plane() as control:
        control.want(wish(put_app(tmp_path)))
        first = RunnerProcess(tmp_path, control)
        ready = await control.sees(State.READY)
        first.kill()
        found = run_json(tmp_path)
        found |= {"identity": None, "state": "starting", "ready_ms": None}
        (tmp_path / "allocations/alc_1/run.json").write_text(json.dumps(found))
        control.reports.clear()
        async with runner(tmp_path, control):
            again = await control.sees(State.READY)
            assert (again.pid, again.adopted) == (ready.pid, True)


async def test_unreadable_record_starts_nothing_twice(tmp_path: Path) -> None:
    async with control_plane() as control:
        control.want(wish(put_app(tmp_path)))
        first = RunnerProcess(tmp_path, control)
        ready = await control.sees(State.READY)
        first.kill()
        (tmp_path / "allocations/alc_1/run.json").write_text("{")
        control.reports.clear()
        async with runner(tmp_path, control):
            again = await control.sees(State.READY)
            assert (again.pid, again.adopted) == (ready.pid, True)


async def test_end_of_an_allocation_is_remembered(tmp_path: Path) -> None:
    async with control_plane() as control:
        control.want(wish(put_app(tmp_path), environ={"EXIT": "4"}))
        async with runner(tmp_path, control):
            first = await control.sees(State.FAILED)
        control.reports.clear()
        async with runner(tmp_path, control):
            again = await control.sees(State.FAILED)
            assert again == first


async def test_runner_that_is_told_to_go_leaves_everything(tmp_path: Path) -> None:
    async with control_plane() as control:
        wanted = wish(put_app(tmp_path))
        control.want(wanted)
        first = RunnerProcess(tmp_path, control)
        ready = await control.sees(State.READY)
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(timeout=10) == 0
        assert (await ask(wanted.port))["pid"] == ready.pid
        async with runner(tmp_path, control):
            await wait_until(lambda: (each := control.allocation()) is not None and each.adopted)


async def test_apps_run_on_while_the_control_plane_is_away(tmp_path: Path) -> None:
    async with control_plane() as control:
        wanted = wish(put_app(tmp_path))
        control.want(wanted)
        first = RunnerProcess(tmp_path, control)
        await control.sees(State.READY)
    try:
        assert (await ask(wanted.port))["folder"].endswith("app")
        assert first.process.poll() is None
    finally:
        await first.end()
    assert not connects(wanted.port)
