"""`moorage secret set|list|unset`. A value comes from a prompt, from stdin or from a file, never from the command line,
where every process of the machine can read it."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from moorage.cli.call import AppArgument, Call, Exit, KeyFlag, checked_app, new_key
from moorage.cli.words import ago, command
from moorage.domain.errors import Problem, Refused
from moorage.domain.limits import SECRET_VALUE_MAX_BYTES
from moorage.domain.secrets import check_secret_name

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Name, as the app's environment variable.", show_default=False)
]


class Scope(StrEnum):
    """Who gets a secret."""

    RUNTIME = "runtime"  # production allocations
    PREVIEW = "preview"
    BUILD = "build"


ScopeFlag = Annotated[Scope, typer.Option("--scope", help="Production (runtime), previews, or builds.")]


async def set_secret(
    call: Call,
    app: AppArgument,
    name: NameArgument,
    scope: ScopeFlag = Scope.RUNTIME,
    from_file: Annotated[
        Path | None, typer.Option("--from-file", metavar="FILE", help="Take the value from a file, as it is.")
    ] = None,
    idempotency_key: KeyFlag = None,
) -> Exit | None:
    """Set a secret: from a prompt, from stdin, or from a file."""
    from moorage.wire.api import SecretRequest

    key = new_key(idempotency_key)
    checked_app(app)
    _check_name(name)
    request = SecretRequest(value=_value(call, name, from_file), scope=scope.value)
    view = await call.change(lambda: call.api.set_secret(app, name, request, key=key))
    call.screen.document(view)
    call.screen.say(f"{view.name} is set ({view.scope}, version {view.version}).")
    if scope is Scope.RUNTIME:
        call.screen.say(f"Running allocations see it after: {command('moorage', 'restart', app)}")
    else:
        call.screen.say(f"The next {scope.value} sees it.")
    return None


async def list_secrets(call: Call, app: AppArgument) -> Exit | None:
    """List an app's secrets, without their values."""
    from moorage.cli.table import Column
    from moorage.system.clock import now_ms

    found, now = await call.api.secrets(checked_app(app)), now_ms()
    call.screen.document({"items": found})
    columns = [Column("NAME"), Column("SCOPE"), Column("VERSION", right=True), Column("CHANGED", right=True)]
    rows = [(s.name, s.scope, s.version, ago(s.updated_ms, now)) for s in found]
    call.screen.table(columns, rows, empty=f"{app} has no secret.")
    return None


async def unset_secret(
    call: Call,
    app: AppArgument,
    name: NameArgument,
    scope: ScopeFlag = Scope.RUNTIME,
    idempotency_key: KeyFlag = None,
) -> Exit | None:
    """Unset a secret."""
    key = new_key(idempotency_key)
    checked_app(app)
    _check_name(name)
    view = await call.change(lambda: call.api.unset_secret(app, name, key=key, scope=scope.value))
    call.screen.document(view)
    call.screen.say(f"{view.name} is unset. Running allocations keep it until: {command('moorage', 'restart', app)}")
    return None


def _check_name(name: str) -> None:
    problem = check_secret_name(name)
    if problem is not None:
        raise Refused(problem)


def _value(call: Call, name: str, file: Path | None) -> str:
    """The secret's value. Raises Refused (`secret-empty`, `secret-too-large`, `secret-not-text`)."""
    if file is not None:
        with file.open("rb") as handle:
            return _text(handle.read(SECRET_VALUE_MAX_BYTES + 1), name)
    if call.may_ask:
        asked: str = typer.prompt(f"Value of {name}", hide_input=True, err=True)
        return _text(asked.encode("utf-8", "surrogateescape"), name)
    # One newline at the end belongs to the pipe (`echo value | ...`), not to the value.
    piped = sys.stdin.buffer.read(SECRET_VALUE_MAX_BYTES + 2)
    return _text(piped.removesuffix(b"\n").removesuffix(b"\r"), name)


def _text(value: bytes, name: str) -> str:
    if not value:
        raise Refused(
            Problem("secret-empty", f"The value of {name} is empty", "", "Give it on stdin or --from-file.", 422)
        )
    if len(value) > SECRET_VALUE_MAX_BYTES:
        limit = f"More than {SECRET_VALUE_MAX_BYTES} bytes."
        raise Refused(Problem("secret-too-large", f"The value of {name} is too large", limit, status=413))
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as bad:
        hint = "An environment variable holds text: encode the value, for example with base64."
        raise Refused(Problem("secret-not-text", f"The value of {name} is not UTF-8", str(bad), hint, 422)) from bad
    if "\0" in text:
        hint = "An environment variable cannot hold one: encode the value, for example with base64."
        raise Refused(Problem("secret-not-text", f"The value of {name} has a NUL character", "", hint, 422))
    return text
