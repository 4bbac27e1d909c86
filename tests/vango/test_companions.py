"""Companions: known documents of a known major version count; facts are taken, and unsafe settings with them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.errors import Problem
from moorage.vango.companions import (
    COMPANION_MAX_BYTES,
    FAMILIES,
    IMPACT_FILE,
    Reading,
    check_verification,
    classification_in,
    own_document,
    read_companion,
    stale_references,
)
from moorage.vango.settings import Severity, check_unsafe
from tests.vango.board import board_state

HOST = "host/vango_host_manifest.json"


def document(path: str = HOST, **more: Any) -> bytes:
    return json.dumps({"schema_version": f"vango.{FAMILIES[path]}.v1.0", **more}).encode()


@pytest.mark.parametrize("path", FAMILIES)
def test_a_known_document_counts(path: str) -> None:
    assert read_companion(path, document(path, later=1)) == Reading((), {})


@pytest.mark.parametrize(
    "version",
    ["vango.host.v2.0", "vango.host.v0.9", "vango.state.impact.v1.0", "vango.host", "moorage.host.v1.0", "", 1, None],
)
def test_an_unknown_family_or_major_version_is_refused(version: object) -> None:
    found = read_companion(HOST, document(schema_version=version))
    assert isinstance(found, Problem)
    assert (found.code, found.facts["file"]) == ("vango-version-unknown", f".vango/{HOST}")


def test_a_minor_version_is_no_trouble() -> None:
    assert isinstance(read_companion(HOST, document(schema_version="vango.host.v1.9")), Reading)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", document()[:-3], document() + b" " * COMPANION_MAX_BYTES]
)
def test_what_is_no_document_is_invalid(content: bytes) -> None:
    found = read_companion(HOST, content)
    assert isinstance(found, Problem)
    assert found.code == "vango-companion-invalid"


def test_unsafe_settings_are_read_wherever_the_tool_names_them() -> None:
    entry = {"code": "dev_mode", "state": "active", "severity": "critical", "summary": "DevMode is enabled."}
    diagnostic = {"code": "VANGO.STORAGE.INSECURE_PROMOTE_SOURCE", "severity": "critical", "message": "fallback"}
    found = read_companion(
        HOST,
        document(
            unsafe_config={"entries": [entry, {"code": "x", "severity": "moderate"}], "production_safe": False},
            diagnostics=[diagnostic, diagnostic | {"severity": "warning"}, diagnostic | {"code": "VANGO.OTHER"}],
        ),
    )
    assert isinstance(found, Reading)
    assert [(each.code, each.severity) for each in found.unsafe] == [
        ("dev_mode", Severity.CRITICAL),
        ("x", Severity.HIGH),
        ("VANGO.STORAGE.INSECURE_PROMOTE_SOURCE", Severity.CRITICAL),
    ]
    assert check_unsafe(found.unsafe) is not None


def test_an_unknown_severity_is_no_mild_one() -> None:
    found = read_companion(HOST, document(unsafe_config={"entries": [{"code": "new", "severity": "catastrophic"}]}))
    assert isinstance(found, Reading)
    assert found.unsafe[0].severity is Severity.CRITICAL


def test_digests_of_what_it_was_made_from() -> None:
    one, other = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    found = read_companion(
        HOST,
        document(
            inputs=[{"path": "vango.json", "digest": one}, {"path": "x"}],
            references={"schema": {"path": "vango_state_schema.json", "digest": other}, "none": {"path": "y"}},
        ),
    )
    assert isinstance(found, Reading)
    assert found.digests == {"vango.json": one, "vango_state_schema.json": other}
    assert stale_references(found.digests, {"vango.json": one}) == ()
    assert stale_references(found.digests, {"vango.json": other}) == ("vango.json",)


def verification(*families: dict[str, Any], status: str = "current") -> Problem | None:
    return check_verification({"status": status, "families": list(families)})


def test_every_family_of_generated_files_must_be_current() -> None:
    fine = {"name": "routes", "status": "current"}, {"name": "ios", "status": "not_applicable"}
    assert verification(*fine) is None
    for status in ("stale", "missing", "invalid", "unknown", "unsupported", None):
        stale = {"name": "state_bindings", "status": status, "repair_command": "vango gen bindings", "message": "m"}
        found = verification(*fine, stale, status="stale")
        assert found is not None
        assert found.code == "vango-generated-stale"
        assert "`vango gen bindings`" in found.hint
        assert "state_bindings" in found.detail
    for status in ("stale", "failed", ""):
        assert verification(*fine, status=status) is not None


@pytest.mark.parametrize("document_", [{}, {"status": "current", "families": ["x"]}, {"families": {}}])
def test_a_verification_that_says_nothing_is_no_success(document_: dict[str, Any]) -> None:
    assert check_verification(document_) is not None


def test_the_tool_s_classification_is_for_people() -> None:
    for said in ("neutral", "warm", "cold", "manual_review"):
        assert classification_in(document(IMPACT_FILE, classification=said)) == said
    for nothing in (b"", b"{}", document(IMPACT_FILE, classification="fine"), document(IMPACT_FILE, classification=[])):
        assert classification_in(nothing) == "manual_review"


def test_our_own_document_is_the_same_for_the_same_source() -> None:
    digests = {"vango.json": "sha256:1", "go.mod": "sha256:2"}
    text = own_document("example.com/board", "0.2.4", board_state(), digests)
    assert text == own_document("example.com/board", "0.2.4", board_state(), dict(reversed(digests.items())))
    said = json.loads(text)
    assert said["state"]["schema_hash"] == board_state().hash
    assert (said["state"]["persisted_primitives"], said["state"]["session_keys"]) == (5, 1)
    assert said["files"] == digests


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(("inputs", "references", "unsafe_config", "diagnostics", "schema_version")), JSON)
def test_whatever_a_document_holds_nothing_is_raised(member: str, value: object) -> None:
    read_companion(HOST, document(**{member: value}))
    check_verification({"status": value, "families": value})
