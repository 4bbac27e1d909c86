"""The command `moorage`: its verbs, its help, and usage errors with their exit code.

`build_app` gives the Typer application; `main` adds the verbs that start processes with `as_command` and runs it.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from moorage.cli.call import ApiFlag, Exit, Flags, HomeFlag, JsonFlag, as_command
from moorage.cli.verbs.artifact import export_artifact, import_artifact, list_artifacts, show_artifact
from moorage.cli.verbs.bindings import bindings
from moorage.cli.verbs.deploy import deploy
from moorage.cli.verbs.doctor import Check, doctor_verb
from moorage.cli.verbs.explain import explain, open_app
from moorage.cli.verbs.init import init
from moorage.cli.verbs.logs import logs
from moorage.cli.verbs.operations import ops
from moorage.cli.verbs.promote import promote, rollback
from moorage.cli.verbs.replace import destroy, restart
from moorage.cli.verbs.secret import list_secrets, rotate_secrets, set_secret, unset_secret
from moorage.cli.verbs.show import allocations, apps, deployments, routes, sessions, status
from moorage.domain.errors import Problem

PROGRAM = "moorage"
CHANGE, LOOK, PLATFORM = "Deploy and change", "Look", "The platform itself"
PANELS = (CHANGE, LOOK, PLATFORM)

_VERBS: tuple[tuple[str, Callable[..., Awaitable[Exit | None]], str], ...] = (
    ("init", init, CHANGE),
    ("deploy", deploy, CHANGE),
    ("promote", promote, CHANGE),
    ("rollback", rollback, CHANGE),
    ("restart", restart, CHANGE),
    ("destroy", destroy, CHANGE),
    ("status", status, LOOK),
    ("apps", apps, LOOK),
    ("deployments", deployments, LOOK),
    ("routes", routes, LOOK),
    ("allocations", allocations, LOOK),
    ("sessions", sessions, LOOK),
    ("bindings", bindings, LOOK),
    ("ops", ops, LOOK),
    ("logs", logs, LOOK),
    ("open", open_app, LOOK),
    ("explain", explain, LOOK),
)
_SECRET_VERBS: tuple[tuple[str, Callable[..., Awaitable[Exit | None]]], ...] = (
    ("set", set_secret),
    ("list", list_secrets),
    ("unset", unset_secret),
    ("rotate", rotate_secrets),
)
_ARTIFACT_VERBS: tuple[tuple[str, Callable[..., Awaitable[Exit | None]]], ...] = (
    ("export", export_artifact),
    ("import", import_artifact),
    ("list", list_artifacts),
    ("show", show_artifact),
)
_GROUPS = (
    ("artifact", _ARTIFACT_VERBS, "Carry artifacts to another Moorage, and look at them."),
    ("secret", _SECRET_VERBS, "Set, list and unset an app's secrets."),
)


class Verbs(TyperGroup):
    """The group of all verbs: help in three panels, usage errors as problems."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The verbs of each panel under its name."""
        shown = [(n, c) for n in self.list_commands(ctx) if (c := self.get_command(ctx, n)) and not c.hidden]
        for panel in (*PANELS, *sorted({_panel(c) for _, c in shown} - set(PANELS))):
            rows = [(name, command.get_short_help_str(60)) for name, command in shown if _panel(command) == panel]
            if rows:
                with formatter.section(panel):
                    formatter.write_dl(rows)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit; a usage error is a problem like any other, with exit code 2."""
        words = list(sys.argv[1:] if args is None else args) or ["--help"]
        try:
            code = super().main(words, prog_name or PROGRAM, complete_var, standalone_mode=False, **extra)
        except typer.TyperException as wrong:
            if not standalone_mode:
                raise
            code = _refuse_usage(wrong, for_programs="--json" in words)
        except typer.Abort:
            if not standalone_mode:
                raise
            code = Exit.INTERRUPTED
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else Exit.OK)


def build_app(*, doctor_checks: Sequence[Check] = ()) -> typer.Typer:
    """The command line without the verbs that start processes. `doctor_checks` extend `moorage doctor`."""
    app = typer.Typer(
        name="moorage",
        cls=Verbs,
        help="Deploy stateful web apps, and know what happens to every live session.",
        rich_markup_mode=None,  # plain help is a third faster and copies well
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_before)
    for name, verb, panel in _VERBS:
        app.command(name, rich_help_panel=panel)(as_command(verb))
    for group, verbs, help in _GROUPS:
        inner = typer.Typer(help=help, rich_markup_mode=None)
        for name, verb in verbs:
            inner.command(name)(as_command(verb))
        app.add_typer(inner, name=group, rich_help_panel=CHANGE)
    app.command("doctor", rich_help_panel=PLATFORM)(as_command(doctor_verb(doctor_checks)))
    return app


def _before(
    context: typer.Context,
    json: JsonFlag = False,
    home: HomeFlag = None,
    api: ApiFlag = None,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=lambda on: _show_version(on))
    ] = False,
) -> None:
    context.obj = Flags(json, home, api)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"moorage {version('moorage')}")
        raise typer.Exit


def _panel(command: Any) -> str:
    panel = getattr(command, "rich_help_panel", None)
    return panel if isinstance(panel, str) else PLATFORM


def _refuse_usage(wrong: typer.TyperException, *, for_programs: bool) -> int:
    """Show a usage error and return its exit code."""
    from moorage.cli.screen import Screen

    context = getattr(wrong, "ctx", None)
    where = context.command_path if context is not None else PROGRAM
    problem = Problem("usage", wrong.format_message(), hint=f"See: {where} --help", status=400)
    Screen(for_programs=for_programs).problem(problem)
    return wrong.exit_code
