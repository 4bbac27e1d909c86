"""Variables that a host gives a Vango app, and whose stores they name.

Rules: names and their meaning are those of v0.2.4 (`platform_env.go`). Sealed means that they win over what the app
configures itself; a secret of the app can replace the two store URLs and nothing else. The framework takes the
persistence secret as hexadecimal digits (at least 32 bytes), the CSRF secret as text (at least 32 bytes), and only the
persistence secret has a previous value. Its allowed hosts are compared with the port: one without is only good for the
default port of the request's scheme, so the route is named both ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from moorage.domain.secrets import (
    CSRF_SECRET,
    PERSISTENCE_SECRET,
    PERSISTENCE_SECRET_PREVIOUS,
    PUBSUB_URL,
    SEALED,
    SESSION_STORE_URL,
    STORE_URLS,
)

KIND = "vango"  # of an artifact
EDGE_ADDRESSES = ("127.0.0.1",)  # from where the edge of the same host speaks to an app


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the platform made for an environment: `persistence` (and the value before its rotation) in hexadecimal
    digits, `csrf` as text."""

    persistence: str
    csrf: str
    persistence_previous: str | None = None


class Source(StrEnum):
    """Whose store a binding names."""

    MANAGED = "managed"  # the environment's Valkey; each allocation has its own user there
    OWN = "own"  # the user's: the platform has no user there and cannot fence anybody


@dataclass(frozen=True, slots=True)
class StoreBinding:
    """The stores of sessions (global state among them) and of broadcasts, each with its URL."""

    sessions: Source
    sessions_url: str
    broadcast: Source
    broadcast_url: str

    @property
    def can_be_fenced(self) -> bool:
        """Whether the platform can keep an old allocation from writing sessions."""
        return self.sessions is Source.MANAGED


def store_binding(own: Mapping[str, str], managed_url: str = "") -> StoreBinding:
    """Which binding is in force: `own` are the app's secrets of the scope, `managed_url` the environment's store.

    An own session store also carries the broadcasts unless another URL is given for them: who is told of a change
    reads it where it was written.
    """
    sessions = own.get(SESSION_STORE_URL, "")
    broadcast = own.get(PUBSUB_URL, "") or sessions
    return StoreBinding(
        Source.OWN if sessions else Source.MANAGED,
        sessions or managed_url,
        Source.OWN if broadcast else Source.MANAGED,
        broadcast or managed_url,
    )


def without_sealed(own: Mapping[str, str]) -> dict[str, str]:
    """The app's secrets without what is the platform's to set; one may be older than its being refused."""
    return {name: value for name, value in own.items() if name not in SEALED | STORE_URLS}


def host_variables(
    public_url: str,
    binding: StoreBinding,
    secrets: Secrets | None,
    trusted_proxies: Sequence[str] = EDGE_ADDRESSES,
) -> dict[str, str]:
    """All variables of the framework for one allocation; `public_url` is the route's address as users type it.

    Without `secrets` (an environment that has ended) their names are left out.
    """
    secure = urlsplit(public_url).scheme == "https"
    given = {
        "VANGO_PLATFORM_SEALED": "1",
        "VANGO_ENV": "production",  # anything else panics where production answers an error
        "VANGO_PUBLIC_URL": public_url,
        "VANGO_ALLOWED_HOSTS": ",".join(allowed_hosts(public_url)),
        "VANGO_TRUSTED_PROXIES": ",".join(trusted_proxies),
        # The framework only ever switches it on, by itself for https; apps read the 0.
        "VANGO_COOKIE_SECURE": "1" if secure else "0",
    }
    if binding.sessions_url:
        given[SESSION_STORE_URL] = binding.sessions_url
    if binding.broadcast_url:
        given[PUBSUB_URL] = binding.broadcast_url
    if secrets is not None:
        given |= {PERSISTENCE_SECRET: secrets.persistence, CSRF_SECRET: secrets.csrf}
        if secrets.persistence_previous is not None:
            given[PERSISTENCE_SECRET_PREVIOUS] = secrets.persistence_previous
    return given


def allowed_hosts(public_url: str) -> tuple[str, ...]:
    """The route's host as users type it, and without its port, for who comes through a proxy in front of the edge."""
    parts = urlsplit(public_url)
    host = parts.hostname or ""
    return tuple(dict.fromkeys((parts.netloc, f"[{host}]" if ":" in host else host)))
