"""`make demo`: promote warm and cold, roll back, crash, freeze; each account is compared with the people's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from demo.ledger import check_kept, compare, marks
from demo.people import Person, crowd
from demo.stage import DemoFailedError, Stage, close_curtain, expect, raise_curtain, say, scene
from examples.board.materialise import materialise

PEOPLE = 50
TYPING_PAUSE_S = 0.12
APP = "board"


async def type_on(person: Person) -> None:
    """Keep typing, a letter or so at a time, whatever happens to the connection."""
    words = "the tide is coming in and every boat is still on its own mooring "
    turn = 0
    while True:
        turn += 1
        with contextlib.suppress(Exception):
            person.type(f"{person.name}: {words[: 1 + turn % len(words)]} ({turn})")
        await asyncio.sleep(TYPING_PAUSE_S)


@contextlib.asynccontextmanager
async def typing(people: Sequence[Person]) -> AsyncIterator[None]:
    """Everybody types."""
    tasks = [asyncio.create_task(type_on(person)) for person in people]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(person.until(lambda p=person: p.unacknowledged == 0) for person in people))


async def play(stage: Stage, work: Path) -> None:
    """All scenes, in order."""
    sources = {version: materialise(version, work / version) for version in ("v1", "v2", "v3")}
    scene("Deploy and promote version 1")
    await stage.type_command("deploy", str(sources["v1"]))
    await stage.type_command("promote", APP, "--deployment", "1")
    host = f"{APP}.localhost:{stage.port}"
    scene(f"{PEOPLE} people join and type")
    async with crowd(PEOPLE, ("127.0.0.1", stage.port), host) as people:
        expect(all(person.here for person in people), f"{PEOPLE} live sessions at http://{host}")
        await warm(stage, people, sources["v2"])
        await cold(stage, people, sources["v3"])
        await back(stage, people)
        await crash(stage, people)
        await freeze(stage, people)
        scene("Why does a request go where it goes?")
        await stage.type_command("explain", f"http://{host}/")


async def warm(stage: Stage, people: Sequence[Person], source: Path) -> None:
    """Version 2 adds a field with a default: warm. Sessions move while their people type."""
    scene("Version 2 (warm) is promoted while everybody types")
    await stage.type_command("deploy", str(source))
    async with typing(people):
        await asyncio.sleep(0.5)
        before = marks(people)
        await stage.type_command("promote", APP, "--deployment", "2")
        await all_back(people, before)
    move = await stage.newest(APP, "handover")
    compare(move.facts["account"], people, before, expected="resumed")
    check_kept(people, before)


async def cold(stage: Stage, people: Sequence[Person], source: Path) -> None:
    """Version 3 retypes a field: cold. Refused until somebody has read what it costs."""
    scene("Version 3 (cold) is refused until it is acknowledged")
    await stage.type_command("deploy", str(source))
    await stage.type_command("promote", APP, "--deployment", "3", code=4)
    before = marks(people)
    expect(all(person.here for person in people), "nobody noticed the refusal")
    report = await stage.ask("promote", APP, "--deployment", "3", code=4)
    await stage.type_command("promote", APP, "--deployment", "3", "--acknowledge", acknowledgement(report))
    await all_back(people, before)
    compare((await stage.newest(APP, "handover")).facts["account"], people, before, expected="fresh")


def acknowledgement(refusal: dict[str, object]) -> str:
    """The digest that a refusal asks a person to read and repeat."""
    found = refusal.get("acknowledge")
    if not isinstance(found, str):
        raise DemoFailedError(f"the refusal names no digest: {refusal}")
    return found


async def back(stage: Stage, people: Sequence[Person]) -> None:
    """The rollback takes the retyped field back: cold as well, and said so."""
    scene("The rollback to version 2 is cold, too, and says so")
    await stage.type_command("rollback", APP, "--to", "2", code=4)
    before = marks(people)
    report = await stage.ask("rollback", APP, "--to", "2", code=4)
    await stage.type_command("rollback", APP, "--to", "2", "--acknowledge", acknowledgement(report))
    await all_back(people, before)
    compare((await stage.newest(APP, "handover")).facts["account"], people, before, expected="fresh")


async def crash(stage: Stage, people: Sequence[Person]) -> None:
    """kill -9: a new allocation takes over, sessions come back from the store."""
    scene("kill -9 of the owner's allocation")
    async with typing(people):
        await asyncio.sleep(0.3)
        before = marks(people)
        number, pid = await owner_process(stage)
        say(f"$ kill -9 {pid}    # allocation {number}")
        os.kill(pid, signal.SIGKILL)
        await all_back(people, before)
    await stage.type_command("allocations", APP)
    compare((await stage.newest(APP, "replacement")).facts["account"], people, before, expected="resumed")
    check_kept(people, before)


async def freeze(stage: Stage, people: Sequence[Person]) -> None:
    """SIGSTOP during a hand-over: the frozen process wakes after the fence and changes nothing."""
    scene("The old allocation is frozen (SIGSTOP) during a hand-over")
    number, pid = await owner_process(stage)
    before = marks(people)
    say(f"$ kill -STOP {pid}    # allocation {number}")
    os.kill(pid, signal.SIGSTOP)
    for person in people:
        person.type(f"{person.name} types on, and the frozen process has it in its sockets")
    restart = asyncio.create_task(stage.type_command("restart", APP, "--handover"))
    await fenced(stage, number)
    await all_back(people, before)
    await asyncio.gather(*(person.until(lambda p=person: p.unacknowledged == 0) for person in people))
    records = await rows(stage)
    say(f"$ kill -CONT {pid}    # it wakes up and would like to go on writing")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    await restart
    await gone(stage, number)
    expect(await rows(stage) == records, "no record changed after the frozen process woke up and ended")
    compare((await stage.newest(APP, "handover")).facts["account"], people, before, expected="resumed")
    check_kept(people, before)


async def all_back(people: Sequence[Person], before: dict[str, int]) -> None:
    """Wait until every person has been welcomed again since then."""
    await asyncio.gather(*(p.until(lambda p=p: len(p.welcomes) > before[p.name] and p.here, 60.0) for p in people))


async def owner_process(stage: Stage) -> tuple[int, int]:
    """Number and pid of the allocation that serves the app's production route."""
    async with stage.api() as api:
        for found in await api.allocations(APP):
            if found.environment == "production" and found.state == "ready" and found.posture == "open":
                assert found.pid is not None
                return found.number, found.pid
    raise DemoFailedError("the app has no ready allocation")


async def fenced(stage: Stage, number: int) -> None:
    """Wait until the allocation can write nothing any more."""
    await until_posture(stage, number, {"fenced", "gone"})
    say(f"   allocation {number} is fenced")


async def gone(stage: Stage, number: int) -> None:
    """Wait until the allocation's process has ended and it is out of everything."""
    await until_posture(stage, number, {"gone"})


async def until_posture(stage: Stage, number: int, wanted: set[str]) -> None:
    """Wait for a posture of an allocation."""
    async with stage.api() as api, asyncio.timeout(60):
        while True:
            found = [a for a in await api.allocations(APP, all=True) if a.number == number]
            if found and found[0].posture in wanted:
                return
            await asyncio.sleep(0.05)


async def rows(stage: Stage) -> list[tuple[object, ...]]:
    """Every live session's record as the platform shows it: any write to it raises its revision."""
    async with stage.api() as api:
        view = await api.sessions(APP)
    return sorted((row.label, row.allocation, row.outcome, row.lease, row.revision) for row in view.sessions)


async def main() -> int:
    """Play; leave the platform running unless CI is set."""
    unattended = bool(os.environ.get("CI"))
    scene("Start the platform")
    try:
        stage = await raise_curtain(free_ports=unattended)
    except DemoFailedError as failed:
        say(f"\n   ✗ {failed}")
        return 1
    ended_well = False
    try:
        with tempfile.TemporaryDirectory() as work:
            await play(stage, Path(work))
        ended_well = True
    except (DemoFailedError, TimeoutError, AssertionError) as failed:
        say(f"\n   ✗ {failed or type(failed).__name__}\n   Its logs: {stage.home / 'logs'}")
    finally:
        if unattended or not ended_well:
            close_curtain(stage)
    if ended_well:
        epilogue(stage, stopped=unattended)
    return 0 if ended_well else 1


def epilogue(stage: Stage, *, stopped: bool) -> None:
    """Where to go from here."""
    scene("Done: the platform's account and the people's own agreed every time")
    if stopped:
        say("   The platform was stopped (CI is set).")
        return
    say(f"   The platform goes on running. The board: http://{APP}.localhost:{stage.port}")
    say(f"   Commands: MOORAGE_HOME={stage.home} .venv/bin/moorage status")
    say(f"   Stop it:  MOORAGE_HOME={stage.home} .venv/bin/moorage down")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
