"""`moorage artifact export|import|list|show`: an artifact as one file, from one Moorage to another.

A file is checked here, byte by byte, before anything is sent; the platform checks it again. What cannot run there is
refused before the upload. A file is written whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moorage.cli.call import Call, Exit, KeyFlag, NoWaitFlag, checked_app, new_key
from moorage.cli.verbs.deploy import follow_to_preview, watch_command
from moorage.cli.words import ago, command, count_of, listed, short_digest, size
from moorage.domain.errors import Problem, Refused

if TYPE_CHECKING:
    from moorage.artifacts.archive import Checked
    from moorage.wire.api import DeploymentView
    from moorage.wire.artifact import ArtifactDetail, ArtifactView

_DIGEST = "sha256:"
_SHOWN_FACT_CHARS = 160

NameArgument = Annotated[
    str, typer.Argument(metavar="APP|DIGEST", help="Name of the app, or an artifact's digest.", show_default=False)
]
DeploymentFlag = Annotated[
    int | None, typer.Option("--deployment", metavar="N", help="Of this deployment; else the newest with a preview.")
]


async def export_artifact(
    call: Call,
    name: NameArgument,
    deployment: DeploymentFlag = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write this file, or into this folder.")
    ] = None,
) -> Exit | None:
    """Write an artifact to one file, to be imported elsewhere."""
    import asyncio

    from moorage.artifacts.archive import archive_name, check_archive

    found, number = await _chosen(call, name, deployment)
    target = output or Path()
    if target.is_dir():
        target = target / archive_name(found.app, number, found.digest)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    partial.touch()  # a folder that cannot be written is said before the download
    try:
        with _measured(call, "Downloading", found.size_bytes) as seen:
            await call.api.download_artifact(found.digest, partial, seen=seen)
        with _measured(call, "Verifying", partial.stat().st_size) as seen:
            checked = await asyncio.to_thread(check_archive, partial, seen)
        _expect(checked, found.digest)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    files = len(checked.head.manifest.files)
    told = {"file": str(target), "sha256": checked.sha256, "bytes": checked.size_bytes, "files": files}
    call.screen.document({**told, "app": found.app, "deployment": number, "digest": found.digest})
    call.screen.say(f"Exported deployment {number} of {found.app}: {_contents(checked)}")
    call.screen.say(f"Artifact: {found.digest}")
    call.screen.say(f"File: {target}")
    call.screen.say(f"Next, on the other machine: {command('moorage', 'artifact', 'import', target.name)}")
    return None


async def import_artifact(
    call: Call,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `export` has written.", show_default=False)],
    app: Annotated[
        str | None, typer.Option("--app", metavar="APP", help="Refuse a file that is of another app.")
    ] = None,
    digest: Annotated[
        str | None, typer.Option("--digest", metavar="DIGEST", help="Refuse a file that holds another artifact.")
    ] = None,
    no_wait: NoWaitFlag = False,
    idempotency_key: KeyFlag = None,
) -> Exit | None:
    """Make a deployment of an exported artifact; nothing is built."""
    import asyncio

    from moorage.artifacts.archive import check_archive
    from moorage.wire.artifact import FILE_NAME_MAX_CHARS, ImportRequest

    key = new_key(idempotency_key)
    with _measured(call, "Verifying", file.stat().st_size) as seen:
        checked = await asyncio.to_thread(check_archive, file, seen)
    found = checked.head.manifest.app
    await _check_fit(call, checked, app, digest)
    call.screen.say(f"Verified {_contents(checked)}; ", short_digest(checked.head.digest), f" of {found}")
    with _measured(call, "Uploading", checked.size_bytes) as seen:
        await call.change(lambda: call.api.upload_artifact(file, checked.sha256, seen=seen))
    name = file.name.encode("utf-8", "replace").decode()[:FILE_NAME_MAX_CHARS]
    request = ImportRequest(archive=checked.sha256, file=name)
    started = await call.change(lambda: call.api.import_artifact(found, request, key=key))
    if no_wait:
        call.screen.document(started)
        call.screen.say(f"Started deployment {started.deployment}: ", watch_command(started.operation))
        return None
    call.screen.say(f"Deployment {started.deployment} of {found}")
    return await follow_to_preview(call, started.operation, found, started.deployment, last=True)


async def list_artifacts(
    call: Call,
    app: Annotated[str | None, typer.Argument(metavar="[APP]", help="Of this app alone.", show_default=False)] = None,
) -> Exit | None:
    """List the artifacts that deployments name."""
    from moorage.cli.table import Column
    from moorage.system.clock import now_ms

    found, now = await call.api.artifacts(checked_app(app) if app is not None else None), now_ms()
    call.screen.document({"items": found})
    columns = [Column("ARTIFACT"), Column("APP"), Column("KIND"), Column("DEPTH"), Column("BUILT FOR")]
    columns += [Column("STATE", right=True), Column("SIZE", right=True)]
    columns += [Column("SINCE", right=True), Column("DEPLOYMENTS", flexible=True)]
    call.screen.table(columns, [_row(a, now) for a in found], empty="There is no artifact yet.")
    return None


def _row(found: ArtifactView, now: int) -> tuple[object, ...]:
    what = (short_digest(found.digest), found.app, found.kind, found.depth, found.native or "any")
    return (*what, found.state_entries, size(found.size_bytes), ago(found.created_ms, now), _numbers(found))


def _numbers(found: ArtifactView) -> str:
    return listed(map(str, found.deployments), none="none")


async def show_artifact(call: Call, name: NameArgument, deployment: DeploymentFlag = None) -> Exit | None:
    """Show an artifact: what it is, the state it declares, the facts about it."""
    from moorage.cli.table import Column

    found, _ = await _chosen(call, name, deployment)
    call.screen.document(found)
    call.screen.facts(_overview(found))
    if found.state:
        call.screen.say()
        columns = [Column("STATE"), Column("FIELD"), Column("SCOPE"), Column("KIND"), Column("DEFAULT")]
        rows = [
            (e["label"] or e["state"], e["field"], e["scope"], e["kind"], "yes" if e["default"] else "no")
            for e in found.state
        ]
        call.screen.table(columns, rows)
    call.screen.say()
    call.screen.facts((name, _shown(value)) for name, value in sorted(found.facts.items()))
    return None


async def _chosen(call: Call, name: str, deployment: int | None) -> tuple[ArtifactDetail, int]:
    """The artifact of a digest (or the beginning of one) or of an app's deployment, and that deployment's number."""
    if name.startswith(_DIGEST):
        if deployment is not None:
            raise typer.BadParameter("a digest names the artifact: leave out --deployment")
        found = await call.api.artifact(await _whole_digest(call, name))
        return found, next(iter(found.deployments), 0)
    view = await _deployment(call, checked_app(name), deployment)
    assert view.artifact is not None
    return await call.api.artifact(view.artifact), view.number


async def _whole_digest(call: Call, begun: str) -> str:
    """The one artifact whose digest begins so; a whole digest is itself. Raises Refused (`artifact-missing`)."""
    if len(begun) == len(_DIGEST) + 64:
        return begun
    found = [a.digest for a in await call.api.artifacts() if a.digest.startswith(begun)]
    if len(found) == 1:
        return found[0]
    detail = f"{len(found)} artifacts begin so: {listed(map(short_digest, found))}" if found else ""
    hint = "See `moorage artifact list`."
    raise Refused(Problem("artifact-missing", f"No one artifact is named {begun}", detail, hint, 404))


async def _deployment(call: Call, app: str, number: int | None) -> DeploymentView:
    """A deployment that has an artifact: this one, or the newest with a preview.

    Raises Refused (`deployment-without-artifact`).
    """
    if number is not None:
        view = await call.api.deployment(app, number)
        if view.artifact is not None:
            return view
        raise Refused(_no_artifact(f"Deployment {number} of {app} has no artifact", f"It is {view.state}.", app))
    views = await call.api.deployments(app)
    for view in views:
        if view.artifact is not None and view.state == "preview_ready":
            return view
    raise Refused(_no_artifact(f"{app} has no deployment with a preview", "", app))


def _no_artifact(title: str, detail: str, app: str) -> Problem:
    hint = f"See `moorage deployments {app}`; --deployment N names another one."
    return Problem("deployment-without-artifact", title, detail, hint)


async def _check_fit(call: Call, checked: Checked, app: str | None, digest: str | None) -> None:
    """Whether the file is what was asked for and can run there. Raises Refused."""
    from moorage.artifacts.foreign import Machine, misfit, other_app

    manifest = checked.head.manifest
    problem = other_app(manifest.app, app) if app is not None else None
    if problem is not None:
        raise Refused(problem)
    if digest is not None:
        _expect(checked, digest)
    there = await call.api.machine()
    problem = misfit(manifest, Machine(there.native, there.python))
    if problem is not None:
        raise Refused(problem)


def _expect(checked: Checked, digest: str) -> None:
    """Raise Refused (`artifact-other-digest`) unless the archive holds this artifact."""
    if checked.head.digest == digest:
        return
    raise Refused(
        Problem(
            "artifact-other-digest",
            "The archive holds another artifact",
            f"It holds {checked.head.digest}, expected was {digest}.",
            "Compare with the digest that `moorage artifact export` printed.",
            422,
            {"digest": checked.head.digest},
        )
    )


def _contents(checked: Checked) -> str:
    return f"{count_of(len(checked.head.manifest.files), 'file')}, {size(checked.size_bytes)}"


def _overview(found: ArtifactDetail) -> list[tuple[str, object]]:
    """The facts that people look for first."""
    commit, imported = found.source.get("commit"), found.source.get("imported")
    source = f"commit {str(commit)[:12]}" + (
        " with changes that were not committed" if found.source.get("dirty") else ""
    )
    pairs: list[tuple[str, object]] = [
        ("artifact", found.digest),
        ("app", found.app),
        ("kind", f"{found.kind}, {found.depth}"),
        ("built for", found.native or "any machine"),
        ("size", size(found.size_bytes) + ("" if found.present else " (its files are missing from the store)")),
        ("process", f"{found.process.get('command')} (health {found.process.get('health')})"),
        ("deployments", _numbers(found)),
        ("source", source if commit else "no commit is known"),
        ("migrations", listed(f"{m['name']} ({m['impact']})" for m in found.migrations)),
    ]
    if isinstance(imported, dict):
        pairs.append(("imported", f"from {imported.get('file') or 'a file'}"))
    return pairs


def _shown(value: object) -> str:
    """A fact on one line."""
    import json

    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_FACT_CHARS else f"{text[:_SHOWN_FACT_CHARS]}…"


@contextmanager
def _measured(call: Call, what: str, total_bytes: int) -> Iterator[Callable[[int], Any]]:
    """A bar in a terminal while bytes go through; gives what is to be told how many more there are."""
    if not call.screen.live:
        yield lambda _count: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=call.screen.console, transient=True) as bar:
        task = bar.add_task(what, total=total_bytes)
        yield lambda count: bar.advance(task, count)
