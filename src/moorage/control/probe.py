"""The probe of a Vango preview: bindings and resume, tried for real before anybody relies on them.

Visit the preview through the edge as a browser would, see its store user connected and the broadcast channel there,
cut the socket, see the record, fence the allocation, start a second one and come back with the same session. The
framework only logs a store that it cannot reach, so nothing but seeing counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from moorage.control.bindings import binding_in_force
from moorage.control.operations import sessions
from moorage.control.operations.allocate import READY_MARGIN_S, plan_allocation, wait_ready
from moorage.control.operations.engine import Ended, Work
from moorage.control.operations.report import manifest_of
from moorage.control.visitor import VisitFailed, Visitor
from moorage.domain.artifact import Manifest
from moorage.domain.errors import Problem, Unavailable
from moorage.domain.resume import PROBE, Resume, is_cured
from moorage.domain.secrets import SESSION_STORE_URL
from moorage.sessions.admin import PROBE_KEY, StoreAdmin
from moorage.sessions.own_store import OwnStore, OwnStoreUnusable
from moorage.sessions.stored_account import Stored
from moorage.sessions.stored_records import StoredRecords
from moorage.store import apps, log
from moorage.store.apps import Deployment
from moorage.store.database import Tx
from moorage.system.clock import monotonic_s, now_ms, pause
from moorage.vango.bindings import BROADCAST, SESSIONS
from moorage.vango.records import CHANNEL_PREFIX, key_of, label_of
from moorage.vango.wire import ServerHello

SEEN_WITHIN_S = 3.0  # the framework stores within a millisecond; a busy machine may take its time
LOOK_PERIOD_S = 0.02
WINDOW_LEAST_MS = 5_000  # the first retries of a browser come after 1 and 3 s
WINDOW_SAFE_MS = 60_000  # two ticks of the framework
CURE_QUERY = "moorage=1"  # what the edge adds to live paths
PAGE_PATH = "/"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Preview:
    """The preview under trial."""

    deployment: Deployment
    manifest: Manifest
    environment: apps.Environment
    first: str  # the allocation that the trial begins with
    route_key: str


async def probe(work: Work, deployment: Deployment) -> None:
    """Try bindings and resume and keep what was seen with the deployment.

    Raises Ended (`blocked`) when the app does not answer its live path, or did not take its bindings.
    """
    if work.facts.get("probed"):
        return
    preview = await work.read(lambda tx: _preview(work, tx, deployment))
    async with AsyncExitStack() as stack:
        visitor = await stack.enter_async_context(Visitor(_edge(work), _host(work, preview.route_key)))
        admin = await stack.enter_async_context(sessions.store_of(preview.environment))
        own = await _own_store(work, preview.deployment.app, preview.environment.kind)
        if own:
            stack.push_async_callback(own.close)
        found = await _try(work, preview, visitor, own or admin)
    await work.commit(
        "validating",
        lambda tx: _keep(tx, preview.deployment, found),
        f"probe: {found['resume'].replace('_', ' ')}" + (f" ({found['why']})" if found["why"] else ""),
    )


def _preview(work: Work, tx: Tx, deployment: Deployment) -> Preview:
    environment = apps.environment(tx, work.facts["environment"])
    first = [work.facts["allocation"], *work.facts.get("more", ())][-1]
    manifest = manifest_of(tx, deployment.artifact or "")
    return Preview(deployment, manifest, environment, first, work.facts["preview_key"])


def _edge(work: Work) -> tuple[str, int]:
    settings = work.control.settings
    host = "127.0.0.1" if settings.bind in ("0.0.0.0", "") else "::1" if settings.bind == "::" else settings.bind
    return host, settings.http_port


def _host(work: Work, route_key: str) -> str:
    return work.control.url(route_key).removeprefix("http://")


def _keep(tx: Tx, deployment: Deployment, found: dict[str, Any]) -> dict[str, Any]:
    apps.set_deployment_facts(tx, deployment.id, {**deployment.facts, PROBE: found})
    return {"probed": True, PROBE: found}


async def _own_store(work: Work, app: str, kind: str) -> OwnStore | None:
    """The store of the user's own that is in force for environments of a kind; None: the platform's."""
    binding = await work.read(lambda tx: binding_in_force(work.control, tx, app, kind))
    return None if binding.can_be_fenced else OwnStore(SESSION_STORE_URL, binding.sessions_url)


async def require_own_store(work: Work, app: str) -> None:
    """Return once the user's own store of production has answered, if there is one.

    Raises Ended (`rejected`): the framework would only log it, and every session would be in memory alone.
    """
    own = await _own_store(work, app, apps.PRODUCTION)
    if own:
        try:
            await own.has(PROBE_KEY)
        except OwnStoreUnusable as wrong:
            raise Ended("rejected", wrong.problem) from wrong
        finally:
            await own.close()


async def _try(work: Work, preview: Preview, visitor: Visitor, store: StoreAdmin | OwnStore | None) -> dict[str, Any]:
    """The whole trial; what is found, as JSON values."""
    found: dict[str, Any] = {"at_ms": now_ms(), "bindings": {}, "resume": Resume.UNTRIED, "why": ""}
    page = await _visiting(visitor.load(PAGE_PATH))
    if page.runtime is None:
        return found | {"why": f"the page {PAGE_PATH} loads no live runtime, so nothing was tried with it"}
    found["client_script"] = page.runtime.client_hash
    hello = await _visiting(visitor.open())
    if not hello.ok:
        return found | {"why": f"the live path refused a new visitor: {_status(hello)}"}
    try:
        if not isinstance(store, StoreAdmin):
            return await _see_own_store(visitor, store, hello, found)
        stored = await _see_bindings(preview, visitor, store, hello, found)
        await _second_allocation(work, preview)
        verdict, why = await _come_back(preview, visitor, hello)
    except OwnStoreUnusable as wrong:
        raise Ended("blocked", wrong.problem) from wrong
    except Unavailable as down:
        raise Ended("failed", down.problem) from down
    return found | _judged(verdict, why, stored.expires_ms - stored.written_ms)


def _judged(verdict: Resume, why: str, window_ms: int) -> dict[str, Any]:
    """The verdict with the resume window in mind: a browser needs a second to come back, and the probe does not."""
    if window_ms < WINDOW_LEAST_MS:
        kept = f"the framework keeps a session for {window_ms / 1000:.1f} s only; a browser first retries after 1 s"
        return {"resume": Resume.FRESH, "why": kept, "window_ms": window_ms}
    if window_ms < WINDOW_SAFE_MS:
        short = (
            f"kept for {window_ms / 1000:.0f} s: between two ticks of 30 s an idle session may be in no store at all"
        )
        return {"resume": verdict, "why": f"{why}; {short}" if why else short, "window_ms": window_ms}
    return {"resume": verdict, "why": why, "window_ms": window_ms}


async def _visiting(step: Awaitable[T]) -> T:
    """What the visitor saw. Raises Ended (`blocked`) for what a browser would show as a broken page."""
    try:
        return await step
    except VisitFailed as failed:
        raise Ended("blocked", failed.problem) from failed


# --- bindings


async def _see_bindings(
    preview: Preview, visitor: Visitor, admin: StoreAdmin, hello: ServerHello, found: dict[str, Any]
) -> Stored:
    """The record of the session that was just cut. Raises Ended for a binding that the app did not take."""
    channels = await _seen(lambda: _channels(admin)) if _globals(preview.manifest) else None
    if channels:
        found["bindings"][BROADCAST] = True  # not seen proves nothing: this page may use no shared state
    visitor.drop()
    label = label_of(hello.session_id)
    records = StoredRecords(admin)
    stored = await _seen(lambda: _one(records, label))
    found["bindings"][SESSIONS] = stored is not None
    if stored is None:
        raise Ended(
            "blocked",
            _not_taken(f"no record of a session that lost its socket was seen; {await _spoke(preview, admin)}"),
        )
    if not await _user_known(admin, preview.first):
        raise Ended("blocked", _not_taken("a record appeared, but not by its own store user"))
    return stored


async def _see_own_store(
    visitor: Visitor, store: OwnStore | None, hello: ServerHello, found: dict[str, Any]
) -> dict[str, Any]:
    """Whether the app stores where its user said. Raises Ended when it does not, or nobody could."""
    visitor.drop()
    if store is None or not await _seen(lambda: store.has(key_of(hello.session_id))):
        detail = f"no record of a session that lost its socket was seen in the store that {SESSION_STORE_URL} names"
        raise Ended("blocked", _not_taken(detail))
    found["bindings"][SESSIONS] = True
    return found | {"why": "the sessions lie in the app's own store: nobody can be fenced there, none are handed over"}


def _globals(manifest: Manifest) -> int:
    vango = manifest.facts.get("vango")
    return int(vango.get("globals", 0)) if isinstance(vango, dict) else 0


async def _seen(look: Callable[[], Awaitable[T]]) -> T | None:
    """What the look finds, once it finds something; None when the time is over."""
    deadline = monotonic_s() + SEEN_WITHIN_S
    while not (result := await look()):
        if monotonic_s() >= deadline:
            return None
        await pause(LOOK_PERIOD_S)
    return result


async def _channels(admin: StoreAdmin) -> list[str]:
    return list(await admin.command("PUBSUB", "CHANNELS", f"{CHANNEL_PREFIX}*"))


async def _one(records: StoredRecords, label: str) -> Stored | None:
    return (await records.of([label])).get(label)


async def _user_known(admin: StoreAdmin, allocation: str) -> bool:
    return (await admin.connected_users()).get(allocation, 0) > 0


async def _spoke(preview: Preview, admin: StoreAdmin) -> str:
    """Whether the allocation speaks to the store at all."""
    connected = await _user_known(admin, preview.first)
    return "its store user is connected" if connected else "its store user was never seen connected"


def _not_taken(seen: str) -> Problem:
    """Why a binding does not count."""
    return Problem(
        "binding-not-taken",
        "The app runs without a store that it was given",
        f"{seen}. The framework only logs this: users would lose their state at the next move.",
        "See `moorage logs` of the preview for what the framework says of its store, and that the app does not "
        "configure a store of its own over VANGO_SESSION_STORE_URL and VANGO_PUBSUB_URL.",
        422,
    )


# --- resume


async def _second_allocation(work: Work, preview: Preview) -> None:
    """A second allocation of the same artifact is ready and the first one can write nothing any more."""

    def plan(tx: Tx) -> dict[str, Any]:
        planned = plan_allocation(
            work.control,
            tx,
            environment=preview.environment,
            deployment=preview.deployment,
            operation=work.operation.id,
        )
        return {"more": [*work.facts.get("more", ()), planned.id]}

    await work.commit("validating", plan, "trying whether a stored session resumes on a second allocation")
    await wait_ready(
        work,
        work.facts["more"][-1],
        timeout_s=preview.manifest.process.ready_timeout_s + READY_MARGIN_S,
        failed_state="failed",
    )
    await sessions.fence(work, [preview.first])

    def stop(tx: Tx) -> dict[str, Any]:
        sessions.stop_fenced(tx, [preview.first])
        return {"fenced_index": log.committed_index(tx)}

    await work.commit("validating", stop)
    await work.control.edges_reach(work.facts["fenced_index"])


async def _come_back(preview: Preview, visitor: Visitor, before: ServerHello) -> tuple[Resume, str]:
    """Connect with the session's id: as a browser would, then with the query that the edge can add."""
    cured = is_cured(preview.manifest)
    hello = await _visiting(visitor.open(before.session_id))
    visitor.drop()
    if _is_resumed(hello, before):
        return (Resume.WITH_CURE, "the edge's cure is switched on") if cured else (Resume.RESUMES, "")
    why = _refusal(hello)
    if cured:
        return Resume.FRESH, f"{why}, also with the edge's cure"
    again = await _visiting(visitor.open(before.session_id, extra_query=CURE_QUERY))
    visitor.drop()
    if _is_resumed(again, before):
        return Resume.WITH_CURE, f"without the edge's cure: {why}"
    return Resume.FRESH, why


def _is_resumed(hello: ServerHello, before: ServerHello) -> bool:
    return hello.ok and hello.session_id == before.session_id


def _refusal(hello: ServerHello) -> str:
    if hello.ok:
        return "a new session was started in its place, without a word to the page"
    return f"refused with {_status(hello)}"


def _status(hello: ServerHello) -> str:
    return hello.status.name.lower().replace("_", " ")
