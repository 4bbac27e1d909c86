"""Sockets as a count: what an account says of a plain app's sessions, and what is still known after a crash."""

from __future__ import annotations

import pytest

from moorage.control.live import SEEN_LATE_MS, Live
from moorage.control.operations.sessions import end_of_plain, plain_account
from moorage.domain.operation import Kind
from moorage.domain.session import Outcome
from moorage.sessions.account import Phase
from moorage.wire.edge import EdgeReport, Sockets


@pytest.mark.parametrize(
    ("before", "now", "phase", "kind", "expected"),
    [
        (5, 5, Phase.SERVING, Kind.DRAIN, {(Outcome.ATTACHED, ""): 5}),
        (5, 2, Phase.SERVING, Kind.DRAIN, {(Outcome.ATTACHED, ""): 2, (Outcome.ENDED, "closed"): 3}),
        (5, 9, Phase.SERVING, Kind.DRAIN, {(Outcome.ATTACHED, ""): 5}),
        (5, None, Phase.SERVING, Kind.DRAIN, {(Outcome.UNKNOWN, "no-live-edge"): 5}),
        (5, 0, Phase.SETTLED, Kind.DRAIN, {(Outcome.ENDED, "cut-at-deadline"): 5}),
        (5, 0, Phase.CUT, Kind.HANDOVER, {(Outcome.ENDED, "cut-in-handover"): 5}),
        (5, 0, Phase.SETTLED, Kind.REPLACEMENT, {(Outcome.LOST, "process-ended"): 5}),
        (0, 0, Phase.SETTLED, Kind.REPLACEMENT, {}),
    ],
)
def test_a_plain_apps_sockets_are_attached_ended_or_died_with_it_never_moved(
    before: int, now: int | None, phase: Phase, kind: Kind, expected: dict[tuple[Outcome, str], int]
) -> None:
    account = plain_account(before, now, phase, end_of_plain(kind))
    assert dict(account.unnamed) == expected
    assert account.total == before


@pytest.mark.parametrize("kind", [Kind.DRAIN, Kind.HANDOVER, Kind.REPLACEMENT])
def test_who_may_go_on_from_a_store_of_the_users_own_is_unknown(kind: Kind) -> None:
    account = plain_account(5, 0, Phase.SETTLED, end_of_plain(kind, own_store=True))
    assert dict(account.unnamed) == {(Outcome.UNKNOWN, "own-store"): 5}


class Clock:
    """A wall clock that a test moves, in milliseconds."""

    now_ms = 10_000

    def __call__(self) -> int:
        return self.now_ms


def report(edge: str, attached: int) -> EdgeReport:
    return EdgeReport(
        edge=edge,
        incarnation="inc",
        applied_index=1,
        applied=1,
        duplicates=0,
        gaps=0,
        stale=0,
        sockets=(Sockets(number=7, attached=attached, pins=attached),),
    )


def test_what_a_crashed_allocation_had_is_never_counted_kinder() -> None:
    clock = Clock()
    live = Live(lambda: None, lambda: 0.0, clock)
    for edge, attached in (("edge-1", 5), ("edge-1", 3), ("edge-2", 4)):
        live.edge_reported(report(edge, attached))
        clock.now_ms += 1000
    ended_ms = clock.now_ms
    clock.now_ms += 10
    live.edge_reported(report("edge-1", 0))
    live.edge_reported(report("edge-2", 0))
    assert live.attached(7) == 0
    assert live.count_before(7, ended_ms + SEEN_LATE_MS - 1) == 7
    assert live.count_before(7, 1) == 0
    live.edge_reported(report("edge-1", 6))
    assert live.count_before(7, clock.now_ms) == 10, "what came at the last moment counts, too"
    assert live.count_before(8, ended_ms) is None
