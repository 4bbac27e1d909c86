"""The same crowd on the platform: a warm promotion of the board by hand-over, and the platform's account of it.

Rules of this room: the account is compared person by person with what each saw; a disagreement is a figure of its own
and never hidden in an average.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.crowd import Moved, Size, Tally, moved
from bench.ground import finished, platform, tell
from demo.ledger import outcome_of, tag_of
from examples.board.materialise import materialise
from moorage.wire.api import OperationView, PromoteRequest

APP = "board"


@dataclass(frozen=True, slots=True)
class Handed:
    """A warm promotion under load: the people's tally, the disagreements with the account, and the stages' times."""

    tally: Tally
    disagreements: dict[str, tuple[str, str]]  # session label to (platform, person)
    stages_ms: dict[str, int]  # since the request, of the promotion and of its hand-over
    state: str


async def measure(crowd_of: Size) -> Handed:
    """Promote version 2 of the board over version 1 under typing people, on a platform of its own."""
    async with platform() as ground:
        with tempfile.TemporaryDirectory(prefix="moorage-bench-") as work:
            for version in ("v1", "v2"):
                await ground.deploy(materialise(version, Path(work) / version))
        await ground.command("promote", APP, "--deployment", "1")
        done: list[OperationView] = []
        async with ground.api() as api:

            async def promote() -> None:
                request = PromoteRequest(deployment=2, expected_epoch=1)
                asked = await api.promote(APP, request, key="bench-promote")
                done.append(await finished(api, asked.operation))

            host = f"{APP}.localhost:{ground.port}"
            async with moved(("127.0.0.1", ground.port), host, promote, crowd_of) as seen:
                promotion = done[0]
                handover = await finished(api, promotion.children[0])
                tell(f"  {promotion.state}, {handover.state}; {seen.tally}")
                return Handed(
                    seen.tally,
                    disagreements(handover.facts["account"], seen),
                    {**stages("promotion", promotion, promotion), **stages("handover", handover, promotion)},
                    promotion.state,
                )


def disagreements(account: dict[str, Any], seen: Moved) -> dict[str, tuple[str, str]]:
    """Sessions of which platform and people say something else, by label; one unknown to a side is `-` there."""
    said = {row["label"]: str(row["outcome"]) for row in account["rows"]}
    saw = {tag_of(p, seen.before[p.name]): outcome_of(p, seen.before[p.name]) for p in seen.people}
    labels = said.keys() | saw.keys()
    pairs = {label: (said.get(label, "-"), saw.get(label, "-")) for label in labels}
    return {label: pair for label, pair in pairs.items() if pair[0] != pair[1]}


def stages(name: str, operation: OperationView, since: OperationView) -> dict[str, int]:
    """When each state was first recorded, in milliseconds since the other operation was asked for."""
    found: dict[str, int] = {}
    for stage in operation.stages:
        found.setdefault(f"{name} {stage.state}", stage.at_ms - since.created_ms)
    return found
