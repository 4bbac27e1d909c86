"""The database: group commit, savepoints, one writer, and what it says when the disk does not play along."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from moorage.domain.errors import MoorageError, Refused, Unavailable
from moorage.store.database import GROUP_MAX_COUNT, Database, Tx
from moorage.store.sql import SCHEMA_VERSION
from moorage.system.clock import pause
from tests.store.conftest import Clock
from tests.support.waiting import wait_until


class Broken(Exception):
    """The body of a write has a bug."""


async def count(db: Database, counter: str = "things") -> int:
    row = await db.read(lambda tx: tx.one("counter", name=counter))
    return int(row["value"]) if row else 0


def broken(tx: Tx) -> None:
    tx.next("things")
    raise Broken


async def together(db: Database, *bodies: object) -> list[object]:
    """Let the writes wait in the queue while one is under way, so that they share a commit."""
    gate, entered = threading.Event(), threading.Event()

    def hold(_tx: Tx) -> None:
        entered.set()
        gate.wait(10.0)

    first = asyncio.create_task(db.write(hold))
    await asyncio.to_thread(entered.wait, 10.0)
    rest = [asyncio.create_task(db.write(body)) for body in bodies]  # type: ignore[arg-type]
    await asyncio.to_thread(_queued, db, len(bodies))
    gate.set()
    await first
    return list(await asyncio.gather(*rest, return_exceptions=True))


def _queued(db: Database, number: int) -> None:
    while db._queue.qsize() < number:
        os.sched_yield()


async def test_writes_that_wait_share_one_commit_and_one_that_fails_takes_back_only_its_own(db: Database) -> None:
    commits: list[str] = []

    def watch(tx: Tx) -> None:
        tx._connection.set_trace_callback(lambda sql: commits.append(sql) if sql.upper() == "COMMIT" else None)

    await db.write(watch)
    bodies = [broken if i % 5 == 0 else lambda tx: tx.next("things") for i in range(40)]
    results = await together(db, *bodies)
    failed = [result for result in results if isinstance(result, Broken)]
    assert len(failed) == 8
    assert [r for r in results if not isinstance(r, Broken)] == list(range(1, 33)), "the counter has no gap"
    assert await count(db) == 32
    assert len(commits) <= 3, "forty writes did not need forty commits"


async def test_a_write_is_answered_only_after_its_commit(db: Database, tmp_path: Path) -> None:
    """Another process sees it at the moment the caller is told."""
    for number in range(1, 6):
        assert await db.write(lambda tx: tx.next("things")) == number
        with sqlite3.connect(tmp_path / "control.db") as other:
            assert other.execute("select value from counters where name = 'things'").fetchone() == (number,)


async def test_readers_see_only_what_is_committed_and_cannot_write(db: Database) -> None:
    seen: list[int] = []

    def body(tx: Tx) -> None:
        tx.next("things")
        seen.append(db.read_now(lambda r: len(r.all("counter", name="things"))))

    await db.write(body)
    assert seen == [0]
    assert await count(db) == 1
    with pytest.raises(MoorageError) as refused:
        await db.read(lambda tx: tx.next("things"))
    assert refused.value.problem.code == "database-unavailable"
    assert await count(db) == 1


async def test_a_group_has_a_limit(db: Database) -> None:
    results = await together(db, *[lambda tx: tx.next("things") for _ in range(GROUP_MAX_COUNT * 2)])
    assert results == list(range(1, GROUP_MAX_COUNT * 2 + 1))


async def test_a_caller_that_gives_up_does_not_stop_the_writer(db: Database) -> None:
    """Cancelled before or while its write is made, many times: the writer lives and the counter has no gap."""
    for _ in range(50):
        writes = [asyncio.create_task(db.write(lambda tx: tx.next("things"))) for _ in range(8)]
        await pause(0)
        for write in writes[::2]:
            write.cancel()
        await asyncio.gather(*writes, return_exceptions=True)
    last = await asyncio.wait_for(db.write(lambda tx: tx.next("things")), 10.0)
    assert await count(db) == last


async def test_a_commit_wakes_waiters_also_when_its_caller_gave_up(db: Database) -> None:
    gate, entered = threading.Event(), threading.Event()

    def slow(tx: Tx) -> None:
        entered.set()
        gate.wait(10.0)
        tx.next("things")

    write = asyncio.create_task(db.write(slow))
    await asyncio.to_thread(entered.wait, 10.0)
    waiting = asyncio.create_task(db.changes.wait(db.changes.version, 10.0))
    await pause(0)
    write.cancel()
    gate.set()
    version = await waiting
    assert version > 0
    await wait_until(lambda: _counted(db, 1), what="the write that was under way is committed")


async def _counted(db: Database, number: int) -> bool:
    return await count(db) == number


async def test_waiting_for_changes_can_be_cancelled_at_any_moment(db: Database) -> None:
    """Also at the moment of the news: a loop that is told to stop stops."""
    for _ in range(50):
        waiting = asyncio.create_task(db.changes.wait(db.changes.version, 10.0))
        await pause(0)
        db.changes.announce()
        waiting.cancel()
        done = await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)


async def test_time_comes_with_the_transaction(db: Database, clock: Clock) -> None:
    clock.now_ms = 42
    assert await db.write(lambda tx: tx.now_ms) == 42
    assert await db.read(lambda tx: tx.now_ms) == 42


async def test_writing_after_the_end_is_refused_and_does_not_hang(tmp_path: Path, clock: Clock) -> None:
    closed = Database(tmp_path / "other.db", clock)
    closed.close()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(closed.write(lambda tx: tx.next("things")), 5.0)


async def test_settings_of_the_connection(db: Database) -> None:
    def pragmas(tx: Tx) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [tx._connection.execute(f"pragma {name}").fetchone()[0] for name in names]

    assert await db.write(pragmas) == ["wal", 2, 1], "2 is FULL: every commit is flushed"


def test_a_newer_schema_is_refused_and_left_as_it_is(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "control.db"
    Database(path, clock).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"pragma user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(Refused) as refused:
        Database(path, clock)
    problem = refused.value.problem
    assert problem.code == "database-newer"
    assert problem.facts == {"found": SCHEMA_VERSION + 1, "known": SCHEMA_VERSION}
    with sqlite3.connect(path) as connection:
        assert connection.execute("pragma user_version").fetchone() == (SCHEMA_VERSION + 1,)


def test_a_file_that_is_no_database_is_named(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "control.db"
    path.write_bytes(b"this is no database, " * 100)
    with pytest.raises(Unavailable) as failed:
        Database(path, clock)
    assert failed.value.problem.code == "database-unavailable"
    assert str(path) in str(failed.value.problem.detail)


def test_opening_twice_keeps_what_is_there(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "control.db"
    for number in (1, 2):
        opened = Database(path, clock)
        assert asyncio.run(opened.write(lambda tx: tx.next("things"))) == number
        opened.close()


# --- a disk that does not play along: in a process of its own


def run(script: str, *arguments: str) -> str:
    """Run a script in a new process; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT_HEAD + script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SCRIPT_HEAD = """
import asyncio, os, resource, signal, sys
from pathlib import Path
from moorage.domain.errors import MoorageError
from moorage.store.database import Database

def opened():
    return Database(Path(sys.argv[1]), lambda: 1)

def code(failed):
    return failed.problem.code, failed.retryable, failed.problem.status
"""

FULL = """
async def main():
    db = opened()
    def fill(tx):
        tx.run("append_audit", at_ms=1, actor="a", action="a", subject="s", outcome="o", detail="x" * 100_000)
        return tx.next("things")
    await db.write(fill)
    size = os.stat(sys.argv[1] + "-wal").st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300_000, hard))
    answered = 1
    while True:
        try:
            answered = await db.write(fill)
        except MoorageError as failed:
            print(code(failed))
            break
        assert answered < 100
    results = await asyncio.gather(*(db.write(fill) for _ in range(20)), return_exceptions=True)
    assert all(isinstance(r, MoorageError) and r.problem.code == "database-unavailable" for r in results), results
    print(await db.read(lambda tx: tx.one("counter", name="things")["value"]) == answered)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    print(await db.write(fill) == answered + 1)
    db.close()
    again = opened()
    print(await again.read(lambda tx: tx.one("counter", name="things")["value"]) == answered + 1)
    again.close()
asyncio.run(main())
"""


def test_a_full_disk_is_said_and_nothing_of_the_write_is_kept(tmp_path: Path) -> None:
    """No file may grow beyond a limit: SQLite meets a real failed write. With room again the same process goes on."""
    lines = run(FULL, str(tmp_path / "control.db")).splitlines()
    assert lines == ["('database-unavailable', True, 503)", "True", "True", "True"]


READ_ONLY = """
async def main():
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    try:
        opened()
    except MoorageError as failed:
        print(code(failed)[0])
        print(failed.problem.detail)
asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up root's rights to become somebody without any")
def test_a_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    for above in (tmp_path, *tmp_path.parents):
        if above.stat().st_mode & 0o005 != 0o005 and above.owner() == "root":
            above.chmod(above.stat().st_mode | 0o005)
    lines = run(READ_ONLY, str(folder / "control.db")).splitlines()
    assert lines[0] == "database-unavailable"
    assert str(folder) in lines[1]


ENDLESS = """
async def main():
    db = opened()
    async def write(name):
        while True:
            value = await db.write(lambda tx: tx.next(name))
            print(name, value, flush=True)
    await asyncio.gather(*(write(f"counter-{n}") for n in range(8)))
asyncio.run(main())
"""


def test_kill_9_loses_nothing_that_was_answered(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "control.db"
    for _ in range(3):
        answered = _answered_before_the_kill(path)
        db = Database(path, clock)
        for name, value in answered.items():
            kept = asyncio.run(count(db, name))
            assert kept >= value, f"{name} was answered {value}"
            assert kept <= value + 1, "at most the write that was under way"
        db.close()


def _answered_before_the_kill(path: Path) -> dict[str, int]:
    """Let a process write until it has told enough, kill it, and read what else it had told by then."""
    command = [sys.executable, "-c", SCRIPT_HEAD + ENDLESS, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(120)]
        process.kill()
        lines += [line for line in process.stdout if line.endswith("\n")]
    return {name: int(value) for name, value in (line.split() for line in lines)}
