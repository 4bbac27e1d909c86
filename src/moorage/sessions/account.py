"""What became of a session, from its record alone: pure, a table over where it stands and how far the hand-over is.

Phases: while the old allocation is `serving`, a session that it holds is attached, and one that dropped may return
to it. Once it is `cut`, nothing that is still under its name is served by anybody: such a session is unknown until
somebody takes it. When the time to come back is over (`settled`) it is lost, although its record is kept and can
still be resumed; an account drawn up later says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum

from moorage.domain.session import Before, Fate, Outcome, SessionView
from moorage_app.contract import BadRecord, Record, Standing, standing, tag


class Phase(StrEnum):
    """How far the hand-over of the old allocation is."""

    SERVING = "serving"
    CUT = "cut"
    SETTLED = "settled"


_MOVED = {Standing.RESUMED: Outcome.RESUMED, Standing.FRESH: Outcome.FRESH, Standing.ENDED: Outcome.ENDED}

# Sessions that nobody has taken: (where it stands, phase) to (outcome, reason).
_NOT_TAKEN: Mapping[tuple[Standing, Phase], tuple[Outcome, str]] = {
    (Standing.ATTACHED, Phase.SERVING): (Outcome.ATTACHED, ""),
    (Standing.ATTACHED, Phase.CUT): (Outcome.UNKNOWN, "not-let-go"),
    (Standing.ATTACHED, Phase.SETTLED): (Outcome.LOST, "not-let-go"),
    (Standing.PARTED, Phase.SERVING): (Outcome.UNKNOWN, "may-return"),
    (Standing.PARTED, Phase.CUT): (Outcome.UNKNOWN, "not-taken-yet"),
    (Standing.PARTED, Phase.SETTLED): (Outcome.LOST, "not-returned"),
    (Standing.MISSING, Phase.SERVING): (Outcome.LOST, "record-missing"),
    (Standing.MISSING, Phase.CUT): (Outcome.LOST, "record-missing"),
    (Standing.MISSING, Phase.SETTLED): (Outcome.LOST, "record-missing"),
    (Standing.UNREADABLE, Phase.SERVING): (Outcome.UNKNOWN, "record-unreadable"),
    (Standing.UNREADABLE, Phase.CUT): (Outcome.UNKNOWN, "record-unreadable"),
    (Standing.UNREADABLE, Phase.SETTLED): (Outcome.LOST, "record-unreadable"),
}


def fate_of(
    before: Before,
    record: Record | BadRecord | None,
    *,
    old: str,
    phase: Phase,
    successors: Collection[str] | None = None,
) -> Fate:
    """What became of one session that `old` held with the lease of `before`, given its record now.

    With `successors` (allocation ids of the same environment), a record that somebody else holds is unknown: the
    platform never started that holder.
    """
    place, detail = standing(record, old, before.lease)
    evidence = view_of(record) if isinstance(record, Record) else None
    if place in _MOVED:
        if place is not Standing.ENDED and not _is_known(record, successors):
            return Fate(before.label, Outcome.UNKNOWN, "holder-unknown", evidence)
        return Fate(before.label, _MOVED[place], detail.replace("_", "-"), evidence)
    outcome, reason = _NOT_TAKEN[place, phase]
    return Fate(before.label, outcome, reason, evidence)


def fates_of(
    baseline: Iterable[Before],
    records: Mapping[str, Record | BadRecord | None],
    *,
    old: str,
    phase: Phase,
    successors: Collection[str] | None = None,
) -> tuple[Fate, ...]:
    """One fate per session of the baseline; a label without a record is missing."""
    return tuple(
        fate_of(before, records.get(before.label), old=old, phase=phase, successors=successors) for before in baseline
    )


def view_of(record: Record) -> SessionView:
    """What may be shown of a record: neither its id nor its values."""
    return SessionView(
        label=tag(record.id),
        holder=record.holder,
        attached=record.attached,
        lease=record.lease,
        revision=record.revision,
        outcome=record.outcome,
        reason=record.reason,
        parted="" if record.attached or record.parted is None else record.parted,
        born_lease=record.born.lease,
        deployment=record.deployment,
        updated_ms=record.updated_ms,
    )


def _is_known(record: Record | BadRecord | None, successors: Collection[str] | None) -> bool:
    return successors is None or (isinstance(record, Record) and record.holder in successors)
