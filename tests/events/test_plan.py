"""The decisions of the room, row by row and for all values."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.events import names, server
from moorage.events.plan import (
    ConsumerPlan,
    Cursor,
    Keep,
    Rebuild,
    SourceSeen,
    Standing,
    Start,
    StreamSeen,
    Why,
    plan_consumers,
    plan_start,
    plan_stream,
)

LOG = SourceSeen("inc_a", committed=10, next_index=8)


@pytest.mark.parametrize(
    ("stream", "source", "expected"),
    [
        (None, LOG, Rebuild(Why.MISSING)),
        (StreamSeen("inc_a", 1, 7, last_matches=True), LOG, Keep(7)),
        (StreamSeen("inc_a", 1, 7, last_matches=None), LOG, Keep(7)),
        (StreamSeen("inc_a", 8, 7), LOG, Keep(7)),  # emptied, the number kept
        (StreamSeen("inc_a", 1, 10), SourceSeen("inc_a", 10, None), Keep(10)),
        (StreamSeen("inc_a", 1, 0), SourceSeen("inc_a", 0, None), Keep(0)),
        (StreamSeen("inc_b", 1, 7), LOG, Rebuild(Why.OTHER_INCARNATION)),
        (StreamSeen("", 1, 7), LOG, Rebuild(Why.OTHER_INCARNATION)),
        (StreamSeen("inc_a", 1, 7, shape_fits=False), LOG, Rebuild(Why.OTHER_SHAPE)),
        (StreamSeen("inc_a", 1, 11), LOG, Rebuild(Why.AHEAD)),
        (StreamSeen("inc_a", 1, 7, last_matches=False), LOG, Rebuild(Why.DIFFERS)),
        (StreamSeen("inc_a", 1, 3), LOG, Rebuild(Why.UNREACHABLE)),
    ],
)
def test_plan_stream(stream: StreamSeen | None, source: SourceSeen, expected: Keep | Rebuild) -> None:
    assert plan_stream(stream, source) == expected


@pytest.mark.parametrize(
    ("cursor", "acknowledged", "first", "last", "expected"),
    [
        (None, 0, 1, 0, Start(1, Standing.UNKNOWN)),
        (None, 4, 1, 9, Start(5, Standing.UNKNOWN)),
        (None, 4, 7, 9, Start(7, Standing.UNKNOWN)),
        (Cursor(4), 0, 1, 9, Start(5, Standing.FOLLOWS)),
        (Cursor(9, "inc_a"), 0, 1, 9, Start(10, Standing.FOLLOWS)),
        (Cursor(4, "inc_a"), 0, 5, 4, Start(5, Standing.FOLLOWS)),
        (Cursor(12, "inc_a"), 0, 1, 9, Start(10, Standing.AHEAD)),
        (Cursor(4, "inc_a"), 0, 6, 9, Start(6, Standing.TRIMMED)),
        (Cursor(4, "inc_b"), 0, 1, 9, Start(1, Standing.OTHER_HISTORY)),
    ],
)
def test_plan_start(cursor: Cursor | None, acknowledged: int, first: int, last: int, expected: Start) -> None:
    assert plan_start(cursor, acknowledged, first, last, "inc_a") == expected


@given(
    cursor=st.one_of(st.none(), st.builds(Cursor, st.integers(0, 50), st.sampled_from(["", "inc_a", "inc_b"]))),
    acknowledged=st.integers(0, 50),
    first=st.integers(1, 50),
    size=st.integers(0, 50),
)
def test_a_start_never_skips_what_the_stream_has_and_the_edge_has_not(
    cursor: Cursor | None, acknowledged: int, first: int, size: int
) -> None:
    last = first + size - 1
    start = plan_start(cursor, acknowledged, first, last, "inc_a")
    assert 1 <= start.sequence <= last + 1 or start.sequence == first
    if cursor is not None and cursor.incarnation != "inc_b":
        assert start.sequence <= max(cursor.index + 1, first)


def test_plan_consumers() -> None:
    plan = plan_consumers(["a", "b", "c"], fitting=["a", "z"], other=["b"])
    assert plan == ConsumerPlan(create=("b", "c"), delete=("b", "z"))


@pytest.mark.parametrize("name", ["", "a.b", "a*", ">", "A", "a b", "-a", "a" * 65])
def test_names_that_would_widen_a_subject_are_a_bug(name: str) -> None:
    with pytest.raises(AssertionError):
        names.edge_publishes(name)


def test_the_rendered_configuration() -> None:
    plan = server.ServerPlan(4222, Path('/a "b"/store'), "UCONTROL", {"edge1": "UEDGE"}, {"runner1": "URUN"})
    text = server.render_server(plan)
    assert 'listen: "127.0.0.1:4222"' in text
    assert "sync_interval: always" in text
    assert 'store_dir: "/a \\"b\\"/store"' in text
    assert "http" not in text
    assert text.count("nkey:") == 3
    assert "CONSUMER.CREATE" not in text
    (runner,) = [line for line in text.splitlines() if "URUN" in line]
    assert 'publish: { deny: [">"] }' in runner
    assert render_again(plan) == text


def render_again(plan: server.ServerPlan) -> str:
    return server.render_server(plan)


def test_one_key_for_two_users_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        server.render_server(server.ServerPlan(1, Path("/x"), "U", {"edge1": "U"}))


def test_seeds_are_fresh_and_have_their_public_key() -> None:
    seeds = {server.new_seed() for _ in range(10)}
    assert len(seeds) == 10
    assert all(seed.startswith("SU") and server.public_key(seed).startswith("U") for seed in seeds)
