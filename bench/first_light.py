"""`make bench-first-light`: what the first capability costs and what it is worth, as numbers.

Prints a table and, last, one line `RESULT {json}`. Progress goes to stderr. Parts can be run alone:
`python -m bench.first_light --only idle,promotions --rounds 3`. How each figure is measured: docs/figures.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform as machine
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import edge_throughput, handover, idle, promotions, swap
from bench.crowd import PEOPLE_COUNT, Size, Tally
from bench.ground import tell
from bench.noise import quiet
from bench.numbers import Goal, missed, percentile, spread, table
from bench.promotions import Promotion, without_bake_s

PARTS = ("idle", "promotions", "throughput", "moves")
MOVE_ROUNDS_COUNT = 3
GOALS = (
    Goal("up_ready_s", 4.0),
    Goal("idle_pss_mb", 350.0),
    Goal("promote_overhead_s", 1.0),
    Goal("throughput_vs_haproxy", 0.95, at_most=False),
    Goal("sessions_lost", 0),
    Goal("account_disagreements", 0),
    Goal("pause_p99_s", 1.0),
)


def idle_figures(found: Sequence[idle.Idle]) -> dict[str, Any]:
    """Start and memory."""
    up, memory = spread(one.up_s for one in found), spread(one.pss_mb for one in found)
    names = found[0].processes_mb
    return {
        "up_ready_s": round(up.median, 2),
        "up_ready_min_s": round(up.lowest, 2),
        "up_ready_max_s": round(up.highest, 2),
        "idle_pss_mb": round(memory.median, 1),
        "idle_pss_max_mb": round(memory.highest, 1),
        "idle_pss_mb_by_process": {n: round(statistics.median(o.processes_mb[n] for o in found), 1) for n in names},
    }


def promotion_figures(found: dict[str, list[Promotion]]) -> dict[str, Any]:
    """Promotions beyond the app's own start. The headline is the board's, bake included, strict reading."""
    figures: dict[str, Any] = {}
    for app, head in (("board", "promote"), ("plain", "promote_plain")):
        strict = spread(one.overhead_s for one in found[app])
        figures |= {
            f"{head}_overhead_s": round(strict.median, 3),
            f"{head}_overhead_max_s": round(strict.highest, 3),
            f"{head}_overhead_without_bake_s": round(without_bake_s(strict.median), 3),
            f"{head}_overhead_after_start_s": round(spread(o.overhead_after_start_s for o in found[app]).median, 3),
            f"{head}_total_s": round(spread(one.total_s for one in found[app]).median, 3),
        }
    return figures


def tally_figures(prefix: str, tallies: Sequence[Tally]) -> dict[str, Any]:
    """Sessions summed and pauses pooled over all rounds; the spread of p99 over the rounds beside it."""
    pauses = [pause for tally in tallies for pause in tally.pauses_s]
    outcomes: Counter[str] = Counter()
    for tally in tallies:
        outcomes.update(tally.outcomes)
    sessions = "sessions_" if not prefix else ""
    figures: dict[str, Any] = {
        f"{prefix}{sessions}kept": sum(tally.kept for tally in tallies),
        f"{prefix}{sessions}lost": sum(tally.lost for tally in tallies),
        f"{prefix}outcomes": dict(outcomes),
        f"{prefix}busy_cores_before_by_round": [tally.busy_cores for tally in tallies],
    }
    if pauses:
        figures |= {
            f"{prefix}pause_p50_s": round(percentile(pauses, 0.5), 3),
            f"{prefix}pause_p99_s": round(percentile(pauses, 0.99), 3),
            f"{prefix}pause_max_s": round(max(pauses), 3),
            f"{prefix}pause_p99_s_by_round": [round(percentile(t.pauses_s, 0.99), 3) for t in tallies if t.pauses_s],
        }
    return figures


def move_figures(handed: Sequence[handover.Handed], memory: Sequence[Tally], shared: Sequence[Tally]) -> dict[str, Any]:
    """The platform's hand-over beside the plain swap, of the same crowd in the same run."""
    return {
        **tally_figures("", [one.tally for one in handed]),
        "account_disagreements": sum(len(one.disagreements) for one in handed),
        "changes_typed": sum(one.tally.typed_count for one in handed),
        "stages_ms": handed[-1].stages_ms,
        **tally_figures("peer_memory_", memory),
        **tally_figures("peer_store_", shared),
    }


async def _moves(rounds: int, crowd_of: Size) -> dict[str, Any]:
    handed: list[handover.Handed] = []
    memory: list[Tally] = []
    shared: list[Tally] = []
    for turn in range(rounds):
        tell(f"moves, round {turn + 1} of {rounds}: hand-over")
        handed.append(await handover.measure(crowd_of))
        for pair in list(handed[-1].disagreements.items())[:10]:
            tell(f"  DISAGREEMENT {pair}")
        for name, store, found in (("memory", False, memory), ("store", True, shared)):
            tell(f"moves, round {turn + 1} of {rounds}: plain swap, sessions in {name}")
            found.append(await swap.measure(crowd_of, store=store))
            tell(f"  {found[-1]}")
    return move_figures(handed, memory, shared)


async def _part(name: str, rounds: int | None, crowd_of: Size) -> dict[str, Any]:
    tell(f"{name} (load {os.getloadavg()[0]:.1f})")
    if name != "moves":
        return {
            f"busy_cores_before_{name}": await quiet(crowd_of.patience_s),
            **await _simple_part(name, rounds, crowd_of.patience_s),
        }
    return await _moves(rounds or MOVE_ROUNDS_COUNT, crowd_of)


async def _simple_part(name: str, rounds: int | None, patience_s: float) -> dict[str, Any]:
    match name:
        case "idle":
            return idle_figures(await idle.measure(rounds=rounds or idle.ROUNDS_COUNT, patience_s=patience_s))
        case "promotions":
            turns = rounds or promotions.ROUNDS_COUNT
            return promotion_figures(await promotions.measure(rounds=turns, patience_s=patience_s))
        case _:
            return await asyncio.to_thread(edge_throughput.measure)


def machine_facts() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was at the start."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": os.cpu_count(),
        "processor": model or machine.machine(),
        "memory_gb": round(pages / 2**30, 1),
        "kernel": machine.release(),
        "python": machine.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    """Measure, print the table and the line."""
    parser = argparse.ArgumentParser(prog="bench.first_light", description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts to run, separated by commas")
    parser.add_argument("--rounds", type=int, help="rounds of each part instead of its own number")
    parser.add_argument("--people", type=int, default=PEOPLE_COUNT, help="live clients in the moves")
    parser.add_argument("--wait-quiet", type=float, default=0, metavar="S", help="wait for a quiet machine, at most S")
    chosen = parser.parse_args()
    parts = chosen.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    figures: dict[str, Any] = {"people": chosen.people, "machine": machine_facts()}
    for part in parts:
        figures |= asyncio.run(_part(part, chosen.rounds, Size(chosen.people, chosen.wait_quiet)))
    goals = [goal for goal in GOALS if set(parts) == set(PARTS) or goal.figure in figures]
    figures["goals_missed"] = missed(goals, figures)
    print(table(figures, goals))
    print("RESULT", json.dumps(figures))


if __name__ == "__main__":
    main()
