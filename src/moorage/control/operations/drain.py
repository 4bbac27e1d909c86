"""Drain in place: no new sessions; the old ones stay attached, are counted, and end, or are cut at the deadline.

Nothing here is ever called moved: a session that stays is attached, one whose socket is gone has ended. What is left at
the deadline of an app that was shown to resume is handed over, by an operation of its own.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from moorage.control.operations import sessions
from moorage.control.operations.engine import Work
from moorage.domain.allocation import Posture
from moorage.domain.artifact import Depth
from moorage.domain.errors import Unavailable
from moorage.domain.ids import Prefix
from moorage.domain.operation import Kind, is_final
from moorage.domain.session import Account, Outcome
from moorage.sessions.account import Phase
from moorage.sessions.evidence import SessionEvidence
from moorage.store import allocations, log, operations
from moorage.store.database import Tx
from moorage.system.clock import now_ms, pause
from moorage.system.rand import new_id
from moorage_app.contract import NoticeKind

SAMPLE_S = 0.25
FENCE_RETRY_S = 0.5
HANDOVER_RETRY_S = 10.0
HANDOVER_PATIENCE_S = 180.0


async def run(work: Work) -> None:
    """From `draining` to `settled`; counts at every change."""
    if "baseline" not in work.facts:
        await work.control.edges_reach(await work.read(log.committed_index))  # from here on nobody new is sent there
        found = await sessions.read_baseline(work, list(work.input["old"]))
        await work.stage("draining", "the old allocations take no new sessions", **found, started_ms=now_ms())
        await _tell(work)
    if work.operation.state == "draining":
        if "child" not in work.facts:
            await _watch(work)
        if work.facts.get("child") or _is_handed_over(work):
            await _hand_over(work)
            return
        await work.commit("cutting", lambda tx: _cut(work, tx))
    await work.control.edges_reach(work.facts["cut_index"])
    if work.operation.state == "cutting":
        await _fence(work)
    final = await _final(work)
    state, note = sessions.closing(final, work)
    await work.stage(state, note, account=sessions.account_facts(final, work))


async def _tell(work: Work) -> None:
    """Apps with the SDK are told, so that their pages can say it."""
    deadline = now_ms() + int(float(work.input["deadline_s"]) * 1000)
    try:
        async with sessions.store_of(await sessions.environment_of(work)) as admin:
            for id, entry in work.facts["baseline"].items():
                if admin and entry["depth"] == Depth.SDK:
                    await SessionEvidence(admin).notify(id, NoticeKind.DRAIN, deadline)
    except Unavailable:
        return  # a courtesy: the drain goes on without it


async def _watch(work: Work) -> None:
    """Sample until nobody is attached or the deadline has come; each change of the counts is a recorded stage."""
    deadline_ms = work.facts["started_ms"] + int(float(work.input["deadline_s"]) * 1000)
    told = ""
    while now_ms() < deadline_ms:
        left = [work.control.live.attached(entry["number"]) for entry in work.facts["baseline"].values()]
        if await work.read(lambda tx: not _running(work, tx)):
            died = await work.read(lambda tx: _died_with(work, tx))
            await work.stage("draining", "the process has ended", died_with=died)
            return
        if all(count == 0 for count in left):
            return
        try:
            account = await sessions.account_now(work, Phase.SERVING)
        except Unavailable:
            await pause(SAMPLE_S)
            continue
        if sessions.describe(account.counts) != told:
            told = sessions.describe(account.counts)
            await work.stage("draining", told, account=sessions.account_facts(account))
        await pause(SAMPLE_S)
    await work.stage("draining", "the deadline has come", deadline_reached=True)


def _is_handed_over(work: Work) -> bool:
    """Whether those who are left at the deadline can go on elsewhere: an app whose framework stores its sessions, and
    whose preview has resumed one."""
    stored = [entry for entry in work.facts["baseline"].values() if entry["depth"] == Depth.STORE_AWARE]
    left = any(work.control.live.attached(entry["number"]) for entry in stored)
    return bool(work.input.get("resumes") and work.facts.get("deadline_reached") and left)


async def _hand_over(work: Work) -> None:
    """Hand over what is left, and account for both: who ended before the deadline, and who moved at it."""
    while True:
        if work.facts.get("child") is None:
            await work.commit("draining", lambda tx: _start_child(work, tx), "handing over those who are left")
        await work.wait(lambda tx: _is_over(tx, work.facts["child"]), timeout_s=HANDOVER_PATIENCE_S)
        child = await work.read(lambda tx: operations.require(tx, work.facts["child"]))
        if child.state != "failed":
            break
        await work.stage("draining", f"the hand-over was called off: {child.problem}", child=None)
        await pause(HANDOVER_RETRY_S)
    moved: dict[str, Any] = child.facts["account"]
    sockets = sum(entry["sockets"] or 0 for entry in work.facts["baseline"].values())
    for state in ("cutting", "fenced"):
        await work.stage(state, f"by {child.id}", cut_sockets=0)
    account = sessions.with_closed(moved, max(sockets - int(moved["total"]), 0))
    await work.stage(child.state, f"{account['ended']} ended, the rest was handed over", account=account)


def _start_child(work: Work, tx: Tx) -> dict[str, Any]:
    child = operations.create(
        tx,
        id=new_id(Prefix.OPERATION),
        kind=Kind.HANDOVER,
        app=work.operation.app,
        parent=work.operation.id,
        input=dict(work.input),
    )
    return {"child": child.id}


def _is_over(tx: Tx, id: str) -> bool:
    child = operations.require(tx, id)
    return is_final(child.kind, child.state)


def _died_with(work: Work, tx: Tx) -> int:
    """Sockets that plain allocations had when their process ended."""
    ended = [
        (entry["number"], allocations.get(tx, id))
        for id, entry in work.facts["baseline"].items()
        if entry["depth"] != Depth.SDK
    ]
    counts = [work.control.live.count_before(n, a.ended_ms) for n, a in ended if a and a.ended_ms]
    return sum(count or 0 for count in counts)


def _plain(work: Work) -> list[dict[str, Any]]:
    """The old allocations whose sessions are counted by sockets while they drain."""
    return [entry for entry in work.facts["baseline"].values() if entry["depth"] != Depth.SDK]


def _running(work: Work, tx: Tx) -> list[str]:
    found = [allocations.get(tx, id) for id in work.input["old"]]
    return [a.id for a in found if a and not a.is_over]


def _cut(work: Work, tx: Tx) -> dict[str, Any]:
    for id in work.input["old"]:
        allocations.set_posture(tx, id, Posture.CUT, reason="drained")
    left = [work.control.live.attached(entry["number"]) or 0 for entry in work.facts["baseline"].values()]
    return {"cut_index": log.committed_index(tx), "cut_sockets": sum(left)}


async def _fence(work: Work) -> None:
    while True:
        try:
            proof = await sessions.fence(work, list(work.input["old"]))
            break
        except Unavailable:
            await pause(FENCE_RETRY_S)

    def stop(tx: Tx) -> dict[str, Any]:
        sessions.stop_fenced(tx, list(work.input["old"]))
        return proof

    await work.commit("fenced", stop, "drained allocations are stopping")


async def _final(work: Work) -> Account:
    """After the end: named sessions by the store, counted ones by whether they closed or were cut."""
    named = await sessions.account_now(work, Phase.SETTLED)
    total = sum(entry["sockets"] or 0 for entry in _plain(work))
    died = min(work.facts.get("died_with", 0), total)
    cut = min(work.facts["cut_sockets"], total - died)
    own_store = any(entry.get("own_store") for entry in _plain(work))
    counts: Counter[tuple[Outcome, str]] = Counter()
    counts[sessions.end_of_plain(Kind.REPLACEMENT, own_store=own_store)] += died
    counts[sessions.end_of_plain(Kind.DRAIN, own_store=own_store)] += cut
    counts[Outcome.ENDED, "closed"] += total - died - cut
    return Account(named.fates, {key: number for key, number in counts.items() if number})
