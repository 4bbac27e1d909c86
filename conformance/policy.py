"""The desk that the fixture app asks what a promotion would do: it repeats the platform's own report, as it is now.

The app has no right to ask the control plane, so the run does it for it: without this the tool's check would only test
what a fixture says of itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from moorage.vango.acknowledgement import Standing, acknowledgement_of, check_acknowledgement
from moorage.wire.api import PromotionReport
from moorage.wire.artifact import ArtifactDetail

READ_TIMEOUT_S: Final = 5.0
_STATUS: Final = {"allow": "ready", "needs_acknowledgement": "manual_required", "blocked": "blocked"}

Ask = Callable[[str], Awaitable[Mapping[str, str] | None]]


def marks(report: PromotionReport, serving: ArtifactDetail, candidate: ArtifactDetail) -> dict[str, str]:
    """The words of the contract for a promotion, from the platform's report and what both artifacts say.

    `Ack-*` is the framework's own acknowledgement, which lies in the candidate and takes no person's place: what has
    one and is cold still waits for a person, and nothing else stands in its way.
    """
    cold = report.forward in ("cold", "review")
    told = acknowledgement_of(_vango(candidate).get("acknowledgement"))
    hashes = str(_vango(serving).get("schema_hash", "")), str(_vango(candidate).get("schema_hash", ""))
    valid = cold and check_acknowledgement(told, *hashes).standing is Standing.VALID
    stopped = report.verdict == "blocked" or (report.verdict == "needs_acknowledgement" and not valid)
    return {
        "Classification": report.forward,
        "Ack-Required": _word(cold),
        "Ack-Valid": _word(valid),
        "Preview-Status": "ready_with_warnings" if cold else "ready",
        "Production-Status": _STATUS[report.verdict],
        "Blocking": _word(stopped),
    }


def _vango(artifact: ArtifactDetail) -> Mapping[str, Any]:
    found = artifact.facts.get("vango")
    return found if isinstance(found, dict) else {}


def _word(holds: bool) -> str:
    return "true" if holds else "false"


@asynccontextmanager
async def desk(answer: Ask) -> AsyncIterator[str]:
    """A server on this machine that answers `?scenario=`; its URL. What `answer` does not know is answered 404."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            scenario = parse_qs(urlsplit(head.split(" ")[1]).query).get("scenario", [""])[0]
            found = await answer(scenario)
            body = json.dumps(found or {}).encode()
            status = "200 OK" if found else "404 Not Found"
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        except (OSError, TimeoutError, EOFError, IndexError):
            pass  # whoever asks so gets no answer
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
