"""Sources of Vango apps that cannot be deployed: no Go, a Go that is too old, state files that are broken, edited, from
the future or absent, generated files that are stale, settings that are unsafe. The owner of the route stays."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage.cli.call import Exit
from moorage.vango.schema import MANIFEST_FILE, SCHEMA_FILE
from tests.badinput.kit import STEADY, owner_stays, source
from tests.support.platform import Platform, start_platform, stop_platform
from tests.vango.board import BOARD, MANIFEST, SCHEMA, changed, rehashed
from tests.vango.test_example import MATERIALISE

pytestmark = pytest.mark.servers

needs_go = pytest.mark.skipif(
    shutil.which("go") is None, reason="no Go toolchain on this machine: Vango apps are not compiled here"
)
BINDINGS = "app/board/vango_state_bindings_gen.go"
Spoil = Callable[[Path], object]


def board(folder: Path, spoil: Spoil) -> Path:
    """The Vango board as the next version of the steady app, spoiled."""
    MATERIALISE.materialise("v1", folder)
    (folder / "moorage.toml").write_text(f'name = "{STEADY}"\n[vango]\n')
    spoil(folder)
    return folder


def refused(platform: Platform, folder: Path) -> dict[str, Any]:
    """Deploy a folder that is refused; the problem. The owner of the route stays what it was."""
    with owner_stays(platform):
        answer = platform.cli("deploy", str(folder), "--json")
    assert answer.code == Exit.ENDED, answer.out + answer.err
    problem = answer.json["problem"]
    assert isinstance(problem, dict)
    assert problem["hint"], problem
    return problem


def write(name: str, content: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content)


def edit(name: str, before: str, after: str) -> Spoil:
    def spoil(folder: Path) -> None:
        text = (folder / name).read_text()
        assert before in text
        (folder / name).write_text(text.replace(before, after, 1))

    return spoil


def retyped(table: dict[str, Any]) -> None:
    table["persistedPrimitives"][0]["codecFingerprint"] = "fp:v1:" + "0" * 64


def retyped_with_care(table: dict[str, Any]) -> None:
    retyped(table)
    rehashed(table)


OTHER = BOARD / "variants" / "v2"
FILES: dict[str, tuple[Spoil, str, str]] = {
    "no schema": (lambda f: (f / SCHEMA_FILE).unlink(), "vango-state-missing", "vango state apply"),
    "no manifest": (lambda f: (f / MANIFEST_FILE).unlink(), "vango-state-missing", "vango state apply"),
    "a truncated schema": (write(SCHEMA_FILE, SCHEMA[:-40]), "vango-state-unreadable", "vango state apply"),
    "a truncated manifest": (write(MANIFEST_FILE, MANIFEST[:-40]), "vango-state-unreadable", "version control"),
    "an edited schema": (write(SCHEMA_FILE, changed(SCHEMA, retyped)), "vango-state-edited", "vango state apply"),
    "a carefully edited schema": (
        write(SCHEMA_FILE, changed(SCHEMA, retyped_with_care)),
        "vango-state-edited",
        "vango state apply",
    ),
    "an edited manifest": (
        write(MANIFEST_FILE, changed(MANIFEST, lambda t: t.update(sessionKeys={}))),
        "vango-state-edited",
        "vango state apply",
    ),
    "a schema from the future": (
        write(SCHEMA_FILE, changed(SCHEMA, lambda t: t.update(schemaVersion="2.0"))),
        "vango-version-unknown",
        "Update Moorage",
    ),
    "a manifest from the future": (
        write(MANIFEST_FILE, changed(MANIFEST, lambda t: t.update(manifestVersion="2.0"))),
        "vango-version-unknown",
        "Update Moorage",
    ),
    "bindings of another version": (
        write(BINDINGS, (OTHER / f"{BINDINGS}.txt").read_bytes()),
        "vango-generated-stale",
        "vango gen bindings",
    ),
    "no bindings": (lambda f: (f / BINDINGS).unlink(), "vango-generated-stale", "vango gen bindings"),
    "an insecure upload": (
        edit("vango.json", "{", '{"blob": {"allow_insecure_promote_without_etag": true},'),
        "vango-unsafe-settings",
        "Remove it",
    ),
}


@pytest.mark.parametrize("what", FILES)
def test_files_that_cannot_be_believed(platform: Platform, tmp_path: Path, what: str) -> None:
    spoil, code, hint = FILES[what]
    problem = refused(platform, board(tmp_path / "app", spoil))
    assert problem["code"] == code
    assert hint in problem["hint"]


def a_newer_go(folder: Path) -> None:
    text = (folder / "go.mod").read_text()
    (folder / "go.mod").write_text(re.sub(r"(?m)^go [\d.]+$", "go 1.99", text))


@needs_go
def test_a_toolchain_that_is_too_old(platform: Platform, tmp_path: Path) -> None:
    problem = refused(platform, board(tmp_path / "app", a_newer_go))
    assert problem["code"] == "go-version-unsupported"
    assert "1.99" in problem["detail"]
    assert "go1." in problem["detail"]


@needs_go
def test_development_mode(platform: Platform, tmp_path: Path) -> None:
    turned_on = "type mode struct{ DevMode bool }\n\nvar _ = mode{DevMode: true}\n\nfunc main() {"
    problem = refused(platform, board(tmp_path / "app", edit("cmd/server/main.go", "func main() {", turned_on)))
    assert problem["code"] == "vango-unsafe-settings"
    assert "cmd/server/main.go" in problem["detail"]


@pytest.fixture(scope="module")
def without_go(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform on whose path there is no Go, with the steady app."""
    places = [place for place in os.environ["PATH"].split(":") if not Path(place, "go").exists()]
    running = start_platform(tmp_path_factory.mktemp("home"), PATH=":".join(places))
    try:
        asyncio.run(running.serve(source(tmp_path_factory.mktemp("source") / "app")))
        yield running
    finally:
        stop_platform(running)


def test_no_toolchain_and_no_artifact(without_go: Platform, tmp_path: Path) -> None:
    problem = refused(without_go, board(tmp_path / "app", lambda _: None))
    assert problem["code"] == "go-missing"
    assert "moorage artifact import" in problem["hint"]
