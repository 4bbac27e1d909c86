"""The SDK's wheel: the same bytes each time, everything of the package, and no more than the published one promises."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import tomllib
import zipfile
from pathlib import Path

from packaging.metadata import Metadata

from moorage.build.sdk_wheel import DEPENDENCIES, sdk_version, write_sdk_wheel

ROOT = Path(__file__).parents[2]


def test_the_same_installation_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    first, second = write_sdk_wheel(tmp_path / "1"), write_sdk_wheel(tmp_path / "2")
    assert first.name == f"moorage_app-{sdk_version()}-py3-none-any.whl"
    assert first.read_bytes() == second.read_bytes()


def test_it_holds_the_whole_package_and_true_hashes(tmp_path: Path) -> None:
    with zipfile.ZipFile(write_sdk_wheel(tmp_path)) as wheel:
        held = {name: wheel.read(name) for name in wheel.namelist()}
    source = ROOT / "src" / "moorage_app"
    here = {f"moorage_app/{p.relative_to(source).as_posix()}" for p in source.rglob("*") if p.is_file()}
    assert {p for p in here if "__pycache__" not in p} == {p for p in held if "dist-info" not in p}
    info = f"moorage_app-{sdk_version()}.dist-info"
    for path, digest, _ in csv.reader(io.StringIO(held[f"{info}/RECORD"].decode())):
        if digest:
            want = base64.urlsafe_b64encode(hashlib.sha256(held[path]).digest()).rstrip(b"=").decode()
            assert digest == f"sha256={want}"
    Metadata.from_email(held[f"{info}/METADATA"])  # raises for a field that is not as it should be


def test_the_published_distribution_says_the_same() -> None:
    published = tomllib.loads((ROOT / "packaging" / "moorage-app" / "pyproject.toml").read_text())["project"]
    platform = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert published["version"] == platform["version"] == sdk_version()
    assert tuple(published["dependencies"]) == DEPENDENCIES
    assert published["requires-python"] == platform["requires-python"]
