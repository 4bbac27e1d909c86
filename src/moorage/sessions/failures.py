"""What can go wrong with an environment's store. "The store did not answer" is never read as "no"."""

from __future__ import annotations

from moorage.domain.errors import Problem, Refused, Unavailable


class StoreDown(Unavailable):
    """The store did not answer, or broke off; nothing is known about what it did with the last command."""

    def __init__(self, port: int, detail: str) -> None:
        self.port = port
        hint = "The runner restarts a store that died; `moorage status` shows its state and `moorage logs` why."
        title = f"The session store on port {port} does not answer"
        super().__init__(Problem("store-down", title, detail, hint, 503, {"port": port}))


class StoreRefused(Unavailable):
    """The store answered a command of the platform with an error (for example because a script blocks it)."""

    def __init__(self, port: int, command: str, detail: str) -> None:
        self.port, self.command = port, command
        hint = "An app's script may be blocking the store; stop the allocation that runs it."
        title = f"The session store on port {port} refused {command}"
        super().__init__(Problem("store-refused", title, detail, hint, 503, {"port": port, "command": command}))


class FenceFailed(Unavailable):
    """The proof of a fence failed: the user still has connections, or is not switched off. Nothing may be admitted."""

    def __init__(self, user: str, connections: int, enabled: bool) -> None:
        self.user, self.connections, self.enabled = user, connections, enabled
        detail = f"{connections} connections remain; the user is {'on' if enabled else 'off'}."
        facts = {"user": user, "connections": connections}
        super().__init__(Problem("fence-failed", f"{user} is not fenced", detail, "Fence it again.", 503, facts))


class StoreUserInvalid(Refused):
    """A name or a password digest that must not reach a store's list of users."""

    def __init__(self, name: str, detail: str) -> None:
        self.name = name
        super().__init__(Problem("store-user-invalid", f"{name!r} cannot be a user of a store", detail, "", 422))


class StoreUserUnknown(Refused):
    """The store has no such user."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(Problem("store-user-unknown", f"The store has no user {name}", "", "", 404, {"user": name}))
