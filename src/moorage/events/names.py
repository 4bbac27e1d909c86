"""Names on the bus: stream, subjects, consumers, inboxes. One place, since permissions are made of them."""

from __future__ import annotations

import re

STREAM = "MOORAGE_LOG"
LOG_SUBJECTS = "moorage.log.>"
_LOG_PREFIX = "moorage.log."
_WAKE_PREFIX = "moorage.wake.runner."
_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,63}$")

CONTROL = "control"


def checked(name: str) -> str:
    """The name of an edge or runner, once it is safe inside a subject (no dots, no wildcards)."""
    assert _NAME.match(name), f"not a name for the bus: {name!r}"
    return name


def log_subject(event_type: str) -> str:
    """Where entries with this type of event are published."""
    return _LOG_PREFIX + event_type


def consumer_name(edge: str) -> str:
    """The durable consumer of an edge."""
    return checked(edge)


def inbox_prefix(user: str) -> str:
    """Each user's own inboxes; a shared prefix would let one read the replies of another."""
    return f"_INBOX_{checked(user)}"


def wake_subject(runner: str) -> str:
    """A message here means: look at your desired state now. It carries nothing."""
    return _WAKE_PREFIX + checked(runner)


def edge_publishes(edge: str) -> tuple[str, ...]:
    """Everything an edge may publish: pull, acknowledge and reset its own consumer, look at the stream."""
    consumer = consumer_name(edge)
    return (
        f"$JS.API.CONSUMER.INFO.{STREAM}.{consumer}",
        f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{consumer}",
        f"$JS.API.CONSUMER.RESET.{STREAM}.{consumer}",
        f"$JS.API.STREAM.INFO.{STREAM}",
        f"$JS.ACK.{STREAM}.{consumer}.>",
    )
