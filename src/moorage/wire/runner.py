"""What runners and the control plane tell each other: desired state by revision, and reports."""

from __future__ import annotations

from typing import Literal

from moorage.domain.allocation import State
from moorage.wire.message import Message


class DesiredAllocation(Message):
    """One allocation as it should be. The runner starts it when `want` is `run` and nothing of this id was started
    before; an allocation that ended is reported and never restarted (control plans a new one).

    `let_go`: the input of its connections ends, once, so that it stores its sessions before they are cut.
    `environ` holds what the app sees (PORT and HOST included). `command` is split as a POSIX shell would split it,
    without a shell; `$NAME` of `environ` is replaced.
    """

    allocation: str
    number: int
    environment: str
    app: str
    deployment_number: int
    artifact: str
    command: str
    environ: dict[str, str]
    host: str
    port: int
    health: str
    ready_timeout_s: float
    stop_grace_s: float
    want: Literal["run", "stop"]
    let_go: bool = False


class StoreUser(Message):
    """A user of an environment's store: the allocation it belongs to; `enabled` False means fenced."""

    name: str
    password_sha256: str
    enabled: bool


class DesiredStore(Message):
    """One environment's session store: a Valkey on a fixed loopback port. `admin_password` is the platform's own."""

    environment: str
    port: int
    admin_password: str
    users: tuple[StoreUser, ...]
    want: Literal["run", "stop"]


class Desired(Message):
    """Everything a runner should make true. `revision` rises with each change; `token` fences older desires."""

    revision: int
    allocations: tuple[DesiredAllocation, ...]
    stores: tuple[DesiredStore, ...]


class AllocationReport(Message):
    """What a runner has seen of an allocation. `reason` is a stable code (for example `artifact-altered`,
    `exited`, `ready-timeout`, `port-taken`, `start-failed`), `detail` a sentence, `log_tail` the app's last lines.
    `let_go`: how many connections had their input ended (None: not asked, not yet, or it cannot be done)."""

    allocation: str
    state: State
    pid: int | None = None
    started_ms: int | None = None
    ready_ms: int | None = None
    exit_code: int | None = None
    reason: str = ""
    detail: str = ""
    log_tail: tuple[str, ...] = ()
    adopted: bool = False
    let_go: int | None = None


class StoreReport(Message):
    """What a runner has seen of an environment's store."""

    environment: str
    state: Literal["starting", "ready", "down", "stopped"]
    pid: int | None = None
    restarts: int = 0
    detail: str = ""


class RunnerReport(Message):
    """Sent at once when something changed, else each second; always the whole picture."""

    runner: str
    revision: int
    allocations: tuple[AllocationReport, ...]
    stores: tuple[StoreReport, ...]
    versions: dict[str, str] = {}
