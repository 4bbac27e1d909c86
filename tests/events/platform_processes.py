"""The two processes around the event server, as small as they can be: a control that relays and an edge that reads.

    python -m tests.events.platform_processes relay|edge FOLDER URL

FOLDER holds `log.jsonl` (the outbox: one entry a line), `<role>.seed`, and what the edge has seen, `seen.txt`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from moorage.events import names
from moorage.events.consumer import EdgeEvents
from moorage.events.link import Link
from moorage.events.relay import Relay
from moorage.system.clock import wait_until
from moorage.system.log import set_up_log
from moorage.wire.log import LogEntry


class FileOutbox:
    """A log in a file of JSON lines; other processes append to it."""

    def __init__(self, path: Path, incarnation: str) -> None:
        self.incarnation, self._path = incarnation, path
        self._path.touch()

    def _read(self) -> list[LogEntry]:
        return [LogEntry.model_validate_json(line) for line in self._path.read_text().splitlines()]

    @property
    def committed_index(self) -> int:
        return len(self._read())

    async def entries(self, after_index: int, limit: int) -> tuple[LogEntry, ...]:
        return tuple(self._read()[max(after_index, 0) :][:limit])

    async def wait(self, after_index: int, timeout_s: float) -> bool:
        async def grown() -> bool:
            return self.committed_index > after_index

        return await wait_until(grown, timeout_s=timeout_s)


async def relay(folder: Path, url: str) -> None:
    """What the control plane runs beside its API."""
    link = Link(url, (folder / "relay.seed").read_text(), names.CONTROL)
    await Relay(link, FileOutbox(folder / "log.jsonl", "inc_a"), lambda: ("edge1",)).run()


async def edge(folder: Path, url: str) -> None:
    """What an edge agent runs, without a proxy: it notes each index that is new."""
    events = EdgeEvents(url, (folder / "edge.seed").read_text(), "edge1")
    applied = 0
    while True:
        for entry in await events.fetch(5.0):
            if entry.index == applied + 1:
                applied = entry.index
                note(folder / "seen.txt", entry.index)
        await events.ack()


def note(path: Path, index: int) -> None:
    """Append an index to what was seen."""
    with open(path, "a") as seen:
        seen.write(f"{index}\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    set_up_log("info", service=sys.argv[1])
    asyncio.run({"relay": relay, "edge": edge}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3]))
