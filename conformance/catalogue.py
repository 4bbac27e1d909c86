"""The ids of the host contract, tier by tier, what each demands, and why some are not tried. Pure.

Rules of this room: every specified id has a row, also the one that nobody can try yet. `TOOL.*` are the checks of the
framework's own tool, which has no ids; their tiers are ours. An id that is absent has its reason here, with what it
rests on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from conformance.report import PREFIX, Status, Tier

TIERS: Final = (
    Tier(0, "detection", "manifest, layout, versions, secrets"),
    Tier(1, "basic_web_runtime", "pages, script, live socket, assets, health"),
    Tier(2, "production_web_runtime", "host, origins, CSRF, cookies, proxy headers, CSP, uploads"),
    Tier(3, "scale_to_zero", "hold, joined wakes, no replay, assets that wake nobody"),
    Tier(4, "persistent_resume", "store, secret, window, resume after a restart, expired is fresh"),
    Tier(5, "horizontal_scale", "several allocations, affinity or resume, fan-out, honest drain"),
    Tier(6, "hosted_native", "first-party origins, token, separate releases"),
    Tier(7, "region_cell", "everything present in the target, else no route"),
)
REQUIRED_TIER: Final = 5  # the highest whose required results must pass; what is absent in between is said


@dataclass(frozen=True, slots=True)
class Row:
    """A specified id: its tier and what it demands."""

    id: str
    tier: int
    demands: str


def _rows(tier: int, area: str, cases: Mapping[str, str]) -> tuple[Row, ...]:
    return tuple(Row(f"{PREFIX}{area}.{case}", tier, demands) for case, demands in cases.items())


ROWS: Final = (
    *_rows(
        0,
        "MANIFEST",
        {
            "PARSE": "the documents that the app brings for hosts are read and kept with the artifact",
            "SCHEMA_SUPPORTED": "known versions are taken, an unknown one is refused",
            "RUNTIME_PATHS_VALID": "the runtime paths that the manifest names answer",
            "REQUIRED_SECRETS_DECLARED": "what the app needs of its environment is declared and provided",
            "RUNTIME_SERVICES_DECLARED": "the services that the app needs are declared and bound",
            "STATE_IMPACT_SUPPORTED": "the impact on stored state is told before a promotion, and decides",
            "DB_CONTRACT_SUPPORTED": "the app's database contract is honoured",
        },
    ),
    *_rows(
        0,
        "TOOL",
        {
            "GENERATED_ARTIFACTS_CURRENT": "the framework's tool finds the generated files current",
            "STATE_IMPACT_AVAILABLE": "the framework's tool can tell the impact on state",
        },
    ),
    *_rows(
        1,
        "HTTP",
        {
            "SSR_PAGE": "a page is rendered by the server",
            "PAGE_ROUTE_NOT_RUNTIME_PREFIXED": "pages live outside of the runtime's paths",
            "CANONICAL_REDIRECT": "the app's redirect to a canonical path arrives as it was sent",
            "API_HEALTH": "health endpoints answer through the route",
            "HEAD_SAFE": "HEAD has the status of GET and no body",
            "NOT_FOUND": "an unknown path gets the app's own 404",
        },
    ),
    *_rows(
        1,
        "RUNTIME",
        {
            "CLIENT_SCRIPT": "the client script is served, whole, with the hash that the page names",
            "BOOTSTRAP_JSON": "the page carries what the script needs",
            "PUBLIC_RUNTIME_PREFIX": "runtime paths have the prefix that the app gives them",
            "NO_INLINE_SCRIPT_REQUIRED": "the page needs no inline script",
        },
    ),
    *_rows(
        1,
        "WS",
        {
            "UPGRADE": "the live socket opens and greets",
            "LIVE_PATH_QUERY": "the live path keeps its query",
            "PATH_QUERY_EXACTNESS": "path and query arrive byte for byte",
            "RECONNECT": "a lost socket comes back to its session",
            "LEGACY_WS_PATH": "the older live path works as well",
        },
    ),
    *_rows(
        1,
        "STATIC",
        {
            "ASSET_SERVED": "a static file is served, byte for byte",
            "PATH_TRAVERSAL_BLOCKED": "no path leads out of the static folder",
            "RUNTIME_PATH_NOT_SHADOWED": "nothing stands in front of the runtime's paths",
            "CACHE_HEADERS": "cache headers and conditional requests arrive as they are",
        },
    ),
    *_rows(
        1,
        "TOOL",
        {
            "SSR_ROUTE": "tool: the page answers 2xx with a body",
            "LIVE_ENDPOINT_PRESERVED": "tool: a plain GET of the live path reaches the app",
            "WEBSOCKET_UPGRADE": "tool: upgrade and handshake",
            "STATIC_ASSETS": "tool: the client script is served",
            "PAGE_LIVE_ROUTE_AGREEMENT": "tool: page and live path agree",
            "STALE_CLIENT_RUNTIME_MISMATCH": "tool: a stale client script is refused",
            "LARGE_LIST_FIXTURE": "tool: a page of 250 rows, in four orders",
        },
    ),
    *_rows(
        2,
        "SECURITY",
        {
            "HOST_HEADER_POLICY": "another host reaches no app",
            "TRUSTED_PROXY_SCHEME": "the scheme is the edge's word, not the client's",
            "TRUSTED_PROXY_CLIENT_IP": "the client's address is the edge's word, not the client's",
            "COOKIE_SECURE": "cookies are Secure where the public URL is https",
            "COOKIE_SAMESITE": "cookies are SameSite, and HttpOnly where no script reads them",
            "CSP_RUNTIME_COMPATIBLE": "the content security policy arrives and lets the runtime work",
            "UNSAFE_CONFIG_BLOCKED": "an app with a critical unsafe setting is not deployed",
        },
    ),
    *_rows(2, "RUNTIME", {"CSP_CONNECT_SRC": "the policy lets the page open its live socket"}),
    *_rows(
        2,
        "WS",
        {
            "ORIGIN_ACCEPTS_ALLOWED": "the page's own origin may open the live socket",
            "ORIGIN_REJECTS_DISALLOWED": "another origin may not",
        },
    ),
    *_rows(
        2,
        "FORM",
        {
            "CSRF_TOKEN_PRESENT": "a form carries a token that agrees with its cookie",
            "CSRF_VALID_POST_ACCEPTED": "a post with it is taken, once",
            "CSRF_MISSING_POST_REJECTED": "a post without it is not",
        },
    ),
    *_rows(
        2,
        "UPLOAD",
        {
            "HTTP_UPLOAD_SUPPORTED": "a file of several megabytes arrives byte for byte",
            "LIVE_SOCKET_LARGE_UPLOAD_BLOCKED": "the live socket takes no large message",
            "FINALIZE_NOT_IMPLICITLY_REPLAYED": "a post whose answer got lost is not sent again",
        },
    ),
    *_rows(
        2,
        "TOOL",
        {
            "ROUTE_ACTION_POST": "tool: a page's action takes its post",
            "UPLOAD_ENDPOINT": "tool: a multipart upload is taken",
        },
    ),
    *_rows(
        3,
        "WAKE",
        {
            "GET_HELD_AND_DELIVERED": "a GET waits for a wake",
            "HEAD_HELD_AND_DELIVERED": "a HEAD waits for a wake",
            "UNSAFE_POST_NOT_REPLAYED": "a POST is never replayed",
            "UPLOAD_NOT_REPLAYED": "an upload is never replayed",
            "WEBHOOK_NOT_REPLAYED": "a webhook is never replayed",
            "WEBSOCKET_CONNECT_HELD": "an upgrade waits for a wake",
            "COALESCES_CONCURRENT_WAKE": "many requests wake once",
            "STATIC_ASSET_NO_WAKE": "a declared asset wakes nobody",
        },
    ),
    *_rows(3, "STATIC", {"WAKE_FREE_WHEN_DECLARED": "declared assets are served without an app"}),
    *_rows(3, "TOOL", {"SLEEP_WAKE_FIXTURE": "tool: a mutation around a wake counts once"}),
    *_rows(
        4,
        "STATE",
        {
            "SHARED_SIGNAL_SURVIVES_NAVIGATION": "session state survives moving between pages",
            "SESSION_KEY_PERSISTENCE": "a session key comes back from the store",
            "GLOBAL_SIGNAL_PERSISTENCE": "shared state outlives every allocation",
        },
    ),
    *_rows(
        4,
        "RESUME",
        {
            "IN_MEMORY_WITHIN_PROCESS": "within one process everything stays, unkept state too",
            "PERSISTENT_AFTER_RESTART": "after a crash a session comes back from the store",
            "EXPIRED_SESSION_REFRESHES": "a session past its window starts fresh",
            "AUTH_REVALIDATION": "a user's session is resumed for that user only",
        },
    ),
    *_rows(
        4,
        "SERVICE",
        {
            "SESSION_STORE_BOUND": "the session store is bound, and was seen to work",
            "DEGRADATION_DECLARED": "what is lost without a service is said",
        },
    ),
    *_rows(
        4,
        "TOOL",
        {
            "PERSISTED_STATE_FIXTURE": "tool: a stored value is there with the next request",
            "WEBSOCKET_RECONNECT_RESUME": "tool: a reconnect resumes the session",
        },
    ),
    *_rows(
        5,
        "SCALE",
        {
            "MULTI_ALLOCATION_LIVE_SESSIONS": "two allocations serve live sessions at the same time",
            "STICKY_LIVE_ROUTING": "a session comes back to its own allocation",
            "CROSS_INSTANCE_RESUME": "a session of one allocation is resumed by another",
            "GLOBAL_SIGNAL_FANOUT": "a change of shared state reaches the other allocation",
            "RATE_LIMIT_SHARED": "limits hold across allocations",
            "VERTICAL_REPLACEMENT": "an allocation is replaced by one of the same artifact, sessions kept",
        },
    ),
    *_rows(
        5,
        "DRAIN",
        {
            "NEW_SESSIONS_ROUTE_TO_REPLACEMENT": "who is new goes to the replacement",
            "ACTIVE_WS_NOT_DROPPED_IMMEDIATELY": "who is attached stays attached",
            "DETACHED_SESSIONS_RESUME_POLICY": "who was away during a move comes back to what was stored",
            "OLD_ALLOCATION_RETIREMENT": "the old allocation ends when its last session has",
        },
    ),
    *_rows(
        5,
        "SERVICE",
        {
            "BROADCAST_BOUND": "the broadcast backend is bound, and was seen to work",
            "OBJECT_STORAGE_BOUND": "object storage is bound where the app asks for it",
            "IDEMPOTENCY_STORE_BOUND": "an idempotency store is bound where the app asks for it",
        },
    ),
    *_rows(
        5,
        "TOOL",
        {
            "DEPLOY_IMPACT_FIXTURE": "tool: the promotion policy for a warm, a cold and an acknowledged cold deploy",
            "DEPLOY_IMPACT_ACTIVE_SESSION": "tool: the same while a live socket is open",
        },
    ),
    *_rows(
        6,
        "NATIVE",
        {
            "HOSTED_BASE_URL": "native shells get a base URL",
            "ALLOWED_ORIGINS": "only first-party origins are hosted",
            "SPOOFED_HINTS_REJECTED": "hints of a shell are not believed",
            "HOSTED_TOKEN_REQUIRED": "a hosted surface needs its token",
            "RELEASE_RECORD_SEPARATION": "a native release is a record of its own",
        },
    ),
    *_rows(
        7,
        "CELL",
        {
            "ARTIFACT_AVAILABLE": "the artifact is in the cell",
            "SECRETS_AVAILABLE": "the secrets are in the cell",
            "RUNTIME_SERVICES_AVAILABLE": "the services are in the cell",
            "DB_CONTRACT_SATISFIED": "the database reaches the cell",
            "ROUTE_BLOCKED_WHEN_TOPOLOGY_INVALID": "no route leads to a cell that lacks something",
        },
    ),
    *_rows(7, "SERVICE", {"REGION_CELL_PLACEMENT": "services are placed by region and cell"}),
)
BY_ID: Final = {row.id: row for row in ROWS}


@dataclass(frozen=True, slots=True)
class Absent:
    """Why an id is not tried."""

    status: Status
    why: str


_NO_SLEEP: Final = "the platform puts no app to sleep: allocations run as long as their deployment owns a route"
_NO_NATIVE: Final = "the platform hosts no native shells, and the app's manifest declares no hosted surface"
_NO_CELL: Final = "an installation is one region with one cell: there is no other to enable"
_NO_LIMIT: Final = (
    "the framework counts sessions and handshakes per address in each process, and the platform adds no limit of its "
    "own: there is none to share"
)


def absent(id: str) -> Absent | None:
    """Why an id is not tried; None when it is."""
    row = BY_ID[id]
    if row.tier == 3:
        return Absent(Status.SKIPPED, _NO_SLEEP)
    if row.tier == 6:
        return Absent(Status.NOT_APPLICABLE, _NO_NATIVE)
    if row.tier == 7:
        return Absent(Status.SKIPPED, _NO_CELL)
    if id == f"{PREFIX}SCALE.RATE_LIMIT_SHARED":
        return Absent(Status.SKIPPED, _NO_LIMIT)
    return None


def of_tool(check: str) -> str:
    """The id of one of the tool's checks, by the name it has there."""
    return f"{PREFIX}TOOL.{check.upper()}"
