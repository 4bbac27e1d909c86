"""The log: JSON lines on stderr, one object per line, secrets taken out.

Rules of the room: a log explains, it never decides. Redaction happens here, once, for every line, whoever wrote it;
it errs on the side of hiding.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

HIDDEN = "[hidden]"

_SECRET_KEY = re.compile(
    r"passw|secret|token|cookie|authori[sz]ation|credential|private|seed|api_?key|pin_?key|signature", re.IGNORECASE
)
_USER_INFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)([^\s/@:]*):([^\s/@]+)@", re.IGNORECASE)
_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_COOKIE = re.compile(r"\b((?:set-)?cookie:\s*)[^\r\n]+", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"\b([\w-]*(?:passw(?:or)?d|secret|token|api_?key)[\w-]*\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,;&}]+)", re.IGNORECASE
)
_NKEY_SEED = re.compile(r"\bS[UANOCX][A-Z2-7]{54,60}\b")
_DEPTH_MAX_LEVELS = 6


def redact(value: Any, *, key: str = "", depth: int = 0) -> Any:
    """The value without secrets: whole values under a telling key, and passwords, tokens and cookies inside texts."""
    if _SECRET_KEY.search(key) and not isinstance(value, bool | int | float | None):
        return HIDDEN
    if isinstance(value, str):
        return _redact_text(value)
    if depth >= _DEPTH_MAX_LEVELS:
        return _redact_text(repr(value))
    if isinstance(value, Mapping):
        return {str(name): redact(each, key=str(name), depth=depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(each, depth=depth + 1) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _redact_text(str(value))


def set_up_log(level: str, *, service: str) -> None:
    """Send this process's log to stderr as JSON lines, from structlog and from the standard library alike.

    `level` is debug, info, warning or error; `service` names the process in each line.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _with_service(service),
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _redact_event,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpcore", "asyncio", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def get_log(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one room; call it with an event and key=value facts."""
    log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return log


def _with_service(service: str) -> Any:
    def add(logger: Any, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        return {"service": service, **event}

    return add


def _redact_event(logger: Any, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return {name: redact(value, key=name) for name, value in event.items()}


def _redact_text(text: str) -> str:
    text = _USER_INFO.sub(rf"\1\2:{HIDDEN}@", text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    text = _COOKIE.sub(rf"\1{HIDDEN}", text)
    text = _ASSIGNED.sub(rf"\1{HIDDEN}", text)
    return _NKEY_SEED.sub(HIDDEN, text)
