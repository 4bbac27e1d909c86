"""The fixture app as a folder to deploy: as it is, a variant with other state, or spoilt in one way.

The app itself lies in `fixtures/vango-conformance`; a variant replaces some of its files. Generated bindings of
variants are stored under another name: the framework's tool takes every file of that name for its own.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).resolve().parent / "fixtures" / "vango-conformance"
APP: Final = "vango-conformance"
WARM, COLD, COLD_ACKNOWLEDGED = "warm", "cold", "cold-acknowledged"
ACKNOWLEDGEMENT: Final = "vango_cold_deploy_ack.json"
MANIFEST_OF_HOST: Final = ".vango/host/vango_host_manifest.json"
_BINDINGS, _STORED_AS = "vango_state_bindings_gen.go", "vango_state_bindings_gen.go.txt"
_LEFT_OUT = ("variants", "__pycache__", "dist", ".vango")
_SAFE, _UNSAFE = "vango.New(vango.Config{", "vango.New(vango.Config{\n\t\tDevMode: true,"


def materialise(destination: Path, variant: str = "") -> Path:
    """Write the app, or a variant of it, into `destination`, which is created."""
    shutil.copytree(SOURCES, destination, ignore=shutil.ignore_patterns(*_LEFT_OUT), dirs_exist_ok=True)
    if variant:
        overlay = SOURCES / "variants" / variant.removesuffix("-acknowledged")
        left_out = () if variant == COLD_ACKNOWLEDGED else (ACKNOWLEDGEMENT,)
        shutil.copytree(overlay, destination, ignore=shutil.ignore_patterns(*left_out), dirs_exist_ok=True)
        for stored in destination.rglob(_STORED_AS):
            stored.replace(stored.with_name(_BINDINGS))
    return destination


def with_unknown_version(destination: Path) -> Path:
    """The app with a host manifest of a major version that nobody knows."""
    place = materialise(destination) / MANIFEST_OF_HOST
    (destination / ".gitignore").unlink()  # it keeps these documents out of the repository, and so out of a deploy
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"schema_version": "vango.host.v9.0"}))
    return destination


def with_development_mode(destination: Path) -> Path:
    """The app with a critical unsafe setting: development mode checks neither origins nor forms."""
    place = materialise(destination) / "cmd" / "server" / "main.go"
    text = place.read_text()
    assert text.count(_SAFE) == 1, "the fixture makes its app in one place"
    place.write_text(text.replace(_SAFE, _UNSAFE))
    return destination
