"""Route epoch: routing by the latest healthy backend. Old news, however it comes, never takes the table back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import nats.errors
import pytest

from moorage.client.agents import EdgeClient
from moorage.client.http import Http
from moorage.domain.errors import Problem, Unavailable
from moorage.edge.agent import AgentSettings, EdgeAgent
from moorage.edge.proxy.haproxy import HAProxy
from moorage.events.names import STREAM, log_subject
from moorage.events.relay import payload_of
from moorage.main.installation import EDGE, load_keys
from moorage.system.clock import pause
from moorage.wire.edge import EdgeReply, EdgeReport, LogPage
from moorage.wire.log import LogEntry, OwnerUpdated, SignedSnapshot
from tests.support.asking import traffic, who
from tests.support.bus import jetstream
from tests.support.deeds import deploy, promote, serve
from tests.support.platform import Platform, key
from tests.support.processes import gone
from tests.support.tiny_app import tiny_app
from tests.support.truth import committed_index, owner
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

APP, GHOST = "epoch", "ghost"
OWNERS = [1, 2, 1, 2]
SEED = 20


@dataclass
class Past:
    """What the platform has been through, as it was told to edges at the time."""

    snapshot: SignedSnapshot  # taken when the first deployment was the owner
    entries: tuple[LogEntry, ...] = ()


@pytest.fixture(scope="module")
def past(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Past:
    """An app whose owner has changed again and again, and one that was destroyed; all of it is history to replay."""
    return asyncio.run(live_through(platform, tmp_path_factory.mktemp("source")))


async def live_through(platform: Platform, folder: Path) -> Past:
    source = tiny_app(folder / APP, APP, text="1")
    await serve(platform, source)
    await serve(platform, tiny_app(folder / GHOST, GHOST))
    async with edge_client(platform) as client:
        past = Past(await client.snapshot())
    tiny_app(source, APP, text="2")
    await deploy(platform, source)
    for number in OWNERS[1:]:
        assert (await promote(platform, APP, number, mode="drain", drain_deadline_s=0.1)).state == "healthy"
    async with platform.api() as api:
        await platform.finished((await api.destroy(GHOST, key=key())).operation)
    await wait_until(lambda: is_idle(platform), timeout_s=30, what="nothing is going on")
    async with edge_client(platform) as client:
        past.entries = (await client.log(0)).entries
    assert [e.event.epoch for e in past.entries if isinstance(e.event, OwnerUpdated) and is_owner(e)] == [1, 2, 3, 4]
    return past


def is_owner(entry: LogEntry) -> bool:
    return isinstance(entry.event, OwnerUpdated) and entry.event.route_key == f"{APP}.localhost"


async def is_idle(platform: Platform) -> bool:
    async with platform.api() as api:
        status = await api.status()
    return status.operations_open == 0 and status.edges[0].applied_index == status.log_index


@asynccontextmanager
async def edge_client(platform: Platform) -> AsyncIterator[EdgeClient]:
    """The control plane as the platform's edge sees it."""
    http = Http(platform.api_url, (platform.home / "keys" / f"{EDGE}.token").read_text())
    try:
        yield EdgeClient(http, EDGE)
    finally:
        await http.close()


@dataclass
class HostileTransport:
    """A stream that delivers whatever it likes. A batch is in force, or dropped, once the agent asks for the next."""

    batches: asyncio.Queue[tuple[LogEntry, ...]] = field(default_factory=asyncio.Queue)
    asked: int = 0

    async def fetch(self, timeout_s: float) -> tuple[LogEntry, ...]:
        self.asked += 1
        try:
            return await asyncio.wait_for(self.batches.get(), timeout_s)
        except TimeoutError:
            return ()

    async def ack(self) -> None:
        return

    async def reset(self, index: int) -> None:
        return

    async def deliver(self, *entries: LogEntry) -> None:
        """Give the agent these entries and wait until it has dealt with them."""
        before = self.asked
        self.batches.put_nowait(entries)
        await wait_until(lambda: self.batches.empty() and self.asked > before, what="the agent took the entries")


@dataclass
class ForgetfulControl:
    """A control plane of which only old answers get through: its first snapshot is from the past, and until `heals`
    nothing newer can be had."""

    client: EdgeClient
    old: SignedSnapshot | None = None
    heals: bool = True

    async def snapshot(self) -> SignedSnapshot:
        return self.old if self.old and not self.heals else await self.client.snapshot()

    async def log(self, after_index: int) -> LogPage:
        if not self.heals:
            raise Unavailable(Problem("control-unreachable", "Nothing newer can be had", status=503))
        return await self.client.log(after_index)

    async def report(self, report: EdgeReport) -> EdgeReply:
        return await self.client.report(report)


@asynccontextmanager
async def agent(
    platform: Platform, copy: Path, transport: HostileTransport, *, old: SignedSnapshot | None = None
) -> AsyncIterator[ForgetfulControl]:
    """The real agent at the platform's real proxy, in place of the platform's own, behind a hostile transport."""
    async with gone(platform, "edge"), edge_client(platform) as client:
        control = ForgetfulControl(client, old, heals=old is None)
        settings = AgentSettings(EDGE, copy, load_keys(platform.home / "keys").public_key, report_period_s=0.05)
        running = EdgeAgent(settings, control, transport, HAProxy(platform.home / "run" / "proxy.sock"))
        task = asyncio.create_task(running.run())
        try:
            yield control
        finally:
            running.stop()
            await asyncio.wait_for(task, 10)


Picture = dict[str, object]


async def picture(proxy: HAProxy) -> Picture:
    """Everything of the proxy's table that decides where a request goes."""
    held = await proxy.observe()
    routes = {name: ([held.slots[slot] for slot in entry.slots], entry.held) for name, entry in held.routes.items()}
    servers = {n: (server.host, server.port) for n, server in held.servers.items() if not server.stopped}
    return {"routes": routes, "numbers": held.numbers, "servers": servers, "mark": held.mark}


@asynccontextmanager
async def watched(platform: Platform) -> AsyncIterator[list[Picture]]:
    """The proxy's table, looked at all the time; each change is one more picture."""
    proxy = HAProxy(platform.home / "run" / "proxy.sock")
    seen = [await picture(proxy)]

    async def look() -> None:
        while True:
            now = await picture(proxy)
            if now != seen[-1]:
                seen.append(now)
            await pause(0.002)

    task = asyncio.create_task(look())
    try:
        yield seen
        assert not task.done(), "the watch has lasted"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await proxy.close()


def check_served(platform: Platform) -> None:
    """The newest owner answers, and what was destroyed is gone."""
    answer = who(platform.get(f"{APP}.localhost"))
    assert answer["deployment"] == str(owner(platform, APP)["deployment_number"])
    assert platform.get(f"{GHOST}.localhost").status_code == 404


async def test_route_epoch_replayed_reordered_and_doubled_events_change_nothing(
    platform: Platform, past: Past, tmp_path: Path
) -> None:
    """The whole history again: as it was, backwards, shuffled, twice, in pieces, and under another log's name."""
    transport, shuffler, total = HostileTransport(), random.Random(SEED), len(past.entries)
    async with agent(platform, tmp_path / "copy.json", transport):
        await wait_until(lambda: is_applied(platform), what="the agent has the newest table")
        async with watched(platform) as seen, traffic(platform, f"{APP}.localhost") as asked:
            await transport.deliver(*past.entries)
            await transport.deliver(*reversed(past.entries))
            await transport.deliver(*shuffler.sample(past.entries, total))
            await transport.deliver(*[entry for entry in past.entries for _ in range(2)])
            for entry in [e for e in past.entries if is_owner(e)]:
                await transport.deliver(entry)
            foreign = [e.model_copy(update={"incarnation": "inc_of-another-log"}) for e in past.entries]
            await transport.deliver(*foreign)
            await wait_until(lambda: counts(platform, duplicates=5 * total + 4), what="each of them is counted")
            await wait_until(lambda: asked.answered > 100, what="traffic flowed all the while")
        found = await platform.edge()
        assert (found.counters["stale"], found.counters["gaps"]) == (0, 0)
        assert found.applied_index == committed_index(platform)
        assert seen == seen[:1], "the table has not changed once"
        assert (asked.failures, asked.courses) == ([], [["2"]] * 3)
        check_served(platform)


async def test_route_epoch_of_an_old_owner_under_a_new_index_is_stale(
    platform: Platform, past: Past, tmp_path: Path
) -> None:
    """An old owner's event as the next entry of the log passes the index: the epoch refuses it."""
    transport = HostileTransport()
    async with agent(platform, tmp_path / "copy.json", transport):
        await wait_until(lambda: is_applied(platform), what="the agent has the newest table")
        following = committed_index(platform) + 1
        old = [entry for entry in past.entries if is_owner(entry)]
        async with watched(platform) as seen:
            for offset, entry in enumerate(old):
                await transport.deliver(entry.model_copy(update={"index": following + offset}))
            await wait_until(lambda: counts(platform, stale=len(old)), what="each of them is counted")
        assert all({**now, "mark": ""} == {**seen[0], "mark": ""} for now in seen), "no route, no pin, no server moved"
        check_served(platform)
    # The platform's own agent is back; the log goes on and is believed again from the next owner on.
    view = await promote(platform, APP, 1, mode="drain", drain_deadline_s=0.1)
    assert (view.state, view.facts["edges_behind"]) == ("healthy", [])
    await wait_until(lambda: is_idle(platform), timeout_s=30, what="nothing is going on")
    check_served(platform)


async def test_route_epoch_of_an_old_snapshot_cannot_take_a_proxy_back(
    platform: Platform, past: Past, tmp_path: Path
) -> None:
    """An agent without memory is given a snapshot that was signed long ago: the proxy serves on as it was."""
    transport = HostileTransport()
    async with (
        watched(platform) as seen,
        agent(platform, tmp_path / "copy.json", transport, old=past.snapshot) as control,
    ):
        await wait_until(lambda: has_heard(platform, transport), what="the agent has loaded the old snapshot")
        transport.batches.put_nowait(past.entries[:-1])
        await wait_until(transport.batches.empty, what="the agent took the entries")
        check_served(platform)
        assert seen == seen[:1], "the table has not changed once"
        control.heals = True
        await wait_until(lambda: is_applied(platform), what="the agent has the newest table")
        assert seen == seen[:1], "what the agent arrived at is what the proxy had"
    check_served(platform)


async def test_route_epoch_survives_old_events_written_into_the_real_stream(platform: Platform, past: Past) -> None:
    """Somebody with the control plane's key publishes history again: the stream is put right, the table stays."""
    await wait_until(lambda: is_idle(platform), timeout_s=30, what="nothing is going on")
    index = committed_index(platform)
    async with watched(platform) as seen:
        stored = await publish(platform, [*past.entries, *reversed(past.entries)])
        assert max(stored) > index, "behind the end of the log"
        await wait_until(lambda: is_stream_of(platform, index), what="the stream ends with the log again")
        found = await platform.edge()
        assert (found.applied_index, found.behind) == (index, 0)
        assert seen == seen[:1], "the table has not changed once"
    check_served(platform)
    view = await promote(platform, APP, 3 - owner(platform, APP)["deployment_number"], mode="drain")
    assert (view.state, view.facts["edges_behind"]) == ("healthy", [])
    check_served(platform)


async def publish(platform: Platform, entries: Sequence[LogEntry]) -> list[int]:
    """Write entries to the stream as they are; the sequences of those that were taken (it may be built anew)."""
    stored = []
    async with jetstream(platform) as stream:
        for entry in entries:
            with suppress(nats.errors.Error):
                stored.append((await stream.publish(log_subject(entry.event.type), payload_of(entry))).seq)
    return stored


async def is_applied(platform: Platform) -> bool:
    found = await platform.edge()
    return found.live and found.applied_index == committed_index(platform)


async def counts(platform: Platform, **wanted: int) -> bool:
    found = (await platform.edge()).counters
    return all(found[name] == count for name, count in wanted.items())


async def has_heard(platform: Platform, transport: HostileTransport) -> bool:
    """Whether this agent (it alone) reports, and follows its transport."""
    return transport.asked > 0 and (await platform.edge()).counters["applied"] == 0


async def is_stream_of(platform: Platform, index: int) -> bool:
    async with jetstream(platform) as stream:
        with suppress(nats.errors.Error):
            return bool((await stream.stream_info(STREAM)).state.last_seq == index)
    return False
