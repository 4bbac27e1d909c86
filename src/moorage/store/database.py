"""The control database: SQLite, one writer thread with group commit, reads on connections of their own.

A write is a function of a transaction. Up to `GROUP_MAX_COUNT` of them share one commit (and one fsync); each has a
savepoint, so that one that raises takes only its own changes back. A caller is answered after the commit.
Source of the numbers: measured, `docs/decisions/0003-sqlite-one-writer.md`.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from moorage.domain.errors import MoorageError, Problem, Refused, Unavailable
from moorage.store.sql import QUERIES, SCHEMA_VERSION, migration, schema

T = TypeVar("T")
Row = Mapping[str, Any]
GROUP_MAX_COUNT = 64
BUSY_TIMEOUT_MS = 5000


class Tx:
    """One transaction: named queries, the time it happens at, and who acts."""

    def __init__(self, connection: sqlite3.Connection, now_ms: int, actor: str = "") -> None:
        self._connection, self.now_ms, self.actor = connection, now_ms, actor

    def run(self, query: str, **values: Any) -> int:
        """Execute a named write; returns the number of rows it changed."""
        return self._execute(query, values).rowcount

    def all(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """All rows of a named query, as dictionaries by column name."""
        cursor = self._execute(query, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def one(self, query: str, **values: Any) -> dict[str, Any] | None:
        """The first row, or None."""
        return next(iter(self.all(query, **values)), None)

    def _execute(self, query: str, values: dict[str, Any]) -> sqlite3.Cursor:
        try:
            return self._connection.execute(QUERIES[query], values)
        except OverflowError as wrong:
            raise Refused(_out_of_range()) from wrong

    def next(self, counter: str) -> int:
        """Raise a named counter by one and return it; gapless, as a transaction that fails takes it back."""
        row = self.one("next_counter", name=counter)
        assert row is not None
        return int(row["value"])


def to_json(value: Any) -> str:
    """Canonical JSON text for a column."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Database:
    """Opens (and creates) the database; `write` and `read` are the only ways in."""

    def __init__(self, path: Path, clock: Callable[[], int]) -> None:
        self.path, self._clock = path, clock
        self.changes = Changes()
        self._closed = False
        try:
            writer = _open_prepared(path)
        except sqlite3.Error as failed:
            raise _unavailable(f"{path}: {failed}") from failed
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_loop, args=(writer,), name="store-writer", daemon=True)
        self._thread.start()
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="store-reader")
        self._local = threading.local()

    async def write(self, body: Callable[[Tx], T], *, actor: str = "system") -> T:
        """Run `body` in a transaction; returns its result once it is durable. An exception takes it all back.

        Raises Unavailable (`database-unavailable`) when SQLite fails, for example on a full disk.
        """
        if self._closed:
            raise _unavailable("it is closed")
        job, loop = _Job(body, actor), asyncio.get_running_loop()
        job.done.add_done_callback(lambda done: self._tell(loop, done))
        self._queue.put(job)
        result: T = await asyncio.wrap_future(job.done)
        return result

    def _tell(self, loop: asyncio.AbstractEventLoop, done: Future[Any]) -> None:
        """Wake whoever waits for changes, also when the caller of the write has given up meanwhile."""
        if not done.cancelled() and done.exception() is None and not loop.is_closed():
            loop.call_soon_threadsafe(self.changes.announce)

    async def read(self, body: Callable[[Tx], T]) -> T:
        """Run `body` on a read-only snapshot of what is committed. Raises Unavailable when SQLite fails."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, body)

    def read_now(self, body: Callable[[Tx], T]) -> T:
        """Like `read`, on the calling thread: for single look-ups of some microseconds."""
        return self._read(body)

    def close(self) -> None:
        """Finish what is queued and close."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()
        self._readers.shutdown()

    def _read(self, body: Callable[[Tx], T]) -> T:
        try:
            connection = self._reader()
            connection.execute("begin")
            try:
                return body(Tx(connection, self._clock()))
            finally:
                connection.execute("rollback")
        except sqlite3.Error as failed:
            raise _unavailable(str(failed)) from failed

    def _reader(self) -> sqlite3.Connection:
        """This thread's own connection."""
        if not hasattr(self._local, "connection"):
            self._local.connection = _open(self.path)
            self._local.connection.execute("pragma query_only = on")
        connection: sqlite3.Connection = self._local.connection
        return connection

    def _write_loop(self, connection: sqlite3.Connection) -> None:
        stopping = False
        while not stopping:
            group, stopping = self._next_group()
            if group:
                self._commit_group(connection, group)
        connection.close()

    def _next_group(self) -> tuple[list[_Job], bool]:
        first = self._queue.get()
        if first is None:
            return [], True
        group = [first]
        while len(group) < GROUP_MAX_COUNT:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return group, True
            group.append(job)
        return group, False

    def _commit_group(self, connection: sqlite3.Connection, waiting: Sequence[_Job]) -> None:
        group = [job for job in waiting if job.begin()]
        try:
            connection.execute("begin immediate")
            for job in group:
                job.attempt(connection, self._clock())
            connection.execute("commit")
        except sqlite3.Error as failed:
            if connection.in_transaction:
                connection.execute("rollback")
            for job in group:
                job.fail(_unavailable(str(failed)))
            return
        for job in group:
            job.answer()


class _Job:
    """A queued transaction body and the future that its caller waits for."""

    def __init__(self, body: Callable[[Tx], Any], actor: str) -> None:
        self.body, self.actor = body, actor
        self.done: Future[Any] = Future()
        self._result: Any = None
        self._error: BaseException | None = None

    def begin(self) -> bool:
        """Whether the caller still waits; from now on it cannot take the write back."""
        return self.done.set_running_or_notify_cancel()

    def attempt(self, connection: sqlite3.Connection, now_ms: int) -> None:
        connection.execute("savepoint job")
        try:
            self._result = self.body(Tx(connection, now_ms, self.actor))
        except sqlite3.OperationalError:
            raise  # the disk, not this job: the whole group fails
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whose transaction it is
            self._error = error
            connection.execute("rollback to job")
        connection.execute("release job")

    def fail(self, error: BaseException) -> None:
        self._error = error
        self.answer()

    def answer(self) -> None:
        if self._error:
            self.done.set_exception(self._error)
        else:
            self.done.set_result(self._result)


class Changes:
    """Tells waiters that something was committed; they look again (a wake, never the news itself)."""

    def __init__(self) -> None:
        self.version = 0
        self._waiters: set[asyncio.Event] = set()

    def announce(self) -> None:
        """Wake all waiters; call from the event loop."""
        self.version += 1
        for waiter in self._waiters:
            waiter.set()

    async def wait(self, seen: int, timeout_s: float) -> int:
        """Wait until the version is above `seen` or the time is over; returns the version now."""
        if self.version > seen:
            return self.version
        event = asyncio.Event()
        self._waiters.add(event)
        try:
            async with asyncio.timeout(timeout_s):  # `wait_for` of Python 3.11 can swallow a cancellation
                await event.wait()
        except TimeoutError:
            pass
        finally:
            self._waiters.discard(event)
        return self.version


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute(f"pragma busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    connection.execute("pragma foreign_keys = on")
    return connection


def _open_prepared(path: Path) -> sqlite3.Connection:
    """A connection to a database of this version's schema; none is left open when that cannot be."""
    connection = _open(path)
    try:
        _prepare(connection, path)
    except (sqlite3.Error, MoorageError):
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create the schema in an empty database, bring an older one up to date, refuse one of a newer Moorage."""
    found = _schema_of(connection, path)
    if found == 0:
        connection.executescript(f"begin immediate;\n{schema()}\npragma user_version = {SCHEMA_VERSION};\ncommit;")
    elif found < SCHEMA_VERSION:
        _migrate(connection, path, found)


def _migrate(connection: sqlite3.Connection, path: Path, found: int) -> None:
    """Keep a copy beside the database, then take all steps in one transaction. Raises Unavailable, nothing changed."""
    copy = path.with_name(f"{path.name}.schema-{found}")
    steps = "\n".join(migration(to) for to in range(found + 1, SCHEMA_VERSION + 1))
    try:
        _copy(connection, copy)
        connection.executescript(f"begin immediate;\n{steps}\npragma user_version = {SCHEMA_VERSION};\ncommit;")
    except (sqlite3.Error, OSError) as failed:
        if connection.in_transaction:
            connection.execute("rollback")
        raise _migration_failed(path, found, failed) from failed


def _copy(connection: sqlite3.Connection, target: Path) -> None:
    """A whole copy of the database as a file of its own: complete under its name, or not there."""
    unfinished = target.with_name(f"{target.name}.tmp")
    unfinished.unlink(missing_ok=True)  # of an attempt that was interrupted
    try:
        unfinished.touch(mode=0o600)
        connection.execute("vacuum into ?", (str(unfinished),))
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_schema(path: Path) -> None:
    """Look whether this version can use the database, before anything is started on it; none yet is fine.

    Raises Refused (`database-newer`) or Unavailable (`database-unavailable`).
    """
    if not path.exists():
        return
    try:
        connection = sqlite3.connect(path)
        try:
            _schema_of(connection, path)
        finally:
            connection.close()
    except sqlite3.Error as failed:
        raise _unavailable(f"{path}: {failed}") from failed


def _schema_of(connection: sqlite3.Connection, path: Path) -> int:
    found = int(connection.execute("pragma user_version").fetchone()[0])
    if found > SCHEMA_VERSION:
        raise Refused(
            Problem(
                "database-newer",
                "The data directory was written by a newer Moorage",
                f"{path} has schema {found}, this version knows {SCHEMA_VERSION}.",
                "Install the newer version, or choose another MOORAGE_HOME.",
                facts={"found": found, "known": SCHEMA_VERSION},
            )
        )
    return found


def _out_of_range() -> Problem:
    return Problem(
        "number-out-of-range",
        "A number of the request is too large",
        "Numbers have at most 63 bits and a sign.",
        "Nothing that exists has this number.",
        status=422,
    )


def _unavailable(why: str) -> Unavailable:
    return Unavailable(
        Problem(
            "database-unavailable",
            "The control database does not work",
            why,
            "Look at free disk space and permissions of the data directory; nothing of this request was kept.",
            status=503,
        )
    )


def _migration_failed(path: Path, found: int, why: Exception) -> Unavailable:
    return Unavailable(
        Problem(
            "database-migration-failed",
            f"The control database could not be brought from schema {found} to {SCHEMA_VERSION}",
            f"{path}: {why}. Nothing of it was changed.",
            "Look at free disk space and permissions of the data directory, then start again; the version that wrote "
            "it can still use it.",
            status=503,
            facts={"found": found, "known": SCHEMA_VERSION},
        )
    )
