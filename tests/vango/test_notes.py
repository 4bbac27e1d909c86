"""What a person is told of a Vango promotion beside its impact."""

from __future__ import annotations

from dataclasses import replace

from moorage.domain.artifact import Depth, Manifest, Process, StateEntry
from moorage.vango.notes import framework_notes

DRAFT = StateEntry("11111111", "", "session", "signal", "fp:v1:string", label="draft")
NOTES = StateEntry("22222222", "", "global", "signal", "fp:v1:list", label="notes")
BEFORE, AFTER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


def manifest(schema: str, *state: StateEntry, **facts: object) -> Manifest:
    vango = {"schema_hash": schema, **facts}
    return Manifest("board", "vango", Process("./server"), (), Depth.STORE_AWARE, state, facts={"vango": vango})


SERVING = manifest(BEFORE, DRAFT, NOTES)
RETYPED = replace(DRAFT, fingerprint="fp:v1:int")


def acknowledgement(before: str, after: str) -> dict[str, object]:
    return {"before": before, "after": after, "reason": "changed_fingerprint", "by": "ci", "at": "2026-01-01T00:00:00Z"}


def test_a_warm_promotion_and_a_first_one_need_no_remark() -> None:
    assert framework_notes(None, SERVING) == ()
    assert framework_notes(SERVING, SERVING) == ()
    assert framework_notes(manifest(BEFORE, DRAFT), SERVING) == ()


def test_a_cold_one_tells_of_the_frameworks_own_acknowledgement() -> None:
    (absent,) = framework_notes(SERVING, manifest(AFTER, RETYPED, NOTES))
    assert "has not said" in absent
    (valid,) = framework_notes(SERVING, manifest(AFTER, RETYPED, NOTES, acknowledgement=acknowledgement(BEFORE, AFTER)))
    assert "acknowledged by ci" in valid
    (other,) = framework_notes(SERVING, manifest(AFTER, RETYPED, NOTES, acknowledgement=acknowledgement(AFTER, BEFORE)))
    assert "this promotion is" in other


def test_shared_state_that_the_new_version_cannot_read_is_named_as_deleted() -> None:
    said = framework_notes(SERVING, manifest(AFTER, DRAFT))
    assert "notes" in said[0]
    assert "deletes" in said[0]


def test_another_kind_of_app_has_no_remark() -> None:
    plain = Manifest("board", "python", Process("python app.py"), ())
    assert framework_notes(plain, SERVING) == ()
    assert framework_notes(SERVING, plain) == ()
