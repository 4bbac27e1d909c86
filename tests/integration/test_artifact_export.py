"""An artifact goes from one Moorage to another as a file: built there, served here, the same digest on both."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from moorage.artifacts.archive import check_archive
from moorage.cli.call import Exit
from tests.artifacts.archives import flipped
from tests.support.platform import Answer, Platform, start_platform, stop_platform
from tests.support.truth import rows

pytestmark = pytest.mark.servers

EXAMPLES = Path(__file__).parents[2] / "examples"
PLAIN, VANGO_BOARD = EXAMPLES / "plain", EXAMPLES / "vango-board"


def deployments(platform: Platform, app: str) -> list[tuple[str, str]]:
    answer = platform.cli("deployments", app, "--json")
    return [(d["state"], d["artifact"]) for d in answer.json["items"]] if answer.code == 0 else []


def stages(answer: Answer) -> list[str]:
    """The states that a deploy has told, each once, in order."""
    told = [json.loads(line) for line in answer.out.splitlines()]
    return list(dict.fromkeys(line["stage"]["state"] for line in told if "stage" in line))


def names(folder: Path) -> list[str]:
    """The files in a folder."""
    return sorted(place.name for place in folder.iterdir() if place.is_file())


async def test_an_artifact_built_on_one_platform_is_served_by_another(
    platform: Platform, own_platform: Platform, tmp_path: Path
) -> None:
    app, number = await platform.deploy(PLAIN)
    exported = await platform.run("artifact", "export", app, "--json", cwd=tmp_path)
    assert exported.code == 0, exported.out + exported.err
    told = exported.json
    digest, file = told["digest"], tmp_path / told["file"]
    assert file.name == f"{app}-{number}-{digest[7:19]}.moorage-artifact"
    assert names(tmp_path) == [file.name]
    assert (told["bytes"], told["sha256"]) == (file.stat().st_size, check_archive(file).sha256)

    _refuses_what_was_altered(own_platform, file)

    imported = await own_platform.run("artifact", "import", str(file), "--app", app, "--digest", digest, "--json")
    assert imported.code == 0, imported.out + imported.err
    assert stages(imported) == ["queued", "fetching", "validating", "preview_ready"], "nothing is built"
    deployment = imported.json["deployment"]
    assert deployment["artifact"] == digest
    assert deployment["source"]["imported"] == {"file": file.name, "archive": told["sha256"], "digest": digest}
    assert imported.json["next"] == f"moorage promote {app} --deployment 1"
    preview = own_platform.get(f"1--{app}.localhost")
    assert preview.status_code == 200

    view = await own_platform.promote(app, 1)
    assert view.state == "healthy", view.problem
    assert own_platform.get(f"{app}.localhost").status_code == 200
    assert deployments(own_platform, app) == [("preview_ready", digest)]
    assert deployments(platform, app) == [("preview_ready", digest)]

    _keeps_its_bytes(own_platform, app, file, tmp_path)


def _refuses_what_was_altered(platform: Platform, file: Path) -> None:
    """One bit in a file of the artifact: refused by the file's name, here and by the API, and nothing is changed."""
    data = file.read_bytes()
    altered = file.with_name("altered.moorage-artifact")
    altered.write_bytes(flipped(data, data.index(b"import ")))
    try:
        refused = platform.cli("artifact", "import", str(altered), "--json")
        assert (refused.code, refused.json["code"]) == (Exit.REFUSED, "archive-altered")
        assert refused.json["path"].startswith("app/"), refused.json
        assert platform.cli("apps", "--json") == Answer(0, '{"items": []}\n', "")
        assert list((platform.home / "sources").iterdir()) == [], "it was not even sent"
    finally:
        altered.unlink()


def _keeps_its_bytes(platform: Platform, app: str, file: Path, tmp_path: Path) -> None:
    """Exported again, the file is the same; what the store has lost or altered is not exported."""
    again = tmp_path / "again"
    again.mkdir()
    exported = platform.cli("artifact", "export", app, "-o", str(again), "--json")
    assert exported.code == 0, exported.out + exported.err
    (copy,) = again.iterdir()
    assert copy.read_bytes() == file.read_bytes()
    shown = platform.cli("artifact", "show", app, "--json")
    assert (shown.json["digest"], shown.json["present"]) == (exported.json["digest"], True)
    assert shown.json["source"]["imported"]["file"] == file.name
    (row,) = rows(platform, "select size_bytes from artifacts")
    assert shown.json["size_bytes"] == row["size_bytes"]

    place = platform.home / "artifacts" / "sha256" / exported.json["digest"][7:] / "tree" / "app" / "app.py"
    os.chmod(place, 0o644)
    place.write_bytes(flipped(place.read_bytes(), 10))
    refused = platform.cli("artifact", "export", app, "-o", str(again / "altered"), "--json")
    assert (refused.code, refused.json["code"]) == (Exit.REFUSED, "artifact-altered")
    assert "app/app.py" in refused.json["files"]
    assert list(again.iterdir()) == [copy], "no part of a file is left behind"


@pytest.fixture
def platform_without_go(tmp_path: Path) -> Iterator[Platform]:
    """A platform that finds every program of this machine but Go."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for folder in map(Path, os.environ["PATH"].split(os.pathsep)):
        for place in folder.iterdir() if folder.is_dir() else ():
            if place.name not in ("go", "gofmt") and not (programs / place.name).is_symlink():
                (programs / place.name).symlink_to(place)
    running = start_platform(tmp_path / "home", PATH=str(programs))
    try:
        yield running
    finally:
        stop_platform(running)


@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("go") is None, reason="a Vango app is built here first, which needs the Go toolchain")
async def test_a_vango_app_is_served_by_a_machine_that_cannot_build_it(
    platform: Platform, platform_without_go: Platform, tmp_path: Path
) -> None:
    refused = await platform_without_go.run("deploy", str(VANGO_BOARD), "--json")
    assert (refused.code, refused.json["problem"]["code"]) == (Exit.ENDED, "go-missing")
    assert "moorage artifact import" in refused.json["problem"]["hint"]

    app, number = await platform.deploy(VANGO_BOARD)
    exported = await platform.run("artifact", "export", app, "--deployment", str(number), "-o", str(tmp_path), "--json")
    assert exported.code == 0, exported.out + exported.err
    imported = await platform_without_go.run("artifact", "import", exported.json["file"], "--json")
    assert imported.code == 0, imported.out + imported.err
    assert imported.json["deployment"]["artifact"] == exported.json["digest"]
    second = imported.json["deployment"]["number"]
    view = await platform_without_go.promote(app, second)
    assert view.state == "healthy", view.problem
    assert platform_without_go.get(f"{app}.localhost").status_code == 200
    here, there = [(await p.run("artifact", "show", app, "--json")).json for p in (platform, platform_without_go)]
    for what in ("digest", "kind", "depth", "native", "state", "facts", "process"):
        assert here[what] == there[what], what
    assert here["kind"] == "vango"
    assert here["state"]


def test_an_archive_is_behind_the_token(platform: Platform) -> None:
    for path in ("/v1/artifacts", f"/v1/artifacts/sha256:{'0' * 64}/archive", "/v1/machine"):
        assert httpx.get(platform.api_url + path, trust_env=False).status_code == 401
