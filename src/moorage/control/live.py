"""What edges and runners have reported lately: memory, lost with the process, rebuilt by the next report."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from moorage.domain.limits import EDGE_LIVE_WITHIN_S
from moorage.wire.edge import EdgeReport
from moorage.wire.runner import RunnerReport

R = TypeVar("R")
COUNTS_KEPT = 8  # per allocation: some seconds of reports
SEEN_LATE_MS = 300  # between the end of a process and the runner seeing it


@dataclass(slots=True)
class Seen(Generic[R]):
    """A report and when it came: monotonic seconds for liveness, wall milliseconds for people."""

    report: R
    at_s: float
    at_ms: int


@dataclass
class Live:
    """The newest report of each edge and runner; `announce` wakes whoever waits for a change."""

    announce: Callable[[], None]
    monotonic_s: Callable[[], float]
    wall_ms: Callable[[], int]
    edges: dict[str, Seen[EdgeReport]] = field(default_factory=dict)
    runners: dict[str, Seen[RunnerReport]] = field(default_factory=dict)
    _counted: dict[tuple[str, int], deque[tuple[int, int]]] = field(default_factory=dict)

    def edge_reported(self, report: EdgeReport) -> None:
        """Keep an edge's report. What it last had to catch up with is told once and stays known: that the stream was
        slow now and then does not make forgotten that the edge was away."""
        for sockets in report.sockets:
            kept = self._counted.setdefault((report.edge, sockets.number), deque(maxlen=COUNTS_KEPT))
            kept.append((self.wall_ms(), sockets.attached))
        known = self.edges.get(report.edge)
        earlier, told = known.report.catch_up if known else None, report.catch_up
        if earlier and (told is None or told.away_s <= EDGE_LIVE_WITHIN_S < earlier.away_s):
            report = report.model_copy(update={"catch_up": earlier})
        self.edges[report.edge] = Seen(report, self.monotonic_s(), self.wall_ms())
        self.announce()

    def runner_reported(self, report: RunnerReport) -> None:
        """Keep a runner's report."""
        self.runners[report.runner] = Seen(report, self.monotonic_s(), self.wall_ms())
        self.announce()
        self.announce()

    def __post_init__(self) -> None:
        self._started_s = self.monotonic_s()

    @property
    def is_new(self) -> bool:
        """Whether this control plane has just started: an edge that is well may not have reported to it yet."""
        return self.monotonic_s() - self._started_s < EDGE_LIVE_WITHIN_S

    def live_edges(self) -> dict[str, EdgeReport]:
        """Edges that reported within EDGE_LIVE_WITHIN_S."""
        horizon = self.monotonic_s() - EDGE_LIVE_WITHIN_S
        return {name: seen.report for name, seen in self.edges.items() if seen.at_s >= horizon}

    def attached(self, number: int) -> int | None:
        """Sockets attached to an allocation, added up over live edges; None when no live edge has told."""
        counts = [s.attached for e in self.live_edges().values() for s in e.sockets if s.number == number]
        if counts:
            return sum(counts)
        return 0 if self.live_edges() else None

    def count_before(self, number: int, ended_ms: int) -> int | None:
        """How many sockets an allocation had when its process ended: the newest count that is surely older, or any
        higher one up to the end. A process takes its sockets along, and its edge may tell so before the runner has
        seen the end; where the two cannot be told apart the higher count stands. None when no edge has told anything.
        """
        counts = [
            _before(kept, ended_ms) for (_edge, counted), kept in self._counted.items() if counted == number and kept
        ]
        return sum(counts) if counts else None

    def has_let_go(self, allocation: str) -> bool:
        """Whether a runner has ended the input of the allocation's connections."""
        reports = (a for seen in self.runners.values() for a in seen.report.allocations)
        return any(report.allocation == allocation and report.let_go is not None for report in reports)

    def store_detail(self, environment: str) -> str:
        """What keeps an environment's store from being ready, as the runner says it; empty when nothing does."""
        for seen in self.runners.values():
            for store in seen.report.stores:
                if store.environment == environment and store.state != "ready":
                    return f"Its session store is {store.state}. {store.detail}".strip()
        return ""

    def store_state(self, environment: str) -> str:
        """What the runner says of an environment's store."""
        for seen in self.runners.values():
            for store in seen.report.stores:
                if store.environment == environment:
                    return store.state
        return "unknown"


def _before(kept: deque[tuple[int, int]], ended_ms: int) -> int:
    older = [count for at_ms, count in kept if at_ms <= ended_ms - SEEN_LATE_MS]
    uncertain = [count for at_ms, count in kept if ended_ms - SEEN_LATE_MS < at_ms <= ended_ms]
    return max([*older[-1:], *uncertain], default=0)
