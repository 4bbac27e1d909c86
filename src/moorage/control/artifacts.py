"""Artifacts that arrive from another Moorage and those that leave for one, as the control plane sees them.

Rules: what an archive says of itself is checked before anything is written, so that a refused import leaves no
deployment behind; its files are the build worker's to verify. What leaves is verified before the first byte goes out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moorage.artifacts.archive import Head, archive_chunks, archive_size, read_head
from moorage.artifacts.failures import ArtifactMissing
from moorage.artifacts.foreign import check_files, misfit, other_app, this_machine
from moorage.artifacts.manifest import manifest_facts
from moorage.artifacts.store import ArtifactStore
from moorage.control.context import Control
from moorage.control.operations.report import manifest_of
from moorage.domain.artifact import Manifest
from moorage.domain.errors import Problem, Refused
from moorage.store import apps
from moorage.store.apps import Deployment
from moorage.store.database import Tx
from moorage.wire.artifact import ArtifactDetail, ArtifactView, ImportRequest

DEPLOYMENTS_LOOKED_AT_COUNT = 1_000  # per app, newest first


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An archive on its way out: so many bytes, in these pieces."""

    size_bytes: int
    pieces: Iterator[bytes]


async def facts_of_import(control: Control, app: str, request: ImportRequest) -> dict[str, Any] | Problem:
    """The facts of the deployment to be: those of the artifact's own source, and that it was imported.

    Answers a problem instead: `source-unknown`, `artifact-other-app`, `artifact-other-platform`, and what `read_head`
    refuses. A retry need not hear of it.
    """
    path = control.settings.sources / f"{request.archive}.tar.gz"
    if not path.is_file():
        hint = "Upload it with PUT /v1/sources/{sha256}?kind=artifact first."
        return Problem("source-unknown", "This archive was never uploaded", request.archive, hint, 404)
    try:
        head = await asyncio.to_thread(read_head, path)
    except Refused as refused:
        return refused.problem
    problem = other_app(head.manifest.app, app) or misfit(head.manifest, this_machine())
    return problem or {**head.manifest.source, "imported": _imported(head, request)}


def _imported(head: Head, request: ImportRequest) -> dict[str, str]:
    return {"file": request.file, "archive": request.archive, "digest": head.digest}


async def outgoing(control: Control, digest: str) -> Outgoing:
    """The archive of a stored artifact, every file of which was just verified; each is again while it goes out.

    Raises ArtifactMissing, ArtifactAltered, ArchiveRefused.
    """
    store = ArtifactStore(control.settings.artifacts)

    def verified() -> Manifest:
        store.verify(digest)
        manifest = store.manifest(digest)
        check_files(manifest.files)
        return manifest

    manifest = await asyncio.to_thread(verified)
    return Outgoing(archive_size(manifest), archive_chunks(store, digest))


def artifact_views(tx: Tx, app: str | None) -> list[ArtifactView]:
    """The artifacts that deployments name, of one app or of all; newest first."""
    found: dict[str, list[Deployment]] = {}
    for name in [app] if app is not None else [row["name"] for row in apps.apps(tx)]:
        for deployment in apps.deployments(tx, name, DEPLOYMENTS_LOOKED_AT_COUNT):
            if deployment.artifact:
                found.setdefault(deployment.artifact, []).append(deployment)
    views = [_view(tx, digest, named) for digest, named in found.items()]
    return sorted(views, key=lambda view: (view.created_ms, view.digest), reverse=True)


def _view(tx: Tx, digest: str, named: list[Deployment]) -> ArtifactView:
    return ArtifactView(**_summary(tx, digest, named))


def artifact_detail(control: Control, tx: Tx, digest: str) -> ArtifactDetail:
    """All that is known of an artifact. Raises ArtifactMissing."""
    row = tx.one("artifact", digest=digest)
    if row is None:
        raise ArtifactMissing(digest)
    named = [d for d in apps.deployments(tx, row["app"], DEPLOYMENTS_LOOKED_AT_COUNT) if d.artifact == digest]
    said: dict[str, Any] = manifest_facts(manifest_of(tx, digest))
    return ArtifactDetail.model_validate(
        {
            **_summary(tx, digest, named),
            **{name: said[name] for name in ("process", "source", "facts")},
            **{name: tuple(said[name]) for name in ("state", "migrations")},
            "present": ArtifactStore(control.settings.artifacts).has(digest),
        }
    )


def _summary(tx: Tx, digest: str, named: list[Deployment]) -> dict[str, Any]:
    """What both views tell."""
    row, manifest = tx.one("artifact", digest=digest), manifest_of(tx, digest)
    assert row is not None, f"artifact {digest} is named and not registered"
    native = manifest.facts.get("native")
    return {
        "digest": digest,
        "app": row["app"],
        "kind": manifest.kind,
        "depth": str(manifest.depth),
        "native": None if native is None else str(native),
        "state_entries": len(manifest.state),
        "size_bytes": row["size_bytes"],
        "created_ms": row["created_ms"],
        "deployments": tuple(d.number for d in named),
    }
