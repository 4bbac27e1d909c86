"""The edge agent: follows the log, keeps the proxy in step, tells the control plane what is in force.

One pass is `reconcile_once`: ask the control plane where the stream does not suffice, then plan and apply. Events only
wake it. The agent may die or be restarted at any time: the proxy serves on, and the next agent compares and goes on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from moorage.domain.errors import MoorageError
from moorage.domain.limits import REPORT_PERIOD_S, SNAPSHOT_STALE_MAX_S
from moorage.edge.follow import Follower, Trouble
from moorage.edge.keep import Keeper
from moorage.edge.kept import RouteCopy
from moorage.edge.ports import ControlPlane, EventSource, Proxy
from moorage.edge.proxy.runtime import ProxyRefused, ProxyUnreachable
from moorage.edge.table import Touched
from moorage.system.clock import monotonic_s, pause, wait_for
from moorage.system.log import get_log
from moorage.wire.edge import EdgeReport, Sockets
from moorage.wire.log import LogEntry

FETCH_S = 5.0
STREAM_GRACE_S = 0.1  # what was committed usually comes by the stream; after this the log is read instead
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 1.0
DEEP_LOOK_PERIOD_S = 60.0  # the proxy is read back whole this often, whatever is believed of it

_log = get_log("moorage.edge.agent")


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What an agent is told: its name, where its copy of the routes lies, whose signature it believes, and whether it
    stops serving (503, `route-table-stale`) when it has heard nothing for `stale_max_s`."""

    edge: str
    copy_path: Path
    public_key: Ed25519PublicKey
    fail_closed: bool = True
    stale_max_s: float = SNAPSHOT_STALE_MAX_S
    report_period_s: float = REPORT_PERIOD_S


class EdgeAgent:
    """One edge. `run` until `stop`."""

    def __init__(self, settings: AgentSettings, control: ControlPlane, source: EventSource, proxy: Proxy) -> None:
        self._settings, self._control, self._source, self._proxy = settings, control, source, proxy
        self._follower = Follower(control, source, RouteCopy(settings.copy_path), settings.public_key)
        self._keeper = Keeper(proxy)
        self._wake, self._report_due, self._progress = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._stopping = False
        self._in_force = (self._follower.table.incarnation, 0)
        self._retry_s = RETRY_FIRST_S
        self._looked_s = monotonic_s()

    def stop(self) -> None:
        """Let `run` return soon; the proxy serves on."""
        self._stopping = True
        for event in (self._wake, self._report_due, self._progress):
            event.set()

    @property
    def is_failing_closed(self) -> bool:
        """Whether the table is too old to be served, by policy."""
        known = bool(self._follower.table.incarnation)
        return known and self._settings.fail_closed and self._follower.age_s > self._settings.stale_max_s

    async def run(self) -> None:
        """Follow, keep and report until `stop`."""
        self._follower.load_copy()
        tasks = [asyncio.create_task(task) for task in (self._work(), self._report(), self._watch())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self._proxy.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def reconcile_once(self) -> bool:
        """One pass; whether the whole table is in force in the proxy afterwards.

        Raises ProxyUnreachable or ProxyRefused.
        """
        follower = self._follower
        if follower.must_ask:
            try:
                await follower.ask()
            except Trouble as wrong:
                _tell("the control plane cannot be asked", wrong)
        if not follower.table.incarnation:
            return False
        touched, follower.touched = follower.touched, Touched()
        index = (follower.table.incarnation, follower.table.index)
        done = False
        try:
            closed, may_go_back = self.is_failing_closed, follower.is_confirmed
            done = await self._keeper.converge(follower.table, touched, closed=closed, may_go_back=may_go_back)
        finally:
            if not done:
                follower.touched |= touched
        if done:
            follower.keep_entries()
            self._note(index)
        return done

    def _note(self, index: tuple[str, int]) -> None:
        """Everything up to the index is in force: say so at once if it is news."""
        if index != self._in_force:
            self._in_force = index
            self._progress.set()
            self._report_due.set()

    async def _work(self) -> None:
        """Fetch, fold, put in force, acknowledge: in this order, so that only what is in force is acknowledged."""
        fetching: asyncio.Task[tuple[LogEntry, ...]] | None = None
        to_ack = False
        try:
            while not self._stopping:
                if fetching is not None and fetching.done():
                    entries, fetching = fetching.result(), None
                    self._follower.take(entries)
                    to_ack = to_ack or bool(entries)
                done = await self._pass()
                if to_ack and done and fetching is None and not self._follower.is_broken:
                    await self._source.ack()
                    to_ack = False
                if fetching is None and not to_ack:
                    fetching = asyncio.create_task(self._source.fetch(FETCH_S))
                    fetching.add_done_callback(lambda _: self._wake.set())
                settled = done and not self._follower.must_ask
                await wait_for(self._wake, self._settings.report_period_s if settled else self._backed_off())
        finally:
            if fetching is not None:
                fetching.cancel()
                await asyncio.gather(fetching, return_exceptions=True)

    async def _pass(self) -> bool:
        """`reconcile_once` with the proxy's failures as an answer."""
        if monotonic_s() - self._looked_s > DEEP_LOOK_PERIOD_S:
            self._keeper.doubt()
            self._looked_s = monotonic_s()
        try:
            done = await self.reconcile_once()
        except (ProxyUnreachable, ProxyRefused) as wrong:
            _tell("the proxy is not in step", wrong)
            return False
        if done and not self._follower.must_ask:
            self._retry_s = RETRY_FIRST_S
        return done

    def _backed_off(self) -> float:
        """How long to wait before trying again; longer each time."""
        now_s, self._retry_s = self._retry_s, min(self._retry_s * 2, RETRY_MAX_S)
        return now_s

    async def _watch(self) -> None:
        """Notice at once when the proxy's process goes away, and fill the next one as soon as it answers."""
        while not self._stopping:
            await self._proxy.watch()
            self._keeper.doubt()
            self._retry_s = RETRY_FIRST_S
            self._wake.set()
            await pause(RETRY_FIRST_S)

    async def _report(self) -> None:
        while not self._stopping:
            await wait_for(self._report_due, self._settings.report_period_s)
            try:
                await self._report_once()
                await self._keeper.collect(self._follower.table)
                await self._follower.keep_copy()
                if self._follower.touched:
                    self._wake.set()
            except Trouble as wrong:
                _tell("no report was made", wrong)
                await pause(RETRY_FIRST_S)

    async def _report_once(self) -> None:
        report, asked_s, asked_index = await self._compose(), monotonic_s(), self._follower.table.index
        reply = await self._control.report(report)
        if report.catch_up == self._follower.catch_up:
            self._follower.catch_up = None  # it was heard
        self._progress.clear()
        if self._follower.hear(reply, asked_s, asked_index):
            return
        if not self._follower.must_ask:
            await wait_for(self._progress, STREAM_GRACE_S)
            if self._follower.hear(reply, asked_s, asked_index):
                return
            self._follower.fall_back()
        self._wake.set()

    async def _compose(self) -> EdgeReport:
        table, identity = self._follower.table, self._keeper.identity
        incarnation, index = self._in_force
        try:
            sockets: tuple[Sockets, ...] = await self._proxy.sockets()
        except ProxyUnreachable:
            sockets, identity = (), None
        return EdgeReport(
            edge=self._settings.edge,
            incarnation=incarnation,
            applied_index=index,
            applied=table.counts.applied,
            duplicates=table.counts.duplicates,
            gaps=table.counts.gaps,
            stale=table.counts.stale,
            sockets=self._all(sockets),
            catch_up=self._follower.catch_up,
            proxy_pid=identity.pid if identity else 0,
            proxy_version=identity.version if identity else "",
            failing_closed=self.is_failing_closed,
        )

    def _all(self, counted: tuple[Sockets, ...]) -> tuple[Sockets, ...]:
        """A count for every allocation that exists: one that never had a socket has 0, which is not unknown."""
        known = {sockets.number: sockets for sockets in counted}
        numbers = sorted(self._follower.table.endpoints.keys() | known.keys())
        return tuple(known.get(number, Sockets(number=number, attached=0, pins=0)) for number in numbers)


def _tell(what: str, wrong: BaseException) -> None:
    problem = wrong.problem if isinstance(wrong, MoorageError) else None
    _log.warning(what, code=problem.code if problem else "timeout", why=str(wrong) or type(wrong).__name__)
