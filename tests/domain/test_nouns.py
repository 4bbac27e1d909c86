"""Names, ids, secrets, artifacts, limits: what they are and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moorage.domain.artifact import FileEntry, Manifest, StateEntry, artifact_digest, changed_files, is_digest
from moorage.domain.errors import Problem
from moorage.domain.ids import Prefix, encode_id, is_id
from moorage.domain.limits import NAME_LENGTH_MAX_CHARS
from moorage.domain.names import check_name, preview_key, production_key
from moorage.domain.secrets import RESERVED, check_secret_name
from tests.support.nouns import file_entry, manifest, state_entry

LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)


def code(problem: Problem | None) -> str:
    return problem.code if problem else ""


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "board",
        "team-notes",
        "b2",
        "cellar",
        "excellent",
        "zoned",
        "regional",
        "dcode",
        "us",
        "eastern-sun",
        "x" * 40,
    ],
)
def test_names_that_are_allowed(name: str) -> None:
    assert check_name(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "", "Board", "1board", "-a", "a-", "a_b", "a.b", "a b", "é", "a--b", "x" * 41, "board\n", "\nboard",
        "bo\x00ard", "moorage", "www", "api", "localhost", "ａ",
    ],
)  # fmt: skip
def test_names_that_are_no_labels(name: str) -> None:
    assert code(check_name(name)) == "name-invalid"


@pytest.mark.parametrize(
    "name",
    [
        "cell", "cell1", "cell-a", "my-cell", "my-cell-2", "app-cell2b", "region", "region-1", "zone-b", "dc1",
        "app-dc-2",
        "us-east-1", "eu-west", "board-eu-central-1", "ap-southeast-2", "eu-north1",
    ],
)  # fmt: skip
def test_names_of_places_are_refused(name: str) -> None:
    assert code(check_name(name)) == "name-contains-topology"


def test_the_installations_own_places_are_refused_too() -> None:
    places = frozenset({"fra1", "hel"})
    assert check_name("board-fra1") is None
    assert code(check_name("board-fra1", topology=places)) == "name-contains-topology"
    assert check_name("hello", topology=places) is None


@given(LABEL, st.integers(1, 9999))
def test_an_allowed_name_makes_route_keys_that_are_labels_and_never_clash(name: str, number: int) -> None:
    assume(check_name(name) is None)
    production, preview = production_key(name, "localhost"), preview_key(name, number, "localhost")
    assert production != preview
    for key in (production, preview):
        assert all(0 < len(part) <= 63 for part in key.split("."))
    assert check_name(preview.partition(".")[0]) is not None, "nobody can own a name that is a preview's"


@given(st.text(max_size=NAME_LENGTH_MAX_CHARS + 5))
def test_whatever_is_allowed_is_a_dns_label(text: str) -> None:
    if check_name(text) is None:
        assert text.encode("ascii").decode() == text
        assert 0 < len(text) <= NAME_LENGTH_MAX_CHARS
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert text[0].isalpha()
        assert text[-1] != "-"
        assert "--" not in text


@given(st.sampled_from(Prefix), st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_ids_are_ordered_like_their_bytes_and_know_their_noun(prefix: Prefix, one: bytes, two: bytes) -> None:
    first, second = encode_id(prefix, one), encode_id(prefix, two)
    assert (first < second) == (one < two)
    assert (first == second) == (one == two)
    assert [noun for noun in Prefix if is_id(first, noun)] == [prefix]
    assert not is_id(first + "\n", prefix)
    assert not is_id(first.upper(), prefix)


def test_prefixes_are_of_one_length_and_unique() -> None:
    assert {len(prefix) for prefix in Prefix} == {3}


@pytest.mark.parametrize("name", ["A", "_A", "API_KEY", "K2", "A" * 128])
def test_secret_names_that_are_allowed(name: str) -> None:
    assert check_secret_name(name) is None


@pytest.mark.parametrize(
    "name", ["", "a", "2K", "A-B", "A B", "É", "A" * 129, "A\n", "MOORAGE_", "MOORAGE_X", *sorted(RESERVED)]
)
def test_secret_names_that_are_refused(name: str) -> None:
    assert code(check_secret_name(name)) == "secret-name-invalid"


FILES = st.lists(
    st.builds(file_entry, st.text("abc/", min_size=1, max_size=6), st.text("xy", max_size=3)),
    max_size=5,
    unique_by=lambda f: f.path,
)
STATES = st.lists(st.builds(state_entry, st.sampled_from("abc"), st.sampled_from(["str", "int"])), max_size=4)


@given(FILES, STATES, st.randoms(use_true_random=False))
def test_a_digest_does_not_depend_on_order(files: list[FileEntry], state: list[StateEntry], random: object) -> None:
    made = replace(manifest(), files=tuple(files), state=tuple(state))
    random.shuffle(files)  # type: ignore[attr-defined]
    random.shuffle(state)  # type: ignore[attr-defined]
    assert artifact_digest(made) == artifact_digest(replace(made, files=tuple(files), state=tuple(state)))
    assert is_digest(artifact_digest(made))


BASE = manifest(state=[state_entry("draft")], migrations=[("one", "additive"), ("two", "additive")])


@pytest.mark.parametrize(
    "changed",
    [
        replace(BASE, app="other"),
        replace(BASE, kind="python"),
        replace(BASE, process=replace(BASE.process, command="serve")),
        replace(BASE, process=replace(BASE.process, health="/")),
        replace(BASE, process=replace(BASE.process, ready_timeout_s=61.0)),
        replace(BASE, files=(replace(BASE.files[0], mode=0o755),)),
        replace(BASE, files=(replace(BASE.files[0], sha256="f" * 64),)),
        replace(BASE, files=(replace(BASE.files[0], path="other.html"),)),
        replace(BASE, files=(*BASE.files, file_entry("more"))),
        replace(BASE, state=()),
        replace(BASE, state=(state_entry("draft", "int"),)),
        replace(BASE, migrations=BASE.migrations[:1]),
        replace(BASE, migrations=BASE.migrations[::-1]),
        replace(BASE, facts={"promotion_mode": "drain"}),
        replace(BASE, facts={"vango": {"resume_cure": True}}),
    ],
)
def test_a_digest_changes_with_everything_that_decides_what_runs(changed: Manifest) -> None:
    assert artifact_digest(changed) != artifact_digest(BASE)


@pytest.mark.parametrize(
    "same",
    [
        replace(BASE, source={"commit": "abc", "dirty": True}),
        replace(BASE, facts={"built_ms": 1}),
        replace(BASE, assets=("/index.html",)),
        replace(BASE, process=replace(BASE.process, ready_timeout_s=60)),
    ],
)
def test_a_digest_does_not_change_with_when_and_where_it_was_built(same: Manifest) -> None:
    assert artifact_digest(same) == artifact_digest(BASE)


@pytest.mark.parametrize(
    "text", ["", "sha256:", "a" * 64, "sha256:" + "a" * 63, "sha256:" + "A" * 64, "sha256:" + "a" * 64 + "\n"]
)
def test_what_is_no_digest(text: str) -> None:
    assert not is_digest(text)


@given(FILES, FILES)
def test_changed_files_are_those_that_differ(expected: list[FileEntry], found: list[FileEntry]) -> None:
    said = changed_files(expected, found)
    assert list(said) == sorted(said)
    assert (not said) == (set(expected) == set(found))
    assert set(said) == {f.path for f in set(expected) ^ set(found)}
