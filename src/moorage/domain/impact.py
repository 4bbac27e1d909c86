"""Warm and cold deploys: what a change of artifact does to persisted session state and to data.

Two separate reports, each computed in both directions. Warm says nothing about the database; a rollback asks both.
The state rule (`1-system` section 5): added = warm, removed / retyped / id changed = cold, unreadable = review.
Two entries of one type whose names for people have changed places would change values in silence: review.
A client script that is served under another hash is cold for every open tab: it must reload and starts fresh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from moorage.domain.artifact import Manifest, Migration, StateEntry


class StateImpact(StrEnum):
    """What a deploy does to the sessions' persisted state."""

    NEUTRAL = "neutral"
    WARM = "warm"
    COLD = "cold"
    REVIEW = "review"


class DataImpact(StrEnum):
    """What declared migrations do to the app's data, mildest first."""

    NONE = "none"
    ADDITIVE = "additive"
    EXPAND_CONTRACT = "expand-contract"
    ONLINE_CHANGE = "online-change"
    DATA_MIGRATION = "data-migration"
    DESTRUCTIVE = "destructive"
    UNKNOWN = "unknown"


_Key = tuple[str, str]  # state and field
_FINGERPRINT_SHOWN_MAX_CHARS, _DIGEST_SHOWN_CHARS = 40, 14
_SEVERITY = {impact: rank for rank, impact in enumerate(DataImpact)}
BLOCKS_ROLLBACK = frozenset({DataImpact.DATA_MIGRATION, DataImpact.DESTRUCTIVE, DataImpact.UNKNOWN})
assert set(list(DataImpact)[-len(BLOCKS_ROLLBACK) :]) == BLOCKS_ROLLBACK, (
    "the worst of two must block when one of them does"
)


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two artifacts; `what` is added, removed, retyped, exchanged, unreadable or (a script)
    replaced."""

    what: str
    state: str
    field: str
    before: str = ""
    after: str = ""
    label: str = ""  # for people, where state and field are no name

    @property
    def is_cold(self) -> bool:
        return self.what in ("removed", "retyped", "replaced")

    def __str__(self) -> str:
        name = self.label or f"{self.state} {self.field}".strip()
        if self.what == "replaced":
            return f"{name} replaced: every open tab reloads and starts fresh"
        if self.what == "exchanged":
            return f"{self.before} and {self.after} seem to have changed places: each would show the other's values"
        if self.what == "retyped":
            return f"{name} retyped from {_brief(self.before)} to {_brief(self.after)}"
        return f"{name} {self.what}"


def _brief(fingerprint: str) -> str:
    """A type's name as people read it: of a digest, the beginning says enough."""
    return fingerprint if len(fingerprint) <= _FINGERPRINT_SHOWN_MAX_CHARS else f"{fingerprint[:_DIGEST_SHOWN_CHARS]}…"


@dataclass(frozen=True, slots=True)
class StateReport:
    """A state impact in one direction, with every change and the one that decides."""

    impact: StateImpact
    changes: tuple[Change, ...] = ()

    @property
    def deciding(self) -> Change | None:
        return next((c for c in self.changes if c.is_cold), self.changes[0] if self.changes else None)


def state_impact(serving: Sequence[StateEntry], candidate: Sequence[StateEntry]) -> StateReport:
    """The impact of replacing `serving` by `candidate` on sessions that `serving` has stored."""
    before = {(e.state, e.field): e for e in serving}
    after = {(e.state, e.field): e for e in candidate}
    changes = [_compare(before.get(key), after.get(key)) for key in sorted(before.keys() | after.keys())]
    found = (*(change for change in changes if change), *_exchanges(before, after))
    if not found:
        return StateReport(StateImpact.NEUTRAL)
    if any(change.is_cold for change in found):
        return StateReport(StateImpact.COLD, found)
    exchanged = any(change.what == "exchanged" for change in found)
    return StateReport(StateImpact.REVIEW if exchanged else StateImpact.WARM, found)


def _exchanges(before: Mapping[_Key, StateEntry], after: Mapping[_Key, StateEntry]) -> tuple[Change, ...]:
    """Entries that kept identity and type and carry a name that another one had: a plain rename is none."""
    had = {entry.label: key for key, entry in before.items() if entry.label}
    found = []
    for key in sorted(before.keys() & after.keys()):
        old, new = before[key], after[key]
        taken = had.get(new.label, key)
        mutual = taken in after and after[taken].label == old.label
        if mutual and taken < key:
            continue  # said of the other one
        if old.label and taken != key and taken in after and _same_type(old, new) and _same_type(old, before[taken]):
            found.append(Change("exchanged", old.state, old.field, old.label, new.label))
    return tuple(found)


def _same_type(one: StateEntry, other: StateEntry) -> bool:
    return (one.fingerprint, one.scope, one.kind) == (other.fingerprint, other.scope, other.kind)


def _compare(old: StateEntry | None, new: StateEntry | None) -> Change | None:
    if old is None and new is not None:
        return Change("added", new.state, new.field, after=new.fingerprint, label=new.label)
    if new is None and old is not None:
        return Change("removed", old.state, old.field, before=old.fingerprint, label=old.label)
    assert old is not None
    assert new is not None
    if not _same_type(old, new):
        return Change("retyped", old.state, old.field, before=_type(old), after=_type(new), label=old.label)
    return None


def _type(entry: StateEntry) -> str:
    return entry.fingerprint if entry.scope == "session" else f"{entry.scope} {entry.fingerprint}"


def data_impact(migrations: Sequence[Migration]) -> DataImpact:
    """The worst declared impact; an impact nobody knows is `unknown`, which is never mild."""
    known = [DataImpact(m.impact) if m.impact in set(DataImpact) else DataImpact.UNKNOWN for m in migrations]
    return max(known, key=_SEVERITY.__getitem__, default=DataImpact.NONE)


@dataclass(frozen=True, slots=True)
class ImpactReport:
    """Both impacts, both ways, from the serving artifact (None: nothing serves yet) to the candidate."""

    serving: str | None
    candidate: str
    forward: StateReport
    backward: StateReport
    data: DataImpact
    new_migrations: tuple[Migration, ...] = ()


def nothing_built() -> ImpactReport:
    """The report of a deployment that has no artifact: there is nothing to compare."""
    unreadable = StateReport(StateImpact.REVIEW, (Change("unreadable", "", ""),))
    return ImpactReport(None, "", unreadable, unreadable, DataImpact.UNKNOWN)


def impact_report(serving: tuple[str, Manifest] | None, candidate: tuple[str, Manifest]) -> ImpactReport:
    """Compare two artifacts given as (digest, manifest). Migrations count when the serving artifact lacks them."""
    digest, manifest = candidate
    if serving is None:
        neutral = StateReport(StateImpact.NEUTRAL)
        return ImpactReport(None, digest, neutral, neutral, DataImpact.NONE)
    old_digest, old = serving
    script = _script_change(old, manifest)
    known = {m.name for m in old.migrations}
    fresh = tuple(m for m in manifest.migrations if m.name not in known)
    return ImpactReport(
        old_digest,
        digest,
        _with(state_impact(old.state, manifest.state), script),
        _with(state_impact(manifest.state, old.state), script),
        data_impact(fresh),
        fresh,
    )


def client_script_of(manifest: Manifest) -> str:
    """The hash of the script that the framework's pages load; empty for an app that has none."""
    vango = manifest.facts.get("vango")
    found = vango.get("client_script") if isinstance(vango, Mapping) else None
    return found if isinstance(found, str) else ""


def _script_change(old: Manifest, new: Manifest) -> Change | None:
    before, after = client_script_of(old), client_script_of(new)
    if not before or not after or before == after:
        return None
    return Change("replaced", "client script", "", before, after)


def _with(report: StateReport, script: Change | None) -> StateReport:
    return StateReport(StateImpact.COLD, (*report.changes, script)) if script else report
