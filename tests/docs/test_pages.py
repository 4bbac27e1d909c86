"""The terms have their pages, links in the documentation lead somewhere, and code that is named exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.error_codes import ROOT

TERMS = (
    "allocation",
    "artifact",
    "broadcast-backend",
    "cell",
    "cold-deploy",
    "compare-and-swap",
    "drain",
    "durable-consumer",
    "idempotency-key",
    "jetstream",
    "route-epoch",
    "route-owner",
    "rpo",
    "rto",
    "session-store",
    "warm-deploy",
)
NOT_BUILT = frozenset({"cell", "rpo", "rto"})
HEADINGS = ("## What it means here", "## The trap", "## The guard", "## See it", "## The proof")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_NAMED_FILE = re.compile(r"`((?:src|tests|docs|examples|demo|bench|conformance)/[A-Za-z0-9_./-]+)`")


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, made as GitHub makes them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", head.lower()).replace(" ", "-") for head in heads}


def _links(page: Path) -> list[str]:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [one or other for one, other in _LINK.findall(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in _links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name in ("terms", "docs") or p.parent == ROOT])
def test_files_that_are_named_exist(page: Path) -> None:
    named = _NAMED_FILE.findall(page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_term_has_a_page_and_nothing_else_does() -> None:
    assert sorted(p.stem for p in (ROOT / "docs" / "terms").glob("*.md")) == sorted([*TERMS, "README"])


@pytest.mark.parametrize("term", TERMS)
def test_a_term_says_the_same_five_things(term: str) -> None:
    text = (ROOT / "docs" / "terms" / f"{term}.md").read_text(encoding="utf-8")
    positions = [text.find(f"\n{heading}\n") for heading in HEADINGS]
    assert -1 not in positions
    assert positions == sorted(positions)


@pytest.mark.parametrize("term", sorted(set(TERMS) - NOT_BUILT))
def test_a_term_names_its_proof(term: str) -> None:
    text = (ROOT / "docs" / "terms" / f"{term}.md").read_text(encoding="utf-8")
    assert f"`tests/traps/test_{term.replace('-', '_')}.py`" in text


@pytest.mark.parametrize("term", sorted(NOT_BUILT))
def test_what_is_not_built_is_said_plainly(term: str) -> None:
    text = (ROOT / "docs" / "terms" / f"{term}.md").read_text(encoding="utf-8")
    assert "not built yet" in text.lower()
    assert not (ROOT / "tests" / "traps" / f"test_{term}.py").exists()
