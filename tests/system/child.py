"""A child for tests of the supervisor: notes what happens to it in a shared journal, and may have children itself.

python -m tests.system.child NAME JOURNAL [--listen SOCKET] [--apps N] [--deaf] [--slow-start]
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

_STOPPING_S = 0.1  # stopping takes a moment, so that the order of several shows


def note(journal: Path, *words: object) -> None:
    """Append one line; short appends are atomic."""
    with open(journal, "a") as lines:
        lines.write(" ".join(str(word) for word in words) + "\n")


def main(argv: list[str]) -> None:
    name, journal = argv[0], Path(argv[1])
    options = argv[2:]
    note(journal, "started", name, os.getpid())

    def stop(number: int, frame: object) -> None:
        note(journal, "stopping", name)
        select.select([], [], [], _STOPPING_S)
        note(journal, "stopped", name, signal.Signals(number).name)
        sys.exit(0)

    if "--deaf" in options:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, stop)
    for number in range(int(options[options.index("--apps") + 1]) if "--apps" in options else 0):
        app = subprocess.Popen(  # in a session of its own, as a runner starts its apps
            [sys.executable, "-m", "tests.system.child", f"{name}.app{number}", str(journal)], start_new_session=True
        )
        note(journal, "app", name, app.pid)
    if "--listen" in options:
        door = socket.socket(socket.AF_UNIX)
        path = options[options.index("--listen") + 1]
        Path(path).unlink(missing_ok=True)
        door.bind(path)
        door.listen()
        while True:
            door.accept()[0].close()
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
