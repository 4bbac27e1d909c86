"""What a person should know of a Vango candidate before it becomes the owner, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from moorage.domain.artifact import Manifest
from moorage.domain.impact import Change, state_impact
from moorage.vango.acknowledgement import ACKNOWLEDGEMENT_FILE, Standing, acknowledgement_of, check_acknowledgement
from moorage.vango.variables import KIND

GLOBAL = "global"  # the scope of state that all sessions share


def framework_notes(serving: Manifest | None, candidate: Manifest) -> tuple[str, ...]:
    """Remarks about a promotion from one artifact to another; none for another kind of app or a first promotion."""
    if serving is None or KIND not in (serving.kind, candidate.kind) or serving.kind != candidate.kind:
        return ()
    cold = [change for change in state_impact(serving.state, candidate.state).changes if change.is_cold]
    notes = (_shared(serving, cold), _acknowledged(serving, candidate) if cold else "")
    return tuple(note for note in notes if note)


def _shared(serving: Manifest, cold: list[Change]) -> str:
    """The framework deletes a record of shared state that it cannot read, as soon as somebody asks for it."""
    scopes = {(entry.state, entry.field): entry.scope for entry in serving.state}
    lost = [change.label or change.state for change in cold if scopes.get((change.state, change.field)) == GLOBAL]
    if not lost:
        return ""
    return (
        f"shared by all: {', '.join(lost)}: the new version's first visitor deletes what is stored of it, and no "
        "rollback brings it back"
    )


def _acknowledged(serving: Manifest, candidate: Manifest) -> str:
    """The framework's own acknowledgement, which never stands for the platform's."""
    found = acknowledgement_of(_fact(candidate, "acknowledgement"))
    verdict = check_acknowledgement(found, _text(serving, "schema_hash"), _text(candidate, "schema_hash"))
    if verdict.standing is Standing.ABSENT:
        return f"{verdict.words}: its author has not said that the change is meant"
    return f"{ACKNOWLEDGEMENT_FILE}: {verdict.words}"


def _fact(manifest: Manifest, name: str) -> object:
    facts = manifest.facts.get(KIND)
    return facts.get(name) if isinstance(facts, Mapping) else None


def _text(manifest: Manifest, name: str) -> str:
    found = _fact(manifest, name)
    return found if isinstance(found, str) else ""
