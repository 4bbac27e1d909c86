"""The sessions of old allocations during a move: baseline, evidence, fence and account. Used by every kind of move.

How much can be known depends on the app: with the SDK sessions are known by name from the store, and an app whose
framework stores them is followed there (`trail`); of a plain app the edge counts sockets, and a socket that is gone has
ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any

from moorage.control import bindings
from moorage.control.context import Control
from moorage.control.operations.engine import Work
from moorage.control.operations.evidence import production_of
from moorage.control.operations.report import manifest_of
from moorage.control.operations.trail import Trail
from moorage.domain.allocation import Posture
from moorage.domain.artifact import Depth
from moorage.domain.errors import Unavailable
from moorage.domain.operation import Kind
from moorage.domain.resume import PROBE
from moorage.domain.session import Account, Before, Fate, Outcome, merge, open_account, summary
from moorage.sessions.account import Phase
from moorage.sessions.admin import StoreAdmin
from moorage.sessions.evidence import SessionEvidence
from moorage.sessions.stored_records import StoredRecords
from moorage.store import allocations, apps, operations
from moorage.store.allocations import Allocation
from moorage.store.apps import Environment
from moorage.store.database import Tx
from moorage.system.clock import now_ms
from moorage.wire.api import SessionRow, SessionsView

ROWS_KEPT_COUNT = 500  # rows of an account that are kept with the operation; counts are always whole
ACCOUNTS_SHOWN_COUNT = 5
ENDING_S = 15  # a process that was told to stop lets its sessions go within its grace
EDGE_WAIT_S = 3.0  # sockets are counted at edges; one that restarts is back within this time


@asynccontextmanager
async def store_of(environment: Environment) -> AsyncIterator[StoreAdmin | None]:
    """The environment's store as its admin; None when the environment has no store, or has ended and its store too."""
    if environment.store_port is None or environment.closed_ms is not None:
        yield None
        return
    admin = StoreAdmin(environment.store_port, environment.store_password)
    try:
        yield admin
    finally:
        await admin.close()


async def require_store(work: Work) -> None:
    """Return once the environment's store has taken a write. Raises StoreDown, or StoreRefused for one that is full;
    nothing has been changed then."""
    async with store_of(await environment_of(work)) as admin:
        if admin:
            await admin.try_write()


async def environment_of(work: Work) -> Environment:
    """The environment in which the sessions live."""
    id = work.input.get("environment") or work.facts["environment"]
    return await work.read(lambda tx: apps.environment(tx, id))


async def read_baseline(
    work: Work, old: Sequence[str], sockets: Mapping[str, int | None] | None = None
) -> dict[str, Any]:
    """What is attached to each old allocation now: sessions by name where there is an SDK, sockets at the edges.

    `sockets` are counts from just before, for allocations whose process has ended and taken its sockets along.
    """
    environment = await environment_of(work)
    known = await work.read(lambda tx: {id: _known(work.control, tx, id) for id in old})
    await work.wait(lambda _tx: bool(work.control.live.live_edges()), timeout_s=EDGE_WAIT_S)
    found: dict[str, Any] = {}
    async with store_of(environment) as admin:
        for id in old:
            evidence = SessionEvidence(admin) if admin else None
            depth = await _depth_at(evidence, id, known[id]["depth"])
            named = await _named_at(work, evidence, id) if evidence and depth is Depth.SDK else ()
            number = known[id]["number"]
            found[id] = {
                **known[id],
                "depth": depth,
                "named": [[b.label, b.lease, b.revision] for b in named],
                "sockets": sockets.get(id) if sockets is not None else work.control.live.attached(number),
            }
    return {"baseline": found, "baseline_ms": now_ms()}


async def _named_at(work: Work, evidence: SessionEvidence, id: str) -> tuple[Before, ...]:
    """The sessions known by name: attached now, or, when the process has ended, until just before its end."""
    found = await work.read(lambda tx: allocations.get(tx, id))
    if found is None or found.ended_ms is None:
        return await evidence.baseline(id)
    return await evidence.baseline_of_ended(id, found.ended_ms - ENDING_S * 1000)


def _is_seen(control: Control, tx: Tx, allocation: Allocation) -> bool:
    """Whether a Vango allocation stores its sessions in the environment's own store."""
    kind = apps.environment(tx, allocation.environment).kind
    managed = bindings.binding_in_force(control, tx, allocation.app, kind).can_be_fenced
    return managed and not bindings.has_changed(tx, allocation, kind)


async def _depth_at(evidence: SessionEvidence | None, id: str, declared: Depth) -> Depth:
    """How much can be known of an allocation's sessions: what it is built with counts only when it shows at a store."""
    if evidence is None:
        return Depth.PLAIN
    if declared is Depth.STORE_AWARE:
        return declared
    return Depth.SDK if await evidence.is_sdk(id) else Depth.PLAIN


def _known(control: Control, tx: Tx, id: str) -> dict[str, Any]:
    """What the control database knows of an allocation whose sessions move."""
    found = allocations.get(tx, id)
    assert found is not None, f"allocation {id} is moved and does not exist"
    deployment = apps.deployment(tx, found.deployment)
    probe = deployment.facts.get(PROBE, {}) if deployment else {}
    depth = manifest_of(tx, found.artifact).depth
    elsewhere = depth is Depth.STORE_AWARE and not _is_seen(control, tx, found)
    return {
        "number": found.number,
        "depth": Depth.PLAIN if elsewhere else depth,  # elsewhere the platform can neither look nor fence
        "own_store": elsewhere,
        "ended_ms": found.ended_ms,
        "window_ms": probe.get("window_ms"),
    }


def named_sessions(entry: dict[str, Any]) -> tuple[Before, ...]:
    """The named sessions of one allocation's baseline."""
    return tuple(Before(label, lease, revision) for label, lease, revision in entry["named"])


async def fence(work: Work, ids: Sequence[str]) -> dict[str, Any]:
    """Switch the old allocations' store users off and prove it. Recorded in the control database first, so that a
    store that restarts in between does not readmit them. Raises Unavailable; the same again is harmless."""
    await work.commit(work.operation.state, lambda tx: _disable(tx, ids))
    proofs = {}
    async with store_of(await environment_of(work)) as admin:
        if admin:
            for id in ids:
                proofs[id] = asdict(await admin.fence(id))
    return {"fence": proofs}


def _disable(tx: Tx, ids: Sequence[str]) -> dict[str, Any]:
    for id in ids:
        allocations.disable_store_user(tx, id, reason="fence")
    return {}


def stop_fenced(tx: Tx, ids: Sequence[str]) -> None:
    """After the fence: the process stops; its posture says why it must never serve again."""
    for id in ids:
        allocations.set_posture(tx, id, Posture.FENCED, reason="fenced")
        allocations.set_want(tx, id, "stop", reason="its sessions were handed over or have ended")


async def account_now(work: Work, phase: Phase, trail: Trail | None = None) -> Account:
    """What became of every session of the baseline, from the store and the edges as they are now.

    Sessions that only their store knows are accounted for by the `trail` once they were cut; before, and without one,
    they are counted by their sockets.
    """
    baseline: dict[str, Any] = work.facts["baseline"]
    environment = await environment_of(work)
    others = await work.read(
        lambda tx: [a.id for a in allocations.live(tx, environment.number) if a.id not in baseline]
    )
    parts = []
    async with store_of(environment) as admin:
        for id, entry in baseline.items():
            if entry["depth"] == Depth.SDK and admin:
                evidence = SessionEvidence(admin)
                parts.append(
                    await evidence.account(
                        id, named_sessions(entry), phase, successors=others, attached_sockets=entry["sockets"]
                    )
                )
            elif trail is not None and id in trail.followed:
                parts.append(trail.account(id, phase))
            else:
                now = work.control.live.attached(entry["number"])
                ends = end_of_plain(work.operation.kind, own_store=bool(entry.get("own_store")))
                parts.append(plain_account(entry["sockets"], now, phase, ends))
    return merge(parts)


async def follow(work: Work, trail: Trail) -> None:
    """Look who has come back; a store that does not answer is asked again at the next look."""
    if trail.followed:
        with suppress(Unavailable):
            await trail.begin(await environment_of(work))
            await trail.find_returns()


def not_yet(account: Account, trail: Trail) -> str:
    """What is still open, in words, and when it will be known."""
    unknown, settles = account.counts[Outcome.UNKNOWN], trail.settles_ms()
    if settles is None:
        return f"{unknown} sessions have not come back yet"
    left_s = max(settles - now_ms(), 0) // 1000 + 1
    return f"{unknown} sessions are not known yet; the store shows within {left_s} s who was resumed"


_PLAIN_END = {
    Kind.HANDOVER: (Outcome.ENDED, "cut-in-handover"),
    Kind.DRAIN: (Outcome.ENDED, "cut-at-deadline"),
    Kind.REPLACEMENT: (Outcome.LOST, "process-ended"),
}


def end_of_plain(kind: Kind, *, own_store: bool = False) -> tuple[Outcome, str]:
    """What became of a session of which only the socket was known, when a move of this kind ended it.

    Whether somebody goes on from a store of the user's own is seen by nobody here, so it is not called an end.
    """
    return (Outcome.UNKNOWN, "own-store") if own_store else _PLAIN_END[kind]


def plain_account(before: int | None, now: int | None, phase: Phase, ends: tuple[Outcome, str]) -> Account:
    """The account of an allocation that is known by sockets only: they are attached, have ended, or died with it.

    A socket that is gone is never called moved: once the move is made it `ends` so. Unknown counts stay unknown.
    """
    if before is None:
        return Account((), {})
    if phase is not Phase.SERVING:
        return Account((), _some({ends: before}))
    if now is None:
        return Account((), _some({(Outcome.UNKNOWN, "no-live-edge"): before}))
    left = min(before, now)
    return Account((), _some({(Outcome.ATTACHED, ""): left, (Outcome.ENDED, "closed"): before - left}))


def _some(counts: dict[tuple[Outcome, str], int]) -> dict[tuple[Outcome, str], int]:
    return {key: count for key, count in counts.items() if count}


def account_facts(account: Account, work: Work | None = None) -> dict[str, Any]:
    """An account as JSON values, with a row per named session, and what it could not count."""
    rows = [_row(fate) for fate in account.fates[:ROWS_KEPT_COUNT]]
    return {**summary(account), "rows": rows, "uncounted": uncounted(work) if work else [], "at_ms": now_ms()}


def with_closed(account: Mapping[str, Any], closed: int) -> dict[str, Any]:
    """An account (as JSON values) with sessions that had ended before it was opened."""
    if not closed:
        return dict(account)
    reasons = {outcome: dict(counts) for outcome, counts in account["reasons"].items()}
    ended = reasons.setdefault(Outcome.ENDED, {})
    ended["closed"] = ended.get("closed", 0) + closed
    total = account["total"] + closed
    return {**account, "total": total, "ended": account["ended"] + closed, "reasons": reasons}


def uncounted(work: Work) -> list[int]:
    """Old allocations (by number) whose sockets no live edge could count when the account was opened."""
    entries = work.facts.get("baseline", {}).values()
    return [entry["number"] for entry in entries if entry["depth"] != Depth.SDK and entry["sockets"] is None]


def closing(account: Account, work: Work) -> tuple[str, str]:
    """The final state of a move and its line: `settled` only when every session is accounted for."""
    bad = account.counts[Outcome.LOST] + account.counts[Outcome.UNKNOWN]
    missing = uncounted(work)
    note = describe(account.counts) if account.total or not missing else "it is not known who was attached"
    if missing:
        note += f"; the sockets of allocation {', '.join(map(str, missing))} were not counted: no edge was live"
    return ("settled_with_losses" if bad or missing else "settled"), note


def describe(counts: Mapping[Outcome, int]) -> str:
    """An account in one line: every outcome that occurs."""
    told = [f"{number} {outcome}" for outcome, number in counts.items() if number]
    return ", ".join(told) if told else "no session was attached"


def _row(fate: Fate) -> dict[str, Any]:
    seen = fate.evidence
    held = {"holder": seen.holder, "lease": seen.lease, "revision": seen.revision} if seen else {}
    age = {} if fate.age_ms is None else {"age_ms": fate.age_ms}
    return {"label": fate.label, "outcome": fate.outcome, "reason": fate.reason, **held, **age}


def empty_account() -> dict[str, Any]:
    """The account of a move that nobody was attached to."""
    return account_facts(open_account(()))


async def sessions_view(control: Control, app: str) -> SessionsView:
    """The app's live sessions now, and the accounts of its last moves."""
    environment = await production_of(control, app)
    found = await control.db.read(lambda tx: allocations.live(tx, environment.number) if environment else ())
    depth = await control.db.read(lambda tx: _depth(control, tx, app))
    rows: list[SessionRow] = []
    if environment and depth is Depth.SDK:
        async with store_of(environment) as admin:
            assert admin is not None
            for allocation in found:
                for view in await SessionEvidence(admin).held(allocation.id):
                    rows.append(
                        SessionRow(
                            label=view.label,
                            allocation=allocation.number,
                            deployment=allocation.deployment_number,
                            environment="production",
                            attached=view.attached,
                            outcome=view.outcome,
                            reason=view.reason,
                            lease=view.lease,
                            revision=view.revision,
                            updated_ms=view.updated_ms,
                        )
                    )
    return SessionsView(
        app=app,
        depth=str(depth),
        stored_records=await _stored_records(control, environment, depth),
        attached_sockets=sum(control.live.attached(a.number) or 0 for a in found),
        sessions=tuple(rows),
        accounts=await control.db.read(lambda tx: _accounts(tx, app)),
        at_ms=now_ms(),
    )


async def _stored_records(control: Control, environment: Environment | None, depth: Depth) -> int | None:
    if environment is None or depth is not Depth.STORE_AWARE:
        return None
    app, kind = environment.app, environment.kind
    if not await control.db.read(lambda tx: bindings.binding_in_force(control, tx, app, kind).can_be_fenced):
        return None
    async with store_of(environment) as admin:
        return len(await StoredRecords(admin).all()) if admin else None


def _depth(control: Control, tx: Tx, app: str) -> Depth:
    owner = control.owner(tx, app)
    return manifest_of(tx, owner.artifact).depth if owner else Depth.PLAIN


def _accounts(tx: Tx, app: str) -> tuple[dict[str, Any], ...]:
    moves = [o for o in operations.newest(tx, app, 50) if "account" in o.facts and o.facts.get("baseline") is not None]
    return tuple(
        {
            "operation": move.id,
            "kind": move.kind,
            "state": move.state,
            "at_ms": move.updated_ms,
            "account": {k: v for k, v in move.facts["account"].items() if k != "rows"}
            | {"counted": _kinds(move.facts)},
        }
        for move in moves[:ACCOUNTS_SHOWN_COUNT]
    )


def _kinds(facts: dict[str, Any]) -> dict[str, int]:
    """How the sessions of a baseline are known."""
    return Counter(_COUNTED[entry["depth"]] for entry in facts["baseline"].values())


_COUNTED = {Depth.SDK: "by name", Depth.STORE_AWARE: "by stored record", Depth.PLAIN: "by socket"}
