"""Drain: sessions that are still attached to the old allocation are never claimed to have moved."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from moorage.wire.api import OperationView, PromoteRequest, RestartRequest
from tests.support.platform import Platform, key
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

PLAIN = Path(__file__).parents[2] / "examples" / "plain"
SOCKETS_COUNT = 500
LEAVING_COUNT = 120
AT_ONCE_COUNT = 50
MOVED = ("resumed", "fresh", "lost", "unknown")


def version(name: str, folder: Path) -> Path:
    """The plain app, with its version in every answer on a socket: `v1 3 hello`."""
    shutil.copytree(PLAIN, folder, ignore=shutil.ignore_patterns("__pycache__"))
    source = folder / "app.py"
    before = source.read_text()
    after = before.replace('f"{count} {message', f'f"{name} {{count}} {{message')
    assert after != before
    source.write_text(after)
    return folder


@dataclass
class Socket:
    """One browser's socket with the count that lives in its server's memory and nowhere else."""

    connection: ClientConnection
    said: int = 0

    async def says(self) -> str:
        """Say something; the version that answers. The answer's count shows whose memory it is."""
        self.said += 1
        await self.connection.send("hello")
        name, count, _ = str(await self.connection.recv()).split(" ", 2)
        assert int(count) == self.said, "the server's memory of this socket is another's"
        return name

    async def is_cut(self) -> bool:
        """Whether the other side has ended it."""
        with suppress(ConnectionClosed):
            await self.connection.recv()
        return True


@asynccontextmanager
async def sockets(platform: Platform, count: int) -> AsyncIterator[list[Socket]]:
    """This many sockets through the edge, each a newcomer without a cookie."""
    door = asyncio.Semaphore(AT_ONCE_COUNT)

    async def open_one() -> Socket:
        async with door:
            address = f"ws://{platform.host('plain')}/ws"
            return Socket(
                await connect(
                    address, host="127.0.0.1", port=platform.http_port, proxy=None, compression=None, ping_interval=None
                )
            )

    opened = await asyncio.gather(*(open_one() for _ in range(count)))
    try:
        yield opened
    finally:
        await asyncio.gather(*(each.connection.close() for each in opened))


async def answers(opened: Sequence[Socket]) -> set[str]:
    """The versions that answer on these sockets, each of which says something."""
    return set(await asyncio.gather(*(each.says() for each in opened)))


async def until_counted(platform: Platform, number: int, count: int) -> None:
    """Wait until the edge has told that so many sockets are attached to an allocation."""

    async def counted() -> bool:
        async with platform.api() as api:
            return any(a.number == number and a.attached_sockets == count for a in await api.allocations("plain"))

    await wait_until(counted, what=f"{count} sockets counted at allocation {number}")


class Watch:
    """Every account that the drain gave out, from its first to its last."""

    def __init__(self, platform: Platform, operation: str) -> None:
        self._platform, self._operation = platform, operation
        self.accounts: list[Mapping[str, Any]] = []
        self.newest: OperationView | None = None
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> OperationView:
        seq = -1
        async with self._platform.api() as api:
            while True:
                self.newest = view = await api.operation(self._operation, after_seq=seq, wait_s=5)
                seq = view.stages[-1].seq
                if "account" in view.facts:
                    self.accounts.append(view.facts["account"])
                if view.finished:
                    return view

    async def reached(self, **counts: int) -> None:
        """Wait until an account has said these counts."""
        await wait_until(
            lambda: any(all(a[name] == n for name, n in counts.items()) for a in self.accounts), what=f"{counts}"
        )

    async def end(self) -> OperationView:
        """The drain, once it has ended."""
        return await asyncio.wait_for(self._task, 60)


async def drain_to(platform: Platform, number: int, *, deadline_s: float | None = None) -> Watch:
    """Promote with `drain`; what became of the drain is watched from its first stage on."""
    async with platform.api() as api:
        epoch = next(a.epoch for a in await api.apps() if a.name == "plain")
        request = PromoteRequest(deployment=number, expected_epoch=epoch, mode="drain", drain_deadline_s=deadline_s)
        started = await api.promote("plain", request, key=key())
        found: list[str] = []

        async def begun() -> bool:
            found[:] = (await api.operation(started.operation)).children
            return bool(found)

        await wait_until(begun, what="the drain has begun")
        watch = Watch(platform, found[0])
    view = await platform.finished(started.operation)
    assert view.state == "healthy", view.problem
    return watch


async def test_sessions_that_drain_are_counted_and_never_called_moved(platform: Platform, tmp_path: Path) -> None:
    await platform.serve(version("v1", tmp_path / "v1"))
    _, second = await platform.deploy(version("v2", tmp_path / "v2"))
    old = await platform.allocation("plain")
    async with sockets(platform, SOCKETS_COUNT) as people:
        assert await answers(people) == {"v1"}
        await until_counted(platform, old.number, SOCKETS_COUNT)

        watch = await drain_to(platform, second)
        await watch.reached(attached=SOCKETS_COUNT, ended=0)
        assert await answers(people) == {"v1"}, "who was attached stays attached, with the same memory"
        async with sockets(platform, 20) as newcomers:
            assert await answers(newcomers) == {"v2"}, "who is new goes to the new owner"

            await asyncio.gather(*(each.connection.close() for each in people[:LEAVING_COUNT]))
            await watch.reached(attached=SOCKETS_COUNT - LEAVING_COUNT, ended=LEAVING_COUNT)
            assert await answers(people[LEAVING_COUNT:]) == {"v1"}
            assert not watch.newest or not watch.newest.finished
        await asyncio.gather(*(each.connection.close() for each in people[LEAVING_COUNT:]))
        view = await watch.end()
    assert view.state == "settled"
    final = view.facts["account"]
    assert (final["attached"], final["ended"], final["reasons"]) == (
        0,
        SOCKETS_COUNT,
        {"ended": {"closed": SOCKETS_COUNT}},
    )
    assert len(watch.accounts) >= 3, "there were samples to look at"
    for account in watch.accounts:
        assert account["attached"] + account["ended"] == account["total"] == SOCKETS_COUNT, account
        assert [account[name] for name in MOVED] == [0, 0, 0, 0], account
    await until_gone(platform, old.number)


async def test_the_deadline_ends_who_is_left_and_says_so(platform: Platform, tmp_path: Path) -> None:
    async with platform.api() as api:
        owner = next(a for a in await api.apps() if a.name == "plain")
    assert owner.serving is not None, "the proof above has promoted"
    _, number = await platform.deploy(version("v3", tmp_path / "v3"))
    old = await platform.allocation("plain")
    async with sockets(platform, 30) as people:
        assert await answers(people) == {"v2"}
        await until_counted(platform, old.number, 30)
        watch = await drain_to(platform, number, deadline_s=6.0)
        await asyncio.gather(*(each.connection.close() for each in people[:10]))
        await watch.reached(attached=20, ended=10)
        view = await watch.end()
        assert all(await asyncio.wait_for(asyncio.gather(*(each.is_cut() for each in people[10:])), 10))
    assert view.facts["deadline_reached"] is True
    assert view.facts["account"]["reasons"] == {"ended": {"closed": 10, "cut-at-deadline": 20}}
    assert (view.facts["account"]["total"], view.facts["account"]["ended"]) == (30, 30)
    told = platform.cli("sessions", "plain", "--json").json["accounts"][0]
    assert (told["kind"], told["account"]["reasons"]) == ("drain", view.facts["account"]["reasons"])
    await until_gone(platform, old.number)


async def test_a_restart_drains_an_allocation_of_the_very_same_deployment(platform: Platform) -> None:
    old = await platform.allocation("plain")
    async with sockets(platform, 20) as people:
        assert len(await answers(people)) == 1
        await until_counted(platform, old.number, 20)
        async with platform.api() as api:
            started = await api.restart("plain", RestartRequest(mode="drain"), key=key())
        view = await platform.finished(started.operation)
        assert view.state == "settled", view.problem
        new = await platform.allocation("plain")
        watch = Watch(platform, view.children[0])
        async with sockets(platform, 20) as newcomers:
            await until_counted(platform, new.number, 20)
            await until_counted(platform, old.number, 20)
            assert len(await answers([*people, *newcomers])) == 1, "each has its own count, nobody was moved"
            await watch.reached(attached=20, ended=0)
    assert (await watch.end()).facts["account"]["ended"] == 20
    for account in watch.accounts:
        assert account["attached"] + account["ended"] == account["total"] == 20, account


async def until_gone(platform: Platform, number: int) -> None:
    """Wait until an allocation does not run any more."""

    async def gone() -> bool:
        async with platform.api() as api:
            return all(a.number != number or a.state == "stopped" for a in await api.allocations("plain", all=True))

    await wait_until(gone, what=f"allocation {number} has stopped")
