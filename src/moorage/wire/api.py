"""The public API: what the CLI (and anyone else) asks and is told under `/v1`.

Requests that change something carry the header `Idempotency-Key`. Views name things by app, number or route key; a
session appears under a label (a hash), never under its id, which is a secret.
"""

from __future__ import annotations

from typing import Any, Literal

from moorage.wire.message import Message

# --- requests


class DeployRequest(Message):
    """Deploy the uploaded source with this SHA-256 (hex). `facts` come from the packer: commit, dirty, tree digest."""

    source: str
    facts: dict[str, Any] = {}


class PromoteRequest(Message):
    """Make a deployment the owner of the app's production route.

    `expected_epoch` is the epoch the caller has read (0: no owner yet). `mode` chooses what happens to attached
    sessions; None lets the platform decide and say why. `acknowledge` names what a person has read and accepted.
    """

    deployment: int
    expected_epoch: int
    mode: Literal["handover", "drain"] | None = None
    acknowledge: str | None = None
    drain_deadline_s: float | None = None


class RestartRequest(Message):
    """Replace the owner's allocations by fresh ones of the same artifact."""

    mode: Literal["handover", "drain"] | None = None


class SecretRequest(Message):
    """Set a secret: for the app's production allocations (`runtime`), its previews, or its builds. A value of one
    scope is never given to another: previews get no production credential."""

    value: str
    scope: Literal["runtime", "preview", "build"] = "runtime"


# --- answers


class OperationRef(Message):
    """The operation that a mutation has started (or, for a retry, that it attaches to)."""

    operation: str
    app: str
    deployment: int | None = None


class StageView(Message):
    """A recorded stage of an operation."""

    seq: int
    state: str
    note: str
    detail: dict[str, Any]
    actor: str
    at_ms: int


class OperationView(Message):
    """An operation with its stages. `problem` are problem details, `facts` what it found out (account included)."""

    id: str
    kind: str
    app: str
    parent: str | None
    state: str
    finished: bool
    succeeded: bool
    input: dict[str, Any]
    facts: dict[str, Any]
    problem: dict[str, Any] | None
    actor: str
    created_ms: int
    updated_ms: int
    finished_ms: int | None
    stages: tuple[StageView, ...] = ()
    children: tuple[str, ...] = ()


class RouteView(Message):
    """A route owner as the control plane has it, and how far the edges are."""

    route_key: str
    url: str
    epoch: int
    app: str
    environment: str
    deployment: int
    artifact: str
    held: bool
    edges_behind: tuple[str, ...]
    ready_allocations: int


class AllocationView(Message):
    """An allocation: durable state and posture, live sockets as the edges count them."""

    number: int
    id: str
    app: str
    environment: str
    deployment: int
    artifact: str
    address: str
    state: str
    posture: str
    want: str
    pid: int | None
    attached_sockets: int | None
    reason: str
    detail: str
    exit_code: int | None
    log_tail: tuple[str, ...]
    created_ms: int
    ready_ms: int | None
    ended_ms: int | None


class DeploymentView(Message):
    """A deployment of an app; `serving` when it owns the production route."""

    app: str
    number: int
    state: str
    artifact: str | None
    source: dict[str, Any]
    serving: bool
    preview_url: str | None
    depth: str | None
    operation: str
    created_ms: int
    problem: dict[str, Any] | None = None


class AppView(Message):
    """An app with its production route."""

    name: str
    url: str
    epoch: int
    serving: int | None
    ready_allocations: int
    attached_sockets: int
    newest_deployment: int | None
    newest_state: str | None
    created_ms: int


class SessionRow(Message):
    """One live session: a label (hash of its id), its allocation, and how that is known. `lease` rises with each
    taking of the session, `revision` with each write to its record."""

    label: str
    allocation: int
    deployment: int
    environment: str
    attached: bool
    outcome: str
    reason: str
    lease: int
    revision: int
    updated_ms: int


class SessionsView(Message):
    """The live sessions of an app: sockets at the edge, and sessions by name where the app's depth allows it.

    `stored_records`: how many sessions the store has a record of, attached or not, for an app whose framework stores
    them by itself (None: another kind of app, or a store that the platform cannot look into).
    """

    app: str
    depth: str
    attached_sockets: int
    stored_records: int | None = None
    sessions: tuple[SessionRow, ...]
    accounts: tuple[dict[str, Any], ...]
    at_ms: int


class ChangeView(Message):
    """One change of the state schema."""

    what: str
    state: str
    field: str
    before: str
    after: str
    text: str


class ExpectedSessions(Message):
    """What a promotion would do to the live sessions: numbers that add up to them, and on what grounds (`how`).

    `resume` elsewhere with what was stored, `stay` with the old allocation, `fresh` at the defaults, `unknown`.
    """

    resume: int
    stay: int
    fresh: int
    unknown: int
    how: str


class PromotionReport(Message):
    """What a promotion (or rollback) would do now. `verdict` allow, needs_acknowledgement or blocked; `acknowledge` is
    the digest to repeat after reading; `live_sessions` were counted at `live_sessions_at_ms` by `live_sessions_how`."""

    app: str
    deployment: int
    serving: int | None
    epoch: int
    verdict: str
    reasons: tuple[str, ...]
    forward: str
    forward_changes: tuple[ChangeView, ...]
    backward: str
    backward_changes: tuple[ChangeView, ...]
    data_impact: str
    mode: str
    mode_reason: str
    expected: ExpectedSessions
    notes: tuple[str, ...] = ()
    live_sessions: int
    live_sessions_at_ms: int
    live_sessions_how: str
    acknowledge: str | None
    problem: dict[str, Any] | None


class SecretView(Message):
    """A secret without its value."""

    name: str
    scope: str
    version: int
    updated_ms: int


class LogChunk(Message):
    """A piece of an allocation's log. `next_offset` continues it; `over`: the allocation has ended and all is read."""

    allocation: int
    text: str
    next_offset: int
    over: bool


class EdgeView(Message):
    """An edge and how far it is; `behind` counts log entries it has not applied."""

    id: str
    live: bool
    applied_index: int
    behind: int
    seen_ms: int
    catch_up: dict[str, Any] | None
    counters: dict[str, int]
    proxy: str


class ProcessView(Message):
    """A process of the platform as its supervisor sees it."""

    name: str
    pid: int | None
    state: str
    restarts: int
    since_ms: int
    last_exit: str = ""


class StoreView(Message):
    """A session store of an environment."""

    app: str
    environment: str
    port: int
    state: str


class StatusView(Message):
    """The installation at a glance."""

    version: str
    home: str
    api: str
    http: str
    base_domain: str
    isolation: str
    ready: bool
    log_index: int
    incarnation: str
    apps: int
    routes: int
    allocations_ready: int
    operations_open: int
    edges: tuple[EdgeView, ...]
    processes: tuple[ProcessView, ...]
    stores: tuple[StoreView, ...]
    binaries: dict[str, str]


class Candidate(Message):
    """An allocation that a request to a URL could go to, or why not."""

    number: int
    state: str
    posture: str
    picked: bool
    why: str


class Explanation(Message):
    """Why a request to this URL goes where it goes."""

    url: str
    route_key: str
    outcome: str
    reason: str
    epoch: int | None
    app: str | None
    environment: str | None
    deployment: int | None
    artifact: str | None
    request_class: str
    pin: str
    candidates: tuple[Candidate, ...]
    edges: tuple[EdgeView, ...]
    history: tuple[dict[str, Any], ...]


class Listing(Message):
    """Lists come in an envelope so that fields can be added later."""

    items: tuple[dict[str, Any], ...]
