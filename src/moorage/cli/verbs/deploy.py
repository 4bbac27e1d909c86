"""`moorage deploy`: check the app file, pack the folder, upload it, follow the build to its preview.

The app file is checked here with the function that the build worker runs, and the packer keeps the rules of a source,
so what can be refused is refused before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moorage.cli.call import Call, Exit, KeyFlag, NoWaitFlag, new_key
from moorage.cli.verbs.init import FolderArgument, no_folder
from moorage.cli.verbs.promote import AcknowledgeFlag, DrainFlag, HandoverFlag, Wish, carry_out, mode_of
from moorage.cli.words import command, count_of, short_digest, size
from moorage.domain.errors import Problem, Refused

if TYPE_CHECKING:
    from moorage.domain.appfile import AppFile
    from moorage.system.source_archive import SourceFacts
    from moorage.wire.api import DeploymentView, OperationView


async def deploy(
    call: Call,
    path: FolderArgument = Path("."),
    promote: Annotated[bool, typer.Option("--promote", help="Promote it too, with the same checks.")] = False,
    drain: DrainFlag = False,
    handover: HandoverFlag = False,
    acknowledge: AcknowledgeFlag = None,
    no_wait: NoWaitFlag = False,
    idempotency_key: KeyFlag = None,
) -> Exit | None:
    """Build a folder and start its preview."""
    mode, key = mode_of(drain, handover), new_key(idempotency_key)
    if promote and no_wait:
        raise typer.BadParameter("--promote needs the preview: leave out --no-wait")
    if not promote and (mode or acknowledge):
        raise typer.BadParameter("--drain, --handover and --acknowledge are for --promote")
    from tempfile import TemporaryDirectory

    from moorage.wire.api import DeployRequest

    appfile = read_appfile(path)
    with TemporaryDirectory(prefix="moorage-") as scratch:
        archive = Path(scratch) / "source.tar.gz"
        facts = await _pack(call, path, archive, appfile)
        await _upload(call, archive, facts)
    request = DeployRequest(source=facts.sha256, facts=facts.to_json())
    started = await call.change(lambda: call.api.deploy(appfile.name, request, key=key))
    if no_wait:
        call.screen.document(started)
        call.screen.say(f"Started deployment {started.deployment}: ", watch_command(started.operation))
        return None
    call.screen.say(f"Deployment {started.deployment} of {appfile.name}")
    code = await follow_to_preview(call, started.operation, appfile.name, started.deployment, last=not promote)
    if code or not promote or started.deployment is None:
        return code
    call.screen.say()
    wish = Wish(mode, acknowledge, None, None, wait=True, key=f"{key}.promote")
    return await carry_out(call, appfile.name, started.deployment, wish)


def read_appfile(folder: Path) -> AppFile:
    """The valid app file of a folder. Raises Refused (`source-missing`, `appfile-missing`, `appfile-invalid`, ...)."""
    from moorage.domain.appfile import APPFILE_MAX_BYTES, APPFILE_NAME, missing_appfile, parse_appfile

    if not folder.is_dir():
        raise Refused(no_folder(folder))
    try:
        with (folder / APPFILE_NAME).open("rb") as handle:
            content = handle.read(APPFILE_MAX_BYTES + 1)
    except FileNotFoundError as missing:
        raise Refused(missing_appfile(str(folder.resolve()))) from missing
    parsed = parse_appfile(content)
    if isinstance(parsed, Problem):
        raise Refused(parsed)
    return parsed


async def _pack(call: Call, folder: Path, archive: Path, appfile: AppFile) -> SourceFacts:
    """Pack the folder and say what went in."""
    import asyncio

    from moorage.system.source_archive import pack

    with _working(call, "Packing the source"):
        facts = await asyncio.to_thread(pack, folder, archive, exclude=appfile.build.exclude)
    parts = [f"{count_of(facts.files, 'file')}, {size(facts.archive_bytes)}"]
    if facts.excluded:
        parts.append(f"{facts.excluded} left out")
    if facts.commit:
        parts.append(f"commit {facts.commit[:12]}" + (" with changes that are not committed" if facts.dirty else ""))
    call.screen.say(f"Packed {'; '.join(parts)}; ", short_digest(facts.tree_digest))
    return facts


async def _upload(call: Call, archive: Path, facts: SourceFacts) -> None:
    """Upload the archive; the digest is its name, so a repeated upload is the same one."""
    with _working(call, f"Uploading {size(facts.archive_bytes)}"):
        await call.change(lambda: call.api.upload(archive, facts.sha256))


async def follow_to_preview(call: Call, id: str, app: str, number: int | None, *, last: bool) -> Exit:
    """Follow the deploy; ends with the preview's URL and the next command, or with why it failed."""
    from moorage.cli.follow import follow, problem_of
    from moorage.cli.screen import as_json

    operation = await follow(call, id)
    deployment = await call.api.deployment(app, number) if number is not None else None
    following = command("moorage", "promote", app, "--deployment", number)
    more = {"deployment": deployment, "next": following if operation.succeeded else None}
    call.screen.document({**as_json(operation), **more}, line=True)
    if not operation.succeeded:
        call.screen.say()
        call.screen.remark(problem_of(operation))
        return Exit.ENDED
    _show_preview(call, operation, deployment)
    if last:
        call.screen.say(f"Next: {following}")
    return Exit.OK


def _show_preview(call: Call, operation: OperationView, deployment: DeploymentView | None) -> None:
    call.screen.say()
    if deployment is None:
        return
    call.screen.say("Preview: ", deployment.preview_url or "-")
    call.screen.say("Artifact: ", short_digest(deployment.artifact))


def watch_command(operation: str) -> str:
    """The command that follows an operation."""
    return command("moorage", "ops", operation, "--follow")


@contextmanager
def _working(call: Call, what: str) -> Iterator[None]:
    """A spinner while something is done, in a terminal."""
    if not call.screen.live:
        yield
        return
    with call.screen.console.status(what):
        yield
