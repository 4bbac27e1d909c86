"""`make bench-vango`: what a move costs the people on a Vango app, on the platform and in a plain swap, as numbers.

Prints a table and, last, one line `RESULT {json}`. Progress goes to stderr. Parts can be run alone:
`python -m bench.vango --only warm,peer --rounds 3`. How each figure is measured: docs/figures.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
from collections.abc import Mapping
from typing import Any, Final

from bench.crowd import PEOPLE_COUNT, Size
from bench.first_light import machine_facts
from bench.ground import tell
from bench.numbers import missed, table
from bench.vango.board import Board, board
from bench.vango.crowd import TICK_S
from bench.vango.figures import GOALS, crash_figures, drain_figures, frozen_figures, peer_figures, warm_figures
from bench.vango.moves import WORST_PHASE_S, Move, crash, drain, frozen, warm
from bench.vango.swap import Swapped, swap
from moorage.system.clock import monotonic_s

NO_GO: Final = (
    "bench-vango compiles a Vango app and there is no Go toolchain on the path: see https://go.dev/doc/install"
)
NO_GO_CODE: Final = 3
ROUNDS_COUNT: Final[Mapping[str, int]] = {"warm": 3, "peer": 2, "frozen": 2, "crash": 2, "drain": 1}


async def _in_turns(on: Board, warm_count: int, peer_count: int, crowd_of: Size) -> dict[str, Any]:
    """Hand-overs and plain swaps by turns, so that what else happens on the machine meets both."""
    handed: list[Move] = []
    swapped: list[Swapped] = []
    for turn in range(max(warm_count, peer_count)):
        if turn < warm_count:
            _begin("warm promotion by hand-over", turn, warm_count)
            handed.append(await warm(on, crowd_of))
        if turn < peer_count:
            _begin("plain swap", turn, peer_count)
            swapped.append(await swap(crowd_of))
    return (warm_figures(handed) if handed else {}) | (peer_figures(swapped) if swapped else {})


async def _frozen(on: Board, count: int, crowd_of: Size) -> dict[str, Any]:
    found = []
    for turn in range(count):
        _begin("hand-over from a frozen process", turn, count)
        found.append(await frozen(on, crowd_of))
    return frozen_figures(found) if found else {}


async def _crash(on: Board, count: int, crowd_of: Size) -> dict[str, Any]:
    """Crashes at moments spread over the time between two ticks; the last one just before the next."""
    found = []
    for turn in range(count):
        _begin("kill -9", turn, count)
        phase_s = WORST_PHASE_S if turn == count - 1 else TICK_S * (turn + 1) / count
        found.append(await crash(on, crowd_of, phase_s=phase_s))
    return crash_figures(found) if found else {}


async def _drain(on: Board, count: int, crowd_of: Size) -> dict[str, Any]:
    found = []
    for turn in range(count):
        _begin("drain in place", turn, count)
        found.append(await drain(on, crowd_of))
    return drain_figures(found) if found else {}


def _begin(what: str, turn: int, count: int) -> None:
    tell(f"{what}, round {turn + 1} of {count} (load {os.getloadavg()[0]:.1f})")


async def measure(rounds: Mapping[str, int], crowd_of: Size) -> dict[str, Any]:
    """All parts with at least one round, on one platform; the figures."""
    async with board() as on:
        return {
            **await _in_turns(on, rounds.get("warm", 0), rounds.get("peer", 0), crowd_of),
            **await _frozen(on, rounds.get("frozen", 0), crowd_of),
            **await _crash(on, rounds.get("crash", 0), crowd_of),
            **await _drain(on, rounds.get("drain", 0), crowd_of),
        }


def main() -> None:
    """Measure, print the table and the line."""
    parser = argparse.ArgumentParser(prog="bench.vango", description=__doc__)
    parser.add_argument("--only", default=",".join(ROUNDS_COUNT), help="parts to run, separated by commas")
    parser.add_argument("--rounds", type=int, help="rounds of each part instead of its own number")
    parser.add_argument("--people", type=int, default=PEOPLE_COUNT, help="live clients")
    parser.add_argument("--wait-quiet", type=float, default=0, metavar="S", help="wait for a quiet machine, at most S")
    chosen = parser.parse_args()
    parts = chosen.only.split(",")
    if unknown := set(parts) - ROUNDS_COUNT.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(ROUNDS_COUNT)}")
    if shutil.which("go") is None:
        print(NO_GO)
        sys.exit(NO_GO_CODE)
    rounds = {part: chosen.rounds or ROUNDS_COUNT[part] for part in parts}
    started_s = monotonic_s()
    figures: dict[str, Any] = {"people": chosen.people, "rounds": rounds, "machine": machine_facts()}
    figures |= asyncio.run(measure(rounds, Size(chosen.people, chosen.wait_quiet)))
    figures["took_s"] = round(monotonic_s() - started_s)
    goals = [goal for goal in GOALS if set(parts) == ROUNDS_COUNT.keys() or goal.figure in figures]
    figures["goals_missed"] = missed(goals, figures)
    print(table(figures, goals))
    print("RESULT", json.dumps(figures))


if __name__ == "__main__":
    main()
