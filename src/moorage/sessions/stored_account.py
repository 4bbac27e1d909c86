"""What became of sessions that only their store knows: pure, from what was written, touched and read there.

For frameworks whose app cannot report. *Stored* are the records that the old allocation's user wrote. *Resumed* is a
session whose record somebody has written or touched since the old user was fenced: only an allocation that goes on
with it does that, and the framework does it within its tick. *Fresh* is a session whose record was read (its client
came back) and then left alone for longer than that tick: a failed resume reads the record once, exactly like a
successful one, so reading alone says nothing. Until then it is unknown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from moorage.domain.session import Account, Fate, Outcome
from moorage.sessions.account import Phase

RESUME_SHOWN_WITHIN_MS = 40_000  # the framework's tick of 30 s, and a margin for a machine that is short of time
EXPIRY_MOVED_MS = 500  # an expiry that was set anew differs by more than two clocks' rounding


class Did(StrEnum):
    """What somebody did with a session's record."""

    READ = "read"
    WROTE = "wrote"
    TOUCHED = "touched"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Deed:
    """One command at the store: who (a store user, "" when its connection was gone before it could be told), what,
    whose record (a label), when (Unix ms by the store's clock)."""

    user: str
    did: Did
    label: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored record: when it was written by its own header (0: unreadable) and when the store drops it (Unix ms)."""

    written_ms: int
    expires_ms: int
    seen_ms: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """What the store has shown of one old allocation's sessions, by label; grows only.

    `stored`: the records that it wrote after it was cut. `older`: those that lay there before (of sessions that had
    left, or were never stored again). `returned`: latest reading by somebody else (a client may have to ask twice).
    `resumed`: first writing or touching by somebody else. `watched`: nobody has looked away since the clients were let
    in, so that a reading cannot have been missed.
    """

    stored: Mapping[str, Stored] = field(default_factory=dict)
    older: Mapping[str, Stored] = field(default_factory=dict)
    returned: Mapping[str, int] = field(default_factory=dict)
    resumed: Mapping[str, int] = field(default_factory=dict)
    watched: bool = True


def see_stored(trace: Trace, deeds: Iterable[Deed], records: Mapping[str, Stored], *, old: str) -> Trace:
    """The trace with the records that `old` has written among these deeds, as they lie in the store now, and with all
    others as older ones."""
    found = dict(trace.stored)
    for deed in deeds:
        if deed.user == old and deed.did is Did.WROTE and deed.label in records:
            found[deed.label] = replace(records[deed.label], seen_ms=deed.at_ms)
    return replace(trace, stored=found, older=_without(records, found))


def _without(records: Mapping[str, Stored], taken: Collection[str]) -> dict[str, Stored]:
    return {label: stored for label, stored in records.items() if label not in taken}


def see_written(trace: Trace, records: Mapping[str, Stored], *, since_ms: int) -> Trace:
    """The trace with every record written since, whoever did it: for a look that began too late to see who."""
    found = {
        label: replace(stored, seen_ms=stored.written_ms)
        for label, stored in records.items()
        if stored.written_ms >= since_ms
    }
    stored = {**found, **trace.stored}
    return replace(trace, stored=stored, older=_without(records, stored))


def see_returns(trace: Trace, deeds: Iterable[Deed], *, old: Collection[str]) -> Trace:
    """The trace with what others than the old allocations did. A deed of an unknown user shows nothing: it may be
    anybody's. An older record may be of a session that a successor has had from its beginning: it
    counts only once it was read, as every resume does first."""
    returned, resumed = dict(trace.returned), dict(trace.resumed)
    for deed in deeds:
        if not deed.user or deed.user in old or deed.did is Did.REMOVED:
            continue
        if deed.did is Did.READ:
            returned[deed.label] = max(deed.at_ms, returned.get(deed.label, 0))
        elif deed.label in trace.stored or (deed.label in trace.older and deed.label in returned):
            resumed.setdefault(deed.label, deed.at_ms)
    return replace(trace, returned=returned, resumed=resumed)


def see_records(trace: Trace, records: Mapping[str, Stored], *, now_ms: int) -> Trace:
    """The trace with what the records themselves show: who is fenced cannot have written or touched one since."""
    resumed = dict(trace.resumed)
    for label in followed(trace):
        before, after = _record(label, trace), records.get(label)
        if before is not None and after is not None and _is_newer(before, after):
            resumed.setdefault(label, now_ms)
    return replace(trace, resumed=resumed)


def followed(trace: Trace) -> tuple[str, ...]:
    """The sessions whose records are worth a look: not known to be resumed, and theirs for certain or asked for."""
    asked = (label for label in trace.returned if label in trace.older)
    return tuple(label for label in (*trace.stored, *asked) if label not in trace.resumed)


def _is_newer(before: Stored, after: Stored) -> bool:
    return after.written_ms > before.written_ms or after.expires_ms > before.expires_ms + EXPIRY_MOVED_MS


def settles_ms(trace: Trace) -> int | None:
    """When the last session that has come back is resumed or fresh for certain; None: all that came back are."""
    waiting = [at for label, at in trace.returned.items() if _record(label, trace) and label not in trace.resumed]
    return max(waiting) + RESUME_SHOWN_WITHIN_MS if waiting else None


def _record(label: str, trace: Trace) -> Stored | None:
    return trace.stored.get(label) or trace.older.get(label)


@dataclass(frozen=True, slots=True)
class Moved:
    """What an account needs to know of the move itself: how many sockets were attached (None: not counted), when the
    allocation was cut or, in a crash, died (Unix ms), whether the new schema cannot take the old records (`cold`), and
    the framework's resume window."""

    sockets: int | None
    cut_ms: int | None = None
    ended_ms: int | None = None
    cold: bool = False
    window_ms: int | None = None


def account_of_stored(trace: Trace, moved: Moved, phase: Phase, *, now_ms: int) -> Account:
    """What became of each session of an old allocation that was cut, or has died.

    Sessions that were stored after the cut are named by their records. Of the sockets beyond them nobody can say which
    of the older records is theirs, if any: who comes back for one is named, the rest is a count. After a crash there
    are only older records, and everybody who comes back is named: who had just lost the line is a user, too. Where
    nobody had counted the sockets (the whole platform ended with the process), each record may stand for one.
    """
    named = [_fate(label, trace, moved, now_ms) or Fate(label, *_away(trace, phase)) for label in trace.stored]
    beyond = max((moved.sockets or 0) - len(named), 0)
    found = [_fate(label, trace, moved, now_ms) for label in sorted(trace.older)]
    back = sorted((fate for fate in found if fate is not None), key=lambda fate: fate.outcome is not Outcome.RESUMED)
    back = back if moved.ended_ms is not None else back[:beyond]
    asked = sorted(trace.returned.keys() - trace.stored.keys() - trace.older.keys())
    fresh = [Fate(label, Outcome.FRESH, "not-stored") for label in asked[: max(beyond - len(back), 0)]]
    left = max(beyond - len(back) - len(fresh), 0)
    away = 0 if moved.ended_ms is None else min(left, found.count(None))
    unnamed = {_away(trace, phase): away, _unseen(phase): left - away}
    if moved.sockets is None and moved.ended_ms is not None:
        unnamed[Outcome.UNKNOWN, "not-counted"] = found.count(None)
    return Account((*named, *back, *fresh), {key: number for key, number in unnamed.items() if number})


def _fate(label: str, trace: Trace, moved: Moved, now_ms: int) -> Fate | None:
    """The fate of a session whose client has come back; None while it has not."""
    if label in trace.resumed:
        return Fate(label, Outcome.RESUMED, age_ms=age_ms(label, trace, moved))
    if label not in trace.returned:
        return None
    if now_ms - trace.returned[label] >= RESUME_SHOWN_WITHIN_MS:
        outcome, reason = (Outcome.FRESH, "schema-cold") if moved.cold else (Outcome.FRESH, "not-resumed")
        return Fate(label, outcome, reason)
    return Fate(label, Outcome.UNKNOWN, "not-shown-yet")


def _away(trace: Trace, phase: Phase) -> tuple[Outcome, str]:
    if phase is not Phase.SETTLED:
        return Outcome.UNKNOWN, "not-returned-yet"
    return (Outcome.LOST, "not-returned") if trace.watched else (Outcome.UNKNOWN, "not-watched")


def _unseen(phase: Phase) -> tuple[Outcome, str]:
    return (Outcome.LOST, "not-stored") if phase is Phase.SETTLED else (Outcome.UNKNOWN, "not-seen-stored")


def age_ms(label: str, trace: Trace, moved: Moved) -> int | None:
    """How old a session's stored state was when its allocation died or was cut: what was changed after it is lost.

    A record that was only touched was unchanged then: with the resume window known, its expiry tells when that was.
    None for a session that was stored after the cut (nothing is lost of it), and when nothing can be told.
    """
    end_ms = moved.ended_ms if moved.ended_ms is not None else moved.cut_ms
    stored = trace.older.get(label)
    if stored is None or label in trace.stored or end_ms is None:
        return None
    known = stored.written_ms
    if moved.window_ms is not None and stored.expires_ms:
        known = max(known, stored.expires_ms - moved.window_ms)
    return max(end_ms - known, 0) if known else None
