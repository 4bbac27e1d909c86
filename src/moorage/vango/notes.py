"""What a person should know of a Vango candidate before it becomes the owner, in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from moorage.domain.artifact import Manifest

EXCHANGED = "two persisted fields of one type that change places cannot be seen by anybody: look at your own diff"


def framework_notes(serving: Manifest | None, candidate: Manifest, facts: Mapping[str, object]) -> tuple[str, ...]:
    """Remarks about the pair, the most important first; none for another kind of app or without a serving one."""
    if candidate.kind != KIND or serving is None or serving.kind != KIND:
        return ()
    notes = [_acknowledged(serving, candidate)]
    if serving.state and candidate.state:
        notes.append(EXCHANGED)
    return tuple(note for note in notes if note)


KIND = "vango"


def _acknowledged(serving: Manifest, candidate: Manifest) -> str:
    return ""
