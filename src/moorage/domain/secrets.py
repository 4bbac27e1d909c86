"""Secrets: names are environment variables; names that the platform itself sets are refused.

Two of them may be given although the platform sets them otherwise: an app of a framework that keeps its sessions in a
store may bring its own store. A wrong URL of one is only logged by the framework, which then starts without a store,
so it is refused where it is given. No message holds a value: it has a password in it.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit

from moorage.domain.errors import Problem

SESSION_STORE_URL, PUBSUB_URL = "VANGO_SESSION_STORE_URL", "VANGO_PUBSUB_URL"
STORE_URLS = frozenset({SESSION_STORE_URL, PUBSUB_URL})
PERSISTENCE_SECRET, CSRF_SECRET = "VANGO_PERSISTENCE_SECRET", "VANGO_CSRF_SECRET"
PERSISTENCE_SECRET_PREVIOUS = "VANGO_PERSISTENCE_SECRET_PREVIOUS"

RESERVED = frozenset({"PORT", "HOST", "PATH", "HOME", "TMPDIR", "LANG", "REDIS_URL", "PYTHONPATH"})
RESERVED_PREFIX = "MOORAGE_"
MADE = frozenset({PERSISTENCE_SECRET, PERSISTENCE_SECRET_PREVIOUS, CSRF_SECRET})  # made and rotated by the platform
SEALED = MADE | {
    "VANGO_PLATFORM_SEALED",
    "VANGO_ENV",
    "VANGO_DEV",  # development mode of the scaffold: never on a served route
    "VANGO_PUBLIC_URL",
    "VANGO_PUBLIC_HOST",
    "VANGO_ALLOWED_HOSTS",
    "VANGO_CANONICAL_HOST",
    "VANGO_TRUSTED_PROXIES",
    "VANGO_COOKIE_SECURE",
}

_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
_SCHEMES = ("redis", "rediss")
_NOT_IN_A_URL = re.compile(r"[^\x21-\x7e]|%(?![0-9A-Fa-f]{2})|[\"<>\\^`{|}]")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DURATION = re.compile(
    r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|ms|s|m|h)(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|ms|s|m|h))*"
)
_BOOLEAN = re.compile(r"true|false|1|0")
# What the Redis client of the framework (go-redis 9) takes after `?`; it refuses a URL with anything else.
_OPTIONS = {
    **dict.fromkeys(
        ("db", "protocol", "max_retries", "pool_size", "min_idle_conns", "max_idle_conns", "max_active_conns"), _INTEGER
    ),
    **dict.fromkeys(
        (
            "min_retry_backoff",
            "max_retry_backoff",
            "dial_timeout",
            "read_timeout",
            "write_timeout",
            "pool_timeout",
            "conn_max_idle_time",
            "idle_timeout",
            "conn_max_lifetime",
            "max_conn_age",
        ),
        re.compile(f"{_INTEGER.pattern}|{_DURATION.pattern}"),
    ),
    "pool_fifo": _BOOLEAN,
    "client_name": re.compile(".*"),
}


def check_secret_name(name: str) -> Problem | None:
    """Whether an app may have a secret of this name; the problem if not."""
    if not _NAME.fullmatch(name):
        return _invalid(name, "upper-case letters, digits and underscores, at most 128, no digit first")
    if name in RESERVED or name.startswith(RESERVED_PREFIX):
        return _invalid(name, "the platform sets this variable itself")
    if name in SEALED:
        return _sealed(name)
    return None


def check_secret_value(name: str, value: str) -> Problem | None:
    """Whether the value can be meant: the URL of an own store must be one that the framework understands."""
    if name not in STORE_URLS:
        return None
    wrong = _wrong_in_url(value)
    if wrong is None:
        return None
    return Problem(
        "store-url-invalid",
        f"{name} is not the URL of a Redis-protocol store",
        wrong,
        "For example `rediss://user:password@store.example:6379/0`; special characters of a password as %XX.",
        status=422,
        facts={"name": name},
    )


def _wrong_in_url(value: str) -> str | None:
    """What the framework would not take, without a word of the value itself."""
    if _NOT_IN_A_URL.search(value):
        return "It holds a space, a control character, or a character that must be written as %XX."
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return "Its host or port cannot be read; a `/`, `?`, `#` or `:` of a password must be written as %XX."
    if parts.scheme not in _SCHEMES:
        return "It must begin with redis:// or rediss://."
    if not parts.hostname or port == 0:
        return "It names no host, or port 0."
    return _wrong_after_host(parts)


def _wrong_after_host(parts: SplitResult) -> str | None:
    """What follows the host: at most one number of a database, and options of the client."""
    path = [part for part in parts.path.split("/") if part]
    if parts.fragment or len(path) > 1 or not all(map(_INTEGER.fullmatch, path)):
        return "After the host there may be one number of a database, as in `/0`."
    for option, given in parse_qsl(parts.query, keep_blank_values=True):
        if option not in _OPTIONS:
            return "It has an option after `?` that the framework's Redis client does not know."
        if given and not _OPTIONS[option].fullmatch(given):
            return f"Its option {option} has a value of the wrong kind."
    return None


def _sealed(name: str) -> Problem:
    made = name in MADE
    return Problem(
        "secret-name-sealed",
        f"{name} is the platform's to set",
        "It is made once per environment, the same for all its allocations."
        if made
        else "It follows from the route and from how the platform serves it.",
        "To have a new one: moorage secret rotate APP" if made else "Leave it out: every Vango app is given it.",
        status=422,
        facts={"name": name},
    )


def _invalid(name: str, why: str) -> Problem:
    return Problem(
        "secret-name-invalid", f"{name!r} cannot be the name of a secret", why, "For example `API_KEY`.", status=422
    )
