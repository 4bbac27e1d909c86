"""Users of a store, pure: their rules as text, and the changes that make the store's users what they should be.

Rules: one user per allocation, the platform's own admin, the default user off. A plan only ever tightens: it creates,
switches off, changes passwords and removes. Switching a user on again is a deliberate act of a hand-over that was
called off before its cut (`StoreAdmin.unfence`), never something that a stale desired state can do. For the same
reason a user that the last list of users names as off stays off when the list is written anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from moorage.sessions.failures import StoreUserInvalid
from moorage.wire.runner import StoreUser

ADMIN = "moorage"
APP_RULES = ("~*", "&*", "+@all", "-@dangerous", "-@admin", "+info")  # info: many clients read the version from it
_DEFAULT_LINE = "user default off resetpass resetkeys resetchannels -@all"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PresentUser:
    """A user as the store has it: `passwords` are hex SHA-256 digests, `rules` the rest of its line."""

    name: str
    enabled: bool
    passwords: tuple[str, ...]
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Create:
    """A user that the store does not have yet."""

    user: StoreUser


@dataclass(frozen=True, slots=True)
class Amend:
    """Another password, or rules that are not ours; whether it is on stays as it is."""

    user: StoreUser


@dataclass(frozen=True, slots=True)
class SwitchOff:
    """A user that must be fenced; also when it is off already, because its connections may live."""

    name: str


@dataclass(frozen=True, slots=True)
class Remove:
    """A user whose allocation is gone."""

    name: str


Change = Create | Amend | SwitchOff | Remove


def checked(user: StoreUser) -> StoreUser:
    """The user itself; raises StoreUserInvalid for a name or digest that could change another line or rule."""
    if not _NAME.fullmatch(user.name) or user.name in (ADMIN, "default"):
        raise StoreUserInvalid(user.name, "Names are letters, digits, `_`, `.` and `-`, and not a reserved one.")
    if not _SHA256.fullmatch(user.password_sha256):
        raise StoreUserInvalid(user.name, "The password's digest is not 64 hexadecimal digits.")
    return user


def plan_users(desired: Sequence[StoreUser], present: Mapping[str, PresentUser]) -> tuple[Change, ...]:
    """The changes that make the present users the desired ones, switching off first, creating last."""
    wanted = {user.name: user for user in desired}
    off = [SwitchOff(user.name) for user in desired if not user.enabled and user.name in present]
    gone = [Remove(name) for name in present if name not in wanted and name not in (ADMIN, "default")]
    amended = [Amend(user) for user in desired if user.name in present and not _is_ours(user, present[user.name])]
    created = [Create(user) for user in desired if user.name not in present]
    return (*off, *gone, *amended, *created)


def rules_of(user: StoreUser, *, enabled: bool | None) -> tuple[str, ...]:
    """Arguments of `ACL SETUSER` after the name; `enabled` None leaves on or off as it is."""
    switch = () if enabled is None else ("on" if enabled else "off",)
    return (
        *switch,
        "resetpass",
        f"#{checked(user).password_sha256}",
        "resetkeys",
        "resetchannels",
        "clearselectors",
        "nocommands",
        *APP_RULES,
    )


def users_file(admin_password_sha256: str, users: Iterable[StoreUser], previous: str = "") -> str:
    """The store's list of users as a file. A user that `previous` (the last file) has as off stays off."""
    were_off = {user.name for user in parse_users(previous.splitlines()) if not user.enabled}
    lines = [_DEFAULT_LINE, f"user {ADMIN} on #{admin_password_sha256} ~* &* +@all"]
    for user in sorted(users, key=lambda user: user.name):
        switch = "on" if user.enabled and checked(user).name not in were_off else "off"
        lines.append(f"user {checked(user).name} {switch} #{user.password_sha256} {' '.join(APP_RULES)}")
    return "\n".join(lines) + "\n"


def parse_users(lines: Iterable[str]) -> tuple[PresentUser, ...]:
    """Users of an `ACL LIST` answer or of a file of users; other lines are skipped."""
    found = []
    for line in lines:
        words = line.split()
        if len(words) >= 3 and words[0] == "user":
            passwords = tuple(word[1:] for word in words if word.startswith("#"))
            rules = tuple(word for word in words[2:] if word not in ("on", "off") and not word.startswith("#"))
            found.append(PresentUser(words[1], "on" in words[2:], passwords, rules))
    return tuple(found)


def _is_ours(user: StoreUser, present: PresentUser) -> bool:
    extra = set(present.rules) - {"sanitize-payload", "resetchannels"}
    return present.passwords == (user.password_sha256,) and extra == set(APP_RULES)
