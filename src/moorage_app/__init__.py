"""Moorage SDK for Python ASGI apps: declared session state that survives a deploy, and shared state for everyone.

    from moorage_app import Live, SessionState, SharedState

    class Draft(SessionState, id="board:draft:v1"):
        text: str = ""

    class Notes(SharedState, id="board:notes:v1"):
        items: list[dict[str, Any]] = []

    live = Live()

    @live.action
    async def add_note(session, data):
        await session.change(Notes, lambda notes: setattr(notes, "items", [*notes.items, {"text": data}]))
        session[Draft].text = ""

    app = live.wrap(my_asgi_app)

Rules of this room: these names are the whole surface for authors; everything else may change.
"""

from .contract import FreshReason, Outcome
from .errors import (
    DeclarationError,
    MoorageAppError,
    ReadOnlyError,
    Refused,
    SessionLostError,
    StoreUnavailableError,
    UndeclaredFieldError,
    ValueRefusedError,
)
from .live.endpoint import Live
from .live.session import Session
from .state import NotPersistedWarning, SessionState, SharedState, unpersisted

__all__ = [
    "DeclarationError",
    "FreshReason",
    "Live",
    "MoorageAppError",
    "NotPersistedWarning",
    "Outcome",
    "ReadOnlyError",
    "Refused",
    "Session",
    "SessionLostError",
    "SessionState",
    "SharedState",
    "StoreUnavailableError",
    "UndeclaredFieldError",
    "ValueRefusedError",
    "unpersisted",
]
