"""The habits of the house that no linter knows, each with its exceptions by name and reason."""

from __future__ import annotations

import ast
import gc
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from moorage.domain import limits
from tests.tidy import diagrams

ROOT = Path(__file__).parents[2]
ROOMS = ("src", "tests", "demo", "bench", "conformance")
FUNCTION_MAX_LINES, MODULE_MAX_LINES = 60, 500
FOLDER_MAX_COUNT, DOMAIN_MAX_COUNT, TESTS_MAX_COUNT = 12, 20, 20

LONG_FUNCTIONS: dict[str, str] = {}
LONG_MODULES: dict[str, str] = {}
FULL_FOLDERS: dict[str, str] = {}

BANNED_NAMES = {
    "utils",
    "util",
    "helpers",
    "helper",
    "manager",
    "managers",
    "handler",
    "handlers",
    "common",
    "misc",
    "base",
}
UNITS = ("_S", "_MS", "_BYTES", "_COUNT", "_CHARS")
UNIT_EXCEPTIONS = {
    "APP_PORT_FIRST": "a port has no unit",
    "APP_PORT_LAST": "a port has no unit",
}
SQL_AT_HOME = {
    "src/moorage/store/database.py": "pragmas, savepoints and the schema script: no query reads or writes a row",
}
SLEEPS_AT_HOME = {"tests/support/waiting.py": "the one way in which a test waits"}
# A term of the glossary and where it lives (`docs/terms` has its page). Cell, RPO and RTO have no code yet.
TERMS = {
    "allocation": "moorage.domain.allocation:Endpoint",
    "artifact": "moorage.domain.artifact:Manifest",
    "broadcast-backend": "moorage_app.stores.port:Announcement",
    "cold-deploy": "moorage.domain.impact:StateImpact",
    "compare-and-swap": "moorage.domain.route:decide_claim",
    "drain": "moorage.control.operations.drain:run",
    "durable-consumer": "moorage.events.consumer:EdgeEvents",
    "idempotency-key": "moorage.control.api.idempotency:change",
    "jetstream": "moorage.events.stream:",
    "route-epoch": "moorage.domain.route:decide_epoch",
    "route-owner": "moorage.domain.route:RouteOwner",
    "session-store": "moorage.runner.stores.store:",
    "warm-deploy": "moorage.domain.impact:state_impact",
}


class Module(NamedTuple):
    """A module of ours: its path from the root, its text, its syntax tree and every node of it."""

    path: str
    text: str
    tree: ast.Module
    nodes: tuple[ast.AST, ...]


@cache
def modules() -> tuple[Module, ...]:
    """Every module of ours."""
    files = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]
    texts = [(str(file.relative_to(ROOT)), file.read_text()) for file in files]
    gc.disable()  # a million nodes that all stay: looking for garbage among them takes a third of the time
    try:
        trees = [(path, text, ast.parse(text)) for path, text in texts]
        return tuple(Module(path, text, tree, tuple(ast.walk(tree))) for path, text, tree in trees)
    finally:
        gc.enable()


def functions() -> Iterator[tuple[str, int]]:
    """(name with its module, lines without the docstring) of every function."""
    for path, _, _, nodes in modules():
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                told = node.body[0] if ast.get_docstring(node) else None
                docstring = (told.end_lineno or 0) - told.lineno + 1 if told else 0
                yield f"{path}:{node.name}", (node.end_lineno or 0) - node.lineno + 1 - docstring


def check(found: set[str], allowed: dict[str, str], what: str) -> None:
    """Nothing beyond the exceptions, and no exception that is not needed any more."""
    assert found - allowed.keys() == set(), what
    assert allowed.keys() - found == set(), f"an exception that is not needed any more: {what}"


def test_functions_are_small() -> None:
    check({name for name, lines in functions() if lines > FUNCTION_MAX_LINES}, LONG_FUNCTIONS, "functions too long")


def test_modules_are_small() -> None:
    found = {module.path for module in modules() if len(module.text.splitlines()) > MODULE_MAX_LINES}
    check(found, LONG_MODULES, "modules too long")


def test_folders_are_small() -> None:
    counts: dict[str, int] = {}
    for module in modules():
        folder, name = module.path.rsplit("/", 1)
        counts[folder] = counts.get(folder, 0) + (name != "__init__.py")

    def limit(folder: str) -> int:
        if folder == "src/moorage/domain":
            return DOMAIN_MAX_COUNT
        return TESTS_MAX_COUNT if folder.startswith("tests") else FOLDER_MAX_COUNT

    check({folder for folder, count in counts.items() if count > limit(folder)}, FULL_FOLDERS, "folders too full")


def test_files_are_named_after_nouns() -> None:
    assert [m.path for m in modules() if set(Path(m.path).with_suffix("").parts) & BANNED_NAMES] == []


def test_every_module_begins_with_the_rules_of_its_room() -> None:
    assert [m.path for m in modules() if m.text.strip() and not ast.get_docstring(m.tree)] == []


SQL = re.compile(
    r"\s*(?:select\s.+\sfrom\s|insert\s+into\s|update\s+\w+\s+set\s|delete\s+from\s|create\s+table\s|pragma\s)",
    re.I | re.S,
)


def test_sql_lives_in_the_store() -> None:
    found = set()
    for path, _, _, nodes in modules():
        if path.startswith("src/"):
            texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            found |= {path for text in texts if SQL.match(text)}
    check(found, SQL_AT_HOME, "SQL outside store/sql")


def test_limits_end_in_their_unit() -> None:
    names = {name for name in vars(limits) if name.isupper()}
    assert names
    check({name for name in names if not name.endswith(UNITS)}, UNIT_EXCEPTIONS, "limits without a unit")


def test_terms_of_the_glossary_are_in_the_code_and_in_the_docs() -> None:
    pages = {page.stem for page in (ROOT / "docs" / "terms").glob("*.md")} - {"README"}
    assert pages == TERMS.keys() | {"cell", "rpo", "rto"}
    for term, place in TERMS.items():
        module, _, name = place.partition(":")
        assert not name or hasattr(import_module(module), name), f"{term} is not at {place}"


def test_no_mocks() -> None:
    for path, _, _, nodes in modules():
        for node in nodes:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            assert not any("mock" in name.lower() for name in [*names, module]), (
                f"{path}: a fake needs a contract suite"
            )


def test_tests_do_not_sleep() -> None:
    found = set()
    for path, _, _, nodes in modules():
        calls = [node.func for node in nodes if isinstance(node, ast.Call)] if path.startswith("tests/") else []
        names = {f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "") for f in calls}
        found |= {path} if "sleep" in names else set()
    assert found - SLEEPS_AT_HOME.keys() == set(), "wait for a condition with a deadline instead"


def test_decisions_are_numbered_and_indexed() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = sorted(page.name for page in folder.glob("[0-9]*.md"))
    assert [int(page[:4]) for page in pages] == list(range(1, len(pages) + 1))
    index = (folder / "README.md").read_text()
    assert re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", index) == pages


TEXT = {
    ".py",
    ".md",
    ".toml",
    ".txt",
    ".sql",
    ".lua",
    ".js",
    ".html",
    ".css",
    ".lock",
    ".cfg",
    ".yml",
    ".yaml",
    ".json",
    "",
}
SKIPPED = {".git", ".venv", "node_modules", "__pycache__", "build", "dist"}
MACHINE = re.compile(r"(?<![\w.-])/(?:root|work|home/(?!you/)[a-z]\w*|Users/\w+)/[\w.-]+")
PATH_EXCEPTIONS = {"tests/tidy/test_tidy.py": "names what it looks for"}


def texts() -> Iterator[tuple[str, str]]:
    """Every text file of the project."""
    todo = [ROOT]
    while todo:
        for path in todo.pop().iterdir():
            hidden = path.name.startswith(".") and path.name not in (".ci", ".gitignore")
            if path.name in SKIPPED or hidden or path.name.endswith(".egg-info"):
                continue
            if path.is_dir():
                todo.append(path)
            elif path.suffix in TEXT and path.stat().st_size < 1 << 20:
                yield str(path.relative_to(ROOT)), path.read_text(errors="replace")


def test_nothing_names_a_path_of_one_machine() -> None:
    found = {f"{path}: {m[0]}" for path, text in texts() if path not in PATH_EXCEPTIONS for m in MACHINE.finditer(text)}
    assert found == set()


def test_the_lock_file_names_no_address() -> None:
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_diagrams_are_those_of_the_tables() -> None:
    drawn = {page.name: page.read_text() for page in diagrams.FOLDER.glob("*.md")}
    assert drawn == diagrams.diagrams(), "run: python -m tests.tidy.diagrams"


def test_invariants_name_tests_that_exist() -> None:
    text = (ROOT / "docs" / "invariants.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 10
    for path, name in named:
        source = ROOT / path
        assert source.is_file(), path
        assert not name or f"def {name}(" in source.read_text(), f"{path}::{name}"
    rows = [
        line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| invariant", "| ---"))
    ]
    assert [row for row in rows if "`tests/" not in row] == [], "an invariant without a proof is a wish"
