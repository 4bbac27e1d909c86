"""A run: which checks there are, in which order they are played, and how what they see becomes a report.

Rules of this room: an expectation that does not hold is a failure of the host; a check that breaks off because the host
did not answer is one, too; everything else that goes wrong is the harness's own, and blocks the check.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from websockets.exceptions import WebSocketException

from conformance import catalogue
from conformance.asking import Route
from conformance.catalogue import BY_ID, ROWS
from conformance.checks import detection, forms, live, moves, pages, security, state
from conformance.fixture import COLD, COLD_ACKNOWLEDGED, WARM
from conformance.ground import CommandError
from conformance.guest import RefusedError
from conformance.report import PREFIX, Diagnostic, Result, Seen, Status, merged, result_of
from conformance.stage import Stage
from conformance.tool import NoToolError, Verdict, run_checks
from moorage.domain.errors import MoorageError
from moorage.system.clock import monotonic_s
from moorage.vango.wire import WireError

Play = Callable[[Stage, Route, Seen], Awaitable[None]]
HOST_FAULTS: Final = (RefusedError, WebSocketException, TimeoutError, EOFError, OSError, WireError)
HARNESS_FAULTS: Final = (NoToolError, CommandError, MoorageError, ValueError, LookupError, AssertionError, TypeError)
BOTH: Final = ("production", "preview")
ONE: Final = ("production",)


@dataclass(frozen=True, slots=True)
class Check:
    """A check of one id, made at each of these routes."""

    id: str
    play: Play
    routes: tuple[str, ...] = ONE


CHECKS: Final = (
    Check("MANIFEST.PARSE", detection.parse),
    Check("MANIFEST.SCHEMA_SUPPORTED", detection.schema_supported),
    Check("MANIFEST.RUNTIME_PATHS_VALID", detection.runtime_paths_valid, BOTH),
    Check("MANIFEST.REQUIRED_SECRETS_DECLARED", detection.required_secrets),
    Check("MANIFEST.RUNTIME_SERVICES_DECLARED", detection.runtime_services),
    Check("MANIFEST.STATE_IMPACT_SUPPORTED", detection.state_impact),
    Check("MANIFEST.DB_CONTRACT_SUPPORTED", detection.database),
    Check("HTTP.SSR_PAGE", pages.ssr_page, BOTH),
    Check("HTTP.PAGE_ROUTE_NOT_RUNTIME_PREFIXED", pages.not_runtime_prefixed, BOTH),
    Check("HTTP.CANONICAL_REDIRECT", pages.canonical_redirect, BOTH),
    Check("HTTP.API_HEALTH", pages.health, BOTH),
    Check("HTTP.HEAD_SAFE", pages.head_safe, BOTH),
    Check("HTTP.NOT_FOUND", pages.not_found, BOTH),
    Check("RUNTIME.CLIENT_SCRIPT", pages.client_script, BOTH),
    Check("RUNTIME.BOOTSTRAP_JSON", pages.bootstrap_json, BOTH),
    Check("RUNTIME.PUBLIC_RUNTIME_PREFIX", pages.public_runtime_prefix, BOTH),
    Check("RUNTIME.NO_INLINE_SCRIPT_REQUIRED", pages.no_inline_script, BOTH),
    Check("WS.UPGRADE", live.upgrade, BOTH),
    Check("WS.LIVE_PATH_QUERY", live.live_path_query, BOTH),
    Check("WS.PATH_QUERY_EXACTNESS", live.exactness, BOTH),
    Check("WS.RECONNECT", live.reconnect, BOTH),
    Check("WS.LEGACY_WS_PATH", live.legacy_path, BOTH),
    Check("STATIC.ASSET_SERVED", pages.asset_served, BOTH),
    Check("STATIC.PATH_TRAVERSAL_BLOCKED", pages.path_traversal, BOTH),
    Check("STATIC.RUNTIME_PATH_NOT_SHADOWED", pages.runtime_path_not_shadowed, BOTH),
    Check("STATIC.CACHE_HEADERS", pages.cache_headers, BOTH),
    Check("SECURITY.HOST_HEADER_POLICY", security.host_header_policy, BOTH),
    Check("SECURITY.TRUSTED_PROXY_SCHEME", security.trusted_proxy_scheme, BOTH),
    Check("SECURITY.TRUSTED_PROXY_CLIENT_IP", security.trusted_proxy_client_ip, BOTH),
    Check("SECURITY.COOKIE_SECURE", security.cookie_secure, BOTH),
    Check("SECURITY.COOKIE_SAMESITE", security.cookie_samesite, BOTH),
    Check("SECURITY.CSP_RUNTIME_COMPATIBLE", security.csp_runtime_compatible, BOTH),
    Check("SECURITY.UNSAFE_CONFIG_BLOCKED", security.unsafe_config_blocked),
    Check("RUNTIME.CSP_CONNECT_SRC", security.csp_connect_src, BOTH),
    Check("WS.ORIGIN_ACCEPTS_ALLOWED", security.origin_accepted, BOTH),
    Check("WS.ORIGIN_REJECTS_DISALLOWED", security.origin_rejected, BOTH),
    Check("FORM.CSRF_TOKEN_PRESENT", forms.csrf_token_present, BOTH),
    Check("FORM.CSRF_VALID_POST_ACCEPTED", forms.valid_post, BOTH),
    Check("FORM.CSRF_MISSING_POST_REJECTED", forms.missing_token, BOTH),
    Check("UPLOAD.HTTP_UPLOAD_SUPPORTED", forms.http_upload, BOTH),
    Check("UPLOAD.LIVE_SOCKET_LARGE_UPLOAD_BLOCKED", forms.live_upload_blocked, BOTH),
    Check("UPLOAD.FINALIZE_NOT_IMPLICITLY_REPLAYED", forms.not_replayed, BOTH),
    Check("STATE.SHARED_SIGNAL_SURVIVES_NAVIGATION", state.survives_navigation, BOTH),
    Check("RESUME.EXPIRED_SESSION_REFRESHES", state.expired),
    Check("SERVICE.SESSION_STORE_BOUND", state.session_store_bound),
    Check("SERVICE.DEGRADATION_DECLARED", state.degradation_declared),
    Check("SERVICE.OBJECT_STORAGE_BOUND", moves.object_storage),
    Check("SERVICE.IDEMPOTENCY_STORE_BOUND", moves.idempotency_store),
)
_CRASH: Final = (state.IN_MEMORY, state.AFTER_CRASH, state.KEY, state.GLOBAL, state.AUTH)
_DRAIN: Final = (
    moves.MULTI,
    moves.STICKY,
    moves.FANOUT,
    moves.BROADCAST,
    moves.NEW,
    moves.ACTIVE,
    moves.RETIRED,
)
_HANDOVER: Final = (moves.ACROSS, moves.REPLACEMENT, moves.DETACHED)
OF_SCENES: Final = (*_CRASH, *_DRAIN, *_HANDOVER)
FIXTURES: Final = {
    "route-action-path": "/form",
    "upload-path": "/upload",
    "persisted-state-path": "/api/kept",
    "large-list-path": "/list",
    "deploy-impact-path": "/api/deploy-impact",
}
_OF_SOURCE: Final = ("generated_artifacts_current", "state_impact_available")


@dataclass(slots=True)
class Played:
    """What has been seen so far: by id, with the time that it took."""

    stage: Stage
    seen: dict[str, Seen] = field(default_factory=dict)
    took_ms: dict[str, int] = field(default_factory=dict)
    tool: dict[str, dict[str, Seen]] = field(default_factory=dict)  # check of the tool to place

    def results(self, ids: Sequence[str] | None = None) -> tuple[Result, ...]:
        """A result for each of these ids (None: all there are), in the catalogue's order."""
        wanted = set(BY_ID if ids is None else ids)
        found = {id: seen for id, seen in self.seen.items()}
        found |= {catalogue.of_tool(name): merged(places) for name, places in self.tool.items()}
        return tuple(self._result(row.id, found.get(row.id)) for row in ROWS if row.id in wanted)

    def _result(self, id: str, seen: Seen | None) -> Result:
        row, away = BY_ID[id], catalogue.absent(id)
        if seen is None and away is not None:
            return Result(id, row.tier, away.status, False, (), 0, (Diagnostic("info", away.why),))
        if seen is None:
            seen = Seen()
            seen.set_aside(Status.BLOCKED, "the check was not played")
        return result_of(id, row.tier, True, seen, self.took_ms.get(id, 0), self.stage.cleaner)


async def guarded(play: Callable[[], Awaitable[None]], seen: Sequence[Seen]) -> None:
    """Play something; what it breaks off with is put down for all who were to see it."""
    try:
        await play()
    except HOST_FAULTS as fault:
        for each in seen:
            each.expect(False, "the host answers to the end", f"{type(fault).__name__}: {fault}")
    except HARNESS_FAULTS as fault:
        for each in seen:
            each.set_aside(Status.BLOCKED, f"the check could not be carried out: {type(fault).__name__}: {fault}")


async def play_check(played: Played, check: Check) -> None:
    """Play one check at each of its routes."""
    parts: dict[str, Seen] = {}
    start = monotonic_s()
    for route in played.stage.routes(check.routes):
        seen = parts[route.name] = Seen()
        await guarded(lambda route=route, seen=seen: check.play(played.stage, route, seen), [seen])  # type: ignore[misc]
    _put(played, f"{PREFIX}{check.id}", merged(parts), start)


def _put(played: Played, id: str, seen: Seen, start: float) -> None:
    played.seen[id], played.took_ms[id] = seen, round((monotonic_s() - start) * 1000)
    print(f"{seen.status:<15} {id}", file=sys.stderr, flush=True)
    for diagnostic in seen.diagnostics:
        print(f"{'':<15} {diagnostic.message}", file=sys.stderr, flush=True)


async def play_scene(
    played: Played, ids: Sequence[str], play: Callable[[Stage, Mapping[str, Seen]], Awaitable[None]]
) -> None:
    """Play what several ids are judged by."""
    seen = {id: Seen() for id in ids}
    start = monotonic_s()
    await guarded(lambda: play(played.stage, seen), list(seen.values()))
    for id, each in seen.items():
        _put(played, f"{PREFIX}{id}", each, start)


async def play_drain(played: Played) -> None:
    """Two allocations at the same time, with the framework's tool run against them."""
    seen, start = {id: Seen() for id in _DRAIN}, monotonic_s()

    async def play() -> None:
        async with AsyncExitStack() as stack:
            drain = moves.Drain(played.stage, stack)
            if not await drain.begin():
                raise LookupError("the replacement did not become ready beside the old allocation")
            await moves.side_by_side(drain, seen)
            await play_tool(played, played.stage.ground.production(), "two allocations")
            await moves.retire(drain, seen[moves.RETIRED])

    await guarded(play, list(seen.values()))
    for id, each in seen.items():
        _put(played, f"{PREFIX}{id}", each, start)


async def play_tool(played: Played, route: Route, place: str, *, source: bool = False) -> None:
    """Run the framework's tool against a route; its checks are results of their own."""
    stage, start = played.stage, monotonic_s()
    for variant in (WARM, COLD, COLD_ACKNOWLEDGED):
        await stage.candidate(variant)
    folder = stage.sources if source else stage.folder
    name = route.host.split(":")[0]
    verdicts: tuple[Verdict, ...] = ()
    blocked = Seen()

    async def play() -> None:
        nonlocal verdicts
        verdicts = await run_checks(stage.tool, folder, route.url, [name], fixtures=FIXTURES, source=source)

    await guarded(play, [blocked])
    if not verdicts:
        for id in (row.id for row in ROWS if ".TOOL." in row.id and catalogue.absent(row.id) is None):
            played.tool.setdefault(id.rsplit(".", 1)[1].lower(), {})[place] = blocked
    for verdict in verdicts:
        _put_verdict(played, verdict, place, source=source, took_ms=round((monotonic_s() - start) * 1000))


def _put_verdict(played: Played, verdict: Verdict, place: str, *, source: bool, took_ms: int) -> None:
    """A check of the tool as a result; what it does not try without the source is left to where the source is."""
    id = catalogue.of_tool(verdict.name)
    if id not in BY_ID or (catalogue.absent(id) is not None) or (verdict.name in _OF_SOURCE) != source:
        return
    seen = Seen()
    if verdict.status == "not_applicable":
        seen.set_aside(Status.NOT_APPLICABLE, verdict.message)
    else:
        seen.expect(verdict.status == "pass", verdict.message if verdict.status == "pass" else "pass", verdict.message)
    played.tool.setdefault(verdict.name, {})[place] = seen
    played.took_ms[id] = max(played.took_ms.get(id, 0), took_ms)
    print(f"{seen.status:<15} {id} ({place})", file=sys.stderr, flush=True)


async def play_all(played: Played) -> None:
    """Everything, from what changes nothing to what moves allocations."""
    stage = played.stage
    for check in CHECKS:
        await play_check(played, check)
    await play_tool(played, stage.ground.production(), "source", source=True)
    await play_tool(played, stage.ground.production(), "production")
    await play_tool(played, await stage.short_preview(), "preview")
    await play_scene(played, _CRASH, state.crash)
    await play_drain(played)
    await play_scene(played, _HANDOVER, moves.hand_over)


async def play_some(played: Played, areas: Sequence[str]) -> None:
    """The checks whose id (without prefix) begins with one of these words, and the scenes that have one of them."""
    for check in CHECKS:
        if _named([check.id], areas):
            await play_check(played, check)
    if _named(["TOOL"], areas):
        await play_tool(played, played.stage.ground.production(), "production")
    if _named(_CRASH, areas):
        await play_scene(played, _CRASH, state.crash)
    if _named(_DRAIN, areas):
        await play_drain(played)
    if _named(_HANDOVER, areas):
        await play_scene(played, _HANDOVER, moves.hand_over)


def _named(ids: Sequence[str], areas: Sequence[str]) -> bool:
    return any(id.startswith(tuple(areas)) for id in ids)
