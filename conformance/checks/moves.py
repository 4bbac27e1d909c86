"""Tier 5: two allocations at the same time, a drain in place, a hand-over; who goes where, and what they keep."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from conformance.asking import Route
from conformance.checks.detection import SERVICES
from conformance.checks.state import ask_facts, replaced, same_session, type_in
from conformance.fixture import APP
from conformance.ground import comes
from conformance.guest import Guest
from conformance.report import Seen, Status
from conformance.stage import Stage
from moorage.wire.api import AllocationView, OperationView

MULTI, STICKY, FANOUT, BROADCAST, NEW, ACTIVE, RETIRED = (
    "SCALE.MULTI_ALLOCATION_LIVE_SESSIONS",
    "SCALE.STICKY_LIVE_ROUTING",
    "SCALE.GLOBAL_SIGNAL_FANOUT",
    "SERVICE.BROADCAST_BOUND",
    "DRAIN.NEW_SESSIONS_ROUTE_TO_REPLACEMENT",
    "DRAIN.ACTIVE_WS_NOT_DROPPED_IMMEDIATELY",
    "DRAIN.OLD_ALLOCATION_RETIREMENT",
)
ACROSS, REPLACEMENT, DETACHED = (
    "SCALE.CROSS_INSTANCE_RESUME",
    "SCALE.VERTICAL_REPLACEMENT",
    "DRAIN.DETACHED_SESSIONS_RESUME_POLICY",
)
STORAGE: Final = "storage/vango_object_storage_upload_profile.json"
FANOUT_WITHIN_S: Final = 2.0  # without a broadcast backend it would take up to 30
RETIRED_WITHIN_S: Final = 60.0


class Drain:
    """A replacement that drains in place: the old allocation and the new one, side by side, until the last guest of
    the old one leaves."""

    def __init__(self, stage: Stage, stack: AsyncExitStack) -> None:
        self.stage, self.stack = stage, stack
        self.old: AllocationView
        self.new: AllocationView
        self.stayer: Guest
        self.operation = ""

    async def begin(self) -> bool:
        """Somebody is attached, and the allocation is replaced; whether both run now."""
        route = self.stage.ground.production()
        self.stayer = await self.stack.enter_async_context(Guest(route))
        await self.stayer.enter()
        await type_in(self.stayer, "staying")
        self.old = await self.stage.ground.serving()
        started = await self.stage.ground.do("restart", APP, "--drain", "--no-wait")
        self.operation = str(started["operation"])
        found = await replaced(self.stage.ground, self.old)
        if found is None:
            return False
        self.new = found
        return True


async def side_by_side(drain: Drain, seen: Mapping[str, Seen]) -> None:
    """What holds while both allocations serve."""
    route, stayer = drain.stage.ground.production(), drain.stayer
    old, new = str(drain.old.number), str(drain.new.number)
    works = stayer.is_here and await type_in(stayer, "still here")
    seen[ACTIVE].expect(works, "the attached session goes on at its socket", stayer.closed)
    seen[ACTIVE].expect(stayer.reads("allocation") == old, "at the old allocation", stayer.reads("allocation"))
    async with Guest(route) as newcomer:
        await newcomer.enter()
        there = newcomer.reads("allocation")
        seen[NEW].expect(there == new, "a new session is served by the replacement", there)
        await _only_new(drain, seen[NEW])
        both = stayer.is_here and newcomer.is_here
        seen[MULTI].expect(both, "a live session at each of two allocations, at the same time")
        seen[MULTI].expect(await type_in(newcomer, "new here"), "both are served")
        await _fan_out(drain, newcomer, seen)
    await _come_back_to_own(drain, seen[STICKY])


async def _only_new(drain: Drain, seen: Seen) -> None:
    route = drain.stage.ground.production()
    numbers = {(await drain.stage.seen(route))["allocation"] for _ in range(10)}
    seen.expect(numbers == {str(drain.new.number)}, "ten requests without a pin: all at the replacement", numbers)


async def _fan_out(drain: Drain, newcomer: Guest, seen: Mapping[str, Seen]) -> None:
    stayer, stage = drain.stayer, drain.stage
    told = await ask_facts(stayer) and await ask_facts(newcomer)
    seen[FANOUT].expect(told, "both read the shared word")
    for name, writer, reader in (("old to new", stayer, newcomer), ("new to old", newcomer, stayer)):
        word = stage.mark("fan")
        await writer.write("word", word)
        there = await reader.shows("word-echo", word, FANOUT_WITHIN_S)
        fact = f"{name}: a change shows within {FANOUT_WITHIN_S:g} s"
        seen[FANOUT].expect(there, fact, reader.reads("word-echo"))
        seen[BROADCAST].expect(there, fact, reader.reads("word-echo"))
    async with stage.ground.api() as api:
        found = next(view for view in await api.bindings(APP) if view.service_class == "broadcast_backend")
    row = (found.source, found.provider, found.state)
    seen[BROADCAST].expect(row == ("managed", "redis", "active"), "broadcast_backend: managed, redis, active", row)


async def _come_back_to_own(drain: Drain, seen: Seen) -> None:
    """A pinned session that lost its socket comes back to the process that has it in memory."""
    stayer = drain.stayer
    session, draft = stayer.session, stayer.reads("draft-echo")
    for _ in range(5):
        stayer.drop()
        hello = await stayer.open(session)
        whole = same_session(hello, session) and await stayer.is_sent_whole()
        if not seen.expect(whole, "five reconnects with its pin: the same session each time", hello.status.name):
            return
        there = stayer.reads("allocation")
        seen.expect(there == str(drain.old.number), "each time at its own allocation", there)
    seen.expect(stayer.reads("draft-echo") == draft, "with everything that it had", stayer.reads("draft-echo"))


async def retire(drain: Drain, seen: Seen) -> None:
    """The last guest of the old allocation leaves."""
    ground = drain.stage.ground
    running = [a.number for a in await ground.allocations()]
    seen.expect(drain.old.number in running, "the old allocation runs while somebody is attached", running)
    await drain.stayer.close()

    async def gone() -> bool:
        return drain.old.number not in [a.number for a in await ground.allocations()]

    seen.expect(await comes(gone, RETIRED_WITHIN_S), "it is stopped when the last session has ended")
    operation = await ground.operation("drain")
    seen.expect(operation.state == "settled", "the drain is settled", operation.state)
    counts = _counts(operation)
    seen.expect(counts.get("lost", 0) == counts.get("unknown", 0) == 0, f"its account: {_told(counts)}", counts)


def _counts(operation: OperationView) -> dict[str, int]:
    account: dict[str, Any] = operation.facts.get("account") or {}
    names = ("attached", "ended", "resumed", "fresh", "lost", "unknown")
    return {name: int(account.get(name, 0)) for name in names}


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number) or "nobody was attached"


async def hand_over(stage: Stage, seen: Mapping[str, Seen]) -> None:
    """A replacement that hands its sessions over: somebody attached, somebody who is away at that moment."""
    route = stage.ground.production()
    before = await stage.ground.serving()
    async with Guest(route) as here, Guest(route) as away:
        for guest, draft in ((here, "attached"), (away, "away")):
            await guest.enter()
            await type_in(guest, draft)
        away.drop()
        await stage.is_stored(away.session)
        await stage.ground.do("restart", APP, "--handover", "--no-wait")
        seen[ACROSS].expect(await here.is_lost(60.0), "the attached session is cut")
        seen[ACROSS].expect(here.closed == 0, "without a close frame, so that a browser comes back", here.closed)
        await _at_the_new(here, before, "attached", seen[ACROSS])
        await _at_the_new(away, before, "away", seen[DETACHED])
        after = await stage.ground.serving()
        same = (before.deployment, before.artifact) == (after.deployment, after.artifact)
        seen[REPLACEMENT].expect(same, "the new allocation is of the same deployment and artifact")
        operation = await stage.ground.operation("handover")
    counts = _counts(operation)
    seen[REPLACEMENT].expect(operation.state == "settled", "the hand-over is settled", operation.problem)
    seen[REPLACEMENT].expect(counts["resumed"] >= 1, f"its account: {_told(counts)}", counts)
    whole = await stage.ground.operation("replacement")
    seen[REPLACEMENT].expect(whole.succeeded, f"the replacement ended as {whole.state}", whole.problem)


async def _at_the_new(guest: Guest, before: AllocationView, draft: str, seen: Seen) -> None:
    """A guest comes back and is served by another allocation, with what it had."""
    session = guest.session
    hello = await guest.open(session)
    whole = same_session(hello, session) and await guest.is_sent_whole()
    seen.expect(whole, "back with its id: ok, the same session, the page whole", hello.status.name)
    there = guest.reads("allocation")
    seen.expect(there not in ("", str(before.number)), "at another allocation than before", there)
    kept = guest.reads("count"), guest.reads("draft-echo")
    seen.expect(kept == ("1", draft), "counter and draft are there", kept)


async def object_storage(stage: Stage, route: Route, seen: Seen) -> None:
    found = stage.companions(await stage.artifact(stage.base))
    profile = found.get(STORAGE, {})
    classes = [service["class"] for service in found[SERVICES]["services"]]
    seen.note(f"{profile.get('schema_version', 'no upload profile')}; services: {', '.join(sorted(classes))}")
    _aside(seen, "object_storage" in classes, "object storage")


async def idempotency_store(stage: Stage, route: Route, seen: Seen) -> None:
    classes = [s["class"] for s in stage.companions(await stage.artifact(stage.base))[SERVICES]["services"]]
    seen.note(f"services: {', '.join(sorted(classes))}")
    _aside(seen, "idempotency_store" in classes, "an idempotency store")


def _aside(seen: Seen, wanted: bool, what: str) -> None:
    if wanted:
        seen.expect(False, f"{what} is bound", "the platform binds none yet")
    else:
        seen.set_aside(Status.NOT_APPLICABLE, f"the app's manifest asks for no {what.removeprefix('an ')}")
