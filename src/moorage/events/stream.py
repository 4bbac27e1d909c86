"""The log's stream and its consumers on the server: how they are made and what is seen of them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection

from nats.js import errors as js_errors
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)

from moorage.events import names
from moorage.events.link import CALL_TIMEOUT_S, Link
from moorage.events.plan import plan_consumers

STREAM_FORMAT = "1"
INCARNATION_KEY = "moorage-incarnation"
FORMAT_KEY = "moorage-format"

# Bounds, not promises: an edge that was away for longer starts from a snapshot.
MESSAGES_MAX_COUNT = 100_000
BYTES_MAX_BYTES = 256 << 20
AGE_MAX_S = 7 * 24 * 3600
DUPLICATE_WINDOW_S = 120
ACK_WAIT_S = 30
_PAGE_COUNT = 256


async def see_stream(link: Link) -> StreamInfo | None:
    """The stream, or None when there is none. Raises EventsUnavailable: not knowing is not absence."""
    jetstream = await link.jetstream()
    try:
        return await link.call(jetstream.stream_info(names.STREAM))
    except js_errors.NotFoundError:
        return None


def incarnation_of(stream: StreamInfo) -> str:
    """The log that a stream carries."""
    return (stream.config.metadata or {}).get(INCARNATION_KEY, "")


def shape_fits(stream: StreamInfo) -> bool:
    """Whether format and limits are those of this release."""
    config, wanted = stream.config, stream_config("", 1)
    return (
        (config.metadata or {}).get(FORMAT_KEY) == STREAM_FORMAT
        and config.subjects == wanted.subjects
        and (config.max_msgs, config.max_bytes, config.max_age) == (wanted.max_msgs, wanted.max_bytes, wanted.max_age)
        and config.storage == wanted.storage
    )


def stream_config(incarnation: str, first_index: int) -> StreamConfig:
    """The stream of a log whose first message will get the sequence `first_index`."""
    return StreamConfig(
        name=names.STREAM,
        subjects=[names.LOG_SUBJECTS],
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.OLD,
        storage=StorageType.FILE,
        max_msgs=MESSAGES_MAX_COUNT,
        max_bytes=BYTES_MAX_BYTES,
        max_age=AGE_MAX_S,
        duplicate_window=DUPLICATE_WINDOW_S,
        deny_delete=True,
        num_replicas=1,
        first_seq=first_index,
        metadata={INCARNATION_KEY: incarnation, FORMAT_KEY: STREAM_FORMAT},
    )


async def rebuild_stream(link: Link, incarnation: str, first_index: int) -> None:
    """Delete the stream, if there is one, and make it anew and empty, starting at `first_index`."""
    jetstream = await link.jetstream()
    with contextlib.suppress(js_errors.NotFoundError):
        await link.call(jetstream.delete_stream(names.STREAM))
    await link.call(jetstream.add_stream(stream_config(incarnation, first_index)))


def consumer_config(edge: str) -> ConsumerConfig:
    """An edge's durable consumer: from the first message on, so that it may be reset to any; ordered acknowledgements;
    no limit of deliveries, which would open a gap in silence; no inactivity threshold, which would remove it."""
    name = names.consumer_name(edge)
    return ConsumerConfig(
        name=name,
        durable_name=name,
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.ALL,
        ack_wait=ACK_WAIT_S,
        max_ack_pending=-1,
        max_deliver=-1,
    )


async def ensure_consumers(link: Link, edges: Collection[str]) -> tuple[str, ...]:
    """Make the consumers of these edges exist, and no others; the names of those that were made."""
    jetstream = await link.jetstream()
    found: list[ConsumerInfo] = []
    while True:
        page = await link.call(jetstream.consumers_info(names.STREAM, offset=len(found)))
        found += page
        if len(page) < _PAGE_COUNT:
            break
    fitting = [each.name for each in found if _consumer_fits(each)]
    other = [each.name for each in found if not _consumer_fits(each)]
    plan = plan_consumers([names.consumer_name(edge) for edge in edges], fitting, other)
    for name in plan.delete:
        await link.call(jetstream.delete_consumer(names.STREAM, name))
    for name in plan.create:
        await link.call(jetstream.add_consumer(names.STREAM, consumer_config(name), timeout=CALL_TIMEOUT_S))
    return plan.create


def _consumer_fits(consumer: ConsumerInfo) -> bool:
    config = consumer.config
    return (
        config.ack_policy == AckPolicy.ALL
        and config.deliver_policy == DeliverPolicy.ALL
        and config.durable_name == consumer.name
        and config.filter_subject is None
        and config.deliver_subject is None
    )
