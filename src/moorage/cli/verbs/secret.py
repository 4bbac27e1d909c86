"""`moorage secret set|list|unset|rotate`. A value comes from a prompt, from stdin or from a file, never from the
command line, where every process of the machine can read it. `rotate` is about values that the platform itself made."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moorage.cli.call import AppArgument, Call, Exit, KeyFlag, checked_app, new_key
from moorage.cli.words import ago, command, listed
from moorage.domain.errors import Problem, Refused
from moorage.domain.limits import SECRET_VALUE_MAX_BYTES
from moorage.domain.secrets import CSRF_SECRET, SEALED, STORE_URLS, check_secret_name, check_secret_value

if TYPE_CHECKING:
    from moorage.cli.screen import Screen
    from moorage.wire.bindings import RotationView

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
    _refuse(check_secret_name(name))
    value = _value(call, name, from_file)
    _refuse(check_secret_value(name, value))
    request = SecretRequest(value=value, scope=scope.value)
    view = await call.change(lambda: call.api.set_secret(app, name, request, key=key))
    call.screen.document(view)
    call.screen.say(f"{view.name} is set ({view.scope}, version {view.version}).")
    if scope is Scope.RUNTIME:
        call.screen.say(f"Running allocations see it after: {command('moorage', 'restart', app)}")
    else:
        call.screen.say(f"The next {scope.value} sees it.")
    if name in STORE_URLS and scope is not Scope.BUILD:
        _say_another_store(call.screen)
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
    _refuse(None if name in SEALED else check_secret_name(name))  # one that is older than its being refused can go
    view = await call.change(lambda: call.api.unset_secret(app, name, key=key, scope=scope.value))
    call.screen.document(view)
    call.screen.say(f"{view.name} is unset. Running allocations keep it until: {command('moorage', 'restart', app)}")
    if name in STORE_URLS and scope is not Scope.BUILD:
        _say_another_store(call.screen)
    return None


async def rotate_secrets(
    call: Call,
    app: AppArgument,
    csrf: Annotated[
        bool, typer.Option("--csrf", help="The CSRF secret too: open pages reload and start fresh sessions.")
    ] = False,
    idempotency_key: KeyFlag = None,
) -> Exit | None:
    """Make new secrets of those that the platform made for a Vango app."""
    from moorage.wire.bindings import RotationRequest

    key = new_key(idempotency_key)
    checked_app(app)
    request = RotationRequest(csrf=csrf)
    view = await call.change(lambda: call.api.rotate_secrets(app, request, key=key))
    call.screen.document(view)
    _say_rotated(call.screen, view)
    return None


def _say_rotated(screen: Screen, view: RotationView) -> None:
    for secret in view.rotated:
        screen.say(f"{secret.name} has a new value (version {secret.version}).")
    if view.dropped and view.signed_anew is None:
        screen.say("The store is your own: what still bears the value before the last rotation is lost to the app.")
    screen.say("Sessions and global state that were stored with the value before can still be read.")
    names = {secret.name for secret in view.rotated}
    if CSRF_SECRET in names:
        screen.say(
            f"With the new {CSRF_SECRET} open pages reload once and start fresh sessions; open forms are refused."
        )
    else:
        screen.say(f"{CSRF_SECRET} stays as it is: --csrf rotates it too, which costs every open page its session.")
    if view.running:
        numbers = listed(str(number) for number in view.running)
        again = command("moorage", "restart", view.app, "--handover")
        screen.say(f"Running allocations ({numbers}) go on with the values so far until: {again}")
    else:
        screen.say("The next allocation has the new values.")


def _say_another_store(screen: Screen) -> None:
    screen.say("The next allocation keeps its sessions in another store: those of the store so far stay there, and")
    screen.say("start fresh. In a store of your own the platform has no user: it cannot fence an old allocation there.")


def _refuse(problem: Problem | None) -> None:
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
