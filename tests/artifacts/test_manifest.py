"""Manifests as text: exact round trip, strict reading."""

from __future__ import annotations

import json

import pytest

from moorage.artifacts.failures import ManifestInvalid
from moorage.artifacts.manifest import manifest_facts, manifest_from_json, manifest_to_json
from moorage.domain.artifact import Depth, FileEntry, Manifest, Migration, Process, StateEntry

MANIFEST = Manifest(
    app="board",
    kind="python",
    process=Process("python -m uvicorn board:app --host $HOST --port $PORT", "/health", 30.0, 5.0),
    files=(FileEntry("app/board.py", 0o644, 12, "ab" * 32), FileEntry("app/täxt", 0o755, 1, "cd" * 32)),
    depth=Depth.SDK,
    state=(StateEntry("board:draft:v1", "text", "session", "str", "str", True),),
    migrations=(Migration("add-notes", "additive"),),
    assets=("app/board.css",),
    source={"commit": "abc", "dirty": False},
    facts={"python": [3, 11]},
)


def test_round_trip_is_exact() -> None:
    text = manifest_to_json(MANIFEST)
    assert manifest_from_json(text) == MANIFEST
    assert manifest_to_json(manifest_from_json(text)) == text


def test_facts_leave_out_the_list_of_files() -> None:
    facts = manifest_facts(MANIFEST)
    assert (facts["file_count"], facts["total_bytes"], facts["kind"]) == (2, 13, "python")
    assert "files" not in facts


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 2),
        (("more",), 1),
        (("manifest", "more"), 1),
        (("manifest", "depth"), "deep"),
        (("manifest", "files", 0, "mode"), "420"),
        (("manifest", "files", 0, "size"), 1.5),
        (("manifest", "process", "command"), None),
        (("manifest", "files"), {}),
        (("manifest", "state", 0, "default"), "yes"),
    ],
)
def test_anything_else_is_refused_with_its_place(path: tuple[str | int, ...], value: object) -> None:
    document = json.loads(manifest_to_json(MANIFEST))
    part = document
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    with pytest.raises(ManifestInvalid) as invalid:
        manifest_from_json(json.dumps(document))
    assert str(path[-1]) in invalid.value.problem.detail


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "{}"])
def test_text_that_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ManifestInvalid) as invalid:
        manifest_from_json(text)
    assert invalid.value.problem.code == "manifest-invalid"
