"""The runtime socket of the proxy: lines out, one reply per line back, in order.

One connection stays open: as long as it lives, it is the same process at the other end. Many lines are written at
once (7 us each); their replies are told apart by the prompt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from moorage.domain.errors import MoorageError, Problem, Unavailable

_PROMPT = b"> "
_REPLY_END = b"\n> "
_REPLY_MAX_BYTES = 512 << 20  # the dump of a table with a few million entries
_CONNECT_TIMEOUT_S = 2.0
_REPLY_TIMEOUT_S = 10.0


class ProxyUnreachable(Unavailable):
    """The proxy's runtime socket does not answer: it is down, starting, or gone."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            Problem(
                "proxy-unreachable",
                "The edge proxy does not answer on its runtime socket",
                f"{path}: {why}",
                "It is started by `moorage up`; its output is under `logs/`.",
                status=503,
            )
        )


class ProxyRefused(MoorageError):
    """The proxy did not carry out a command: what it holds must be looked at again."""

    retryable = True

    def __init__(self, line: str, reply: str) -> None:
        command, has_value, _ = line.partition(" str(")  # a value may be the pin key, and a reply repeats it
        super().__init__(
            Problem(
                "proxy-refused-command",
                "The edge proxy refused a command",
                command if has_value else f"{command}: {reply}",
                "The agent reads the proxy's state back and tries again.",
                status=502,
            )
        )


class RuntimeSocket:
    """An open connection in prompt mode. Not for concurrent use."""

    def __init__(self, path: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._path, self._reader, self._writer = path, reader, writer

    @classmethod
    async def connect(cls, path: Path) -> RuntimeSocket:
        """Connect and switch to prompt mode; raises ProxyUnreachable."""
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(str(path), limit=_REPLY_MAX_BYTES)
                runtime = cls(path, reader, writer)
                writer.write(b"prompt\n")
                await reader.readuntil(_PROMPT)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as lost:
            raise ProxyUnreachable(path, str(lost) or type(lost).__name__) from lost
        await runtime.send(["experimental-mode on"])  # what it is needed for: variables of the process
        return runtime

    async def send(self, lines: Sequence[str]) -> list[str]:
        """Send the lines and return their replies in order; raises ProxyUnreachable, after which it is closed."""
        if not lines:
            return []
        try:
            async with asyncio.timeout(_REPLY_TIMEOUT_S + len(lines) / 1000):
                self._writer.write("".join(f"{line}\n" for line in lines).encode())
                return [await self._reply() for _ in lines]
        except asyncio.CancelledError:
            self._writer.close()  # replies are still on their way: nobody may take them for his own
            raise
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as lost:
            self._writer.close()
            raise ProxyUnreachable(self._path, str(lost) or type(lost).__name__) from lost

    async def _reply(self) -> str:
        reply = await self._reader.readuntil(_REPLY_END)
        return reply[: -len(_REPLY_END)].decode(errors="replace").strip()

    async def closed(self) -> None:
        """Return once the other end is gone; nothing may be sent meanwhile."""
        try:
            await self._reader.read()
        except OSError:
            return

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return
