"""`moorage up` and `down`: prepare the data directory, write the plan of processes, hand over to the supervisor.

Preparing needs many imports and little time; supervising needs few and lasts. So `up` replaces itself by the
supervisor process (or starts it, with --detach).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage.domain.errors import Problem, Refused
from moorage.edge.proxy.launch import proxy_command, write_configuration
from moorage.events.server import ServerPlan, public_key, render_server, server_argv
from moorage.main.edge import proxy_settings
from moorage.main.installation import EDGE, RUNNER, Keys, load_keys
from moorage.store.database import check_schema
from moorage.system.binaries import find_haproxy, find_nats, find_valkey
from moorage.system.children import Phase, read_state
from moorage.system.clock import monotonic_s
from moorage.system.files import write_private
from moorage.system.lock import lock_holder, take_lock
from moorage.system.proc import free_port, is_alive
from moorage.system.settings import Settings, inherited_environ, prepare_home, with_ports
from moorage.system.supervise import end_leftovers

UP_TIMEOUT_S = 60.0
DOWN_TIMEOUT_S = 60.0
PERIOD_S = 0.02
STOP_GRACE_S = 10.0
RUNNER_STOP_GRACE_S = 30.0  # an app's own grace, its store, and some air


@dataclass(frozen=True)
class Started:
    """A platform that is up: the supervisor's pid and where it answers."""

    pid: int
    api: str
    http: str
    home: str
    after_s: float


async def prepare(settings: Settings, *, quiet: bool) -> tuple[Settings, Path]:
    """Make everything that the processes need; the settings with real ports, and the path of the plan.

    Raises Refused: `already-running`, `port-taken`, `home-not-writable`, `database-newer`, `binary-missing`,
    `platform-unsupported`; Unavailable: `database-unavailable`.
    """
    prepare_home(settings.paths)
    lock = take_lock(settings.paths.lock)  # before anything is written: two that start at once must not mix
    check_schema(settings.paths.control_db)
    await end_leftovers(settings.paths.processes)  # of a supervisor that was killed: they hold the ports
    settings = with_ports(settings)
    keys = load_keys(settings.paths.keys)
    plan = {**_plan(settings, keys, quiet=quiet), "lock_descriptor": lock.hand_on()}
    path = settings.paths.run / "plan.json"
    write_private(path, json.dumps(plan, indent=1).encode())
    return settings, path


def _plan(settings: Settings, keys: Keys, *, quiet: bool) -> dict[str, Any]:
    paths = settings.paths
    nats = ServerPlan(
        port=free_port(),
        store_dir=paths.nats / "jetstream",
        control_key=public_key(keys.nats_control),
        edge_keys={EDGE: public_key(keys.nats_edge)},
        runner_keys={RUNNER: public_key(keys.nats_runner)},
    )
    nats_config = paths.nats / "nats.conf"
    write_private(nats_config, render_server(nats).encode())
    proxy_config = write_configuration(proxy_settings(settings))
    find_valkey(settings.binaries.valkey)
    children = [
        _child(
            settings,
            "nats",
            server_argv(find_nats(settings.binaries.nats).path, nats_config),
            ready={"kind": "tcp", "host": nats.host, "port": nats.port},
        ),
        _child(
            settings,
            "haproxy",
            proxy_command(find_haproxy(settings.binaries.haproxy).path, proxy_config),
            ready={"kind": "tcp", "host": _loopback(settings.bind), "port": settings.http_port},
        ),
        _python(settings, "control", (nats.url,), ready=_api(settings, "/healthz")),
        _python(settings, "edge", (nats.url,), ready=_api(settings, "/readyz/edge")),
        _python(settings, "runner", (), ready=_api(settings, "/readyz/runner")),
    ]
    return {
        "lock": str(paths.lock),
        "state": str(paths.processes),
        "api": settings.api_url,
        "http": http_url(settings),
        "quiet": quiet,
        "greeting": f"Moorage is up: apps at {http_url(settings)}, API at {settings.api_url}, data in {settings.home}",
        "children": children,
    }


def http_url(settings: Settings) -> str:
    """Where users reach apps (the base of their host names)."""
    return f"http://<app>.{settings.base_domain}:{settings.http_port}"


def _loopback(bind: str) -> str:
    return "127.0.0.1" if bind == "0.0.0.0" else bind


def _api(settings: Settings, path: str) -> dict[str, Any]:
    return {"kind": "http", "host": _loopback(settings.bind), "port": settings.api_port, "path": path}


def _python(settings: Settings, name: str, arguments: tuple[str, ...], ready: Mapping[str, Any]) -> dict[str, Any]:
    argv = (sys.executable, "-m", f"moorage.main.{name}", *arguments)
    return _child(settings, name, argv, ready=ready, environ=settings.to_environ())


def _child(
    settings: Settings,
    name: str,
    argv: Sequence[str],
    *,
    ready: Mapping[str, Any] | None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "argv": list(argv),
        "environ": {**inherited_environ(), **(environ or {})},
        "log": str(settings.paths.logs / f"{name}.log"),
        "ready": ready,
        "depends_on": [],
        # A runner that is told to interrupt ends its allocations first; one that is terminated leaves them running.
        "stop_signal": "SIGINT" if name == "runner" else "SIGTERM",
        "stop_grace_s": RUNNER_STOP_GRACE_S if name == "runner" else STOP_GRACE_S,
        # HAProxy keeps nothing that it could lose: a frozen one must not hold the port against the next `up`.
        "parent_death_signal": "SIGKILL" if name == "haproxy" else "SIGTERM",
    }


def run_attached(plan: Path) -> None:
    """Become the supervisor; does not return."""
    os.execv(sys.executable, [sys.executable, "-m", "moorage.main.supervisor", str(plan)])


def run_detached(settings: Settings, plan: Path) -> Started:
    """Start the supervisor in the background and wait until everything is ready.

    Raises Refused (`up-failed`) with the reason and the end of the failing process's log.
    """
    start = monotonic_s()
    log = settings.paths.logs / "supervisor.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "moorage.main.supervisor", str(plan)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=(json.loads(plan.read_text())["lock_descriptor"],),
        )
    deadline = start + UP_TIMEOUT_S
    while monotonic_s() < deadline and process.poll() is None:
        state = read_state(settings.paths.processes)
        if state and state.pid == process.pid and state.phase is Phase.READY:
            return Started(
                process.pid, settings.api_url, http_url(settings), str(settings.home), round(monotonic_s() - start, 2)
            )
        _wait()
    if process.poll() is None:
        process.terminate()
        process.wait()
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
    raise Refused(
        Problem("up-failed", "The platform did not come up", tail, f"Look at {settings.paths.logs}", status=500)
    )


def stop(settings: Settings) -> int:
    """Stop the platform of this data directory and wait until it is gone; its pid.

    Raises Refused (`not-running`, `down-timeout`).
    """
    holder = lock_holder(settings.paths.lock)
    if holder is None:
        raise Refused(Problem("not-running", "No Moorage runs on this data directory", str(settings.home), status=404))
    os.kill(holder.pid, 15)
    deadline = monotonic_s() + DOWN_TIMEOUT_S
    while is_alive(holder.pid, holder.started_ticks):
        if monotonic_s() > deadline:
            raise Refused(
                Problem(
                    "down-timeout",
                    "The platform did not stop in time",
                    f"pid {holder.pid} still runs after {DOWN_TIMEOUT_S:g} s.",
                    "Ask again: a second stop waits for nobody.",
                )
            )
        _wait()
    return holder.pid


def _wait() -> None:
    time.sleep(PERIOD_S)
