"""State files: what the framework's tool wrote is read; whatever is broken, edited or from the future has its code."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.domain.artifact import StateEntry
from moorage.domain.errors import Problem
from moorage.domain.impact import StateImpact, state_impact
from moorage.vango.schema import (
    MANIFEST_FILE,
    MANIFEST_MAX_BYTES,
    SCHEMA_FILE,
    SCHEMA_MAX_BYTES,
    Primitive,
    SessionKey,
    StateFiles,
    read_state,
    schema_hash,
)
from tests.vango.board import BOARD, MANIFEST, SCHEMA, Change, board_state, changed, rehashed

DRAFT, COUNT, NOTES = "f8b0eb87", "f4a8629f", "1317e787"


def problem_of(manifest: bytes | None, schema: bytes | None) -> Problem:
    found = read_state(manifest, schema)
    assert isinstance(found, Problem), found
    assert found.hint
    assert found.status == 422
    return found


def test_what_the_tool_wrote_is_read() -> None:
    state = board_state()
    assert state.hash == json.loads(SCHEMA)["schemaHash"]
    assert (state.schema_version, state.manifest_version, state.globals_count) == ("1.0", "1.0", 1)
    assert state.packages == {"app/board"}
    named = {(e.label, e.scope, e.kind) for e in state.entries}
    assert named == {
        ("draft", "session", "signal"),
        ("color", "session", "signal"),
        ("count", "session", "signal"),
        ("message", "session", "signal"),
        ("notes", "global", "signal"),
        ("berths", "session", "session-key"),
    }
    draft = next(e for e in state.entries if e.label == "draft")
    assert (draft.state, draft.field) == (DRAFT, "")
    key = next(e for e in state.entries if e.kind == "session-key")
    assert (key.state, key.field, key.default) == ("session-key", "berths", True)
    assert key.fingerprint.startswith("f4982d77 fp:v1:")


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_the_hash_of_every_version_is_computed_anew(version: str) -> None:
    folder = BOARD / "variants" / version
    state = read_state((folder / MANIFEST_FILE).read_bytes(), (folder / SCHEMA_FILE).read_bytes())
    assert isinstance(state, StateFiles), state
    assert state.hash == json.loads((folder / SCHEMA_FILE).read_bytes())["schemaHash"]


def test_an_addition_is_warm_and_cold_backwards() -> None:
    folder = BOARD / "variants" / "v2"
    newer = read_state((folder / MANIFEST_FILE).read_bytes(), (folder / SCHEMA_FILE).read_bytes())
    assert isinstance(newer, StateFiles)
    older = board_state()
    assert state_impact(older.entries, newer.entries).impact is StateImpact.WARM
    assert state_impact(newer.entries, older.entries).impact is StateImpact.COLD


@pytest.mark.parametrize(
    ("manifest", "schema", "file"),
    [(None, SCHEMA, MANIFEST_FILE), (MANIFEST, None, SCHEMA_FILE), (None, None, MANIFEST_FILE)],
)
def test_an_absent_file_is_named(manifest: bytes | None, schema: bytes | None, file: str) -> None:
    found = problem_of(manifest, schema)
    assert (found.code, found.facts["file"]) == ("vango-state-missing", file)
    assert "vango state apply" in found.hint


NO_FILES = {
    "empty": b"",
    "no UTF-8": b"\xff\xfe{}",
    "no JSON": b"schemaHash = 1",
    "a list": b"[]",
    "merge marks": b"<<<<<<< HEAD\n" + SCHEMA,
    "nested": b"[" * 100_000,
    "a long number": b'{"schemaVersion": ' + b"9" * 5000 + b"}",
    "a key twice": b'{"schemaVersion": "1.0", "schemaVersion": "1.0"}',
    "an empty object": b"{}",
}


@pytest.mark.parametrize("what", NO_FILES)
def test_what_is_no_state_file_is_unreadable(what: str) -> None:
    for file, given_ in ((MANIFEST_FILE, (NO_FILES[what], SCHEMA)), (SCHEMA_FILE, (MANIFEST, NO_FILES[what]))):
        found = problem_of(*given_)
        assert (found.code, found.facts["file"]) == ("vango-state-unreadable", file)
        assert found.detail.startswith(file)


def test_a_key_that_stands_twice_is_no_file_that_two_readers_would_read_alike() -> None:
    twice = SCHEMA.replace(b'"schemaVersion": "1.0",', b'"schemaVersion": "1.0", "schemaVersion": "1.0",', 1)
    assert twice != SCHEMA
    assert "twice" in problem_of(MANIFEST, twice).detail


def test_a_broken_manifest_is_restored_and_a_broken_schema_written_anew() -> None:
    assert "version control" in problem_of(MANIFEST[:-20], SCHEMA).hint
    assert "vango state apply" in problem_of(MANIFEST, SCHEMA[:-20]).hint


def test_a_file_beyond_the_limit_is_not_read() -> None:
    assert problem_of(MANIFEST, SCHEMA + b" " * SCHEMA_MAX_BYTES).code == "vango-state-unreadable"
    assert problem_of(MANIFEST + b" " * MANIFEST_MAX_BYTES, SCHEMA).code == "vango-state-unreadable"


@settings(max_examples=60)
@given(st.integers(0, len(SCHEMA) - 3))
def test_a_truncated_schema_never_counts(length: int) -> None:
    assert problem_of(MANIFEST, SCHEMA[:length]).code == "vango-state-unreadable"


@settings(max_examples=60)
@given(st.integers(0, len(MANIFEST) - 3))
def test_a_truncated_manifest_never_counts(length: int) -> None:
    assert problem_of(MANIFEST[:length], SCHEMA).code == "vango-state-unreadable"


def each(table: dict[str, Any], stable_id: str) -> dict[str, Any]:
    found = next(p for p in table["persistedPrimitives"] if p["stableID"] == stable_id)
    assert isinstance(found, dict)
    return found


def primitive(table: dict[str, Any], stable_id: str) -> dict[str, Any]:
    found = next(p for p in table["primitives"].values() if p["stableID"] == stable_id)
    assert isinstance(found, dict)
    return found


def retype(table: dict[str, Any]) -> None:
    each(table, COUNT)["codecFingerprint"] = each(table, DRAFT)["codecFingerprint"]


def retype_with_care(table: dict[str, Any]) -> None:
    retype(table)
    rehashed(table)


def widen_with_care(table: dict[str, Any]) -> None:
    each(table, COUNT)["scope"] = "global"
    rehashed(table)


def forget_with_care(table: dict[str, Any]) -> None:
    table["persistedPrimitives"].pop()
    rehashed(table)


def forget_the_keys_with_care(table: dict[str, Any]) -> None:
    table["sessionKeys"] = None
    rehashed(table)


EDITED_SCHEMAS: dict[str, Change] = {
    "retyped": retype,
    "retyped, hash and all": retype_with_care,
    "scope, hash and all": widen_with_care,
    "removed, hash and all": forget_with_care,
    "keys removed, hash and all": forget_the_keys_with_care,
    "another hash": lambda t: t.update(schemaHash="sha256:" + "0" * 64),
    "another key": lambda t: t["sessionKeys"][0].update(stableID="00000000"),
    "default of a key": lambda t: t["sessionKeys"][0].update(hasDefault=False),
}


@pytest.mark.parametrize("what", EDITED_SCHEMAS)
def test_a_schema_edited_by_hand_is_found(what: str) -> None:
    found = problem_of(MANIFEST, changed(SCHEMA, EDITED_SCHEMAS[what]))
    assert found.code == "vango-state-edited"
    assert "vango state apply" in found.hint


EDITED_MANIFESTS: dict[str, Change] = {
    "retyped": lambda t: primitive(t, COUNT).update(codecFingerprint="fp:v1:0"),
    "no longer persisted": lambda t: primitive(t, COUNT).update(persisted=False),
    "another identity": lambda t: primitive(t, COUNT).update(stableID="00000000"),
    "another scope": lambda t: primitive(t, NOTES).update({"class": "session"}),
    "a key more": lambda t: t["sessionKeys"].update(more=t["sessionKeys"]["berths"]),
    "no keys": lambda t: t.update(sessionKeys=None),
}


@pytest.mark.parametrize("what", EDITED_MANIFESTS)
def test_a_manifest_that_disagrees_is_found(what: str) -> None:
    assert problem_of(changed(MANIFEST, EDITED_MANIFESTS[what]), SCHEMA).code == "vango-state-edited"


def double(table: dict[str, Any]) -> None:
    primitive(table, COUNT)["stableID"] = DRAFT


SHAPELESS: dict[str, Change] = {
    "primitives are a list": lambda t: t.update(primitives=[]),
    "an entry is a text": lambda t: t["primitives"].update(x="y"),
    "no identity": lambda t: primitive(t, COUNT).pop("stableID"),
    "an empty identity": lambda t: primitive(t, COUNT).update(stableID=""),
    "persisted is a word": lambda t: primitive(t, COUNT).update(persisted="yes"),
    "persisted without a type": lambda t: primitive(t, COUNT).pop("codecFingerprint"),
    "an unknown class": lambda t: primitive(t, COUNT).update({"class": "cluster"}),
    "local and persisted": lambda t: primitive(t, COUNT).update({"class": "local"}),
    "one identity for two": double,
    "aliases are a text": lambda t: primitive(t, COUNT).update(aliases="x"),
    "an alias is an anchor": lambda t: primitive(t, COUNT).update(aliases=[next(iter(t["primitives"]))]),
    "no source": lambda t: primitive(t, COUNT).pop("source"),
    "a line that is a text": lambda t: primitive(t, COUNT)["source"].update(line="26"),
    "an escape sequence as name": lambda t: primitive(t, COUNT).update(debugName="\x1b[31mred"),
    "half a character": lambda t: primitive(t, COUNT).update(debugName="\ud800"),
}


@pytest.mark.parametrize("what", SHAPELESS)
def test_a_manifest_without_its_shape_is_unreadable(what: str) -> None:
    found = problem_of(changed(MANIFEST, SHAPELESS[what]), SCHEMA)
    assert (found.code, found.facts["file"]) == ("vango-state-unreadable", MANIFEST_FILE)


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.0", "one", "2"])
def test_an_unknown_major_version_is_refused(version: str) -> None:
    for member in ("manifestVersion", "anchorFormatVersion"):
        found = problem_of(changed(MANIFEST, lambda t, m=member: t.update({m: version})), SCHEMA)
        assert (found.code, found.facts["file"]) == ("vango-version-unknown", MANIFEST_FILE)
        assert version in found.detail
    found = problem_of(MANIFEST, changed(SCHEMA, lambda t: t.update(schemaVersion=version)))
    assert (found.code, found.facts["file"]) == ("vango-version-unknown", SCHEMA_FILE)


def test_unknown_members_and_a_minor_version_are_no_trouble() -> None:
    manifest = changed(MANIFEST, lambda t: t.update(manifestVersion="1.7", generatedBy="a later tool"))
    schema = changed(SCHEMA, lambda t: (t.update(generatedAt="now"), each(t, COUNT).update(since="1.1")))
    state = read_state(manifest, schema)
    assert isinstance(state, StateFiles), state
    assert state.entries == board_state().entries


def test_an_app_without_state_has_none() -> None:
    manifest = changed(MANIFEST, lambda t: t.update(primitives={}, sessionKeys=None))
    schema = changed(SCHEMA, lambda t: (t.update(persistedPrimitives=None, sessionKeys=None), rehashed_empty(t)))
    state = read_state(manifest, schema)
    assert isinstance(state, StateFiles), state
    assert (state.entries, state.globals_count, state.packages) == ((), 0, frozenset())


def rehashed_empty(table: dict[str, Any]) -> None:
    table["schemaHash"] = schema_hash(table["schemaVersion"], (), ())


def test_an_alias_binds_another_anchor_to_the_same_identity() -> None:
    manifest = changed(MANIFEST, lambda t: primitive(t, COUNT).update(aliases=["old.Board#setup0.session.signal@9"]))
    state = read_state(manifest, SCHEMA)
    assert isinstance(state, StateFiles), state
    assert state.bindings["old.Board#setup0.session.signal@9"].stable_id == COUNT
    assert state.entries == board_state().entries


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
PRIMITIVES = st.lists(st.builds(Primitive, TEXTS, TEXTS, TEXTS, TEXTS), max_size=5, unique_by=lambda p: p.stable_id)
KEYS = st.lists(st.builds(SessionKey, TEXTS, TEXTS, TEXTS, st.booleans()), max_size=4, unique_by=lambda k: k.name)


@given(PRIMITIVES, KEYS, st.randoms(use_true_random=False))
def test_the_hash_knows_no_order(primitives: list[Primitive], keys: list[SessionKey], random: Any) -> None:
    before = schema_hash("1.0", primitives, keys)
    random.shuffle(primitives)
    random.shuffle(keys)
    assert schema_hash("1.0", primitives, keys) == before


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_whatever_the_files_hold_nothing_is_raised(manifest: bytes, schema: bytes) -> None:
    assert isinstance(read_state(manifest, schema), Problem)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = ("manifestVersion", "anchorFormatVersion", "primitives", "sessionKeys", "schemaHash", "persistedPrimitives")


@given(st.sampled_from(MEMBERS), JSON)
def test_whatever_a_member_holds_nothing_is_raised(member: str, value: object) -> None:
    given_ = (
        changed(MANIFEST, lambda t: t.update({member: value})),
        changed(SCHEMA, lambda t: t.update({member: value})),
    )
    found = read_state(*given_)
    assert isinstance(found, (Problem, StateFiles))
    if isinstance(found, StateFiles):
        assert all(isinstance(entry, StateEntry) for entry in found.entries)
