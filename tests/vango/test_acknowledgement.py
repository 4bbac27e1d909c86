"""The framework's acknowledgement counts for one pair of schemas, and blocks nothing when it cannot be read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.errors import Problem
from moorage.vango.acknowledgement import (
    ACKNOWLEDGEMENT_FILE,
    ACKNOWLEDGEMENT_MAX_BYTES,
    LISTED_MAX_COUNT,
    Acknowledgement,
    Standing,
    acknowledgement_fact,
    acknowledgement_of,
    check_acknowledgement,
    read_acknowledgement,
)
from tests.vango.board import BOARD, Change, changed

WRITTEN = (BOARD / "variants" / "v3" / ACKNOWLEDGEMENT_FILE).read_bytes()


def schema_hash(version: str) -> str:
    text = (BOARD / "variants" / version / "vango_state_schema.json").read_text()
    return str(json.loads(text)["schemaHash"])


def acknowledged(content: bytes = WRITTEN) -> Acknowledgement:
    found = read_acknowledgement(content)
    assert isinstance(found, Acknowledgement), found
    return found


def test_what_the_tool_wrote_counts_for_its_own_pair() -> None:
    found = acknowledged()
    assert (found.by, found.reason, found.removed, found.retyped) == (
        "manual",
        "changed_fingerprint",
        (),
        ("f4a8629f",),
    )
    verdict = check_acknowledgement(found, schema_hash("v2"), schema_hash("v3"))
    assert verdict.standing is Standing.VALID
    assert "manual" in verdict.words
    assert "1 of another type" in verdict.words


@pytest.mark.parametrize("pair", [("v3", "v2"), ("v2", "v2"), ("v3", "v3")])
def test_for_any_other_pair_it_does_not_count(pair: tuple[str, str]) -> None:
    serving, candidate = map(schema_hash, pair)
    verdict = check_acknowledgement(acknowledged(), serving, candidate)
    assert verdict.standing is Standing.OTHER_PAIR
    assert serving[:19] in verdict.words
    assert candidate[:19] in verdict.words


def test_there_may_be_none() -> None:
    assert read_acknowledgement(None) is None
    verdict = check_acknowledgement(None, "sha256:a", "sha256:b")
    assert verdict.standing is Standing.ABSENT
    assert ACKNOWLEDGEMENT_FILE in verdict.words


BROKEN: dict[str, Change] = {
    "no version": lambda t: t.pop("ackVersion"),
    "no hash before": lambda t: t.pop("schemaHashBefore"),
    "a short hash": lambda t: t.update(schemaHashAfter="sha256:12"),
    "a hash with an escape sequence": lambda t: t.update(schemaHashAfter="sha256:\x1b" + "0" * 63),
    "a made-up reason": lambda t: t.update(reason="because"),
    "a list as reason": lambda t: t.update(reason=[]),
    "a stranger": lambda t: t.update(acknowledgedBy="somebody"),
    "no time": lambda t: t.update(timestamp="yesterday"),
    "a day": lambda t: t.update(timestamp="2026-11-25"),
    "a time without a zone": lambda t: t.update(timestamp="2026-11-25T02:02:02"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_one_is_unreadable(what: str) -> None:
    found = read_acknowledgement(changed(WRITTEN, BROKEN[what]))
    assert isinstance(found, Problem)
    assert found.code == "vango-acknowledgement-unreadable"
    assert "vango state apply --ack-cold" in found.hint
    assert check_acknowledgement(found, "a", "b").standing is Standing.UNREADABLE


def test_an_unknown_major_version_is_no_acknowledgement() -> None:
    found = read_acknowledgement(changed(WRITTEN, lambda t: t.update(ackVersion="2.0")))
    assert isinstance(found, Problem)
    assert (found.code, found.facts["file"]) == ("vango-version-unknown", ACKNOWLEDGEMENT_FILE)
    assert check_acknowledgement(found, "a", "b").standing is Standing.UNREADABLE


def test_it_is_bounded() -> None:
    assert isinstance(read_acknowledgement(WRITTEN + b" " * ACKNOWLEDGEMENT_MAX_BYTES), Problem)
    many = changed(WRITTEN, lambda t: t["details"].update(removedStableIDs=[f"{n:08x}" for n in range(1000)]))
    assert len(acknowledged(many).removed) == LISTED_MAX_COUNT


@given(st.integers(0, len(WRITTEN) - 3))
def test_a_truncated_one_is_unreadable(length: int) -> None:
    assert isinstance(read_acknowledgement(WRITTEN[:length]), Problem)


def test_it_survives_being_a_fact_of_an_artifact() -> None:
    found = acknowledged()
    fact: Any = json.loads(json.dumps(acknowledgement_fact(found)))
    assert acknowledgement_of(fact) == found
    broken = read_acknowledgement(WRITTEN[:40])
    assert isinstance(broken, Problem)
    again = acknowledgement_of(json.loads(json.dumps(acknowledgement_fact(broken))))
    assert isinstance(again, Problem)
    assert (again.code, again.detail) == (broken.code, broken.detail)
    assert acknowledgement_of(None) is None


JSON = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=3)
FIELDS = ("ackVersion", "schemaHashBefore", "schemaHashAfter", "reason", "details", "acknowledgedBy", "timestamp")


@given(st.sampled_from(FIELDS), JSON)
def test_whatever_a_member_holds_nothing_is_raised(field: str, value: object) -> None:
    found = read_acknowledgement(changed(WRITTEN, lambda t: t.update({field: value})))
    check_acknowledgement(found, "a", "b")
