"""Manifests as text: one JSON document with a format number, read strictly."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import ValidationError

from moorage.artifacts.failures import ManifestInvalid
from moorage.domain.artifact import Manifest
from moorage.wire.message import Message, canonical


class _Document(Message):
    format: Literal[1] = 1
    manifest: Manifest


def manifest_to_json(manifest: Manifest) -> str:
    """The manifest as canonical JSON text: equal manifests give equal text."""
    return canonical(_Document(manifest=manifest).model_dump(mode="json")).decode()


def manifest_from_json(text: str | bytes, *, where: str = "in the artifact store") -> Manifest:
    """The manifest in a text; ManifestInvalid when it is not exactly one (unknown keys and wrong types are refused)."""
    try:
        return _Document.model_validate_json(text).manifest
    except ValidationError as wrong:
        first = wrong.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "document"
        raise ManifestInvalid(where, f"{place}: {first['msg']}") from wrong


def manifest_facts(manifest: Manifest) -> dict[str, object]:
    """The manifest without its list of files, as JSON values: what people are shown."""
    document = json.loads(manifest_to_json(manifest))["manifest"]
    files = document.pop("files")
    return {**document, "file_count": len(files), "total_bytes": sum(f["size"] for f in files)}
