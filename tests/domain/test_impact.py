"""Impact: what a change of artifact does to session state and to data, in both directions."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.artifact import Migration, StateEntry
from moorage.domain.impact import (
    BLOCKS_ROLLBACK,
    DataImpact,
    StateImpact,
    data_impact,
    impact_report,
    nothing_built,
    state_impact,
)
from tests.support.nouns import manifest, state_entry

ENTRIES = st.builds(
    state_entry,
    field=st.sampled_from("abcd"),
    kind=st.sampled_from(["str", "int"]),
    state=st.sampled_from(["board:draft:v1", "board:draft:v2"]),
    scope=st.sampled_from(["session", "shared"]),
)
SCHEMAS = st.lists(ENTRIES, max_size=6, unique_by=lambda e: (e.state, e.field))
ONE = state_entry("draft")


@pytest.mark.parametrize(
    ("before", "after", "forward", "backward", "deciding"),
    [
        ([], [], "neutral", "neutral", ""),
        ([ONE], [ONE], "neutral", "neutral", ""),
        ([ONE], [ONE, state_entry("colour")], "warm", "cold", "board:draft:v1 colour added"),
        ([ONE], [], "cold", "warm", "board:draft:v1 draft removed"),
        ([ONE], [state_entry("draft", "int")], "cold", "cold", "board:draft:v1 draft retyped from str to int"),
        (
            [ONE],
            [state_entry("draft", scope="shared")],
            "cold",
            "cold",
            "board:draft:v1 draft retyped from str to shared str",
        ),
        (
            [ONE],
            [state_entry("draft", state="board:draft:v2")],
            "cold",
            "cold",
            "board:draft:v1 draft removed",
        ),
        (
            [ONE],
            [state_entry("a"), state_entry("draft", "int")],
            "cold",
            "cold",
            "board:draft:v1 draft retyped from str to int",
        ),
    ],
)
def test_the_rule(
    before: list[StateEntry], after: list[StateEntry], forward: str, backward: str, deciding: str
) -> None:
    there = state_impact(before, after)
    assert there.impact == forward
    assert str(there.deciding or "") == deciding
    assert state_impact(after, before).impact == backward


@given(SCHEMAS, SCHEMAS)
def test_neutral_means_equal_and_nothing_else(before: list[StateEntry], after: list[StateEntry]) -> None:
    said = state_impact(before, after)
    assert (said.impact is StateImpact.NEUTRAL) == (set(before) == set(after))
    assert (said.impact is StateImpact.NEUTRAL) == (not said.changes)


@given(SCHEMAS, SCHEMAS)
def test_warm_keeps_every_stored_field(before: list[StateEntry], after: list[StateEntry]) -> None:
    said = state_impact(before, after)
    kept = set(before) <= set(after)
    assert (said.impact is StateImpact.COLD) == (not kept)
    if said.impact is StateImpact.COLD:
        assert said.deciding is not None
        assert said.deciding.is_cold, "the change that decides is a cold one"


@given(SCHEMAS, SCHEMAS)
def test_the_way_back_mirrors_the_way_there(before: list[StateEntry], after: list[StateEntry]) -> None:
    mirror = {"added": "removed", "removed": "added", "retyped": "retyped"}
    there = {(c.state, c.field, mirror[c.what], c.before, c.after) for c in state_impact(before, after).changes}
    back = {(c.state, c.field, c.what, c.after, c.before) for c in state_impact(after, before).changes}
    assert there == back
    if state_impact(before, after).impact is StateImpact.WARM:
        assert state_impact(after, before).impact is StateImpact.COLD, "the rollback of an addition is cold"


@given(SCHEMAS, st.randoms(use_true_random=False))
def test_the_order_of_entries_says_nothing(entries: list[StateEntry], random: object) -> None:
    mixed = list(entries)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert state_impact(entries, mixed).impact is StateImpact.NEUTRAL


MILDEST_FIRST = ["none", "additive", "expand-contract", "online-change", "data-migration", "destructive", "unknown"]


def test_what_blocks_a_rollback_is_the_end_of_the_scale() -> None:
    assert [str(impact) for impact in DataImpact] == MILDEST_FIRST
    assert set(MILDEST_FIRST[4:]) == BLOCKS_ROLLBACK == {"data-migration", "destructive", "unknown"}


@given(st.lists(st.sampled_from([*MILDEST_FIRST, "harmless, believe me", ""]), max_size=5))
def test_data_impact_is_the_worst_and_what_nobody_knows_is_unknown(impacts: list[str]) -> None:
    said = data_impact([Migration(f"m{i}", impact) for i, impact in enumerate(impacts)])
    known = [impact if impact in MILDEST_FIRST else "unknown" for impact in impacts]
    assert said == max(known, key=MILDEST_FIRST.index, default="none")


@given(st.sampled_from(MILDEST_FIRST), st.sampled_from(MILDEST_FIRST))
def test_a_rollback_is_blocked_by_the_worst_since_its_target(first: str, second: str) -> None:
    """A blocking migration blocks also beside one that sounds worse and would not."""
    both = data_impact([Migration("a", first), Migration("b", second)])
    if DataImpact(first) in BLOCKS_ROLLBACK or DataImpact(second) in BLOCKS_ROLLBACK:
        assert both in BLOCKS_ROLLBACK


def test_only_new_migrations_count() -> None:
    old = manifest(migrations=[("one", "destructive")])
    new = manifest(content="v2", migrations=[("one", "destructive"), ("two", "additive")])
    there = impact_report(("sha256:old", old), ("sha256:new", new))
    assert (there.data, [m.name for m in there.new_migrations]) == (DataImpact.ADDITIVE, ["two"])
    back = impact_report(("sha256:new", new), ("sha256:old", old))
    assert (back.data, back.new_migrations) == (DataImpact.NONE, ())


def test_the_first_owner_changes_nothing_for_anybody() -> None:
    report = impact_report(None, ("sha256:new", manifest(state=[ONE], migrations=[("one", "destructive")])))
    assert (report.forward.impact, report.backward.impact, report.data) == ("neutral", "neutral", "none")


def test_what_was_never_built_is_never_warm() -> None:
    report = nothing_built()
    assert (report.forward.impact, report.backward.impact, report.data) == ("review", "review", "unknown")


def test_state_and_data_are_two_reports() -> None:
    """A warm deploy may carry a destructive migration: neither says anything about the other."""
    for forward, data in product([True, False], MILDEST_FIRST):
        state = [ONE, state_entry("colour")] if forward else [ONE]
        new = manifest(content="v2", state=state, migrations=[("m", data)])
        report = impact_report(("sha256:old", manifest(state=[ONE])), ("sha256:new", new))
        assert report.forward.impact == ("warm" if forward else "neutral")
        assert report.data == data


def test_two_entries_of_one_type_whose_names_changed_places_need_a_look() -> None:
    draft = StateEntry("1", "", "session", "signal", "string", label="draft")
    colour = StateEntry("2", "", "session", "signal", "string", label="colour")
    swapped = (replace(draft, label="colour"), replace(colour, label="draft"))
    found = state_impact((draft, colour), swapped)
    assert found.impact is StateImpact.REVIEW
    assert "draft and colour seem to have changed places" in str(found.deciding)
    renamed = (replace(draft, label="text"), colour)
    assert state_impact((draft, colour), renamed).impact is StateImpact.NEUTRAL
    moved_on = (replace(draft, label="colour"),)  # the other one is gone: that is cold, whatever its name was
    assert state_impact((draft, colour), moved_on).impact is StateImpact.COLD
    other_type = replace(colour, fingerprint="int")
    assert state_impact((draft, other_type), (replace(draft, label="colour"), other_type)).impact is StateImpact.NEUTRAL
