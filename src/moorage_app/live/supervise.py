"""Where foreign or endless code runs: the only places that catch every exception.

Rules of this room: nothing is swallowed, everything is logged with its traceback; a loop that fails starts again after
a pause, an author's action that fails answers its client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from moorage_app.errors import MoorageAppError, StoreUnavailableError
from moorage_app.place import jitter

log = logging.getLogger("moorage_app")

PAUSE_S: Final = 0.5
PAUSE_MAX_S: Final = 5.0


async def keep_running(name: str, once: Callable[[], Awaitable[None]]) -> None:
    """Runs `once` again and again until cancelled; a failure is logged and followed by a growing pause."""
    pause = PAUSE_S
    while True:
        try:
            await once()
            pause = PAUSE_S
            continue
        except StoreUnavailableError as error:
            log.warning("%s: %s; trying again in %.1f s", name, error, pause)
        except Exception:  # a bug in one pass must not end notices and re-reads for good
            log.exception("%s failed; trying again in %.1f s", name, pause)
        await asyncio.sleep(pause * jitter(0.8, 1.2))
        pause = min(PAUSE_MAX_S, pause * 2)


async def run_authors(name: str, work: Awaitable[None]) -> Exception | None:
    """Awaits an author's code; gives what it raised. The SDK's own errors pass through as they are."""
    try:
        await work
    except MoorageAppError as error:
        return error
    except Exception as error:  # authors may raise anything; the session must outlive it
        log.exception("%s failed", name)
        return error
    return None


async def run_lifespan(work: Awaitable[None]) -> Exception | None:
    """Awaits an app's lifespan; gives what it raised, which for many apps only means that they know none."""
    try:
        await work
    except Exception as error:
        log.debug("the app's lifespan raised", exc_info=True)
        return error
    return None
