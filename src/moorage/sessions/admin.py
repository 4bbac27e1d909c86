"""The platform's own hand in an environment's store: users and the fence.

**Fence**: switch the user off, kill its connections, prove both by looking, keep it in the store's file of users so
that a restart does not readmit it. Switching off alone lets an open connection go on writing. Nothing here asks the
allocation, so the fence holds also for one that is frozen or does not cooperate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import valkey.asyncio
from valkey.asyncio.retry import Retry
from valkey.backoff import NoBackoff
from valkey.exceptions import AuthenticationError, ConnectionError, ResponseError, TimeoutError, ValkeyError

from moorage.sessions.failures import FenceFailed, StoreDown, StoreRefused, StoreUserUnknown
from moorage.sessions.users import (
    ADMIN,
    Amend,
    Change,
    Create,
    PresentUser,
    Remove,
    SwitchOff,
    parse_users,
    plan_users,
    rules_of,
)
from moorage.system.clock import monotonic_s, now_ms, pause
from moorage.wire.runner import StoreUser

ANSWER_TIMEOUT_S = 2.0
PROBE_KEY = "moorage:probe"
SCRIPT_LOOKS_COUNT, SCRIPT_LOOK_S = 100, 0.02
FENCE_ROUNDS_COUNT = 5  # a connection accepted while the user was being switched off is seen in the next round


@dataclass(frozen=True, slots=True)
class FenceEvidence:
    """Proof that a user can neither write nor come back: it is off and no connection of it remains.

    `killed` connections were ended by this call; `durable`: the store keeps it across a restart; `at_ms` is the wall
    clock after the proof, `took_ms` the time from switching off to the proof.
    """

    user: str
    killed: int
    durable: bool
    at_ms: int
    took_ms: float


class StoreAdmin:
    """One environment's store on a loopback port, as its admin. Close it after use.

    Every method raises StoreDown when the store does not answer and StoreRefused when it answers with an error.
    """

    def __init__(self, port: int, admin_password: str, *, host: str = "127.0.0.1") -> None:
        self.host, self.port, self.password = host, port, admin_password
        self._client: Any = valkey.asyncio.Valkey(
            host=host,
            port=port,
            username=ADMIN,
            password=admin_password,
            decode_responses=True,
            encoding_errors="backslashreplace",  # an app's record may be any bytes
            socket_timeout=ANSWER_TIMEOUT_S,
            socket_connect_timeout=ANSWER_TIMEOUT_S,
            # A command is sent again only when the idle connection turned out to be dead: all of ours may be repeated.
            retry=Retry(NoBackoff(), 1),
            retry_on_error=[ConnectionError],
            client_name="moorage-admin",
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def command(self, *words: str | int) -> Any:
        """Send one command as the admin and return the store's answer."""
        try:
            return await self._client.execute_command(*words)
        except (AuthenticationError, ResponseError) as refused:
            raise StoreRefused(self.port, str(words[0]), str(refused)) from refused
        except (ConnectionError, TimeoutError, OSError) as lost:
            raise StoreDown(self.port, str(lost) or type(lost).__name__) from lost
        except ValkeyError as broken:
            raise StoreDown(self.port, str(broken)) from broken

    async def raw(self, commands: Sequence[Sequence[str | int]]) -> list[Any]:
        """Send many commands at once and return their answers in order, texts as the bytes that they are."""
        async with self._client.pipeline(transaction=False) as pipe:
            for words in commands:
                pipe.execute_command(*words, NEVER_DECODE=True)
            try:
                return list(await pipe.execute())
            except (AuthenticationError, ResponseError) as refused:
                raise StoreRefused(self.port, str(commands[0][0]), str(refused)) from refused
            except (ValkeyError, OSError) as lost:
                raise StoreDown(self.port, str(lost) or type(lost).__name__) from lost

    async def ping(self) -> None:
        """Return once the store has answered the admin."""
        await self.command("PING")

    async def try_write(self) -> None:
        """Return once the store has taken a write, which is durable as it is configured: a full disk is found here."""
        await self.command("SET", PROBE_KEY, "1", "PX", 1)

    async def users(self) -> Mapping[str, PresentUser]:
        """All users that the store has, by name; the admin and `default` included."""
        return {user.name: user for user in parse_users(await self.command("ACL", "LIST"))}

    async def connected_users(self) -> Mapping[str, int]:
        """How many connections each user has now (the admin's own among them)."""
        return Counter(_user_of(line) for line in str(await self.command("CLIENT", "LIST")).splitlines())

    async def user_by_address(self) -> Mapping[str, str]:
        """Which user each connection belongs to, by the client's `host:port`."""
        lines = str(await self.command("CLIENT", "LIST")).splitlines()
        return {_word_of(line, "addr"): _user_of(line) for line in lines}

    async def is_fenced(self, user: str) -> bool:
        """Whether the user is off (or unknown) and has no connection."""
        present = (await self.users()).get(user)
        return (present is None or not present.enabled) and not (await self.connected_users()).get(user)

    async def fence(self, user: str) -> FenceEvidence:
        """Switch the user off, kill its connections and prove it; the same again is harmless.

        A user that the store does not know yet is created switched off, so that it cannot appear later. Raises
        FenceFailed when a connection survived: then nobody may be admitted.
        """
        start, killed = monotonic_s(), 0
        for _ in range(SCRIPT_LOOKS_COUNT):
            if await self._end_script():
                break
            await pause(SCRIPT_LOOK_S)  # the store ends a script at its next look, not at once
        for _ in range(FENCE_ROUNDS_COUNT):
            await self.command("ACL", "SETUSER", user, "off")
            killed += int(await self.command("CLIENT", "KILL", "USER", user))
            if await self.is_fenced(user):
                took_ms = (monotonic_s() - start) * 1000
                return FenceEvidence(user, killed, await self._keep(), now_ms(), took_ms)
        connections = (await self.connected_users()).get(user, 0)
        raise FenceFailed(user, connections, (await self.users())[user].enabled)

    async def unfence(self, user: str) -> None:
        """Switch a user on again: only for a hand-over that was called off before its cut.

        Raises StoreUserUnknown when the store has no such user with a password.
        """
        present = (await self.users()).get(user)
        if present is None or not present.passwords:
            raise StoreUserUnknown(user)
        await self.command("ACL", "SETUSER", user, "on")
        await self._keep()

    async def set_user(self, user: StoreUser) -> None:
        """Make one user exactly this, whether it is there or not; `enabled` False fences it."""
        await self.command("ACL", "SETUSER", user.name, *rules_of(user, enabled=True if user.enabled else None))
        if user.enabled:
            await self._keep()
        else:
            await self.fence(user.name)

    async def reconcile_users(self, desired: tuple[StoreUser, ...]) -> tuple[Change, ...]:
        """Bring the store's users to the desired ones, never switching one on again; says what was changed."""
        present = await self.users()
        done = []
        for change in plan_users(desired, present):
            if isinstance(change, SwitchOff) and await self.is_fenced(change.name):
                continue
            await self._apply(change)
            done.append(change)
        if done:
            await self._keep()
        return tuple(done)

    async def _apply(self, change: Change) -> None:
        match change:
            case Create(user):
                await self.command("ACL", "SETUSER", user.name, *rules_of(user, enabled=user.enabled))
            case Amend(user):
                await self.command("ACL", "SETUSER", user.name, *rules_of(user, enabled=None))
            case SwitchOff(name):
                await self.fence(name)
            case Remove(name):
                await self.command("ACL", "DELUSER", name)  # ends its connections, too

    async def _end_script(self) -> bool:
        """End a script that blocks the store: it would hold up the fence as long as it likes.

        One that has written already cannot be ended; the store then refuses until it is restarted.
        """
        try:
            await self.ping()
        except StoreRefused as refused:
            if not refused.problem.detail.startswith("BUSY"):
                raise
            await self.command(
                *(("FUNCTION", "KILL") if "FUNCTION KILL" in refused.problem.detail else ("SCRIPT", "KILL"))
            )
            return False
        return True

    async def _keep(self) -> bool:
        """Write the users into the store's file; False when the store refuses (no file configured, disk full)."""
        try:
            await self.command("ACL", "SAVE")
        except StoreRefused:
            return False
        return True


def _user_of(line: str) -> str:
    return _word_of(line, "user")


def _word_of(line: str, name: str) -> str:
    """A value in a line of `CLIENT LIST`; none in it can hold a space."""
    return next((word.removeprefix(f"{name}=") for word in line.split(" ") if word.startswith(f"{name}=")), "")
