"""One invocation of a verb: its flags, its way to the control API, and the exit code that it ends with.

A verb is an async function whose first parameter is a `Call`; `as_command` makes the Typer command of it, with the
flags that every verb has. Errors become exit codes here and nowhere else.
"""

from __future__ import annotations

import errno
import inspect
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from moorage.domain.errors import MoorageError, Problem, Refused, Unavailable
from moorage.domain.limits import IDEMPOTENCY_KEY_MAX_CHARS
from moorage.domain.names import check_name

if TYPE_CHECKING:
    from moorage.cli.screen import Screen
    from moorage.client.api import Api
    from moorage.system.settings import Settings

T = TypeVar("T")
KEY_SUFFIX_MAX_CHARS = 8  # `.promote`: a verb of two mutations derives the second key from the first
RETRY_PAUSES_S = (0.2, 0.5, 1.0)  # a control plane that its supervisor restarts is back within two seconds
NOT_NOW_STATUSES = frozenset({502, 503, 504})
ACKNOWLEDGEMENT_CODES = frozenset({"acknowledgement-required", "acknowledgement-stale"})


def is_passing(wrong: Unavailable) -> bool:
    """Whether there was no answer, or none now, so that the same call may succeed later."""
    return wrong.problem.status in NOT_NOW_STATUSES


class Exit(IntEnum):
    """The exit codes; documented in docs/cli.md, never renumbered."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    REFUSED = 3
    ACKNOWLEDGEMENT = 4
    ENDED = 5
    UNREACHABLE = 6
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags that every verb has; they may stand before the verb or after it."""

    json: bool = False
    home: str | None = None
    api: str | None = None

    def over(self, before: Flags) -> Flags:
        """These flags, completed by those that stood before the verb."""
        return Flags(self.json or before.json, self.home or before.home, self.api or before.api)


JsonFlag = Annotated[bool, typer.Option("--json", help="Answer in JSON.", show_default=False)]
HomeFlag = Annotated[
    str | None, typer.Option("--home", metavar="FOLDER", help="Data directory (MOORAGE_HOME, default ~/.moorage).")
]
ApiFlag = Annotated[str | None, typer.Option("--api", metavar="URL", help="Address of the control API (MOORAGE_API).")]
KeyFlag = Annotated[
    str | None,
    typer.Option("--idempotency-key", metavar="KEY", help="Repeat with the same key: nothing happens twice."),
]
NoWaitFlag = Annotated[bool, typer.Option("--no-wait", help="Return once the operation has started.")]
AppArgument = Annotated[str, typer.Argument(metavar="APP", help="Name of the app.", show_default=False)]
_COMMON = (("json", JsonFlag, False), ("home", HomeFlag, None), ("api", ApiFlag, None))


class Call:
    """What a verb works with. Connections are opened on first use and closed at the end."""

    def __init__(self, flags: Flags, screen: Screen) -> None:
        self.flags, self.screen = flags, screen
        self._api: Api | None = None

    @property
    def may_ask(self) -> bool:
        """Whether there is a person who can answer a question."""
        return not self.flags.json and sys.stdin.isatty()

    @cached_property
    def settings(self) -> Settings:
        """The settings of the data directory. Raises Refused (`settings-invalid`)."""
        from moorage.system.settings import load_settings

        return load_settings({"home": self.flags.home})

    @property
    def api(self) -> Api:
        """The control API. Raises Refused or Unavailable when there is no address or token."""
        if self._api is None:
            from moorage.client.api import Api
            from moorage.client.http import Http

            self._api = Api(Http(*self._address_and_token()))
        return self._api

    async def change(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send a mutation that carries an idempotency key; a lost connection is tried again with the same key."""
        from moorage.system.clock import pause
        from moorage.system.rand import jitter

        for pause_s in RETRY_PAUSES_S:
            try:
                return await send()
            except Unavailable as lost:
                if not is_passing(lost):
                    raise
                await pause(jitter(pause_s))
        return await send()

    async def close(self) -> None:
        """Close what was opened."""
        if self._api is not None:
            await self._api.close()

    def _address_and_token(self) -> tuple[str, str]:
        from moorage.client.http import unreachable
        from moorage.system.lock import lock_holder
        from moorage.system.settings import client_environ

        asked, token = client_environ()
        asked = self.flags.api or asked
        if asked:
            token = token or _token_of(self.settings.paths.keys / "admin.token")
            return _checked_address(asked), token
        holder = lock_holder(self.settings.paths.lock)
        address = holder.api if holder and holder.api else self.settings.api_url
        try:
            return address, token or _token_of(self.settings.paths.keys / "admin.token")
        except Refused as missing:
            if holder:
                raise
            # Nothing was ever started here: that is what must change, not the token.
            raise Unavailable(unreachable(address, missing)) from missing


def new_key(asked: str | None) -> str:
    """The idempotency key of this invocation: the one asked for, or a fresh one."""
    if asked is None:
        from moorage.system.rand import new_secret

        return new_secret(18)
    limit = IDEMPOTENCY_KEY_MAX_CHARS - KEY_SUFFIX_MAX_CHARS
    if not asked or len(asked) > limit or not all("!" <= c <= "~" for c in asked):
        raise typer.BadParameter(
            f"between 1 and {limit} printable ASCII characters without spaces", param_hint="--idempotency-key"
        )
    return asked


def checked_app(name: str) -> str:
    """The app's name. Raises Refused (`name-invalid`, `name-contains-topology`), as the server would."""
    problem = check_name(name, what="app name")
    if problem is not None:
        raise Refused(problem)
    return name


def as_command(verb: Callable[..., Awaitable[Exit | None]]) -> Callable[..., None]:
    """The Typer command of a verb: its own parameters and the flags that every verb has."""
    signature = inspect.signature(verb, eval_str=True)
    own = list(signature.parameters.values())[1:]
    kind = inspect.Parameter.KEYWORD_ONLY
    shared = [inspect.Parameter(n, kind, annotation=a, default=d) for n, a, d in _COMMON]
    context = inspect.Parameter("context", kind, annotation=typer.Context)
    parameters = [context, *(p.replace(kind=kind) for p in own), *shared]

    def command(context: typer.Context, json: bool, home: str | None, api: str | None, **own: Any) -> None:
        before = context.obj if isinstance(context.obj, Flags) else Flags()
        code = run_verb(verb, Flags(json, home, api).over(before), own)
        if code:
            raise typer.Exit(code)

    command.__name__ = verb.__name__
    command.__doc__ = verb.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def run_verb(verb: Callable[..., Awaitable[Exit | None]], flags: Flags, arguments: dict[str, Any]) -> int:
    """Run a verb to its end and return the exit code; a problem has been shown by then."""
    import asyncio

    from moorage.cli.screen import Screen

    screen = Screen(for_programs=flags.json)
    try:
        return int(asyncio.run(_attempt(verb, Call(flags, screen), arguments)) or Exit.OK)
    except MoorageError as wrong:
        screen.problem(wrong.problem)
        return exit_of(wrong)
    except OSError as wrong:
        if wrong.errno == errno.EPIPE:  # the reader of a pipe has enough: Typer ends quietly
            raise
        screen.problem(_problem_of_file(wrong))
        return Exit.REFUSED


def exit_of(wrong: MoorageError) -> Exit:
    """The exit code of an error."""
    if wrong.problem.code in ACKNOWLEDGEMENT_CODES:
        return Exit.ACKNOWLEDGEMENT
    if isinstance(wrong, Unavailable) and is_passing(wrong):
        return Exit.UNREACHABLE
    return Exit.UNEXPECTED if wrong.problem.status == 500 else Exit.REFUSED


async def _attempt(verb: Callable[..., Awaitable[Exit | None]], call: Call, arguments: dict[str, Any]) -> Exit | None:
    try:
        return await verb(call, **arguments)
    except ValueError as wrong:
        # An answer of another version of the API does not validate; any other ValueError is a bug and stays one.
        if type(wrong).__module__.partition(".")[0] not in ("pydantic_core", "json"):
            raise
        raise Refused(_not_understood(wrong)) from wrong
    finally:
        await call.close()


def _checked_address(address: str) -> str:
    if not address.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{address!r} is no URL, for example http://127.0.0.1:7400", param_hint="--api")
    return address.rstrip("/")


def _token_of(path: Path) -> str:
    """The token in a file. Raises Refused (`token-missing`)."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as wrong:
        reason = wrong.strerror if isinstance(wrong, OSError) else "it is no token"
        raise Refused(_token_missing(path, str(reason))) from wrong
    if not token:
        raise Refused(_token_missing(path, "the file is empty"))
    return token


def _token_missing(path: Path, reason: str) -> Problem:
    return Problem(
        "token-missing",
        "There is no token for the control API",
        f"{path}: {reason}",
        "Set MOORAGE_TOKEN, or name the data directory of the platform with --home or MOORAGE_HOME.",
        status=401,
        facts={"file": str(path)},
    )


def _not_understood(wrong: ValueError) -> Problem:
    return Problem(
        "answer-not-understood",
        "The control plane answered something that this version does not understand",
        str(wrong).splitlines()[0],
        "Compare `moorage --version` here with `moorage status` on the platform: they must be the same version.",
        status=500,
    )


def _problem_of_file(wrong: OSError) -> Problem:
    where = f"{wrong.filename}: " if wrong.filename else ""
    return Problem(
        "file-unusable",
        "A file or folder cannot be used",
        f"{where}{wrong.strerror or wrong}",
        "Check that it exists, that this user may use it, and that the disk has room.",
        status=400,
        facts={"file": str(wrong.filename or ""), "errno": wrong.errno or 0},
    )
