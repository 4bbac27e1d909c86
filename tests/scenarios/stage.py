"""Scenarios that a reviewer can read: commands in a text file, each with its transcript.

A file is a list of blocks: a line that begins with `> ` is a command, the lines below it are what came of it, as
structured outcomes and never as prose. `python -m tests.scenarios.stage` plays all files and writes the transcripts
anew; the test compares. What a command does is in `COMMANDS`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from moorage.domain.artifact import Manifest
from moorage.system.rand import new_secret
from moorage.wire.api import OperationView, RestartRequest
from tests.control.rig import World
from tests.control.test_promotion import KEY, _only_owner_runs
from tests.support.nouns import manifest, state_entry
from tests.support.waiting import wait_until

FOLDER = Path(__file__).parent
DRAFT, COLOUR = state_entry("draft"), state_entry("colour")
ARTIFACTS: Mapping[str, Manifest] = {
    "v1": manifest(content="v1", state=[DRAFT]),
    "v2-adds-colour": manifest(content="v2", state=[DRAFT, COLOUR]),
    "v3-retypes-draft": manifest(content="v3", state=[state_entry("draft", "int"), COLOUR]),
    "v2-drops-notes": manifest(content="v2d", state=[DRAFT], migrations=[("drop-notes", "destructive")]),
}
Words = Mapping[str, str]
Lines = list[str]


async def deploy(world: World, words: Words) -> Lines:
    return told(await world.ended(await world.begin_deploy(ARTIFACTS.get(words["artifact"]))))


async def promote(world: World, words: Words) -> Lines:
    """`acknowledge=read` repeats what the report asks for."""
    number, rollback = int(words["deployment"]), words["verb"] == "rollback"
    more: dict[str, Any] = {"rollback": rollback}
    if "epoch" in words:
        more["epoch"] = int(words["epoch"])
    if words.get("acknowledge") == "read":
        more["acknowledge"] = (await world.api.promotion_report("board", number, rollback=rollback)).acknowledge
    elif "acknowledge" in words:
        more["acknowledge"] = words["acknowledge"]
    return told(await world.promote(number, **more))


async def report(world: World, words: Words) -> Lines:
    said = await world.api.promotion_report("board", int(words["deployment"]), rollback="rollback" in words)
    return [
        f"{said.verdict}: forward {said.forward}, backward {said.backward}, data {said.data_impact}, {said.mode}",
        *(f"  {change.text}" for change in said.forward_changes),
    ]


async def routes(world: World, _words: Words) -> Lines:
    return [f"{r.route_key}: epoch {r.epoch}, deployment {r.deployment}" for r in await world.api.routes()] or ["none"]


async def explain(world: World, words: Words) -> Lines:
    said = await world.api.explain(words["url"])
    candidates = [f"  an allocation is {'picked' if c.picked else f'not picked: {c.why}'}" for c in said.candidates]
    return [f"{said.outcome}, epoch {said.epoch}", *candidates]


async def crash(world: World, _words: Words) -> Lines:
    """Kill the owner's allocation and wait until another one serves."""
    mine = [a for a in await world.api.allocations() if a.environment == "production" and a.state == "ready"]
    await world.runner.crash(mine[-1].id)
    await wait_until(lambda: _replacement_over(world), what="the replacement is over")
    done = next(o for o in await world.api.operations("board") if o.kind == "replacement")
    return told(await world.api.operation(done.id))


async def _replacement_over(world: World) -> bool:
    kinds = [o for o in await world.api.operations("board") if o.kind == "replacement"]
    return bool(kinds) and all(o.finished for o in kinds)


async def restart(world: World, _words: Words) -> Lines:
    return told(await world.ended((await world.api.restart("board", RestartRequest(), key=new_secret())).operation))


async def destroy(world: World, _words: Words) -> Lines:
    return told(await world.ended((await world.api.destroy("board", key=new_secret())).operation))


async def apps_start(world: World, words: Words) -> Lines:
    """From now on what is started becomes ready, fails or hangs."""
    world.runner.behave = lambda _wanted: words["how"]
    return []


async def control_restarts(world: World, _words: Words) -> Lines:
    await world.restart()
    return []


def told(view: OperationView) -> Lines:
    """What came of an operation: its states, its problem's code and the facts that people decide by."""
    states = dict.fromkeys(stage.state for stage in view.stages) if view.stages else {view.state: None}
    lines = [f"{view.kind}: {' > '.join(states)}"]
    if view.problem:
        shown = ("actual_epoch", "winner_deployment", "deciding_change", "data_impact", "exit_code")
        facts = [f"{name} {view.problem[name]}" for name in shown if name in view.problem]
        lines.append(f"  {view.problem['code']}" + (f" ({', '.join(facts)})" if facts else ""))
    return lines


COMMANDS: Mapping[str, tuple[Callable[[World, Words], Awaitable[Lines]], tuple[str, ...]]] = {
    "deploy": (deploy, ("artifact",)),
    "promote": (promote, ("deployment",)),
    "rollback": (promote, ("deployment",)),
    "report": (report, ("deployment",)),
    "routes": (routes, ()),
    "explain": (explain, ("url",)),
    "crash": (crash, ()),
    "restart": (restart, ()),
    "destroy": (destroy, ()),
    "apps-start": (apps_start, ("how",)),
    "control-restarts": (control_restarts, ()),
}


async def play(text: str, home: Path) -> str:
    """Play a scenario; its text with the transcripts as they are now. Comments (`#`) and blank lines stay."""
    world = await World(home).start()
    out: Lines = []
    try:
        for line in text.splitlines():
            if line.startswith("> "):
                out += [line, *(f"  {each}".rstrip() for each in await _command(world, line))]
            elif not line.startswith("  "):
                out.append(line)
    finally:
        await world.stop()
    return "\n".join(out) + "\n"


async def _command(world: World, line: str) -> Lines:
    verb, *given = line.removeprefix("> ").split()
    run, names = COMMANDS[verb]
    plain = [word for word in given if "=" not in word or "://" in word]
    words = dict(zip(names, plain, strict=True)) | dict(w.split("=", 1) for w in given if w not in plain)
    lines = await run(world, {"verb": verb, **words})
    if any(route.route_key == KEY for route in await world.api.routes()):
        await wait_until(lambda: _only_owner_runs(world), what="the dust has settled")
    return lines


def main() -> None:
    """Write every transcript anew."""
    for file in sorted(FOLDER.glob("*.txt")):
        with tempfile.TemporaryDirectory() as folder:
            file.write_text(asyncio.run(play(file.read_text(), Path(folder) / "home")))
        print(file.name, file=sys.stderr)


if __name__ == "__main__":
    main()
