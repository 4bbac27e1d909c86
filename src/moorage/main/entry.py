"""The `moorage` command: the verbs of `cli`, and those that start or stop the platform's own processes."""

from __future__ import annotations

from moorage.cli.app import PLATFORM, build_app
from moorage.cli.call import as_command
from moorage.main.verbs import down, up


def run() -> None:
    """Run the command line."""
    app = build_app()
    app.command("up", rich_help_panel=PLATFORM)(as_command(up))
    app.command("down", rich_help_panel=PLATFORM)(as_command(down))
    app()
