"""What an operation says of a move, held against what the people saw: pure.

Rules of this room: no clock, no I/O. Sessions are compared one by one, by label. What an account counts without a name
may stand for a session that it does not name, once each; what it calls `unknown` contradicts nobody, and is counted
apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from moorage.wire.api import OperationView, StageView
from tests.support.vango.crowd import CLOSED, NOT_BACK, Fate, differences

AGE_TOLERANCE_S: Final = 0.02  # two clocks, and times in whole milliseconds
OUTCOMES: Final = ("attached", "ended", "resumed", "fresh", "lost", "unknown")
_SAME: Final[Mapping[str, tuple[str, ...]]] = {CLOSED: ("lost", "ended"), NOT_BACK: ("lost",)}


def disagreements(account: Mapping[str, Any], fates: Sequence[Fate]) -> list[str]:
    """Sessions of which the account says something else than was seen, one line each."""
    said = {row["label"]: str(row["outcome"]) for row in account["rows"]}
    unnamed = Counter({outcome: int(account.get(outcome, 0)) for outcome in OUTCOMES})
    unnamed.subtract(Counter(said.values()))
    covered = {fate.label for fate in fates if fate.label not in said and _takes(unnamed, fate.seen)}
    return differences(said, [fate for fate in fates if fate.label not in covered])


def _takes(unnamed: Counter[str], seen: str) -> bool:
    """Whether an unnamed session of this kind, or an unknown one, is left; it is taken then."""
    found = next((one for one in (*_SAME.get(seen, (seen,)), "unknown") if unnamed[one] > 0), None)
    if found is not None:
        unnamed[found] -= 1
    return found is not None


def counts(account: Mapping[str, Any]) -> dict[str, int]:
    """An account's outcomes that occur."""
    return {outcome: int(account[outcome]) for outcome in OUTCOMES if account.get(outcome)}


def stored_after_cut_s(facts: Mapping[str, Any]) -> list[float]:
    """How long after the cut each session's record was seen written, in seconds; only those written after it."""
    cut_ms = int(facts["cut_ms"])
    seen = [int(stored[2]) for trace in facts.get("traces", {}).values() for stored in trace["stored"].values()]
    return [(at_ms - cut_ms) / 1000 for at_ms in seen if at_ms >= cut_ms]


def attached_count(facts: Mapping[str, Any]) -> int:
    """How many sockets the hand-over counted before its cut."""
    return sum(int(entry["sockets"] or 0) for entry in facts["baseline"].values())


def stages_ms(handover: OperationView) -> dict[str, int]:
    """When each stage of a hand-over was recorded, in milliseconds since it began; a stage is named after its state,
    and the moment from which connections end is `input_ends`."""
    found: dict[str, int] = {}
    for stage in handover.stages:
        found.setdefault(_name(stage), stage.at_ms - handover.created_ms)
    return found


def _name(stage: StageView) -> str:
    return {"the input of the old connections ends": "input_ends", "cut": "cut"}.get(stage.note, stage.state)


def ages_s(account: Mapping[str, Any]) -> dict[str, float]:
    """How old the state was that each session went on with, as the account has it, by label."""
    return {row["label"]: row["age_ms"] / 1000 for row in account["rows"] if row.get("age_ms") is not None}


def age_violations(account: Mapping[str, Any], losses_s: Mapping[str, float]) -> list[str]:
    """Sessions that are said to be resumed, and lack something older than the account's age of them allows."""
    ages = ages_s(account)
    resumed = [row["label"] for row in account["rows"] if row["outcome"] == "resumed"]
    lines = []
    for label in resumed:
        loss_s, age_s = losses_s.get(label), ages.get(label)
        if loss_s is not None and (age_s is None or loss_s > age_s + AGE_TOLERANCE_S):
            lines.append(f"{label}: said {'no age' if age_s is None else f'{age_s:.3f} s'}, lacks {loss_s:.3f} s")
    return lines


def medians(found: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The median of each key over all that have it (the lower one of two)."""
    values: dict[str, list[int]] = {}
    for one in found:
        for key, value in one.items():
            values.setdefault(key, []).append(value)
    return {key: sorted(numbers)[(len(numbers) - 1) // 2] for key, numbers in values.items()}
