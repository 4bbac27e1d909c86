"""Hand-over of live sessions from old allocations to new ones that are ready (`1-system` section 6).

hold reconnects > refuse upgrades > let the app store > cut > seen stored > fence > stop > release > account. Every
stage is durable with its counts and times, so a control plane that is killed in the middle goes on where it was.
Before the cut it can be called off and nothing is lost; after the cut there is only forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from moorage.control.operations import sessions
from moorage.control.operations.engine import Finished, Work
from moorage.control.operations.trail import Trail
from moorage.domain.allocation import Posture
from moorage.domain.artifact import Depth
from moorage.domain.errors import MoorageError, Problem, Unavailable
from moorage.domain.limits import ADMISSION_PER_S, STORED_SETTLE_WAIT_S, STORED_WAIT_MAX_S, STORED_WAIT_S
from moorage.domain.operation import Kind
from moorage.domain.session import Before
from moorage.sessions.account import Phase
from moorage.sessions.evidence import SessionEvidence
from moorage.store import allocations, log, operations, routes
from moorage.store.database import Tx
from moorage.store.operations import Operation
from moorage.system.clock import monotonic_s, now_ms, pause
from moorage_app.contract import NoticeKind

POLL_S = 0.02
SETTLE_POLL_S = 0.2
RESTS_PER_LOOK_COUNT = 9  # looking costs processor time that those who come back need: a tenth of a core at most
TOLD_PERIOD_S = 5.0  # an account that changes is written down again, but no oftener
NEARLY_SETTLED_S = 3.0  # a promotion waits this long for the last sessions, then goes on and says so
FENCE_RETRY_S = 0.25
NOTICE_RETRY_S = 0.25
TURN_WAIT_S = 30.0
LET_GO_WAIT_S = 2.0  # a runner that does not answer, or cannot: the cut alone must do then
LET_GO_STORED_S = 0.5  # the framework stores within a millisecond of the end of its input
ALL_STORED = "every session was seen stored"
_HOLDING = frozenset({"refusing_new", "cutting", "storing", "fenced"})


class EdgesBehind(Unavailable):
    """Edges that have not acknowledged what the hand-over needs of them."""

    def __init__(self, edges: Sequence[str]) -> None:
        names = ", ".join(edges)
        super().__init__(Problem("edges-behind", f"Not acknowledged by {names}", "", "See `moorage status`.", 503))


async def run(work: Work) -> None:
    """From `planned` to `settled` (or with losses), or `failed` before the cut with nothing changed."""
    async with Trail(work) as trail:
        await _hand_over(work, trail)


async def _hand_over(work: Work, trail: Trail) -> None:
    left: list[str] | None = None  # open under the old allocations; None: not looked at
    if "called_off" in work.facts:
        await _end_call_off(work)
    if work.operation.state in ("planned", "refusing_new", "cutting") and "cut_ms" not in work.facts:
        try:
            await _refuse_new(work)
            await trail.begin(await sessions.environment_of(work))
            left = await _let_store(work)
        except Unavailable as down:
            await _call_off(work, down)
    await _cut(work, trail)
    await _see_stored(work, left, trail)
    await _fence(work, trail)
    await _admit(work)
    await _settle(work, trail)


def _old(work: Work) -> list[str]:
    return list(work.input["old"])


async def _refuse_new(work: Work) -> None:
    """Hold reconnects, refuse upgrades to the old, then read who is attached: nobody new can come meanwhile."""
    await sessions.require_store(work)
    if work.operation.state == "planned":
        await _wait_for_turn(work)
        await work.commit("refusing_new", lambda tx: _hold(work, tx, True, Posture.NO_UPGRADES), "reconnects are held")
    behind = await work.control.edges_reach(work.facts["log_index"])
    if behind:
        raise EdgesBehind(behind)  # whoever is sent on by such an edge would arrive at an allocation that is gone
    if "baseline" not in work.facts:
        found = await sessions.read_baseline(work, _old(work))
        sockets = sum(entry["sockets"] or 0 for entry in found["baseline"].values())
        note = f"{_named(found)} sessions known by name, {sockets} sockets attached"
        await work.stage("refusing_new", note, **found)


def _named(facts: dict[str, Any]) -> int:
    return sum(len(entry["named"]) for entry in facts["baseline"].values())


async def _wait_for_turn(work: Work) -> None:
    """One hand-over of a route at a time may hold its reconnects: an earlier one releases them first."""

    def free(tx: Tx) -> bool:
        return not any(
            other.kind is Kind.HANDOVER
            and other.id != work.operation.id
            and other.input["route_key"] == work.input["route_key"]
            and other.state in _HOLDING
            for other in operations.unfinished(tx)
        )

    await work.wait(free, timeout_s=TURN_WAIT_S)


def _hold(work: Work, tx: Tx, held: bool, posture: Posture | None) -> dict[str, Any]:
    owner = routes.owner(tx, work.input["route_key"])
    if owner:
        routes.hold(tx, owner, held, expected_epoch=owner.epoch)
    for id in _old(work) if posture else ():
        allocations.set_posture(tx, id, posture or Posture.OPEN, reason="hand-over")
    return {"log_index": log.committed_index(tx)}


async def _let_store(work: Work) -> list[str]:
    """Ask apps with the SDK to store and let go; wait until each session is seen stored, or the deadline.

    Labels of sessions that are still open then. One that was let go is not looked at again: its allocation takes
    nobody in any more, and each look costs processor time that the old process needs for storing.
    """
    if work.operation.state == "refusing_new":
        await sessions.require_store(work)  # the last look before anything is cut: down means stop here
        await work.stage("cutting", "asking the app to store and let go", asked_ms=now_ms())
    deadline = monotonic_s() + STORED_WAIT_S
    async with sessions.store_of(await sessions.environment_of(work)) as admin:
        if admin is None:
            return []
        evidence = SessionEvidence(admin)
        for id in _with_sdk(work):
            await evidence.notify(id, NoticeKind.HANDOVER, now_ms() + int(STORED_WAIT_S * 1000))
        left = {id: sessions.named_sessions(work.facts["baseline"][id]) for id in _with_sdk(work)}
        while any(left.values()) and monotonic_s() < deadline:
            await pause(POLL_S)
            left = {id: await still_open(evidence, id, known) for id, known in left.items()}
        return [before.label for known in left.values() for before in known]


def _with_sdk(work: Work) -> list[str]:
    return [id for id, entry in work.facts["baseline"].items() if entry["depth"] == Depth.SDK]


async def still_open(evidence: SessionEvidence, old: str, known: Sequence[Before]) -> tuple[Before, ...]:
    """Those of the sessions that their old allocation has not let go."""
    waiting = frozenset((await evidence.stored_since(old, known)).waiting) if known else frozenset()
    return tuple(before for before in known if before.label in waiting)


async def _waiting(work: Work, evidence: SessionEvidence) -> list[str]:
    """Sessions that are still open under their old allocation, by label."""
    left: list[str] = []
    for id in _with_sdk(work):
        known = sessions.named_sessions(work.facts["baseline"][id])
        left += [before.label for before in await still_open(evidence, id, known)]
    return left


async def _call_off(work: Work, down: MoorageError) -> None:
    """Stop before the cut: the old allocations serve on, sessions and sockets untouched."""

    def open_again(tx: Tx) -> dict[str, Any]:
        called_off = {"detail": str(down), "cause": down.problem.code}
        held = {} if work.operation.state == "planned" else _hold(work, tx, False, Posture.NO_PICKS)
        return {**held, "called_off": called_off}

    await work.commit(work.operation.state, open_again, "called off before the cut")
    await _end_call_off(work)


async def _end_call_off(work: Work) -> None:
    """End only when no app still has the notice: it is a latch, and an app that has it takes nobody in any more."""
    while "asked_ms" in work.facts and not await _take_notice_back(work):
        await pause(NOTICE_RETRY_S)
    problem = why_called_off(work.operation)
    await work.stage("failed", str(problem), problem=problem)
    raise Finished


async def _take_notice_back(work: Work) -> bool:
    """Whether every app that was asked to let go and still runs has been told otherwise."""
    running = await work.read(lambda tx: [id for id in _with_sdk(work) if _runs(tx, id)])
    try:
        async with sessions.store_of(await sessions.environment_of(work)) as admin:
            if admin is not None:
                for id in running:
                    await SessionEvidence(admin).notify(id, NoticeKind.OPEN)
    except Unavailable:
        return False
    return True


def _runs(tx: Tx, id: str) -> bool:
    found = allocations.get(tx, id)
    return found is not None and not found.is_over


def is_called_off(handover: Operation) -> bool:
    """Whether a hand-over was given up before its cut; its parent need not wait until the apps have been told."""
    return handover.state == "failed" or "called_off" in handover.facts


def why_called_off(handover: Operation) -> Problem:
    """Why a hand-over was given up before its cut."""
    if "called_off" not in handover.facts:
        known = handover.problem or {}
        return Problem(str(known.get("code")), str(known.get("title")), str(known.get("detail")))
    return Problem(
        "handover-called-off",
        "The hand-over stopped before the cut",
        handover.facts["called_off"]["detail"],
        "No session was touched. Look at `moorage status`, then try again.",
        status=503,
        facts={"cause": handover.facts["called_off"]["cause"]},
    )


async def _cut(work: Work, trail: Trail) -> None:
    """Cut what is still attached, on both sides, without a close frame: clients of any framework reconnect.

    A framework that stores when it loses a socket is first given the end of its input: a socket that is reset while it
    writes may make it drop the session instead.
    """
    if trail.followed and "cut_ms" not in work.facts:

        def let_go(tx: Tx) -> dict[str, Any]:
            for id in trail.followed:
                allocations.set_posture(tx, id, Posture.LETTING_GO, reason="hand-over")
            return {"cut_ms": now_ms()}

        await work.commit("cutting", let_go, "the input of the old connections ends")
    if trail.followed and "cut_index" not in work.facts:
        await _await_letting_go(work, trail)
    if "cut_index" not in work.facts:

        def cut(tx: Tx) -> dict[str, Any]:
            for id in _old(work):
                allocations.set_posture(tx, id, Posture.CUT, reason="hand-over")
            return {
                "cut_index": log.committed_index(tx),
                "cut_ms": work.facts.get("cut_ms") or now_ms(),
                "closed_ms": now_ms(),
            }

        await work.commit("cutting", cut, "cut")
    await work.control.edges_reach(work.facts["cut_index"])


async def _await_letting_go(work: Work, trail: Trail) -> None:
    """Wait until everybody was seen stored, or the runner has done its part and the rest had its time."""
    attached, deadline = trail.sockets_count(), monotonic_s() + LET_GO_WAIT_S
    while monotonic_s() < deadline:
        try:
            await trail.begin(await sessions.environment_of(work))
            await trail.find_stored()
        except Unavailable:
            return
        if trail.stored_count() >= attached:
            return
        if all(work.control.live.has_let_go(id) for id in trail.followed):
            deadline = min(deadline, monotonic_s() + LET_GO_STORED_S)
        await pause(POLL_S)


async def _see_stored(work: Work, left: list[str] | None, trail: Trail) -> None:
    """Name what was not seen stored; what the store has acknowledged is safe in any case.

    Where everything was seen before the cut, reconnects are not held up by a second look. A framework that stores by
    itself does so when it has lost the socket: that is waited for, and the difference is a count.
    """
    if work.operation.state != "cutting":
        return
    note = await _await_stored(work, trail) if trail.followed else ""
    if len(trail.followed) < len(work.facts["baseline"]):
        seen = left == [] and bool(_named(work.facts))
        waiting, more = ([], ALL_STORED) if seen else await _try_waiting(work)
        note = f"{note}; {more}" if note else more
    else:
        waiting = []
    await work.stage("storing", note, not_seen_stored=waiting, stored_ms=now_ms(), **trail.facts())


async def _await_stored(work: Work, trail: Trail) -> str:
    """Wait until every session that was attached is seen stored, or the deadline; says how many were."""
    attached, stored = trail.sockets_count(), -1
    deadline, last = monotonic_s(), monotonic_s() + STORED_WAIT_MAX_S
    while True:
        try:
            await trail.begin(await sessions.environment_of(work))
            await trail.find_stored()
        except Unavailable:
            if monotonic_s() >= last:
                return "the store stopped answering after the cut: what was stored is seen when it is back"
            deadline = last
        if trail.stored_count() > stored:  # as long as the app gets on with it, it is given the time
            stored, deadline = trail.stored_count(), min(monotonic_s() + STORED_WAIT_S, last)
        if stored >= attached or monotonic_s() >= deadline:
            break
        await pause(POLL_S)
    missing = f"; {attached - stored} were not seen stored" if stored < attached else ""
    return f"{stored} of {attached} attached sessions were stored after the cut{missing}"


async def _try_waiting(work: Work) -> tuple[list[str] | None, str]:
    try:
        async with sessions.store_of(await sessions.environment_of(work)) as admin:
            waiting = await _waiting(work, SessionEvidence(admin)) if admin else []
    except Unavailable:
        return None, "the store stopped answering after the cut; waiting for it"
    if not _named(work.facts) and len(_with_sdk(work)) == len(work.facts["baseline"]):
        return waiting, "no session was attached"
    if not _named(work.facts):
        return waiting, "no session is known by name: what the app keeps for its sockets cannot be seen"
    if waiting:
        return waiting, f"{len(waiting)} sessions were not let go by the old allocation; its store user is fenced"
    return waiting, ALL_STORED


async def _fence(work: Work, trail: Trail) -> None:
    """Nobody is admitted before the fence is proven; a store that is down is waited for."""
    if work.operation.state != "storing":
        return
    while True:
        try:
            proof = await sessions.fence(work, _old(work))
            break
        except Unavailable:
            await pause(FENCE_RETRY_S)

    def fenced(tx: Tx) -> dict[str, Any]:
        sessions.stop_fenced(tx, _old(work))
        return proof | trail.facts()

    await _look_again(trail)  # what was stored up to the fence counts
    trail.fenced()
    await work.commit("fenced", fenced, "the old allocations can write nothing any more; stopping them")


async def _look_again(trail: Trail) -> None:
    """The last look at what the old allocations stored: after the fence nothing is added."""
    if trail.followed:
        with suppress(Unavailable):
            await trail.find_stored()


async def _admit(work: Work) -> None:
    if work.operation.state == "fenced":
        await work.commit("admitting", lambda tx: _hold(work, tx, False, None) | {"admitted_ms": now_ms()}, "admitting")
    await work.control.edges_reach(work.facts["log_index"])


async def _settle(work: Work, trail: Trail) -> None:
    """Account per session until all are accounted for, or the time to come back is over."""
    settle_s = max(float(work.input["settle_s"]), STORED_SETTLE_WAIT_S if trail.followed else 0.0)
    passed_s = (now_ms() - work.facts["admitted_ms"]) / 1000  # a control plane that was killed does not begin anew
    start, deadline = monotonic_s(), monotonic_s() + max(settle_s - passed_s, 0.0)
    told_s, told = monotonic_s(), ""
    await pause(_named(work.facts) / ADMISSION_PER_S)  # nobody can be back sooner
    while True:
        looked_s = monotonic_s()
        await sessions.follow(work, trail)
        account = await sessions.account_now(work, Phase.CUT, trail)
        look_s = monotonic_s() - looked_s
        if account.is_settled or monotonic_s() >= deadline:
            break
        is_news = sessions.describe(account.counts) != told and monotonic_s() - told_s > TOLD_PERIOD_S
        if is_news or (monotonic_s() - start > NEARLY_SETTLED_S and not work.facts.get("nearly_settled")):
            told_s, told = monotonic_s(), sessions.describe(account.counts)
            await work.stage(
                "admitting",
                sessions.not_yet(account, trail),
                nearly_settled=True,
                account=sessions.account_facts(account),
                settles_ms=trail.settles_ms(),
                **trail.facts(),
            )
        await pause(max(SETTLE_POLL_S, RESTS_PER_LOOK_COUNT * look_s))
    final = await sessions.account_now(work, Phase.SETTLED, trail)
    state, note = sessions.closing(final, work)
    await work.stage(state, note, account=sessions.account_facts(final, work), **trail.facts())
