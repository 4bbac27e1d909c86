"""Messages for the tests of the command line, with times that lie a known while ago."""

from __future__ import annotations

from typing import Any

from moorage.system.clock import now_ms
from moorage.wire.api import (
    AllocationView,
    AppView,
    ChangeView,
    DeploymentView,
    EdgeView,
    ExpectedSessions,
    OperationRef,
    OperationView,
    ProcessView,
    PromotionReport,
    RouteView,
    StageView,
    StatusView,
    StoreView,
)

DIGEST = "sha256:" + "0123456789ab" + "c" * 52
DEPLOY_ID = "opn_" + "0" * 25 + "1"
PROMOTION_ID = "opn_" + "0" * 25 + "2"
HANDOVER_ID = "opn_" + "0" * 25 + "3"


def past(hours: float) -> int:
    """The time this long ago, and half a minute more so that it is still so at the end of the test."""
    return now_ms() - int(hours * 3_600_000) - 30_000


def app_view(name: str = "board", **other: Any) -> AppView:
    """An app that serves deployment 3."""
    fields: dict[str, Any] = {
        "url": f"http://{name}.localhost:7080/",
        "epoch": 4,
        "serving": 3,
        "ready_allocations": 1,
        "attached_sockets": 12,
        "newest_deployment": 5,
        "newest_state": "preview_ready",
        "created_ms": past(48),
    }
    return AppView(name=name, **(fields | other))


def deployment_view(number: int, state: str = "preview_ready", **other: Any) -> DeploymentView:
    """A deployment of the board."""
    fields: dict[str, Any] = {
        "artifact": DIGEST,
        "source": {"commit": "4f2a90c1d2e3f4a5b6c7", "dirty": True},
        "serving": False,
        "preview_url": f"http://{number}--board.localhost:7080/",
        "depth": "sdk",
        "operation": DEPLOY_ID,
        "created_ms": past(2),
    }
    return DeploymentView(app="board", number=number, state=state, **(fields | other))


def report(**other: Any) -> PromotionReport:
    """A warm promotion of deployment 5 over 3, allowed."""
    added = ChangeView(what="added", state="draft", field="color", before="", after="str", text="draft color added")
    removed = added.model_copy(update={"what": "removed", "text": "draft color removed"})
    fields: dict[str, Any] = {
        "app": "board",
        "deployment": 5,
        "serving": 3,
        "epoch": 4,
        "verdict": "allow",
        "reasons": ("state impact warm", "data impact none"),
        "forward": "warm",
        "forward_changes": (added,),
        "backward": "cold",
        "backward_changes": (removed,),
        "data_impact": "none",
        "mode": "handover",
        "mode_reason": "the app's sessions resume from the session store (sdk)",
        "expected": ExpectedSessions(
            resume=12, stay=0, fresh=0, unknown=0, how="the app's sessions resume from the session store (sdk)"
        ),
        "live_sessions": 12,
        "live_sessions_at_ms": now_ms(),
        "live_sessions_how": "sockets at the edges",
        "acknowledge": None,
        "problem": None,
    }
    return PromotionReport(**(fields | other))


def stage(seq: int, state: str, at_ms: int, note: str = "") -> StageView:
    """A stage."""
    return StageView(seq=seq, state=state, note=note, detail={}, actor="control", at_ms=at_ms)


def operation(id: str, kind: str, *states: str, succeeded: bool | None = None, **other: Any) -> OperationView:
    """An operation whose stages are a second apart; it is over when `succeeded` is given."""
    began = past(1)
    stages = tuple(stage(n, state, began + n * 1_000) for n, state in enumerate(states))
    fields: dict[str, Any] = {
        "app": "board",
        "parent": None,
        "state": states[-1],
        "finished": succeeded is not None,
        "succeeded": bool(succeeded),
        "input": {},
        "facts": {},
        "problem": None,
        "actor": "admin",
        "created_ms": began,
        "updated_ms": stages[-1].at_ms,
        "finished_ms": stages[-1].at_ms if succeeded is not None else None,
        "stages": stages,
    }
    return OperationView(id=id, kind=kind, **(fields | other))


def account(**counts: int) -> dict[str, Any]:
    """An account whose counts add up."""
    names = ("attached", "ended", "resumed", "fresh", "lost", "unknown")
    full = {name: counts.get(name, 0) for name in names}
    return {"total": sum(full.values()), "settled": not full["unknown"], **full, "reasons": {}, "rows": []}


def ref(id: str, deployment: int | None = None) -> OperationRef:
    """The operation that was started."""
    return OperationRef(operation=id, app="board", deployment=deployment)


def allocation_view(number: int, **other: Any) -> AllocationView:
    """A ready allocation of the board in production."""
    fields: dict[str, Any] = {
        "id": f"alc_{number:026}",
        "app": "board",
        "environment": "production",
        "deployment": 3,
        "artifact": DIGEST,
        "address": "127.0.0.1:20001",
        "state": "ready",
        "posture": "open",
        "want": "run",
        "pid": 4711,
        "attached_sockets": 12,
        "reason": "",
        "detail": "",
        "exit_code": None,
        "log_tail": (),
        "created_ms": past(3),
        "ready_ms": past(3),
        "ended_ms": None,
    }
    return AllocationView(number=number, **(fields | other))


def route_view(**other: Any) -> RouteView:
    """The board's production route."""
    fields: dict[str, Any] = {
        "route_key": "board.localhost",
        "url": "http://board.localhost:7080/",
        "epoch": 4,
        "app": "board",
        "environment": "production",
        "deployment": 3,
        "artifact": DIGEST,
        "held": False,
        "edges_behind": (),
        "ready_allocations": 1,
    }
    return RouteView(**(fields | other))


def edge_view(**other: Any) -> EdgeView:
    """A live edge that has everything."""
    fields: dict[str, Any] = {
        "id": "edge-1",
        "live": True,
        "applied_index": 42,
        "behind": 0,
        "seen_ms": past(0.1),
        "catch_up": None,
        "counters": {"applied": 42},
        "proxy": "2.8.25",
    }
    return EdgeView(**(fields | other))


def status_view(**other: Any) -> StatusView:
    """An installation that is ready."""
    process = ProcessView(name="control", pid=100, state="running", restarts=0, since_ms=past(5))
    crashed = ProcessView(
        name="runner", pid=103, state="running", restarts=2, since_ms=past(0.5), last_exit="killed by SIGKILL"
    )
    fields: dict[str, Any] = {
        "version": "0.1.0",
        "home": "/srv/moorage",
        "api": "http://127.0.0.1:7400",
        "http": "http://127.0.0.1:7080",
        "base_domain": "localhost",
        "isolation": "none",
        "ready": True,
        "log_index": 42,
        "incarnation": "inc_1",
        "apps": 1,
        "routes": 2,
        "allocations_ready": 1,
        "operations_open": 0,
        "edges": (edge_view(),),
        "processes": (process, crashed),
        "stores": (StoreView(app="board", environment="production", port=30001, state="running"),),
        "binaries": {"haproxy": "2.8.25", "nats": "2.15.1"},
    }
    return StatusView(**(fields | other))
