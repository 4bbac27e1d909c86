"""What the board keeps, version 1. The versions differ in this file alone (see variants/)."""

from __future__ import annotations

from typing import Any

from moorage_app import SessionState, SharedState, unpersisted

VERSION = "v1"
PALETTE = ("yellow", "coral", "mint", "sky")


class Draft(SessionState, id="board:draft:v1"):
    """The note somebody is writing: comes back after a deploy, a crash or a lost connection."""

    text: str = ""
    colour: str = "yellow"


class View(SessionState, id="board:view:v1"):
    """How somebody looks at the board."""

    filter: str = "all"  # all, mine, or a colour
    searches: int = unpersisted(0)  # counted in the process only: at its default after a resume


class Me(SessionState, id="board:me:v1"):
    """The name the others see."""

    name: str = ""


class Notes(SharedState, id="board:notes:v1"):
    """Everyone's notes, newest first."""

    notes: list[dict[str, Any]] = []


def colour_of(draft: Draft) -> str:
    """The name of the colour chosen for the draft."""
    return draft.colour if draft.colour in PALETTE else PALETTE[0]


def extras_of(draft: Draft) -> dict[str, Any]:
    """What this version adds to a note."""
    return {}


def look() -> dict[str, Any]:
    """What the page needs to know to draw this version's controls."""
    return {"version": VERSION, "palette": PALETTE, "indexed": False, "important": False}
