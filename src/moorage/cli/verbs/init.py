"""`moorage init`: propose a `moorage.toml` from what lies in a folder; an existing one is never touched."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from moorage.cli.call import Call, Exit
from moorage.domain.errors import Problem, Refused

LISTED_MAX_COUNT = 500  # names at the top of a folder that are looked at

FolderArgument = Annotated[Path, typer.Argument(metavar="[PATH]", help="Folder of the app.", show_default=False)]


async def init(call: Call, path: FolderArgument = Path(".")) -> Exit | None:
    """Write a moorage.toml from what is found in the folder."""
    from moorage.domain.appfile import APPFILE_NAME
    from moorage.domain.detect import detect

    folder = path.resolve()
    if not folder.is_dir():
        raise Refused(no_folder(path))
    target = folder / APPFILE_NAME
    suggestion = detect(folder.name, _top_of(folder))
    try:
        with target.open("x", encoding="utf-8") as out:
            out.write(suggestion.appfile)
    except FileExistsError as there:
        raise Refused(_exists(target)) from there
    call.screen.document(
        {
            "path": str(target),
            "kind": suggestion.kind,
            "reason": suggestion.reason,
            "complete": suggestion.complete,
            "appfile": suggestion.appfile,
        }
    )
    call.screen.say(f"Found: {suggestion.kind} ({suggestion.reason})")
    call.screen.say(f"Wrote {target}")
    call.screen.say()
    for line in suggestion.appfile.splitlines():
        call.screen.say("  ", line, style="dim")
    call.screen.say()
    where = "" if path == Path(".") else f" {shlex.quote(str(path))}"
    if suggestion.complete:
        call.screen.say(f"Next: moorage deploy{where}")
    else:
        call.screen.say(f"Next: correct the command in {APPFILE_NAME}, then moorage deploy{where}")
    return None


def no_folder(path: Path) -> Problem:
    """The problem of a source that is no folder."""
    return Problem("source-missing", "The source is not a folder", str(path), "Name the folder of the app.", 422)


def _top_of(folder: Path) -> dict[str, str]:
    """The files at the top of a folder: name to text, empty for what is large or no text."""
    names = sorted(item for item in folder.iterdir() if item.is_file())[:LISTED_MAX_COUNT]
    return {item.name: _text_of(item) for item in names}


def _text_of(file: Path) -> str:
    from moorage.domain.detect import READ_MAX_BYTES

    try:
        with file.open("rb") as handle:
            content = handle.read(READ_MAX_BYTES + 1)
        return "" if len(content) > READ_MAX_BYTES else content.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _exists(target: Path) -> Problem:
    return Problem(
        "appfile-exists",
        f"There is a {target.name} already",
        str(target),
        "It was left as it is. Deploy with `moorage deploy`, or move it away first.",
        facts={"file": str(target)},
    )
