"""What is there: `status`, `apps`, `deployments`, `routes`, `allocations`, `sessions`. Reading changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moorage.cli.call import AppArgument, Call, Exit, checked_app
from moorage.cli.words import ago, count_of, listed, short_digest
from moorage.domain.errors import Problem, Refused, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from moorage.wire.api import AllocationView, DeploymentView, EdgeView, SessionsView, StatusView

SESSIONS_SHOWN_MAX_COUNT = 50
ACCOUNTS_SHOWN_MAX_COUNT = 3

OptionalApp = Annotated[str | None, typer.Argument(metavar="[APP]", help="Of this app alone.", show_default=False)]


async def status(call: Call) -> Exit | None:
    """Show the installation at a glance."""
    from moorage.cli.table import Column
    from moorage.system.clock import now_ms

    view, now = await _status(call), now_ms()
    call.screen.document(view)
    call.screen.facts(_overview(view))
    call.screen.say()
    columns = [
        Column("PROCESS"),
        Column("STATE", state=True),
        Column("PID", right=True),
        Column("RESTARTS", right=True),
    ]
    rows = [
        (p.name, p.state, p.pid, p.restarts, ago(p.since_ms, now).removesuffix(" ago"), p.last_exit)
        for p in view.processes
    ]
    columns += [Column("SINCE", right=True), Column("LAST EXIT", flexible=True)]
    call.screen.table(columns, rows, empty="No process is supervised here.")
    call.screen.say()
    columns = [Column("EDGE"), Column("STATE", state=True), Column("LOG", right=True), Column("BEHIND", right=True)]
    columns += [Column("SEEN", right=True), Column("CATCH-UP", flexible=True)]
    call.screen.table(columns, [_edge(edge, now) for edge in view.edges], empty="No edge has reported.")
    if view.stores:
        call.screen.say()
        columns = [Column("STORE"), Column("ENVIRONMENT"), Column("STATE", state=True), Column("PORT", right=True)]
        call.screen.table(columns, [(s.app, s.environment, s.state, s.port) for s in view.stores])
    return None


async def _status(call: Call) -> StatusView:
    """The state of the installation. Raises Unavailable (`control-unreachable`), which tells a data directory in which
    nothing was ever started from a platform that is stopped."""
    try:
        return await call.api.status()
    except Unavailable as lost:
        # No key there (`token-missing`) and no lock file: `moorage up` makes both, and leaves both when it ends.
        if isinstance(lost.__cause__, Refused) and not call.settings.paths.lock.exists():
            raise Unavailable(_never_started(lost.problem, call.settings.home)) from lost
        raise


def _never_started(problem: Problem, home: Path) -> Problem:
    return replace(
        problem,
        title=f"No platform was ever started in {home}",
        detail="" if home.is_dir() else "There is no such folder.",
        hint="Start one there with `moorage up --detach`, or name the data directory of another one with --home, "
        "or its address with --api.",
    )


def _overview(view: StatusView) -> list[tuple[str, object]]:
    """The facts above the tables."""
    from rich.text import Text

    state = Text("ready", style="green") if view.ready else Text("not ready", style="red")
    work = count_of(view.operations_open, "open operation")
    binaries = listed(f"{name} {version}" for name, version in sorted(view.binaries.items()))
    return [
        ("Moorage", Text(f"{view.version}, ").append_text(state)),
        ("home", view.home),
        ("API", view.api),
        ("HTTP", f"{view.http} (base domain {view.base_domain})"),
        ("isolation", view.isolation),
        ("apps", f"{view.apps}, {count_of(view.routes, 'route')}, {view.allocations_ready} ready allocations, {work}"),
        ("log", f"index {view.log_index} of {view.incarnation}"),
        ("binaries", binaries),
    ]


def _edge(edge: EdgeView, now: int) -> tuple[object, ...]:
    state = "live" if edge.live and not edge.behind else "behind" if edge.live else "lost"
    missed = _caught_up(edge.catch_up, now)
    return (edge.id, state, edge.applied_index, edge.behind, ago(edge.seen_ms, now), missed)


def _caught_up(catch_up: dict[str, Any] | None, now: int) -> str:
    """What an edge missed while it was away, and how it made up for it."""
    if catch_up is None:
        return ""
    return f"{catch_up['from_index']} to {catch_up['to_index']} by {catch_up['by']}, {ago(catch_up['at_ms'], now)}"


async def apps(call: Call) -> Exit | None:
    """List the apps."""
    from moorage.cli.table import Column

    found = await call.api.apps()
    call.screen.document({"items": found})
    columns = [Column("APP"), Column("SERVING", right=True), Column("EPOCH", right=True), Column("READY", right=True)]
    columns += [Column("SOCKETS", right=True), Column("NEWEST", state=True), Column("URL", flexible=True)]
    rows = [
        (
            a.name,
            a.serving,
            a.epoch,
            a.ready_allocations,
            a.attached_sockets,
            f"{a.newest_deployment} {a.newest_state}" if a.newest_deployment else "-",
            a.url,
        )
        for a in found
    ]
    call.screen.table(columns, rows, empty="There is no app yet. Go to one and run: moorage deploy")
    return None


async def deployments(call: Call, app: AppArgument) -> Exit | None:
    """List an app's deployments, newest first."""
    from moorage.cli.table import Column
    from moorage.system.clock import now_ms

    found, now = await call.api.deployments(checked_app(app)), now_ms()
    call.screen.document({"items": found})
    columns = [
        Column("NUMBER", right=True),
        Column("STATE", state=True),
        Column("ARTIFACT"),
        Column("SOURCE", spare=True),
    ]
    columns += [Column("CREATED", right=True), Column("PREVIEW, OR WHY NOT", flexible=True)]
    rows = [
        (
            d.number,
            "serving" if d.serving else d.state,
            short_digest(d.artifact),
            _source(d),
            ago(d.created_ms, now),
            d.preview_url or (f"{d.problem.get('code')}: {d.problem.get('title')}" if d.problem else "-"),
        )
        for d in found
    ]
    call.screen.table(columns, rows, empty=f"{app} has no deployment.")
    return None


def _source(deployment: DeploymentView) -> str:
    """The commit that was deployed, with a plus when more than it was."""
    commit = deployment.source.get("commit")
    if not isinstance(commit, str):
        return short_digest(str(deployment.source.get("tree_digest") or ""))
    return commit[:10] + ("+" if deployment.source.get("dirty") else "")


async def routes(call: Call) -> Exit | None:
    """List the route owners, and which edges do not have them yet."""
    from moorage.cli.table import Column

    found = await call.api.routes()
    call.screen.document({"items": found})
    columns = [
        Column("ROUTE"),
        Column("EPOCH", right=True),
        Column("APP"),
        Column("DEPLOYMENT", right=True),
    ]
    columns += [Column("ARTIFACT", spare=True), Column("READY", right=True), Column("EDGES")]
    rows = [
        (
            r.route_key,
            r.epoch,
            r.app,
            r.deployment,
            short_digest(r.artifact),
            r.ready_allocations,
            (f"behind: {', '.join(r.edges_behind)}" if r.edges_behind else "all") + (", held" if r.held else ""),
        )
        for r in found
    ]
    call.screen.table(columns, rows, empty="Nobody owns a route.")
    return None


async def allocations(
    call: Call,
    app: OptionalApp = None,
    all: Annotated[bool, typer.Option("--all", help="Also the newest ones that are gone.")] = False,
) -> Exit | None:
    """List the allocations: running instances of deployments."""
    from moorage.cli.table import Column
    from moorage.system.clock import now_ms

    found = await call.api.allocations(checked_app(app) if app else None, all=all)
    now = now_ms()
    call.screen.document({"items": found})
    columns = [Column("NUMBER", right=True), Column("APP"), Column("ENVIRONMENT"), Column("DEPLOYMENT", right=True)]
    columns += [Column("STATE", state=True), Column("POSTURE", state=True), Column("SOCKETS", right=True)]
    columns += [
        Column("PID", right=True, spare=True),
        Column("SINCE", right=True, spare=True),
        Column("WHY", flexible=True),
    ]
    rows = [
        (
            a.number,
            a.app,
            a.environment,
            a.deployment,
            a.state,
            a.posture,
            "?" if a.attached_sockets is None else a.attached_sockets,
            a.pid,
            ago(a.ended_ms or a.ready_ms or a.created_ms, now).removesuffix(" ago"),
            _why(a),
        )
        for a in found
    ]
    call.screen.table(columns, rows, empty="Nothing runs.")
    return None


def _why(allocation: AllocationView) -> str:
    """The reason of an allocation's state, with the exit code of a process that has ended."""
    parts = [allocation.reason, allocation.detail]
    code = allocation.exit_code
    if code is not None:
        parts = [allocation.reason, f"exit code {code}" if code >= 0 else f"ended by {_signal_name(-code)}"]
    return listed((part for part in parts if part), none="")


def _signal_name(number: int) -> str:
    from signal import Signals

    return Signals(number).name if number in set(Signals) else f"signal {number}"


async def sessions(call: Call, app: AppArgument) -> Exit | None:
    """Show an app's live sessions and its last accounts."""
    from moorage.cli.table import Column
    from moorage.system.clock import now_ms

    view, now = await call.api.sessions(checked_app(app)), now_ms()
    call.screen.document(view)
    call.screen.say(
        f"{view.app}: {count_of(view.attached_sockets, 'attached socket')}, counted {ago(view.at_ms, now)}; "
        f"depth of knowledge: {view.depth}"
    )
    if view.stored_records is not None:
        call.screen.say(
            f"In the session store: {count_of(view.stored_records, 'record')} of sessions, attached or not "
            "(the framework writes one when a socket is lost, else every 30 s)."
        )
    columns = [Column("SESSION"), Column("ALLOCATION", right=True), Column("DEPLOYMENT", right=True)]
    columns += [
        Column("ATTACHED", spare=True),
        Column("OUTCOME", state=True),
        Column("CHANGED", right=True, spare=True),
        Column("WHY", flexible=True),
    ]
    rows = [
        (
            s.label,
            s.allocation,
            s.deployment,
            "yes" if s.attached else "no",
            s.outcome,
            ago(s.updated_ms, now),
            s.reason,
        )
        for s in view.sessions[:SESSIONS_SHOWN_MAX_COUNT]
    ]
    if rows or view.stored_records is None:
        call.screen.table(columns, rows, empty="No session is known by name.")
    rest = len(view.sessions) - len(rows)
    if rest > 0:
        call.screen.say(f"and {rest} more (see --json)", style="dim")
    _accounts(call, view, now)
    return None


def _accounts(call: Call, view: SessionsView, now: int) -> None:
    from moorage.cli.account import show_account
    from moorage.cli.follow import kind_name

    for account in view.accounts[:ACCOUNTS_SHOWN_MAX_COUNT]:
        call.screen.say()
        name = kind_name(str(account.get("kind", "move")))
        title = f"{name} {account.get('operation', '')} ({ago(account.get('at_ms'), now)})"
        show_account(call.screen, account.get("account", {}), title=title)
