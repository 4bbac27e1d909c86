"""Every code that the sources can produce has a page, and every page has a code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs import error_codes

ERRORS = error_codes.ROOT / "docs" / "errors"
TABLES = frozenset({"README", "exit-codes", "session-reasons"})  # pages that are no page of one code
LINES_MIN_COUNT, LINES_MAX_COUNT = 5, 25
_KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def _pages() -> frozenset[str]:
    return frozenset(page.stem for page in ERRORS.glob("*.md")) - TABLES


def _first_column(page: Path) -> frozenset[str]:
    """The words in the first column of the tables of a page."""
    return frozenset(re.findall(r"^\| `?\[?`?([a-z0-9-]+)`?[\] |(]", page.read_text(encoding="utf-8"), re.MULTILINE))


def test_every_code_has_a_page() -> None:
    assert sorted(error_codes.page_names() - _pages()) == []


def test_every_page_has_a_code() -> None:
    assert sorted(_pages() - error_codes.page_names()) == []


def test_every_page_is_in_the_index_once() -> None:
    index = (ERRORS / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[`([a-z0-9-]+)`\]\(\1\.md\)", index, re.MULTILINE)
    assert sorted(listed) == sorted(_pages())


def test_codes_are_kebab_case() -> None:
    assert [code for code in error_codes.page_names() if not _KEBAB.fullmatch(code)] == []


def test_every_computed_code_is_explained() -> None:
    """A code that is not written out must be explained in `COMPUTED`, or a page could be missing unnoticed."""
    found = {(site.path, site.text): site for site in error_codes.given().computed}
    assert [site for key, site in found.items() if key not in error_codes.COMPUTED] == []
    assert [key for key in error_codes.COMPUTED if key not in found] == []


def test_computed_codes_are_written_in_their_file() -> None:
    for (path, _), codes in error_codes.COMPUTED.items():
        text = (error_codes.SOURCES / path).read_text(encoding="utf-8")
        for code in codes:
            assert code in text or code.removeprefix("allocation-") in text, (path, code)


@pytest.mark.parametrize("name", sorted(_pages()))
def test_a_page_says_when_what_to_do_and_where(name: str) -> None:
    lines = (ERRORS / f"{name}.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# `{name}`"
    assert LINES_MIN_COUNT <= len(lines) <= LINES_MAX_COUNT
    for part in ("**When it happens.** ", "**What to do.** ", "**Where it shows.** "):
        assert sum(line.startswith(part) for line in lines) == 1, part


def test_every_reason_of_an_account_is_described() -> None:
    assert _first_column(ERRORS / "session-reasons.md") - {"reason"} == error_codes.session_reasons()


def test_every_exit_code_is_described() -> None:
    described = {int(word) for word in _first_column(ERRORS / "exit-codes.md") if word.isdigit()}
    assert described == error_codes.exit_codes()


def test_the_collector_sees_codes_of_every_kind() -> None:
    """One of each way in which a code is made; when one is missed the other tests would say nothing."""
    names = error_codes.page_names()
    direct, through_a_function, through_a_class = "app-unknown", "source-link-outside", "tree-link-loop"
    edge, lua, reason, sdk = "unknown-host", "hold-expired", "allocation-exited-unseen", "undeclared-field"
    assert {direct, through_a_function, through_a_class, edge, lua, reason, sdk} <= names
    assert {"operation-settled-with-losses", "endpoint-unknown", "build-failed", "allocation-lost"} <= names
