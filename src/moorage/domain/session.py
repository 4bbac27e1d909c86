"""Session: one person's live state on the server, and the account of what became of each.

Rules: a session has exactly one outcome; an account's counts are sums over its parts and therefore always add up;
what is not known is `unknown`, never a kinder word. `resumed` and `fresh` are statements about where a session is
now: they need evidence from the new allocation or from the store, never from the old allocation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from moorage.domain.allocation import TERMINAL, State


class Outcome(StrEnum):
    """What became of a session that was attached when the account was opened."""

    ATTACHED = "attached"  # still with the old allocation, as before
    ENDED = "ended"  # the person closed it
    RESUMED = "resumed"  # another allocation went on with the stored values
    FRESH = "fresh"  # another allocation started it at the defaults
    LOST = "lost"  # nobody serves it and nobody came back for it in time
    UNKNOWN = "unknown"  # not known (yet)


SETTLED = frozenset({Outcome.ENDED, Outcome.RESUMED, Outcome.FRESH, Outcome.LOST})


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as the store knows it, without its id: `label` is a digest that may be shown and logged.

    `lease` rises with each taking, `revision` with each change, `outcome` and `reason` tell how the latest connection
    entered, `parted` how the last one went ("" while attached); times are Unix milliseconds.
    """

    label: str
    holder: str
    attached: bool
    lease: int
    revision: int
    outcome: str
    reason: str
    parted: str
    born_lease: int
    deployment: int
    updated_ms: int


@dataclass(frozen=True, slots=True)
class Before:
    """A session that was attached to the old allocation when the account was opened: its lease and revision then."""

    label: str
    lease: int
    revision: int


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one session, why (a stable code, "" when the outcome says it all), and what shows it.

    `age_ms`: how old the state was that it went on with when its allocation died (None: nothing was lost so, or it is
    not known).
    """

    label: str
    outcome: Outcome
    reason: str = ""
    evidence: SessionView | None = None
    age_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the sessions of one allocation.

    `fates` are sessions known by name. `unnamed` counts sessions that are only known as a number, by outcome and
    reason: sockets that the edge counted and the store does not know.
    """

    fates: tuple[Fate, ...] = ()
    unnamed: Mapping[tuple[Outcome, str], int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All sessions of this account."""
        return len(self.fates) + sum(self.unnamed.values())

    @property
    def counts(self) -> Mapping[Outcome, int]:
        """How many sessions have each outcome; every outcome is there, and the sum is `total`."""
        counted = Counter(fate.outcome for fate in self.fates)
        for (outcome, _), number in self.unnamed.items():
            counted[outcome] += number
        return {outcome: counted[outcome] for outcome in Outcome}

    @property
    def reasons(self) -> Mapping[tuple[Outcome, str], int]:
        """How many sessions have each outcome for each reason; the sum is `total`."""
        counted = Counter((fate.outcome, fate.reason) for fate in self.fates)
        counted.update(dict(self.unnamed))
        return {key: number for key, number in sorted(counted.items()) if number}

    @property
    def is_settled(self) -> bool:
        """Whether every session has an outcome that will not change by itself."""
        return all(number == 0 for outcome, number in self.counts.items() if outcome not in SETTLED)

    def of(self, outcome: Outcome) -> tuple[Fate, ...]:
        """The named sessions with this outcome."""
        return tuple(fate for fate in self.fates if fate.outcome is outcome)


def open_account(fates: Iterable[Fate], *, attached_sockets: int | None = None, reason: str = "not-named") -> Account:
    """An account of named sessions, and of the sockets beyond them that the edge counted at the same time.

    The difference is a count and not names, so it is `unknown`. Fewer sockets than names change nothing: a session
    may be attached at the store while its socket is just being counted.
    """
    named = tuple(fates)
    assert len({fate.label for fate in named}) == len(named), "a session has exactly one outcome"
    beyond = max((attached_sockets or 0) - len(named), 0)
    return Account(named, {(Outcome.UNKNOWN, reason): beyond} if beyond else {})


def merge(accounts: Iterable[Account]) -> Account:
    """One account of several allocations' sessions; a label stands once (the later account knows it better)."""
    named: dict[str, Fate] = {}
    unnamed: Counter[tuple[Outcome, str]] = Counter()
    for account in accounts:
        named.update({fate.label: fate for fate in account.fates})
        unnamed.update(dict(account.unnamed))
    return Account(tuple(named.values()), dict(unnamed))


def summary(account: Account) -> dict[str, object]:
    """The account as JSON values: `total`, `settled`, each outcome's count, the reasons of each outcome, and, where an
    allocation died, how old the state was that sessions went on with (`age_max_s`, `age_p50_s`, `age_unknown`)."""
    reasons: dict[str, dict[str, int]] = {}
    for (outcome, reason), number in account.reasons.items():
        if reason:
            reasons.setdefault(outcome, {})[reason] = number
    counts = {str(outcome): number for outcome, number in account.counts.items()}
    return {"total": account.total, "settled": account.is_settled, **counts, "reasons": reasons, **_ages(account)}


def _ages(account: Account) -> dict[str, object]:
    ages = sorted(fate.age_ms for fate in account.fates if fate.age_ms is not None)
    if not ages:
        return {}
    unknown = sum(fate.age_ms is None for fate in account.of(Outcome.RESUMED))
    return {
        "age_max_s": round(ages[-1] / 1000, 1),
        "age_p50_s": round(ages[len(ages) // 2] / 1000, 1),
        "age_unknown": unknown,
    }


class Continuity(StrEnum):
    """Where a session goes on when its client connects."""

    STAY = "stay_attached"
    RESUME = "resume_here"
    FRESH = "fresh"


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a session goes on, and why (a stable code)."""

    verdict: Continuity
    reason: str


class RecordState(StrEnum):
    """What lies in the store for a session id."""

    PRESENT = "present"
    MISSING = "missing"
    CORRUPT = "corrupt"
    NEWER_FORMAT = "newer_format"


def decide_continuity(
    record: RecordState, *, schema_fits: bool, holder_is_here: bool, holder_state: State | None, holder_fenced: bool
) -> Decision:
    """Where a session goes on: with its holder, at the allocation that asks, or from the defaults.

    `holder_state` is None when nobody holds the lease or the holder is not known any more. A holder that lives and
    is not fenced keeps its sessions: two allocations never write one session.
    """
    if record is not RecordState.PRESENT:
        return Decision(Continuity.FRESH, f"record-{record.replace('_', '-')}")
    if holder_is_here:
        return Decision(Continuity.STAY, "held-here")
    if holder_state is not None and holder_state not in TERMINAL and not holder_fenced:
        return Decision(Continuity.STAY, "held-elsewhere")
    if not schema_fits:
        return Decision(Continuity.FRESH, "schema-cold")
    return Decision(Continuity.RESUME, "holder-fenced" if holder_fenced else "holder-gone")
