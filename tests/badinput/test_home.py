"""Places where a platform cannot run: taken ports, a data directory that is not writable or newer, a full disk."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from moorage.cli.call import Exit
from moorage.store.database import Database
from tests.badinput.kit import STEADY, owner_stays, source
from tests.support.platform import MOORAGE, Answer, Platform, start_platform, stop_platform
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers


def up(home: Path, *flags: str) -> Answer:
    """`moorage up` on a data directory, which is expected to be refused."""
    done = subprocess.run(
        [*MOORAGE, "up", "--detach", "--json", *flags],
        env={**os.environ, "MOORAGE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def is_down(home: Path) -> bool:
    """Whether nothing runs on a data directory."""
    done = subprocess.run(
        [*MOORAGE, "down", "--json"], env={**os.environ, "MOORAGE_HOME": str(home)}, capture_output=True, text=True
    )
    return bool(Answer(done.returncode, done.stdout, done.stderr).json["code"] == "not-running")


@pytest.mark.parametrize("flag", ["--port", "--api-port"])
def test_a_port_that_is_taken_is_refused_with_its_owner(tmp_path: Path, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        others = {"--port": "0", "--api-port": "0"} | {flag: str(port)}
        answer = up(tmp_path / "home", *(word for pair in others.items() for word in pair))
    assert (answer.code, answer.json["code"]) == (Exit.REFUSED, "port-taken")
    assert (answer.json["port"], answer.json["pid"]) == (port, os.getpid())
    assert is_down(tmp_path / "home")


def test_a_data_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with read_only(home):
        answer = up(home, "--port", "0")
        assert (answer.code, answer.json["code"]) == (Exit.REFUSED, "home-not-writable")
        assert answer.json["home"] == str(home)
        assert list(home.iterdir()) == []
    assert is_down(home)


def test_a_data_directory_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    database = home / "control.db"
    Database(database, lambda: 0).close()
    connection = sqlite3.connect(database)
    connection.execute("pragma user_version = 999")
    connection.close()
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    answer = up(home, "--port", "0")
    assert (answer.code, answer.json["code"]) == (Exit.REFUSED, "database-newer")
    assert answer.json["found"] == 999
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before
    assert is_down(home)


def test_a_control_database_that_is_none_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "control.db").write_bytes(b"this is no database " * 500)
    answer = up(home, "--port", "0")
    assert (answer.code, answer.json["code"]) == (Exit.UNREACHABLE, "database-unavailable")
    assert (home / "control.db").read_bytes() == b"this is no database " * 500
    assert is_down(home)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody may write into the folder, not even root."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        try:
            yield
        finally:
            folder.chmod(0o700)
        return
    with mounted(folder, "ro"):
        yield


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A small file system in memory over the folder; the test is skipped where that may not be done."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        with suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[Platform]:
    """A platform with 16 MiB for builds and 4 MiB for artifacts, which serves the steady app."""
    if os.geteuid() != 0:
        pytest.skip("a small disk has to be mounted, which only root may do")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with mounted(home / "builds", "size=16m"), mounted(home / "artifacts", "size=4m"):
        running = start_platform(home)
        try:
            asyncio.run(running.serve(source(tmp_path / "app")))
            yield running
        finally:
            stop_platform(running)


async def test_a_disk_that_fills_up_while_building_fails_the_build_and_nothing_else(
    cramped: Platform, tmp_path: Path
) -> None:
    writes = '[build]\ncommand = "dd if=/dev/zero of=big bs=1M count=64"\n'
    large = source(tmp_path / "large")
    (large / "noise").write_bytes(os.urandom(6 << 20))
    with owner_stays(cramped):
        for folder in (source(tmp_path / "writes", more=writes), large):
            answer = await cramped.run("deploy", str(folder), "--json")
            assert (answer.code, answer.json["state"]) == (Exit.ENDED, "failed"), folder.name
            assert answer.json["problem"]["code"] == "disk-full", folder.name
            await wait_until(lambda: not os.listdir(cramped.home / "builds"), what="the space is given back")
    _, number = await cramped.deploy(source(tmp_path / "small", more="# small\n"))
    assert (await cramped.promote(STEADY, number)).state == "healthy"
