"""Everything that can go wrong in the SDK, each with a stable code that programs may compare.

Rules of this room: an error says what to do next; its message is built from its fields. Codes are kebab-case.
"""

from __future__ import annotations


class MoorageAppError(Exception):
    """Base of every error the SDK raises on purpose; `code` is stable, the text is for people."""

    code = "moorage-app"


class DeclarationError(MoorageAppError):
    """A state class is declared in a way that could not be kept. Raised while the module is imported."""

    code = "declaration"

    def __init__(self, owner: str, problem: str) -> None:
        super().__init__(f"{owner}: {problem}")
        self.owner, self.problem = owner, problem


class UndeclaredFieldError(MoorageAppError, AttributeError):
    """Something set a name that the state class does not declare."""

    code = "undeclared-field"

    def __init__(self, state_id: str, field: str, declared: tuple[str, ...]) -> None:
        super().__init__(
            f"{state_id} has no field {field!r} (declared: {', '.join(declared) or 'none'}); declare it as "
            f"`{field}: <type> = <default>` to keep it, or as `{field} = unpersisted(<default>)` not to"
        )
        self.state_id, self.field, self.declared = state_id, field, declared


class ValueRefusedError(MoorageAppError, TypeError):
    """A value is not of the declared type, or is not JSON."""

    code = "value-refused"

    def __init__(self, where: str, expected: str, found: str) -> None:
        super().__init__(f"{where} keeps {expected}, not {found}")
        self.where, self.expected, self.found = where, expected, found


class ReadOnlyError(MoorageAppError, TypeError):
    """A shared state was changed outside `change()`, or a kept list or dict was changed in place."""

    code = "read-only"


class SessionLostError(MoorageAppError):
    """Another connection holds the session now (or its record is gone): nothing more can be written here."""

    code = "session-lost"

    def __init__(self, reason: str) -> None:
        super().__init__(f"this process no longer holds the session: {reason}; its client goes on elsewhere")
        self.reason = reason


class StoreUnavailableError(MoorageAppError):
    """The store did not answer: whether the change arrived is not known."""

    code = "store-unavailable"

    def __init__(self, doing: str, problem: str) -> None:
        super().__init__(f"the session store did not answer while {doing}: {problem}")
        self.doing, self.problem = doing, problem


class Refused(MoorageAppError):
    """Raise it in an action to tell the client no: `raise Refused("note-too-long", "Keep it under 280 letters")`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message
