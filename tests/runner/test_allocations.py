"""Allocations as real processes: started once, ready by evidence, ended for good, never restarted."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from moorage.domain.allocation import State
from moorage.system import proc
from tests.runner.kit import APP, HOST, ask, connects, control_plane, free_port, put_app, run_json, runner, wish
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers


async def test_started_ready_stopped(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        wanted = wish(put_app(tmp_path))
        control.want(wanted)
        ready = await control.sees(State.READY)
        assert ready.pid is not None
        assert (await ask(wanted.port))["pid"] == ready.pid
        assert ready.started_ms is not None
        assert ready.ready_ms is not None
        assert ready.ready_ms >= ready.started_ms
        control.want(wanted.model_copy(update={"want": "stop"}))
        stopped = await control.sees(State.STOPPED)
        assert (stopped.exit_code, stopped.reason) == (-signal.SIGTERM, "")
        assert not proc.is_alive(ready.pid)
        assert not connects(wanted.port)
        seen = control.states()
        assert seen[-3:] == [State.READY, State.DRAINING, State.STOPPED]
        versions = control.reports[-1].versions
        assert (versions["driver"], versions["isolation"]) == ("process", "none")
        assert versions["valkey"][0].isdigit()


async def test_the_app_sees_its_environment_and_nothing_of_the_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOORAGE_TOKEN", "the-platforms-own")
    async with control_plane() as control, runner(tmp_path, control):
        wanted = wish(put_app(tmp_path), environ={"GREETING": "hello $PORT"})
        control.want(wanted)
        await control.sees(State.READY)
        answer = await ask(wanted.port)
        private = tmp_path / "allocations/alc_1/home"
        environ = answer["environ"]
        environ.pop("LC_CTYPE", None)  # Python sets it in itself
        assert environ == {
            "GREETING": "hello $PORT",
            "HOST": HOST,
            "PORT": str(wanted.port),
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(private),
            "TMPDIR": str(private / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONNOUSERSITE": "1",
        }
        assert answer["folder"].endswith("/tree/app")
        assert (private / "tmp").is_dir()
        found = run_json(tmp_path)
        assert found["identity"]["started_ticks"] == proc.started_ticks(answer["pid"])
        assert (tmp_path / "allocations/alc_1/run.json").stat().st_mode & 0o777 == 0o600


async def test_packages_of_the_artifact_are_used(tmp_path: Path) -> None:
    files = {"app/readme": "", "site/serving/__init__.py": "", "site/serving/__main__.py": APP}
    async with control_plane() as control, runner(tmp_path, control):
        control.want(wish(put_app(tmp_path, files), command="serving --host $HOST --port ${PORT}"))
        await control.sees(State.READY)


async def test_any_executable_is_run(tmp_path: Path) -> None:
    files = {"serve": "#!/bin/sh\ncd / && exec python3 -m http.server --bind $HOST $PORT --directory $1\n"}
    async with control_plane() as control, runner(tmp_path, control):
        control.want(wish(put_app(tmp_path, files, kind="command"), command="./serve '$HOME'"))
        await control.sees(State.READY)


async def test_exit_before_ready_is_failed_with_code_and_last_lines(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        wanted = wish(put_app(tmp_path), environ={"EXIT": "7"})
        control.want(wanted)
        failed = await control.sees(State.FAILED)
        assert (failed.reason, failed.exit_code) == ("exited", 7)
        assert failed.log_tail == (f"starting on {wanted.port}",)


async def test_never_ready_is_failed_and_ended(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        control.want(
            wish(put_app(tmp_path), "alc_1", environ={"SILENT": "1"}, ready_timeout_s=0.8),
            wish(put_app(tmp_path), "alc_2", health="/sick", ready_timeout_s=0.8),
        )
        silent, sick = await control.sees(State.FAILED), await control.sees(State.FAILED, "alc_2")
        assert silent.reason == sick.reason == "ready-timeout"
        assert "HTTP 503" in sick.detail
        for each in (silent, sick):
            assert each.pid is not None
            assert not proc.is_alive(each.pid)


async def test_death_after_ready_is_failed_and_never_restarted(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control) as agent:
        wanted = wish(put_app(tmp_path))
        control.want(wanted)
        ready = await control.sees(State.READY)
        assert ready.pid is not None
        os.kill(ready.pid, signal.SIGKILL)
        failed = await control.sees(State.FAILED)
        assert (failed.reason, failed.exit_code, failed.pid) == ("exited", -9, ready.pid)
        assert "SIGKILL" in failed.detail
        control.want(wanted, wish(put_app(tmp_path), "alc_2"))
        await control.sees(State.READY, "alc_2")
        assert await agent.reconcile_once() == 0
        assert (await control.sees(State.FAILED)).pid == ready.pid
        assert not connects(wanted.port)


async def test_children_of_a_dead_process_do_not_serve_on(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        wanted = wish(put_app(tmp_path))
        control.want(wanted)
        ready = await control.sees(State.READY)
        assert ready.pid is not None
        await ask(wanted.port, "/child")
        mark = f"HOME={tmp_path}/allocations/alc_1/home".encode()

        def marked() -> list[int]:
            found = []
            for each in proc.processes():
                try:
                    environ = Path(f"/proc/{each.pid}/environ").read_bytes()
                except OSError:
                    continue
                if mark in environ.split(b"\0") and each.state not in "ZX":
                    found.append(each.pid)
            return found

        await wait_until(lambda: len(marked()) == 2)
        os.kill(ready.pid, signal.SIGKILL)
        await control.sees(State.FAILED)
        assert marked() == []


async def test_a_closed_listening_socket_is_a_failure(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        wanted = wish(put_app(tmp_path))
        control.want(wanted)
        await control.sees(State.READY)
        await ask(wanted.port, "/close")
        failed = await control.sees(State.FAILED)
        assert failed.reason in ("not-listening", "exited")  # http.server may end when its socket goes


@pytest.mark.parametrize("address", [HOST, "0.0.0.0"])
async def test_a_port_of_somebody_else_is_named(tmp_path: Path, address: str) -> None:
    with socket.socket() as stranger:
        stranger.bind((address, 0))
        stranger.listen()
        async with control_plane() as control, runner(tmp_path, control):
            control.want(wish(put_app(tmp_path), port=stranger.getsockname()[1]))
            failed = await control.sees(State.FAILED)
            assert failed.reason == "port-taken"
            assert f"pid {os.getpid()}" in failed.detail
            assert failed.pid is None


async def test_an_answer_of_somebody_else_is_not_readiness(tmp_path: Path) -> None:
    """The app listens nowhere; meanwhile another process begins to answer its health path with 200."""
    async with control_plane() as control, runner(tmp_path, control):
        digest, port = put_app(tmp_path), free_port()
        control.want(wish(digest, "alc_1", environ={"SILENT": "1"}, port=port))
        await control.sees(State.STARTING)
        control.want(
            wish(digest, "alc_1", environ={"SILENT": "1"}, port=port),
            wish(digest, "alc_2", command=f"python -m http.server --bind {HOST} {port}", ready_timeout_s=0.5),
        )
        failed = await control.sees(State.FAILED)
        assert failed.reason == "port-taken"
        assert "http.server" in failed.detail


async def test_one_altered_byte_is_not_started(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        digest = put_app(tmp_path)
        place = tmp_path / "artifacts/sha256" / digest[7:] / "tree/app/app.py"
        data = bytearray(place.read_bytes())
        data[-1] ^= 1
        place.chmod(0o644)
        place.write_bytes(data)
        control.want(wish(digest))
        failed = await control.sees(State.FAILED)
        assert failed.reason == "artifact-altered"
        assert "app/app.py" in failed.detail
        assert failed.pid is None


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"artifact": "sha256:" + "0" * 64}, "artifact-missing", "no artifact"),
        ({"command": "./nothing"}, "start-failed", "nothing"),
        ({"command": "python 'app.py"}, "start-failed", "cannot be read"),
        ({"command": "python $NOWHERE"}, "start-failed", "$NOWHERE"),
        ({"command": ""}, "start-failed", "empty"),
    ],
)
async def test_what_cannot_be_started_says_why(
    tmp_path: Path, changes: dict[str, str], reason: str, words: str
) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        control.want(wish(**({"artifact": put_app(tmp_path)} | changes)))
        failed = await control.sees(State.FAILED)
        assert failed.reason == reason
        assert words in failed.detail


async def test_a_frozen_or_stubborn_process_is_ended(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        digest = put_app(tmp_path)
        frozen = wish(digest, "alc_1", stop_grace_s=0.3)
        stubborn = wish(digest, "alc_2", stop_grace_s=0.3, environ={"STUBBORN": "1"})
        control.want(frozen, stubborn)
        pids = [(await control.sees(State.READY, name)).pid for name in ("alc_1", "alc_2")]
        assert pids[0] is not None
        os.kill(pids[0], signal.SIGSTOP)
        control.want(*(each.model_copy(update={"want": "stop"}) for each in (frozen, stubborn)))
        for name, pid in zip(("alc_1", "alc_2"), pids, strict=True):
            stopped = await control.sees(State.STOPPED, name)
            assert stopped.exit_code == -signal.SIGKILL
            assert pid is not None
            assert not proc.is_alive(pid)


async def test_what_is_not_desired_any_more_is_stopped_and_its_log_stays(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        wanted = wish(put_app(tmp_path))
        control.want(wanted)
        ready = await control.sees(State.READY)
        control.want()
        assert ready.pid is not None
        await wait_until(lambda: control.allocation() is None)
        assert not proc.is_alive(ready.pid)
        assert (tmp_path / "allocations/alc_1/app.log").read_text() == f"starting on {wanted.port}\n"


async def test_stopped_before_started_is_stopped(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control):
        wanted = wish(put_app(tmp_path), want="stop")
        control.want(wanted)
        assert (await control.sees(State.STOPPED)).pid is None
        control.want(wanted.model_copy(update={"want": "run"}))
        control.want(wanted.model_copy(update={"want": "run"}), wish(put_app(tmp_path), "alc_2"))
        await control.sees(State.READY, "alc_2")
        assert control.allocation() is not None
        assert (await control.sees(State.STOPPED)).pid is None


async def test_log_is_bounded_while_the_app_writes_on(tmp_path: Path) -> None:
    async with control_plane() as control, runner(tmp_path, control, log_max_bytes=2_000_000):
        wanted = wish(put_app(tmp_path))
        control.want(wanted)
        await control.sees(State.READY)
        log = tmp_path / "allocations/alc_1/app.log"
        for _ in range(3):
            await ask(wanted.port, "/log")
        await wait_until(lambda: log.stat().st_size < 2_000_000)
        assert log.with_name("app.log.1").stat().st_size <= 2_000_000
        before = log.stat().st_size
        await ask(wanted.port, "/log")
        await wait_until(lambda: log.stat().st_size > before)
