"""The SDK as a wheel, made from this very installation: an app that asks for `moorage-app` gets the SDK that belongs
to the platform that runs it. The same installation gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import zipfile
from importlib.metadata import version
from pathlib import Path

from moorage.build.plan import SDK

PACKAGE = "moorage_app"
DEPENDENCIES = ("valkey>=6.2",)
_PYTHONS = ">=3.11"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment a zip can tell
_LEFT_OUT = (".pyc", ".pyo")


def sdk_version() -> str:
    """The version of the SDK: that of the platform."""
    return version("moorage")


def write_sdk_wheel(folder: Path) -> Path:
    """Write the wheel into a folder and return its place."""
    info = f"{PACKAGE}-{sdk_version()}.dist-info"
    files = {**package_files(), f"{info}/METADATA": _metadata(), f"{info}/WHEEL": _wheel()}
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    place = folder / f"{PACKAGE}-{sdk_version()}-py3-none-any.whl"
    with zipfile.ZipFile(place, "w") as archive:
        for path, content in sorted(files.items(), key=lambda item: ("dist-info" in item[0], item[0])):
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return place


def package_files() -> dict[str, bytes]:
    """Every file of the SDK's package, by its path in a wheel."""
    found = importlib.util.find_spec(PACKAGE)
    assert found is not None, "the SDK is part of every installation"
    assert found.submodule_search_locations, "the SDK is a package"
    root = Path(found.submodule_search_locations[0])
    places = (p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts and p.suffix not in _LEFT_OUT)
    return {f"{PACKAGE}/{place.relative_to(root).as_posix()}": place.read_bytes() for place in places}


def _metadata() -> bytes:
    lines = ["Metadata-Version: 2.1", f"Name: {SDK}", f"Version: {sdk_version()}", f"Requires-Python: {_PYTHONS}"]
    lines += ["Summary: What an app deployed on Moorage imports", "License: Apache-2.0"]
    return "\n".join([*lines, *(f"Requires-Dist: {each}" for each in DEPENDENCIES), ""]).encode()


def _wheel() -> bytes:
    return b"Wheel-Version: 1.0\nGenerator: moorage\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def _record(files: dict[str, bytes], itself: str) -> bytes:
    lines = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in sorted(files.items())]
    return "\n".join([*lines, f"{itself},,", ""]).encode()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
