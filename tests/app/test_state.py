"""Declaring and setting state: what is kept, what is refused, and where one is told."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_app import (
    DeclarationError,
    NotPersistedWarning,
    ReadOnlyError,
    SessionState,
    SharedState,
    UndeclaredFieldError,
    ValueRefusedError,
    unpersisted,
)
from moorage_app.declared import cold_change, schema_of
from moorage_app.state import State, load_values
from moorage_app.values import keep, shape_of


class Everything(SessionState, id="test:everything:v1"):
    text: str = "a"
    count: int = 1
    ratio: float = 0.5
    on: bool = False
    maybe: str | None = None
    tags: list[str] = []
    points: dict[str, list[float]] = {}
    anything: Any = None
    many: int | str | None = None
    cursor: int = unpersisted(3)
    LIMIT: ClassVar[int] = 9

    def shout(self) -> str:
        return self.text.upper()


def made(state: type[Everything] = Everything) -> tuple[Everything, list[Any]]:
    """An instance that may be changed, and what it reports."""
    told: list[Any] = []
    return state(changed=lambda *change: told.append(change)), told


def test_declared_fields_have_stable_fingerprints() -> None:
    """The schema is sorted, and its hash depends on nothing but its entries."""
    types = {entry["field"]: entry["type"] for entry in schema_of([Everything]).entries}
    assert types == {
        "anything": "json",
        "count": "int",
        "many": "int | str | None",
        "maybe": "str | None",
        "on": "bool",
        "points": "dict[str, list[float]]",
        "ratio": "float",
        "tags": "list[str]",
        "text": "str",
    }
    assert list(types) == sorted(types)
    assert schema_of([Everything]).hash == schema_of([Everything]).hash
    assert Everything.declaration.unpersisted == {"cursor": 3}
    assert Everything.text == "a"


def test_changes_are_reported_and_read_back() -> None:
    """Setting reports (id, field, kept value); methods of the author go on working."""
    state, told = made()
    state.text = "moin"
    state.tags = ["a"]
    state.ratio = 2
    state.cursor = 8
    assert told == [
        ("test:everything:v1", "text", "moin"),
        ("test:everything:v1", "tags", ["a"]),
        ("test:everything:v1", "ratio", 2.0),
    ]
    assert (state.shout(), state.cursor, Everything().cursor) == ("MOIN", 8, 3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", 3),
        ("text", None),
        ("text", "half \ud800"),
        ("count", True),
        ("count", 1.0),
        ("count", 2**53),
        ("ratio", float("nan")),
        ("ratio", float("inf")),
        ("ratio", "1"),
        ("on", 1),
        ("maybe", 3),
        ("tags", "ab"),
        ("tags", [1]),
        ("tags", None),
        ("points", {1: [1.0]}),
        ("points", {"a": 1.0}),
        ("anything", object()),
        ("anything", {"a": {1, 2}}),
        ("anything", b"bytes"),
        ("many", 1.5),
    ],
)
def test_a_value_of_another_type_is_an_error_at_once(field: str, value: Any) -> None:
    """And the field keeps its value."""
    state, told = made()
    before = getattr(state, field)
    with pytest.raises(ValueRefusedError):
        setattr(state, field, value)
    assert (getattr(state, field), told) == (before, [])


def test_deep_values_are_refused() -> None:
    """Deeper than the store's decoder should follow."""
    value: Any = []
    for _ in range(100):
        value = [value]
    state, _ = made()
    with pytest.raises(ValueRefusedError):
        state.anything = value


def test_an_undeclared_field_is_an_error_at_once() -> None:
    """It names what is declared."""
    state, told = made()
    with pytest.raises(UndeclaredFieldError, match="nonsense") as error:
        state.nonsense = 1
    assert "text" in error.value.declared
    with pytest.raises(ReadOnlyError):
        del state.text
    assert told == []


def test_kept_lists_and_dicts_cannot_be_changed_in_place() -> None:
    """A change in place could not be seen: it is an error, at any depth."""
    state, _ = made()
    state.tags = ["a"]
    state.points = {"x": [1.0]}
    for change in (
        lambda: state.tags.append("b"),
        lambda: state.tags.__setitem__(0, "b"),
        lambda: state.tags.sort(),
        lambda: state.points.update(y=[2.0]),
        lambda: state.points.pop("x"),
        lambda: state.points["x"].append(2.0),
    ):
        with pytest.raises(ReadOnlyError):
            change()
    assert (state.tags, state.points) == (["a"], {"x": [1.0]})
    state.tags = [*state.tags, "b"]
    assert state.tags == ["a", "b"]


def test_a_shared_state_is_read_only_outside_a_change() -> None:
    """The error says how to change it."""

    class Shared(SharedState, id="test:shared:v1"):
        count: int = 0

    with pytest.raises(ReadOnlyError, match="change"):
        Shared().count = 1


def test_plain_attributes_are_told_at_declaration() -> None:
    """They do not persist, and the author hears it while the module is imported."""
    with pytest.warns(NotPersistedWarning, match="cursor"):

        class Plain(SessionState, id="test:plain:v1"):
            text: str = ""
            cursor = 0

    assert Plain.declaration.unpersisted == {"cursor": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Meant(SessionState, id="test:meant:v1"):
            text: str = ""
            cursor = unpersisted(0)


def declare(**body: Any) -> type[State]:
    """Declares a class as a module would."""
    annotations = body.pop("annotations", {})
    namespace = {"__annotations__": annotations, "__module__": __name__, "__qualname__": "Made", **body}
    return type("Made", (SessionState,), namespace, id="test:made:v1")


def test_wrong_declarations_fail_at_import() -> None:
    """Each with the name of the class and what to do."""
    for body, words in (
        ({"annotations": {"text": str}}, "no default"),
        ({"annotations": {"text": str}, "text": 3}, "default does not fit"),
        ({"annotations": {"when": set}, "when": set()}, "cannot be kept"),
        ({"annotations": {"when": dict[int, str]}, "when": {}}, "cannot be kept"),
        ({"annotations": {"when": "Missing"}, "when": 1}, "cannot be resolved"),
        ({}, "declares no field"),
    ):
        with pytest.raises(DeclarationError, match=words):
            declare(**body)
    with pytest.raises(DeclarationError, match="id"):
        type("NoId", (SessionState,), {"__annotations__": {"a": int}, "a": 1})
    with pytest.raises(DeclarationError, match="form"):
        type("BadId", (SessionState,), {"__annotations__": {"a": int}, "a": 1}, id="Bad Id")
    with pytest.raises(DeclarationError, match="taken"):
        type("Other", (SessionState,), {"__annotations__": {"a": int}, "a": 1}, id="test:everything:v1")
    with pytest.raises(DeclarationError, match="directly"):
        type("Sub", (Everything,), {}, id="test:sub:v1")


def entry(state: str, field: str, type_: str) -> dict[str, Any]:
    """A schema entry."""
    return {"id": state, "field": field, "scope": "session", "kind": "field", "type": type_, "default": True}


@pytest.mark.parametrize(
    ("stored", "declared", "change"),
    [
        ([], [], None),
        ([entry("a", "x", "int")], [entry("a", "x", "int")], None),
        ([entry("a", "x", "int")], [entry("a", "x", "int"), entry("a", "y", "int"), entry("b", "z", "str")], None),
        ([entry("a", "x", "int")], [entry("a", "x", "str")], "a.x was int and is now str"),
        ([entry("a", "x", "int"), entry("a", "y", "int")], [entry("a", "x", "int")], "a.y is no longer declared"),
        ([entry("a", "x", "int")], [entry("b", "x", "int")], "a is no longer declared"),
        ([{"nonsense": 1}], [], "None is no longer declared"),
    ],
)
def test_what_is_cold(stored: list[Any], declared: list[Any], change: str | None) -> None:
    """Additions are warm; removed, retyped and renamed are cold."""
    assert cold_change(stored, declared) == change


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_all_json_is_kept_as_it_is(value: Any) -> None:
    """And what was kept can be kept again."""
    shape = shape_of(Any)
    kept = keep(value, shape, "value")
    assert kept == value
    assert keep(kept, shape, "value") == value


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.integers())))
def test_stored_values_are_loaded_or_refused(stored: dict[str, Any]) -> None:
    """Never anything between."""
    try:
        values = load_values(Everything.declaration, stored)
    except ValueRefusedError:
        return
    assert set(values) == set(Everything.declaration.fields)
