"""`moorage explain` and `moorage open`: where a URL goes and why, and where an app is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moorage.cli.call import AppArgument, Call, Exit, checked_app
from moorage.cli.verbs.promote import find_app
from moorage.cli.words import ago, short_digest, spaced
from moorage.domain.errors import Problem, Refused

if TYPE_CHECKING:
    from moorage.wire.api import Explanation

HISTORY_SHOWN_MAX_COUNT = 5


async def explain(
    call: Call,
    url: Annotated[str, typer.Argument(metavar="URL", help="A URL, or the name of an app.", show_default=False)],
    pin: Annotated[str | None, typer.Option("--pin", metavar="COOKIE", help="With this pin cookie.")] = None,
) -> Exit | None:
    """Say why a request to a URL goes where it goes."""
    from moorage.system.clock import now_ms

    view = await call.api.explain(await _full_url(call, url), pin=pin)
    call.screen.document(view)
    _show(call, view, now_ms())
    return None


async def _full_url(call: Call, text: str) -> str:
    """The URL that was meant: an app's name stands for its URL, a missing scheme is http."""
    if "://" in text:
        return text
    if not any(mark in text for mark in ".:/?"):
        return (await find_app(call, checked_app(text))).url
    return f"http://{text}"


def _show(call: Call, view: Explanation, now: int) -> None:
    from rich.text import Text

    from moorage.cli.table import Column

    screen = call.screen
    screen.say(Text(view.url, style="bold"), f": {spaced(view.outcome)}")
    screen.paragraph(view.reason)
    screen.say()
    owner = "nobody" if view.deployment is None else f"deployment {view.deployment} of {view.app} ({view.environment})"
    screen.facts(
        [
            ("route key", view.route_key),
            ("owner", owner),
            ("epoch", "-" if view.epoch is None else view.epoch),
            ("artifact", short_digest(view.artifact)),
            ("class", view.request_class),
            ("pin", view.pin or "-"),
        ]
    )
    if view.candidates:
        screen.say()
        columns = [Column("ALLOCATION", right=True), Column("STATE", state=True), Column("POSTURE", state=True)]
        columns += [Column("PICKED"), Column("WHY", flexible=True)]
        rows = [(c.number, c.state, c.posture, "yes" if c.picked else "no", c.why) for c in view.candidates]
        screen.table(columns, rows)
    if view.edges:
        screen.say()
        columns = [Column("EDGE"), Column("LIVE"), Column("LOG", right=True), Column("BEHIND", right=True)]
        screen.table(columns, [(e.id, "yes" if e.live else "no", e.applied_index, e.behind) for e in view.edges])
    if view.history:
        screen.say()
        columns = [Column("EPOCH", right=True), Column("DEPLOYMENT", right=True), Column("ARTIFACT", spare=True)]
        columns += [Column("SINCE", right=True), Column("BY", spare=True), Column("OPERATION")]
        screen.table(columns, [_past(entry, now) for entry in view.history[:HISTORY_SHOWN_MAX_COUNT]])


def _past(entry: dict[str, object], now: int) -> tuple[object, ...]:
    at_ms = entry.get("at_ms")
    artifact = entry.get("artifact")
    return (
        entry.get("epoch"),
        entry.get("deployment_number"),
        short_digest(artifact if isinstance(artifact, str) else None),
        ago(at_ms if isinstance(at_ms, int) else None, now),
        entry.get("actor"),
        entry.get("operation"),
    )


async def open_app(
    call: Call,
    app: AppArgument,
    deployment: Annotated[
        int | None, typer.Option("--deployment", metavar="N", min=1, help="The preview of this deployment.")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the URL.")] = False,
) -> Exit | None:
    """Print an app's URL, and open it where there is a display."""
    url = await _url_of(call, checked_app(app), deployment)
    opened = not no_browser and not call.flags.json and _open(url)
    call.screen.document({"url": url, "opened": opened})
    call.screen.say(url)
    return None


async def _url_of(call: Call, app: str, deployment: int | None) -> str:
    if deployment is None:
        found = await find_app(call, app)
        if found.serving is None:
            raise Refused(_serves_nothing(app))
        return found.url
    view = await call.api.deployment(app, deployment)
    if view.preview_url is None:
        raise Refused(
            Problem(
                "no-preview",
                f"Deployment {deployment} of {app} has no preview",
                f"It is {spaced(view.state)}.",
                "Only the newest deployments keep one; deploy again to get one.",
                facts={"state": view.state},
            )
        )
    return view.preview_url


def _serves_nothing(app: str) -> Problem:
    return Problem(
        "app-not-promoted",
        f"{app} serves nothing yet",
        hint=f"Promote a deployment (moorage promote {app}), or open a preview with --deployment N.",
    )


def _open(url: str) -> bool:
    """Open a browser window where there is a display; a browser in this terminal is not wanted."""
    import webbrowser

    from moorage.system.settings import inherited_environ

    environ = inherited_environ()
    if not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        return False
    return webbrowser.open(url)
