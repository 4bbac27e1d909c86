"""The verbs that start and stop processes: `up`, `down`, and one for each process of the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moorage.cli.call import Call, Exit

if TYPE_CHECKING:
    from moorage.system.settings import Settings

BindFlag = Annotated[str | None, typer.Option("--bind", metavar="ADDRESS", help="Address to listen on (127.0.0.1).")]
DomainFlag = Annotated[
    str | None, typer.Option("--base-domain", metavar="DOMAIN", help="Apps are <name>.DOMAIN (localhost).")
]
PortFlag = Annotated[
    int | None, typer.Option("--port", "--http-port", metavar="PORT", help="Port of the apps (7080); 0: a free one.")
]
ApiPortFlag = Annotated[
    int | None, typer.Option("--api-port", metavar="PORT", help="Port of the API (7400); 0: a free one.")
]


async def up(
    call: Call,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Start in the background, return when ready.")] = False,
    bind: BindFlag = None,
    base_domain: DomainFlag = None,
    port: PortFlag = None,
    api_port: ApiPortFlag = None,
) -> Exit | None:
    """Start the platform on this machine: control, edge, runner and their servers."""
    from moorage.main import up as platform

    flags: dict[str, object] = {
        "home": call.flags.home,
        "bind": bind,
        "base_domain": base_domain,
        "http_port": port,
        "api_port": 0 if api_port is None and port == 0 else api_port,
    }
    settings, plan = await platform.prepare(_settings(flags), quiet=detach)
    if not detach:
        platform.run_attached(plan)
    started = platform.run_detached(settings, plan)
    if call.flags.json:
        call.screen.document(
            {
                "pid": started.pid,
                "api": started.api,
                "http": started.http,
                "home": started.home,
                "after_s": started.after_s,
            }
        )
    else:
        call.screen.say(f"Moorage is up after {started.after_s:.1f} s (pid {started.pid}).")
        call.screen.say(f"Apps  {started.http}")
        call.screen.say(f"API   {started.api}")
        call.screen.say("Next: moorage deploy [PATH]")
    return None


async def down(call: Call) -> Exit | None:
    """Stop the platform of this data directory, apps included."""
    from moorage.main import up as platform

    pid = platform.stop(call.settings)
    if call.flags.json:
        call.screen.document({"stopped": pid})
    else:
        call.screen.say(f"Moorage has stopped (pid {pid}).")
    return None


def _settings(flags: dict[str, object]) -> Settings:
    from moorage.system.settings import load_settings

    return load_settings(flags)
