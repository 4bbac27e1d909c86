"""The figures that a run ends with: sums over rounds, pooled pauses, goals. Pure.

Rules of this room: sessions are summed and pauses pooled over the rounds, so that a bad round stays visible; what was
not measured has no figure, and a goal without a figure is missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bench.numbers import Goal, percentile
from bench.vango.account import ages_s, attached_count, counts, medians, stages_ms, stored_after_cut_s
from bench.vango.moves import Move
from bench.vango.swap import Swapped
from moorage.vango.page import Reconnect
from tests.support.vango.crowd import ATTACHED, RESUMED, Tally

FIRST_RETRY_S: Final = Reconnect().wait_ms(1) / 1000
GOALS: Final = (
    Goal("resumed_share", 1.0, at_most=False),
    Goal("acknowledged_state_lost", 0),
    Goal("pause_beyond_retry_p50_s", 0.3),
    Goal("pause_beyond_retry_p99_s", 1.0),
    Goal("account_disagreements", 0),
    Goal("unanswered_after_resume", 0),
    Goal("frozen_disagreements", 0),
    Goal("frozen_age_violations", 0),
    Goal("crash_disagreements", 0),
    Goal("crash_age_violations", 0),
    Goal("sockets_cut_before_deadline", 0),
    Goal("drain_disagreements", 0),
)


def warm_figures(found: Sequence[Move]) -> dict[str, Any]:
    """The headline: a warm promotion by hand-over."""
    facts = [move.operation.facts for move in found]
    stored = [after for one in facts for after in stored_after_cut_s(one)]
    figures = {
        **tally_figures("", [move.tally for move in found]),
        **account_figures("account_", found),
        "unanswered_after_resume": sum(move.unanswered_count for move in found),
        "opens_in_vain": _sums(move.failed_opens for move in found),
        "attached_at_cut": sum(attached_count(one) for one in facts),
        "stored_after_cut": len(stored),
        "handover_stages_ms": medians(stages_ms(move.operation) for move in found),
        "changes_typed": sum(move.tally.typed_count for move in found),
        "busy_cores_before_warm_by_round": [move.busy_cores for move in found],
    }
    return figures | _spread("stored_after_cut_", stored)


def frozen_figures(found: Sequence[Move]) -> dict[str, Any]:
    """The same with a process that could not store: what is lost, and whether it is said."""
    return {
        **tally_figures("frozen_", [move.tally for move in found]),
        **account_figures("frozen_", found),
        **age_figures("frozen_", found),
        "busy_cores_before_frozen_by_round": [move.busy_cores for move in found],
    }


def crash_figures(found: Sequence[Move]) -> dict[str, Any]:
    """A crash: who came back, and how old what came back was; by the account and by the people."""
    return {
        **tally_figures("crash_", [move.tally for move in found]),
        **account_figures("crash_", found),
        **age_figures("crash_", found),
        "busy_cores_before_crash_by_round": [move.busy_cores for move in found],
    }


def drain_figures(found: Sequence[Move]) -> dict[str, Any]:
    """Drained in place until a deadline, and handed over then."""
    return {
        "sockets_cut_before_deadline": sum(move.facts["cut_before_deadline"] for move in found),
        **tally_figures("drain_", [move.tally for move in found]),
        **account_figures("drain_", found),
        "busy_cores_before_drain_by_round": [move.busy_cores for move in found],
    }


def peer_figures(found: Sequence[Swapped]) -> dict[str, Any]:
    """The plain swap; also what people had once they had loaded their pages anew by hand."""
    again = tally_figures("", [one.after_reload for one in found])
    return {
        **tally_figures("peer_", [one.tally for one in found]),
        "peer_opens_in_vain": _sums(one.failed_opens for one in found),
        "peer_gave_up": sum(fate.seen == "closed" for one in found for fate in one.tally.fates),
        "peer_after_reload_resumed_share": again["resumed_share"],
        "peer_after_reload_acknowledged_state_lost": again["acknowledged_state_lost"],
        "peer_after_reload_outcomes": again["outcomes"],
        "busy_cores_before_peer_by_round": [one.busy_cores for one in found],
    }


def tally_figures(prefix: str, tallies: Sequence[Tally]) -> dict[str, Any]:
    """What the people saw, over all rounds. Pauses are of those whose page came back by itself."""
    moved = [fate for tally in tallies for fate in tally.fates if fate.seen != ATTACHED]
    pauses = [pause for tally in tallies for pause in tally.pauses_s]
    figures: dict[str, Any] = {
        f"{prefix}resumed_share": _share(sum(fate.seen == RESUMED for fate in moved), len(moved)),
        f"{prefix}acknowledged_state_lost": sum(tally.acknowledged_state_lost for tally in tallies),
        f"{prefix}outcomes": _sums(tally.seen for tally in tallies),
    }
    if pauses:
        by_round = [round(percentile(tally.pauses_s, 0.99), 3) for tally in tallies if tally.pauses_s]
        figures |= {**_spread(f"{prefix}pause_", pauses), f"{prefix}pause_p99_s_by_round": by_round}
        beyond = [pause - FIRST_RETRY_S for pause in pauses]
        figures |= _spread(f"{prefix}pause_beyond_retry_", beyond)
        figures |= _spread(f"{prefix}felt_", [felt for tally in tallies for felt in tally.felt_s])
    return figures


def account_figures(prefix: str, found: Sequence[Move]) -> dict[str, Any]:
    """How far the platform's accounts and the people's diaries differ, and what the accounts leave open."""
    said = _sums(counts(move.account) for move in found)
    return {
        f"{prefix}disagreements": sum(len(move.disagreements) for move in found),
        f"{prefix}said": said,
        f"{prefix}said_unknown": said.get("unknown", 0),
    }


def age_figures(prefix: str, found: Sequence[Move]) -> dict[str, Any]:
    """How old what sessions went on with was, by the account; what the resumed ones lack, by their people."""
    ages = [max(ages_s(move.account).values(), default=0.0) for move in found]
    losses = [max(_losses_of_resumed(move), default=0.0) for move in found]
    return {
        f"{prefix}loss_age_max_s": round(max(ages), 3),
        f"{prefix}loss_age_max_s_by_round": [round(age, 3) for age in ages],
        f"{prefix}loss_age_seen_max_s": round(max(losses), 3),
        f"{prefix}loss_age_seen_max_s_by_round": [round(loss, 3) for loss in losses],
        f"{prefix}age_violations": sum(len(move.facts["age_violations"]) for move in found),
    }


def _losses_of_resumed(move: Move) -> list[float]:
    """A session that started fresh has lost everything: its loss has no age."""
    losses = move.facts["losses_s"]
    return [losses[fate.label] for fate in move.tally.fates if fate.seen == RESUMED and fate.label in losses]


def _sums(found: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in found:
        total.update(one)
    return dict(total)


def _share(part: int, whole: int) -> float:
    """To four digits and never rounded up to 1."""
    return 1.0 if part == whole else min(round(part / whole, 4), 0.9999)


def _spread(prefix: str, values: Iterable[float]) -> dict[str, float]:
    known = list(values)
    if not known:
        return {}
    return {
        f"{prefix}p50_s": round(percentile(known, 0.5), 3),
        f"{prefix}p99_s": round(percentile(known, 0.99), 3),
        f"{prefix}max_s": round(max(known), 3),
    }
