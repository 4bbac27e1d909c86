"""Artifact: rebuilding mutable source during promotion. What was seen at the preview is what is served, or nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import grimp
import pytest

from tests.support.asking import who
from tests.support.deeds import deploy, promote, serve
from tests.support.platform import Platform
from tests.support.tiny_app import tiny_app
from tests.support.truth import owner, rows

pytestmark = pytest.mark.servers

PROGRAM = "app/app.py"


def stored_tree(platform: Platform, app: str, number: int) -> Path:
    """The folder in the artifact store that a deployment is started from."""
    (row,) = rows(platform, "select artifact from deployments where app = ? and number = ?", app, number)
    return platform.home / "artifacts" / "sha256" / str(row["artifact"]).removeprefix("sha256:") / "tree"


async def test_artifact_of_the_preview_is_served_after_the_source_has_changed(
    platform: Platform, tmp_path: Path
) -> None:
    source = tiny_app(tmp_path / "steady", "steady", text="as previewed")
    app, number = await deploy(platform, source)
    assert who(platform.get(f"{number}--{app}.localhost"))["text"] == "as previewed"
    tiny_app(source, "steady", text="changed afterwards")
    view = await promote(platform, app, number)
    assert view.state == "healthy", view.problem
    assert who(platform.get(f"{app}.localhost"))["text"] == "as previewed"
    shutil.rmtree(source)
    async with platform.api() as api:
        digests = {a.artifact for a in await api.allocations(app)}
    assert digests == {owner(platform, app)["artifact"]}, "preview and production run the same digest"


async def test_artifact_with_one_flipped_byte_is_not_started(platform: Platform, tmp_path: Path) -> None:
    source = tiny_app(tmp_path / "flipped", "flipped", text="first")
    app, first = await serve(platform, source)
    tiny_app(source, "flipped", text="second")
    _, second = await deploy(platform, source)
    before, serving = owner(platform, app), await platform.allocation(app)
    flip_a_byte(stored_tree(platform, app, second) / PROGRAM)
    view = await promote(platform, app, second)
    assert (view.state, (view.problem or {}).get("code")) == ("failed", "artifact-altered")
    assert PROGRAM in str(view.problem), "the file is named"
    assert owner(platform, app) == before
    answer = who(platform.get(f"{app}.localhost"))
    assert (answer["deployment"], answer["allocation"], answer["text"]) == (str(first), serving.id, "first")
    async with platform.api() as api:
        refused = next(a for a in await api.allocations(app, all=True) if a.environment == "production")
    assert (refused.state, refused.reason, refused.pid) == ("failed", "artifact-altered", None)


def flip_a_byte(path: Path) -> None:
    """Change the file by one bit, whatever its mode says."""
    mode = path.stat().st_mode
    os.chmod(path, 0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.chmod(path, mode)


async def test_artifact_in_the_store_is_write_once(platform: Platform, tmp_path: Path) -> None:
    """No file and no folder of a stored tree may be written, and building the same source again writes nothing."""
    source = tiny_app(tmp_path / "once", "once")
    app, first = await deploy(platform, source)
    tree = stored_tree(platform, app, first)
    found = [tree, *tree.rglob("*")]
    assert len(found) > 3
    assert [str(path) for path in found if path.stat().st_mode & 0o222] == []
    before = {path: path.stat().st_ino for path in found}
    _, second = await deploy(platform, source)
    assert stored_tree(platform, app, second) == tree, "the same source is the same digest"
    assert {path: path.stat().st_ino for path in [tree, *tree.rglob("*")]} == before


def test_artifact_promotion_cannot_reach_the_code_that_builds() -> None:
    """Not directly, not through anything it imports, and not in the process that it runs in."""
    graph = grimp.build_graph("moorage")
    assert graph.chain_exists("moorage.main.runner", "moorage.build.assemble"), "the search finds what is there"
    for importer in ("moorage.control.operations.promotion", "moorage.control", "moorage.main.control"):
        for module in {"moorage.build"} | graph.find_descendants("moorage.build"):
            chain = graph.find_shortest_chain(importer, module, as_packages=importer == "moorage.control")
            assert chain is None, f"{importer} reaches {module}: {chain}"
