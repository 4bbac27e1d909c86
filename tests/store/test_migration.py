"""From one schema to the next: a real database of schema 1 with rows in it, a copy beside it, all or nothing."""

from __future__ import annotations

import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from moorage.domain.errors import Refused, Unavailable
from moorage.store import allocations, apps, routes
from moorage.store.database import Database, Tx, check_schema
from moorage.store.sql import SCHEMA_VERSION
from tests.store.conftest import Clock
from tests.store.rows import add_allocation, add_operation

SCHEMA_1 = (Path(__file__).parent / "data" / "schema-1.sql").read_text()
ROWS = """
insert into counters values ('environment_number', 1), ('log_index', 7);
insert into apps values ('app_board', 'board', 1);
insert into environments values (1, 'env_board', 'board', 'production', null, 20000, 'secret', 1, null);
insert into artifacts values ('sha256:1', 'board', '{"kind":"python"}', 10, 1);
insert into deployments values ('dep_1', 'board', 1, 'preview_ready', 'sha256:1', '{"git":"abc"}', 'opn_1', 1);
insert into deployments values ('dep_2', 'board', 2, 'failed', null, '{}', 'opn_2', 2);
insert into route_owners values ('board.localhost', 4, 'board', 1, 'dep_1', 1, 'sha256:1', 0, 0, 3);
insert into secrets values ('board', 'API_KEY', 'runtime', x'00ff', 3, 2);
"""


def create_version_1(path: Path, rows: str = ROWS) -> None:
    """What version 0.1.0 leaves behind: its schema, some rows, write-ahead logging."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.executescript(f"begin;\n{SCHEMA_1}\n{rows}\npragma user_version = 1;\ncommit;")


@contextmanager
def opened(path: Path) -> Iterator[Database]:
    db = Database(path, Clock())
    try:
        yield db
    finally:
        db.close()


def contents(path: Path) -> dict[str, Any]:
    """Schema and every row, as SQLite itself writes them out."""
    with closing(sqlite3.connect(path)) as connection:
        version = connection.execute("pragma user_version").fetchone()[0]
        return {"version": version, "dump": list(connection.iterdump())}


def shape(path: Path) -> dict[str, Any]:
    """Every table, column, key and index, whatever the order of the columns and the words of their definition."""
    with closing(sqlite3.connect(path)) as connection:
        found: dict[str, Any] = {"version": connection.execute("pragma user_version").fetchone()}
        for name, kind, strict in connection.execute("select name, type, strict from pragma_table_list").fetchall():
            columns = connection.execute(f"pragma table_xinfo({name})").fetchall()
            foreign = connection.execute(f"pragma foreign_key_list({name})").fetchall()
            found[name] = (kind, strict, sorted(column[1:] for column in columns), foreign)
        for name, table, text in connection.execute(
            "select name, tbl_name, sql from sqlite_master where type = 'index'"
        ):
            columns = connection.execute(f"pragma index_xinfo({name})").fetchall()
            names = [column[2:] for column in columns if column[1] >= 0]  # the rest is where the row lies
            found[f"index {name}"] = (table, names, re.sub(r"\s+", " ", text or ""))
    return found


def test_rows_of_schema_1_are_all_there_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    create_version_1(path)

    def look(tx: Tx) -> tuple[object, ...]:
        owner = routes.owner(tx, "board.localhost")
        assert owner is not None
        return (
            [(d.number, d.state, d.artifact, d.source, d.facts) for d in apps.deployments(tx, "board")],
            (owner.epoch, owner.deployment, owner.held, owner.cure),
            [(row["name"], row["sealed"], row["version"]) for row in apps.secrets(tx, "board")],
            apps.environment_secrets(tx, "env_board"),
        )

    with opened(path) as db:
        assert db.read_now(look) == (
            [(2, "failed", None, {}, {}), (1, "preview_ready", "sha256:1", {"git": "abc"}, {})],
            (4, "dep_1", False, False),
            [("API_KEY", b"\x00\xff", 3)],
            {},
        )


async def test_a_migrated_database_works(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    create_version_1(path)
    with opened(path) as db:
        await db.write(lambda tx: apps.set_deployment_facts(tx, "dep_1", {"probe": {"resume": "resumes"}}))
        await db.write(lambda tx: apps.create_environment_secret(tx, "env_board", "A", b"sealed"))
        made = await db.write(add_allocation)
        operation = await db.write(add_operation)
        assert (made.number, operation.state) == (1, "requested")
        assert await db.read(lambda tx: apps.require_deployment(tx, "board", 1).facts) == {
            "probe": {"resume": "resumes"}
        }
        assert await db.read(lambda tx: len(allocations.live(tx))) == 1
    with opened(path) as db:  # the second start has nothing to migrate
        assert set(await db.read(lambda tx: apps.environment_secrets(tx, "env_board"))) == {"A"}


def test_a_migrated_database_has_the_shape_of_a_fresh_one(tmp_path: Path) -> None:
    create_version_1(tmp_path / "old.db")
    for name in ("old.db", "fresh.db"):
        with opened(tmp_path / name):
            pass
    old, fresh = shape(tmp_path / "old.db"), shape(tmp_path / "fresh.db")
    assert old.keys() == fresh.keys()
    for name, definition in fresh.items():
        assert old[name] == definition, name
    assert fresh["version"] == (SCHEMA_VERSION,)
    assert len(fresh) > 20, "the shape was really read"


def test_the_shape_sees_a_difference(tmp_path: Path) -> None:
    """A test that compares shapes says nothing when it cannot tell schema 1 from schema 2."""
    create_version_1(tmp_path / "old.db")
    with opened(tmp_path / "fresh.db"):
        pass
    old, fresh = shape(tmp_path / "old.db"), shape(tmp_path / "fresh.db")
    differing = {name for name in fresh if fresh[name] != old.get(name)}
    assert {"version", "deployments", "route_owners", "environment_secrets"} <= differing
    assert "allocations" not in differing


def test_a_copy_of_what_was_there_lies_beside_it(tmp_path: Path) -> None:
    path, copy = tmp_path / "control.db", tmp_path / "control.db.schema-1"
    create_version_1(path)
    copy.write_bytes(b"of an earlier attempt")
    (tmp_path / "control.db.schema-1.tmp").write_bytes(b"of an attempt that was interrupted")
    before = contents(path)
    with opened(path):
        pass
    assert contents(copy) == before
    assert contents(path)["version"] == SCHEMA_VERSION
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert {file.name for file in tmp_path.iterdir()} == {"control.db", "control.db.schema-1"}


def test_a_fresh_database_leaves_no_copy(tmp_path: Path) -> None:
    with opened(tmp_path / "control.db"):
        assert [file.name for file in tmp_path.glob("*schema*")] == []


def test_a_step_that_fails_changes_nothing(tmp_path: Path) -> None:
    """The last statement of the step fails here, after the ones before it worked."""
    path = tmp_path / "control.db"
    create_version_1(path, ROWS + "create table environment_secrets (of_a_stranger text) strict;")
    before = contents(path)
    with pytest.raises(Unavailable) as failed:
        Database(path, Clock())
    assert failed.value.problem.code == "database-migration-failed"
    assert failed.value.problem.facts == {"found": 1, "known": SCHEMA_VERSION}
    assert contents(path) == before


def test_without_its_copy_nothing_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    create_version_1(path)
    before = contents(path)
    (tmp_path / "control.db.schema-1").mkdir()  # the finished copy cannot take this name
    with pytest.raises(Unavailable) as failed:
        Database(path, Clock())
    assert failed.value.problem.code == "database-migration-failed"
    assert contents(path) == before
    assert not (tmp_path / "control.db.schema-1.tmp").exists()


def test_a_newer_schema_is_refused_and_an_older_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    create_version_1(path)
    check_schema(path)  # what `up` asks before it starts anything
    assert contents(path)["version"] == 1, "asking changes nothing"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"pragma user_version = {SCHEMA_VERSION + 1}")
    for ask in (lambda: check_schema(path), lambda: Database(path, Clock())):
        with pytest.raises(Refused) as refused:
            ask()
        assert refused.value.problem.code == "database-newer"
    assert [file.name for file in tmp_path.glob("*schema*")] == []
