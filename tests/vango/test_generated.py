"""Generated files: what the framework's tool wrote agrees with the manifest, hash and all; every stale one is found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.domain.errors import Problem
from moorage.vango.generated import (
    Generated,
    bindings_hash,
    check_bindings,
    check_linked,
    check_sources,
    read_bindings,
)
from moorage.vango.schema import MANIFEST_FILE, SCHEMA_FILE, StateFiles, read_state
from tests.vango.board import BOARD, MANIFEST, SCHEMA, board_state, changed, generated_files, source_files
from tests.vango.test_schema import COUNT, primitive

PATH = "app/board/vango_state_bindings_gen.go"
TEXT = generated_files()[PATH]


def stale(files: dict[str, str], state: StateFiles | None = None) -> Problem:
    found = check_bindings(state or board_state(), files)
    assert found is not None
    assert (found.code, found.status) == ("vango-generated-stale", 422)
    assert "vango gen bindings" in found.hint
    return found


def test_what_the_tool_wrote_is_current() -> None:
    assert check_bindings(board_state(), {PATH: TEXT}) is None


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_the_hash_of_every_version_is_reproduced(version: str) -> None:
    folder = BOARD / "variants" / version
    state = read_state((folder / MANIFEST_FILE).read_bytes(), (folder / SCHEMA_FILE).read_bytes())
    assert isinstance(state, StateFiles)
    text = (folder / f"{PATH}.txt").read_text()
    assert check_bindings(state, {PATH: text}) is None
    parsed = read_bindings(text)
    assert isinstance(parsed, Generated)
    assert bindings_hash({PATH: parsed}) == parsed.hash != ""


def test_the_files_of_another_version_are_stale() -> None:
    found = stale({PATH: (BOARD / "variants" / "v2" / f"{PATH}.txt").read_text()})
    assert "generated files alone" in found.detail


def test_a_missing_and_a_left_over_file_are_named() -> None:
    assert PATH in stale({}).detail
    other = "app/old/vango_state_bindings_gen.go"
    assert other in stale({PATH: TEXT, other: TEXT}).detail


def test_an_app_without_state_needs_no_file() -> None:
    state = board_state()
    none = StateFiles((), state.hash, "1.0", "1.0", 0, {}, (), frozenset(), ())
    assert check_bindings(none, {}) is None
    stale({PATH: TEXT}, none)


SPOILED = {
    "another identity": (f'"{COUNT}"', '"00000000"'),
    "another type": ("fp:v1:af876b29", "fp:v1:00000000"),
    "another name": ('DebugName:        "count"', 'DebugName:        "sum"'),
    "no longer persisted": ("Persisted:        true,\n", ""),
    "an anchor": ("#setup0.session.signal@2", "#setup0.session.signal@7"),
    "an embedded hash": (re.search(r'Hash\("([0-9a-f]+)"', TEXT).group(1), "0" * 16),  # type: ignore[union-attr]
    "the line of a page": ("{Line: 22,", "{Line: 23,"),
    "a key's default": ("HasDefault:       true,\n", ""),
    "a key's name": ('"berths": {', '"beds": {'),
    "code by hand": ("func init() {", 'func init() {\n\tprintln("hello")'),
    "merge marks": ("package board", "<<<<<<< HEAD\npackage board"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_file_edited_by_hand_is_stale(what: str) -> None:
    before, after = SPOILED[what]
    assert before in TEXT
    stale({PATH: TEXT.replace(before, after, 1)})


def test_a_manifest_that_moved_on_is_stale() -> None:
    schema = changed(SCHEMA, lambda t: None)
    manifest = changed(MANIFEST, lambda t: primitive(t, COUNT).update(debugName="sum"))
    state = read_state(manifest, schema)
    assert isinstance(state, StateFiles)
    assert "not the same" in stale({PATH: TEXT}, state).detail


@given(st.integers(0, len(TEXT) - 20))
def test_a_truncated_file_is_stale(length: int) -> None:
    stale({PATH: TEXT[:length]})


@given(st.text(max_size=200))
def test_whatever_a_file_holds_nothing_is_raised(text: str) -> None:
    check_bindings(board_state(), {PATH: text})


def test_state_that_is_not_linked_is_named() -> None:
    assert check_linked([PATH], {PATH, "cmd/server/main.go"}) is None
    found = check_linked([PATH, "app/spare/vango_state_bindings_gen.go"], {PATH})
    assert found is not None
    assert found.code == "vango-bindings-unlinked"
    assert "app/spare" in found.detail


BOARD_GO = "app/board/board.go"


def moved(change: tuple[str, str]) -> str | None:
    """What our own reading says of the board's source with one change in it."""
    sources = source_files()
    before, after = change
    assert before in sources[BOARD_GO]
    sources[BOARD_GO] = sources[BOARD_GO].replace(before, after, 1)
    found = check_sources(board_state(), sources, {PATH: TEXT})
    if found is not None:
        assert found.code == "vango-generated-stale"
        assert found.hint.startswith("Run `vango state apply && vango gen bindings`")
    return found.detail if found else None


def test_our_own_reading_of_an_unchanged_source() -> None:
    assert check_sources(board_state(), source_files(), {PATH: TEXT}) is None
    assert moved(("\n\t\treturn ", "\n\t\t// said differently\n\t\treturn ")) is None  # below everything that counts


MOVED = {
    "a line above": ("package board\n", "package board\n\n// One more line.\n"),
    "a kind": ("setup.SharedSignal(&s, 0)", "setup.Signal(&s, 0)"),
    "commented out": ("setup.SharedSignal(&s, 0)", "/* setup.SharedSignal(&s, 0) */ setup.Signal(&s, 0)"),
    "in another column": ("setup.SharedSignal(&s, 0)", "(setup.SharedSignal(&s, 0))"),
    "one more": ("\n\t\treturn ", "\n\t\tmore := setup.SharedSignal(&s, 0)\n\t\t_ = more\n\t\treturn "),
}


@pytest.mark.parametrize("what", MOVED)
def test_our_own_reading_sees_a_source_that_moved_on(what: str) -> None:
    assert moved(MOVED[what]) is not None


def test_a_deleted_file_is_a_source_that_moved_on() -> None:
    sources = source_files()
    del sources[BOARD_GO]
    assert check_sources(board_state(), sources, {PATH: TEXT}) is not None


def test_the_page_must_still_begin_in_its_line() -> None:
    sources = source_files()
    sources[BOARD_GO] = sources[BOARD_GO].replace("vango.Setup(", "vango.Begin(", 1)
    found = check_sources(board_state(), sources, {PATH: TEXT})
    assert found is not None
    assert "begins a page" in found.detail


def test_the_board_is_where_it_is_expected() -> None:
    assert Path(BOARD / BOARD_GO).is_file()
