"""What the edge itself answers: a page for browsers, problem details for programs, never anything internal. Pure.

A page loads nothing from elsewhere and holds no quote characters, because some of them stand inside an expression of
the proxy's configuration.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """One of the edge's own answers: `code` is stable and documented in `docs/errors/`."""

    code: str
    status: int
    title: str
    text: str
    retry: bool


UNKNOWN_HOST = Answer(
    "unknown-host",
    404,
    "No app lives at this address",
    "The address is not, or no longer, routed to an app. Check the spelling, or ask whoever gave you the link.",
    retry=False,
)
NO_READY_ALLOCATION = Answer(
    "no-ready-allocation",
    503,
    "This app is not ready right now",
    "It exists, but no instance of it can answer yet. Please try again in a moment.",
    retry=True,
)
TABLE_STALE = Answer(
    "route-table-stale",
    503,
    "This address cannot be served for the moment",
    "The edge has had no news of its routes for too long to be sure where to send you. Please try again later.",
    retry=True,
)
EDGE_STARTING = Answer(
    "edge-starting",
    503,
    "One moment",
    "The edge has just started and is still loading its routes. Please try again.",
    retry=True,
)
ALLOCATION_UNREACHABLE = Answer(
    "allocation-unreachable",
    503,
    "This app did not answer",
    "The instance that serves you could not be reached. Please try again in a moment.",
    retry=True,
)
ALLOCATION_BROKE_OFF = Answer(
    "allocation-broke-off",
    502,
    "This app broke off its answer",
    "The instance that serves you closed the connection or sent something that is not HTTP.",
    retry=False,
)
ALLOCATION_TOO_SLOW = Answer(
    "allocation-too-slow",
    504,
    "This app took too long to answer",
    "The instance that serves you did not finish in time.",
    retry=False,
)
BAD_REQUEST = Answer(
    "bad-request",
    400,
    "The request cannot be read",
    "The host name in it is not one.",
    retry=False,
)
ANSWERED_BEFORE_AN_APP = (UNKNOWN_HOST, NO_READY_ALLOCATION, TABLE_STALE, EDGE_STARTING)
ANSWERED_FOR_AN_APP = (ALLOCATION_UNREACHABLE, ALLOCATION_BROKE_OFF, ALLOCATION_TOO_SLOW)

_STYLE = (
    ":root{color-scheme:light dark}"
    "body{margin:0;min-height:100vh;display:grid;place-items:center;"
    "font:16px/1.6 system-ui,sans-serif;color:#1d2b36;background:#f3f6f8}"
    "main{max-width:30rem;margin:1.5rem;padding:2rem 2.25rem;background:#fff;border-radius:14px;"
    "border-top:5px solid #1f7a8c;box-shadow:0 8px 30px rgba(20,40,60,.10)}"
    "h1{margin:0 0 .6rem;font-size:1.4rem;line-height:1.25}p{margin:0 0 1.2rem}"
    "small{color:#66788a;font-family:ui-monospace,monospace;overflow-wrap:anywhere}"
    "@media(prefers-color-scheme:dark){body{color:#e4ebf0;background:#10181e}"
    "main{background:#18232b;box-shadow:none}small{color:#8ea1b1}}"
)


def problem_of(answer: Answer) -> str:
    """The answer as RFC 9457 problem details."""
    body = {
        "type": f"urn:moorage:error:{answer.code}",
        "title": answer.title,
        "status": answer.status,
        "detail": answer.text,
        "code": answer.code,
    }
    return json.dumps(body)


def page_of(answer: Answer) -> str:
    """The answer as a page on one line."""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content=width=device-width,initial-scale=1>"
        f"<title>{answer.title}</title><style>{_STYLE}</style>"
        f"<main><h1>{answer.title}</h1><p>{answer.text}</p><small>{answer.status} {answer.code}</small></main></html>"
    )
