"""The board with people at it, who type all the while; and their own word held against the platform's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from demo.ledger import check_kept, compare, marks
from demo.people import Person, crowd
from examples.board.materialise import materialise
from moorage.system.clock import pause
from moorage.wire.api import AllocationView, OperationView, RestartRequest
from tests.support.deeds import deploy, serve
from tests.support.platform import Platform, key
from tests.support.truth import owner, rows
from tests.support.waiting import wait_until

APP = "board"
PEOPLE = 12
TYPING_PAUSE_S = 0.1
BACK_WITHIN_S = 45.0


@dataclass
class Town:
    """People at the board since before the harm, and how many welcomes each had had by then."""

    platform: Platform
    people: Sequence[Person]
    before: dict[str, int] = field(default_factory=dict)

    async def all_back(self) -> None:
        """Wait until everybody has been welcomed again."""
        await asyncio.gather(
            *(p.until(lambda p=p: len(p.welcomes) > self.before[p.name] and p.here, BACK_WITHIN_S) for p in self.people)
        )

    async def all_stored(self) -> None:
        """Wait until the store has everything that was typed."""
        await asyncio.gather(*(p.until(lambda p=p: p.unacknowledged == 0, BACK_WITHIN_S) for p in self.people))

    async def still_typing(self) -> None:
        """Wait until everybody's next words have been stored."""
        typed = {p.name: p.typed_count for p in self.people}
        await asyncio.gather(
            *(p.until(lambda p=p: p.typed_count > typed[p.name] and p.unacknowledged == 0) for p in self.people)
        )

    def check_moved(self, account: dict[str, object]) -> None:
        """Everybody was resumed with everything, and the platform says so of each by name."""
        compare(account, self.people, self.before, expected="resumed")
        check_kept(self.people, self.before)
        self.check_nothing_lost()

    def check_untouched(self) -> None:
        """Nobody has noticed anything."""
        assert {p.name: len(p.welcomes) for p in self.people} == self.before
        assert all(p.here for p in self.people)
        self.check_nothing_lost()

    def check_nothing_lost(self) -> None:
        """No acknowledged change of anybody is gone, and no session began anew."""
        assert sum(p.changes_lost for p in self.people) == 0
        assert {w.outcome for p in self.people for w in p.welcomes[self.before[p.name] :]} <= {"resumed"}


@asynccontextmanager
async def town(platform: Platform, people: int = PEOPLE) -> AsyncIterator[Town]:
    """People come, type, and leave at the end of the block."""
    async with crowd(people, ("127.0.0.1", platform.http_port), platform.host(APP)) as present:
        await asyncio.gather(*(person.type("first words") for person in present))
        tasks = [asyncio.create_task(_type_on(person)) for person in present]
        found = Town(platform, present)
        found.before = marks(present)
        try:
            yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _type_on(person: Person) -> None:
    turn = 0
    while True:
        turn += 1
        with contextlib.suppress(Exception):
            person.type(f"{person.name} has typed {turn} words")
        await pause(TYPING_PAUSE_S)


async def build_board(platform: Platform, folder: Path) -> None:
    """Deploy the board twice (the same artifact) and promote the first."""
    source = materialise("v1", folder / "board")
    await serve(platform, source)
    await deploy(platform, source)


async def begin_promote(platform: Platform) -> str:
    """Promote the other of the two deployments, with a hand-over; the operation."""
    row = owner(platform, APP)
    return await platform.begin_promote(APP, 3 - row["deployment_number"], epoch=row["epoch"], mode="handover")


async def begin_restart(platform: Platform) -> str:
    """Ask for a replacement whose sessions are handed over; its operation."""
    async with platform.api() as api:
        return (await api.restart(APP, RestartRequest(mode="handover"), key=key())).operation


async def child_of(platform: Platform, parent: OperationView) -> OperationView:
    """The hand-over that an operation has begun, finished."""
    return await platform.finished(parent.children[0])


async def check_calm(platform: Platform) -> AllocationView:
    """Nothing goes on, the route is not held, exactly one allocation serves, no other is left; the one."""

    async def settled() -> bool:
        async with platform.api() as api:
            found = [a for a in await api.allocations(APP) if a.environment == "production"]
            status = await api.status()
        return status.operations_open == 0 and [(a.state, a.posture) for a in found] == [("ready", "open")]

    await wait_until(settled, timeout_s=40, what="exactly one allocation serves and nothing goes on")
    assert owner(platform, APP)["held"] == 0
    assert rows(platform, "select id from operations where finished_ms is null") == []
    return await platform.allocation(APP)
