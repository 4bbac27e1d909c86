"""Keeping the proxy in step with the table: observe once, then plan and apply; after any doubt, observe again."""

from __future__ import annotations

from moorage.edge.plan import (
    WantedProxy,
    everything,
    plan_changes,
    plan_collection,
    unreferenced_slots,
    wanted,
)
from moorage.edge.ports import Proxy
from moorage.edge.proxy.actual import ActualProxy
from moorage.edge.proxy.commands import Command
from moorage.edge.proxy.haproxy import ProxyIdentity
from moorage.edge.proxy.runtime import ProxyRefused, ProxyUnreachable
from moorage.edge.table import RouteTable, Touched
from moorage.system.clock import monotonic_s, pause
from moorage.system.log import get_log

CUT_WAIT_S = 1.0  # how long one pass waits until what was cut has really gone
CUT_LOOK_PERIOD_S = 0.005

_log = get_log("moorage.edge.keep")


class Keeper:
    """The proxy and what is known of it. `identity` is the process that was last brought in step (None: none yet)."""

    def __init__(self, proxy: Proxy) -> None:
        self.identity: ProxyIdentity | None = None
        self._proxy = proxy
        self._actual: ActualProxy | None = None  # unknown: to be observed
        self._closed = False
        self._forgotten: frozenset[int] = frozenset()
        self._may_collect = False

    def doubt(self) -> None:
        """What the proxy holds must be read back before the next change."""
        self._actual = None

    async def converge(self, table: RouteTable, touched: Touched, *, closed: bool, may_go_back: bool) -> bool:
        """Put the touched part of the table in force; whether all of it is. `may_go_back`: the table is the control
        plane's and not only a copy from disk, so a proxy that is ahead of it has what the control plane has lost.

        Raises ProxyUnreachable or ProxyRefused; then nothing counts as in force and the next pass looks at everything.
        """
        try:
            return await self._converge(table, touched, closed=closed, may_go_back=may_go_back)
        except (ProxyUnreachable, ProxyRefused):
            self.doubt()
            raise

    async def collect(self, table: RouteTable) -> None:
        """Remove what is of no use any more: servers of the past, forgotten slots. Raises ProxyUnreachable."""
        if self._actual is None or not self._may_collect:
            return
        try:
            await self._see_connections(self._actual)
            plan = plan_collection(table, self._actual, forgotten=self._forgotten)
            await self._apply(self._actual, plan)
        except (ProxyUnreachable, ProxyRefused):
            self.doubt()
            raise
        self._forgotten = unreferenced_slots(self._actual)
        gone = self._actual.servers.keys() - table.endpoints.keys()
        self._may_collect = bool(self._forgotten or gone)

    async def _converge(self, table: RouteTable, touched: Touched, *, closed: bool, may_go_back: bool) -> bool:
        actual, identity = self._actual, self.identity
        if actual is None:
            identity, actual = await self._observe()
            touched = everything(table, actual)
        elif closed != self._closed:
            touched = everything(table, actual)
        if not may_go_back and _is_ahead(actual, table):
            self.doubt()  # when the table is newer, all that the proxy has must be compared with it
            return False  # a copy from disk is older than what the proxy serves: it may not go back
        want = wanted(table, touched, closed=closed)
        await self._apply(actual, plan_changes(want, actual))
        self._closed, self.identity = closed, identity
        self._may_collect = self._may_collect or bool(touched)
        return await self._is_cut(want, actual)

    async def _observe(self) -> tuple[ProxyIdentity, ActualProxy]:
        identity = await self._proxy.identify()
        if identity != self.identity:
            _log.info("filling the proxy", pid=identity.pid, version=identity.version)
        self._actual = await self._proxy.observe()
        self._may_collect = True
        return identity, self._actual

    async def _apply(self, actual: ActualProxy, plan: tuple[Command, ...]) -> None:
        if plan:
            await self._proxy.apply(plan)
            actual.take(plan)

    async def _is_cut(self, want: WantedProxy, actual: ActualProxy) -> bool:
        """Whether nothing is attached to what was to be cut; cuts again what had slipped through."""
        shut = [number for number, server in want.servers.items() if server is None or server.shut]
        if not any(number in actual.servers for number in shut):
            return True
        deadline = monotonic_s() + CUT_WAIT_S
        while True:
            await self._see_connections(actual)
            plan = plan_changes(want, actual)
            if not plan:
                return True
            if monotonic_s() >= deadline:
                return False
            await self._apply(actual, plan)
            await pause(CUT_LOOK_PERIOD_S)

    async def _see_connections(self, actual: ActualProxy) -> None:
        actual.see_connections(await self._proxy.connections())


def _is_ahead(actual: ActualProxy, table: RouteTable) -> bool:
    incarnation, _, index = actual.mark.rpartition(":")
    return bool(incarnation) and incarnation == table.incarnation and int(index) > table.index
