"""Secrets: names are environment variables; names that the platform itself sets are refused."""

from __future__ import annotations

import re

from moorage.domain.errors import Problem

_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
RESERVED = frozenset({"PORT", "HOST", "PATH", "HOME", "TMPDIR", "LANG", "REDIS_URL", "PYTHONPATH"})
RESERVED_PREFIX = "MOORAGE_"


def check_secret_name(name: str) -> Problem | None:
    """Whether an app may have a secret of this name; the problem if not."""
    if not _NAME.fullmatch(name):
        return _invalid(name, "upper-case letters, digits and underscores, at most 128, no digit first")
    if name in RESERVED or name.startswith(RESERVED_PREFIX):
        return _invalid(name, "the platform sets this variable itself")
    return None


def _invalid(name: str, why: str) -> Problem:
    return Problem(
        "secret-name-invalid", f"{name!r} cannot be the name of a secret", why, "For example `API_KEY`.", status=422
    )
