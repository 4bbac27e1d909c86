"""Tier 4: what a session keeps, in memory and in the store, after a crash, past its window, for whom."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from conformance.asking import Route
from conformance.checks.detection import SERVICES
from conformance.fixture import APP
from conformance.ground import Ground, comes
from conformance.guest import Guest
from conformance.report import Seen
from conformance.stage import SHORT_WINDOW_S, Stage
from moorage.system.clock import pause
from moorage.vango.wire import ServerHello, Status
from moorage.wire.api import AllocationView

USER_COOKIE: Final = "conformance_user"
SESSIONS: Final = "vango_session_store"
MARGIN_S: Final = 2.0
REPLACED_WITHIN_S: Final = 60.0

IN_MEMORY, AFTER_CRASH, KEY, GLOBAL, AUTH = (
    "RESUME.IN_MEMORY_WITHIN_PROCESS",
    "RESUME.PERSISTENT_AFTER_RESTART",
    "STATE.SESSION_KEY_PERSISTENCE",
    "STATE.GLOBAL_SIGNAL_PERSISTENCE",
    "RESUME.AUTH_REVALIDATION",
)


def same_session(hello: ServerHello, session: str) -> bool:
    """Whether the greeting is that of a resume."""
    return hello.ok and hello.session_id == session


async def type_in(guest: Guest, draft: str) -> bool:
    """Count one up and write a draft; whether the server shows both."""
    wanted = str(int(guest.reads("count") or "0") + 1)
    await guest.press("inc")
    await guest.write("draft", draft)
    return await guest.shows("count", wanted) and await guest.shows("draft-echo", draft)


async def ask_facts(guest: Guest) -> bool:
    """Let the session say what it knows; whether it does."""
    await guest.press("tell")
    return await guest.until(lambda: guest.reads("visits") != "")


async def survives_navigation(stage: Stage, route: Route, seen: Seen) -> None:
    async with Guest(route) as guest:
        await guest.enter()
        await type_in(guest, "on the way")
        await guest.navigate("/second")
        seen.expect(
            await guest.shows("page", "Second berth"), "a link leads to /second without a load", guest.reads("page")
        )
        kept = guest.reads("count"), guest.reads("draft-echo")
        seen.expect(kept == ("1", "on the way"), "counter and draft came along", kept)
        session = guest.session
        await guest.load("/second")
        seen.expect(same_session(await guest.open(session), session), "the same after a load of /second: same session")
        await guest.is_sent_whole()
        kept = guest.reads("count"), guest.reads("draft-echo")
        seen.expect(kept == ("1", "on the way"), "counter and draft are there", kept)


@dataclass(slots=True)
class _Cast:
    """Those who live through the crash: somebody with everything to lose, a user who comes back, and one who does not
    come back as himself."""

    keeper: Guest
    user: Guest
    stranger: Guest
    word: str


async def crash(stage: Stage, seen: Mapping[str, Seen]) -> None:
    """One kill -9 of the only allocation, and everybody who was there comes back."""
    route = stage.ground.production()
    async with AsyncExitStack() as stack:
        keeper = await stack.enter_async_context(Guest(route))
        user = await stack.enter_async_context(Guest(route, cookies={USER_COOKIE: "ann"}))
        stranger = await stack.enter_async_context(Guest(route, cookies={USER_COOKIE: "ben"}))
        cast = _Cast(keeper, user, stranger, stage.mark("word"))
        await _settle_in(stage, cast, seen)
        before = await stage.ground.serving()
        os.kill(before.pid or 0, signal.SIGKILL)
        after = await replaced(stage.ground, before)
        for each in (AFTER_CRASH, KEY, GLOBAL, AUTH):
            seen[each].expect(after is not None, "kill -9 of the only allocation: it was replaced by another one")
        if after is not None:
            await _come_back(cast, after, seen)
        async with Guest(route) as guest:
            await guest.enter()
            await ask_facts(guest)
            word = guest.reads("word-echo")
            seen[GLOBAL].expect(word == cast.word, "a new visitor reads the word that was set before", word)


async def replaced(ground: Ground, before: AllocationView) -> AllocationView | None:
    """The allocation that takes the place of one that ended; None when none comes in time."""

    async def there() -> bool:
        found = [a for a in await ground.allocations() if (a.state, a.posture) == ("ready", "open")]
        return len(found) == 1 and found[0].number != before.number

    return await ground.serving() if await comes(there, REPLACED_WITHIN_S) else None


async def _settle_in(stage: Stage, cast: _Cast, seen: Mapping[str, Seen]) -> None:
    """Everybody has a session with something in it; then all are cut off, so that the framework stores them."""
    keeper = cast.keeper
    await keeper.enter()
    await type_in(keeper, "before the crash")
    await keeper.press("scratch-inc")
    await keeper.press("stamp")
    await keeper.write("word", cast.word)
    ready = await keeper.shows("visits", "1") and await keeper.shows("word-echo", cast.word)
    seen[KEY].expect(ready, "the session key is set to 1", keeper.reads("visits"))
    session = keeper.session
    keeper.drop()
    back = same_session(await keeper.open(session), session) and await keeper.is_sent_whole()
    seen[IN_MEMORY].expect(back, "cut and back within one process: the same session")
    kept = keeper.reads("count"), keeper.reads("draft-echo"), keeper.reads("scratch")
    seen[IN_MEMORY].expect(
        kept == ("1", "before the crash", "1"), "counter, draft and the unkept number are there", kept
    )
    for guest in (cast.user, cast.stranger):
        await guest.enter()
        await type_in(guest, "a user's draft")
    for guest, id in ((keeper, AFTER_CRASH), (cast.user, AUTH), (cast.stranger, AUTH)):
        guest.drop()
        stored = await stage.is_stored(guest.session)
        seen[id].expect(stored, "cut off: the store has a record of the session")


async def _come_back(cast: _Cast, after: AllocationView, seen: Mapping[str, Seen]) -> None:
    keeper, session = cast.keeper, cast.keeper.session
    hello = await keeper.open(session)
    resumed = same_session(hello, session) and await keeper.is_sent_whole()
    seen[AFTER_CRASH].expect(resumed, "it resumes: ok, the id that was sent, the page whole", hello.status.name)
    kept = keeper.reads("count"), keeper.reads("draft-echo"), keeper.reads("scratch")
    seen[AFTER_CRASH].expect(
        kept == ("1", "before the crash", "0"), "counter and draft are back, the unkept number is 0", kept
    )
    there = keeper.reads("allocation")
    seen[AFTER_CRASH].expect(there == str(after.number), "it is served by the new allocation", there)
    await ask_facts(keeper)
    seen[KEY].expect(
        keeper.reads("visits") == "1", "after the crash the session key is 1 still", keeper.reads("visits")
    )
    session = cast.user.session
    hello = await cast.user.open(session)
    seen[AUTH].expect(same_session(hello, session), "the same user resumes the session", hello.status.name)
    cast.stranger.cookies[USER_COOKIE] = "eve"
    hello = await cast.stranger.open(cast.stranger.session)
    refused = hello.status is Status.NOT_AUTHORIZED and hello.forget
    seen[AUTH].expect(refused, "another user with the id: not_authorized, and told to forget it", hello.status.name)


async def expired(stage: Stage, route: Route, seen: Seen) -> None:
    short = await stage.short_preview()
    async with Guest(short) as guest:
        await guest.enter()
        await type_in(guest, "too late")
        session = guest.session
        guest.drop()
        await pause(SHORT_WINDOW_S + MARGIN_S)
        await guest.load("/")
        hello = await guest.open(session)
        seen.expect(hello.ok, f"back after more than the window of {SHORT_WINDOW_S} s: ok", hello.status.name)
        seen.expect(hello.session_id != session, "under a new id")
        await type_in(guest, "again")
        seen.expect(guest.reads("count") == "1", "its counter begins anew", guest.reads("count"))


async def session_store_bound(stage: Stage, route: Route, seen: Seen) -> None:
    async with stage.ground.api() as api:
        found = {view.service_class: view for view in await api.bindings(APP)}
    view = found[SESSIONS]
    told = (view.source, view.provider, view.state)
    seen.expect(told == ("managed", "redis", "active"), "vango_session_store: managed, redis, active", told)
    async with Guest(route) as guest:
        await guest.enter()
        guest.drop()
        seen.expect(await stage.is_stored(guest.session), "a session that lost its socket is stored")


async def degradation_declared(stage: Stage, route: Route, seen: Seen) -> None:
    contract = stage.companions(await stage.artifact(stage.base))[SERVICES]
    for service in contract["services"]:
        modes = ", ".join(service["degradation"])
        seen.expect(bool(modes), f"{service['class']} absent: {modes}", "silence")
    number = await stage.hookless_preview()
    report = await stage.ground.report(number)
    how = report.expected.how
    seen.expect(report.mode == "drain", "an app that does not resume drains in place", report.mode)
    why = "only with the edge's cure" in report.mode_reason or "fresh" in report.mode_reason
    seen.expect(why, f"and the report says why: {report.mode_reason}", report.mode_reason)
    seen.expect(bool(how), f"what becomes of its sessions: {how}")
