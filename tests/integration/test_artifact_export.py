"""An artifact goes from one Moorage to another as a file: built there, served here, the same digest on both."""

from __future__ import annotations

import json
import os
from pathlib import Path

import httpx
import pytest

from moorage.artifacts.archive import check_archive
from moorage.cli.call import Exit
from tests.artifacts.archives import flipped
from tests.support.platform import Answer, Platform
from tests.support.truth import rows

pytestmark = pytest.mark.servers

PLAIN = Path(__file__).parents[2] / "examples" / "plain"


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


def test_an_archive_is_behind_the_token(platform: Platform) -> None:
    for path in ("/v1/artifacts", f"/v1/artifacts/sha256:{'0' * 64}/archive", "/v1/machine"):
        assert httpx.get(platform.api_url + path, trust_env=False).status_code == 401
