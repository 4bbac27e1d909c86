"""`moorage bindings`: the services that an app is given, whose they are, and whether they were seen to work."""

from __future__ import annotations

from moorage.cli.call import AppArgument, Call, Exit, checked_app
from moorage.cli.words import command


async def bindings(call: Call, app: AppArgument) -> Exit | None:
    """List the services that a Vango app is given."""
    from moorage.cli.table import Column

    found = await call.api.bindings(checked_app(app))
    call.screen.document({"items": found})
    columns = [Column(name) for name in ("SERVICE", "PROVIDER", "WHOSE", "VARIABLE", "STATE", "WHY")]
    rows = [(b.service_class, b.provider, b.source, b.variable, b.state, b.why or "-") for b in found]
    call.screen.table(columns, rows, empty=f"{app} is given no services: only Vango apps are, once they are built.")
    if any(b.source == "own" for b in found):
        call.screen.say(f"A store of your own (see {command('moorage', 'secret', 'list', app)}) cannot be fenced.")
    return None
