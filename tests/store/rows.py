"""Rows that most tests of the store begin with."""

from __future__ import annotations

from typing import Any

from moorage.domain.route import RouteOwner
from moorage.store import allocations, apps, operations
from moorage.store.allocations import Allocation
from moorage.store.database import Tx
from moorage.store.operations import Operation
from tests.support.nouns import owner

ACKED_ALL = 1 << 40


def add_app(tx: Tx, name: str = "board") -> int:
    """An app with a production environment; the environment's number."""
    apps.create_app(tx, name, f"app_{name}")
    found = apps.open_environment(tx, app=name, kind=apps.PRODUCTION, id=f"env_{name}", store_password="secret")
    return found.number


def add_allocation(tx: Tx, id: str = "alc_1", *, acked_index: int = ACKED_ALL, **changed: Any) -> Allocation:
    """A planned allocation of `add_app`'s environment."""
    given: dict[str, Any] = {
        "id": id,
        "app": "board",
        "environment": "env_board",
        "environment_number": 1,
        "deployment": "dep_1",
        "deployment_number": 1,
        "artifact": "sha256:1",
        "host": "127.0.0.1",
        "store_password": "secret",
        "operation": "opn_1",
        "acked_index": acked_index,
    }
    return allocations.plan(tx, **{**given, **changed})


def add_operation(tx: Tx, id: str = "opn_1", **changed: Any) -> Operation:
    """A requested promotion."""
    given: dict[str, Any] = {"id": id, "kind": operations.Kind.PROMOTION, "app": "board", "input": {"deployment": 1}}
    return operations.create(tx, **{**given, **changed})


def wanted(deployment: str = "dep_1", **changed: Any) -> RouteOwner:
    """An owner to claim a route for."""
    return owner(deployment, epoch=0, **changed)
