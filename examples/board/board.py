"""A small collaborative board on the Moorage SDK.

Run it by itself with `python -m uvicorn board:app` (everything in memory), or deploy it: `moorage deploy .`
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from moorage_app import Live, Refused, Session
from state import Draft, Me, Notes, colour_of, extras_of, look

STATIC = Path(__file__).parent / "static"
NOTE_LETTERS = 280
NAME_LETTERS = 24
NOTES_COUNT = 120
FIRST_NAMES = ("Quiet", "Brisk", "Amber", "Northern", "Patient", "Silver", "Early", "Gentle", "Clever", "Salty")
LAST_NAMES = ("Heron", "Otter", "Gull", "Pilot", "Anchor", "Lantern", "Tern", "Skipper", "Harbour", "Plover")

live = Live("/live")


@live.entered
async def welcome(session: Session) -> None:
    """Gives newcomers a name, shows them to the others and tells the page what this version can do."""
    me = session[Me]
    if not me.name:
        me.name = f"{secrets.choice(FIRST_NAMES)} {secrets.choice(LAST_NAMES)}"
    session.show(name=me.name)
    session.send("look", look())


@live.action
async def rename(session: Session, data: Any) -> None:
    """Changes the name the others see."""
    name = str(data or "").strip()[:NAME_LETTERS]
    if not name:
        raise Refused("name-empty", "A name needs at least one letter.")
    session[Me].name = name
    session.show(name=name)


@live.action
async def add_note(session: Session, data: Any) -> None:
    """Puts the draft on the board and empties it."""
    draft = session[Draft]
    text = draft.text.strip()
    if not text:
        raise Refused("note-empty", "Write something first.")
    if len(text) > NOTE_LETTERS:
        raise Refused("note-too-long", f"Keep it under {NOTE_LETTERS} letters.")
    note = {
        "id": f"{session.tag}-{session.seq}",
        "text": text,
        "colour": colour_of(draft),
        "by": session.tag,
        "name": session[Me].name,
        "at_ms": time.time_ns() // 1_000_000,
        "hearts": [],
        **extras_of(draft),
    }

    def add(board: Notes) -> None:
        board.notes = [note, *board.notes][:NOTES_COUNT]

    await session.change(Notes, add)
    draft.text = ""


@live.action
async def heart(session: Session, data: Any) -> None:
    """Gives a note a heart, or takes it back."""

    def toggle(board: Notes) -> None:
        board.notes = [_hearted(note, session.tag) if note["id"] == data else note for note in board.notes]

    await session.change(Notes, toggle)


@live.action
async def remove_note(session: Session, data: Any) -> None:
    """Takes one's own note off the board."""

    def remove(board: Notes) -> None:
        board.notes = [note for note in board.notes if note["id"] != data or note["by"] != session.tag]

    await session.change(Notes, remove)


def _hearted(note: dict[str, Any], tag: str) -> dict[str, Any]:
    hearts = [one for one in note["hearts"] if one != tag]
    return {**note, "hearts": hearts if tag in note["hearts"] else [*hearts, tag]}


class Assets(StaticFiles):
    """Static files that a browser asks about again: the next version of the app may have others."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """See StaticFiles."""
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


async def page(request: Request) -> FileResponse:
    """The one page."""
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})


async def healthz(request: Request) -> PlainTextResponse:
    """Answers when the app can serve."""
    return PlainTextResponse("ok\n")


app = live.wrap(
    Starlette(routes=[Route("/", page), Route("/healthz", healthz), Mount("/static", Assets(directory=STATIC))])
)
