"""The shape of the store: every write says what it replaces, every query is used, the schema is what runs."""

from __future__ import annotations

import inspect
import re
import sqlite3
from pathlib import Path
from types import ModuleType

import moorage.store
from moorage.store import allocations, apps, log, operations, routes
from moorage.store.sql import QUERIES, schema

MODULES: tuple[ModuleType, ...] = (allocations, apps, log, operations, routes)
SOURCE = Path(moorage.store.__file__).parents[1]

# Public functions that write, by how they cannot overwrite what they have not read.
SWAPS = {  # the caller states what it has read
    "routes.claim": "expected_epoch",
    "routes.hold": "expected_epoch",
    "routes.remove": "expected_epoch",
    "operations.record": "token",
    "operations.lease": "operation",  # its token is compared
    "apps.rotate_environment_secret": "expected_version",
}
VERSIONED = {  # read and written in one transaction, by the version of the row
    "allocations.set_posture",
    "allocations.set_want",
    "allocations.disable_store_user",
    "allocations.enable_store_user",
    "allocations.observe",
}
CREATES = {  # a new row: there is nothing to replace
    "allocations.plan",
    "apps.create_app",
    "apps.open_environment",
    "apps.register_artifact",
    "apps.create_deployment",
    "apps.create_environment_secret",
    "log.append",
    "log.audit",
    "log.create_incarnation",
    "operations.create",
    "operations.remember",
    "operations.refuse_late",
    "allocations.free_port",  # raises a counter
}
ONE_WAY = {  # goes one way only, so that a second time is harmless
    "apps.ensure_store",
    "apps.close_environment",
    "apps.delete_app",
    "apps.delete_secret",
    "apps.forget_artifact",
    "operations.request_cancel",
    "operations.forget_answers",
}
LAST_WINS = {
    "apps.put_secret": "whoever sets a secret last means it; its version counts",
    "apps.set_deployment_state": "follows the deploy operation, whose token has fenced the same transaction",
    "apps.set_deployment_facts": "written by the deploy operation alone, whose token has fenced the same transaction",
}
# Statements that replace and do not compare, with the reason.
UNCONDITIONAL = {
    "next_counter": "raises by one",
    "put_secret": LAST_WINS["apps.put_secret"],
    "put_edge": "an edge is the only writer of its row",
    "set_deployment_state": LAST_WINS["apps.set_deployment_state"],
    "set_deployment_facts": LAST_WINS["apps.set_deployment_facts"],
    "give_store_port": "`ensure_store` has looked in the same transaction",
}


def public() -> dict[str, object]:
    found = {}
    for module in MODULES:
        for name, value in vars(module).items():
            own = inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
            if own and "tx" in inspect.signature(value).parameters:
                found[f"{module.__name__.rpartition('.')[2]}.{name}"] = value
    return found


def writes(function: object) -> bool:
    """Whether a function writes, by itself or through another of the store."""
    text = inspect.getsource(function)  # type: ignore[arg-type]
    helpers = r"tx\.run\(|tx\.next\(|_update\(|log\.append\(|log\.audit\(|\b_stage\(|allocations\.free_port\("
    return bool(re.search(helpers, text))


def test_every_public_write_names_what_it_replaces() -> None:
    kinds = [set(SWAPS), VERSIONED, CREATES, ONE_WAY, set(LAST_WINS)]
    assert sum(map(len, kinds)) == len(set().union(*kinds)), "one kind each"
    assert {name for name, function in public().items() if writes(function)} == set().union(*kinds)
    for name, argument in SWAPS.items():
        parameter = inspect.signature(public()[name]).parameters[argument]  # type: ignore[arg-type]
        assert parameter.default is inspect.Parameter.empty, f"{name}: what was read has no default"
    for name in VERSIONED:
        assert "_update(" in inspect.getsource(public()[name])  # type: ignore[arg-type]


def test_every_statement_that_replaces_compares() -> None:
    for name, text in QUERIES.items():
        lowered = text.lower()
        if lowered.startswith("update") or "do update" in lowered:
            where = lowered.rpartition("where")[2] if "where" in lowered else ""
            compares = ":expected_" in where or " is null" in where
            assert compares or name in UNCONDITIONAL, f"{name} replaces without comparing"
            assert not (compares and name in UNCONDITIONAL), f"{name} needs no exception"


def test_every_query_is_used_and_every_used_query_exists() -> None:
    called = re.compile(r"(?:tx|self)\.(?:run|all|one)\(\s*\"(\w+)\"|else tx\.(?:run|all|one)\(\"(\w+)\"")
    used = {a or b for file in SOURCE.rglob("*.py") for a, b in called.findall(file.read_text())}
    assert used == set(QUERIES)


def test_every_query_fits_the_schema() -> None:
    """Each is compiled against the schema, so that a misspelt column is found here and not in a rare stage."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(schema())
    for name, text in QUERIES.items():
        values = {parameter: None for parameter in re.findall(r":(\w+)", text)}
        connection.execute(f"explain {text}", values)
        assert name


def test_every_table_is_strict_and_every_query_says_what_it_is_for() -> None:
    created = re.findall(r"create table (\w+) \((.*?)\n\)([^;]*);", schema(), re.S)
    assert created
    assert {name for name, _, tail in created if tail.strip() != "strict"} == set()
    for file in (SOURCE / "store" / "sql").glob("*.sql"):
        for line in file.read_text().splitlines():
            if line.startswith("-- name:"):
                assert len(line.split(maxsplit=3)) == 4, f"{file.name}: {line}"
