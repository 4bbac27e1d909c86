"""The build worker's side of a deploy: claims under a lease, reports under its token, sources by digest.

A worker that stops reporting loses its lease after LEASE_S; the next claim has a higher token, so that whatever the
first one still says is refused and audited.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.responses import FileResponse

from moorage.artifacts.archive import ARCHIVE_MAX_BYTES
from moorage.artifacts.foreign import too_large
from moorage.control.context import Control
from moorage.domain.artifact import Manifest, is_digest
from moorage.domain.errors import Problem, Refused
from moorage.domain.limits import LEASE_S, SOURCE_TOTAL_MAX_BYTES
from moorage.domain.operation import Kind
from moorage.store import apps, operations
from moorage.store.database import Tx
from moorage.store.operations import LeaseLost, Operation
from moorage.system.clock import monotonic_s
from moorage.wire.artifact import UploadKind
from moorage.wire.build import BuildJob, BuildReply, BuildReport
from moorage.wire.problem import problem_document

_SHA256 = re.compile(r"[0-9a-f]{64}")
_STATES = {"fetching": "fetching", "building": "building", "validating": "validating", "built": "validating"}
_ORDER = ("queued", "fetching", "building", "validating")
_ORDER_OF_IMPORT = ("queued", "fetching", "validating")
_MANIFEST = TypeAdapter(Manifest)
SOURCE: UploadKind = "source"


class Builds:
    """Hands out builds and takes their reports."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._heard: dict[str, float] = {}
        self._started = monotonic_s()

    async def claim(self, worker: str, wait_s: float) -> BuildJob | None:
        """The oldest build that nobody works on, waiting for one; None when none came in time."""
        deadline = monotonic_s() + wait_s
        while True:
            seen = self._control.db.changes.version
            job = (
                await self._control.db.write(lambda tx: self._claim(tx, worker), actor=worker)
                if (await self._control.db.read(self._claimable))
                else None
            )
            left = deadline - monotonic_s()
            if job or left <= 0:
                return job
            await self._control.db.changes.wait(seen, min(left, 1.0))

    def _claimable(self, tx: Tx) -> Operation | None:
        for operation in operations.unfinished(tx):
            if operation.kind is Kind.DEPLOY and "artifact" not in operation.facts and self._is_free(operation):
                return operation
        return None

    def _is_free(self, operation: Operation) -> bool:
        if operation.lease_owner is None:
            return True
        return monotonic_s() - self._heard.get(operation.id, self._started) > LEASE_S

    def _claim(self, tx: Tx, worker: str) -> BuildJob | None:
        operation = self._claimable(tx)
        while operation and operation.cancel:
            cancel_unbuilt(tx, operation)
            operation = self._claimable(tx)
        leased = operations.lease(tx, operation, worker) if operation else None
        if leased is None:
            return None
        self._heard[leased.id] = monotonic_s()
        return BuildJob(
            operation=leased.id,
            token=leased.token,
            app=leased.app,
            deployment=leased.input["deployment_id"],
            deployment_number=leased.input["deployment"],
            source=leased.input["source"],
            source_facts=leased.input["facts"],
            kind=leased.input.get("kind", SOURCE),
            environ={} if is_import(leased) else self._build_secrets(tx, leased.app),
        )

    def _build_secrets(self, tx: Tx, app: str) -> dict[str, str]:
        return {
            row["name"]: self._control.vault.open(app, row["name"], row["sealed"])
            for row in apps.secrets(tx, app)
            if row["scope"] == "build"
        }

    async def report(self, operation: str, report: BuildReport) -> BuildReply:
        """Record a stage. Raises LeaseLost (refused and audited) when the token is old."""
        self._heard[operation] = monotonic_s()
        try:
            return await self._control.db.write(lambda tx: _record(tx, operation, report), actor="build")
        except LeaseLost:
            await self._control.db.write(
                lambda tx: operations.refuse_late(tx, operation, report.token, f"build {report.stage}"), actor="build"
            )
            raise

    def source(self, sha256: str) -> FileResponse:
        """An uploaded source archive. Raises Refused (`source-unknown`)."""
        path = self._path(sha256)
        if not path.is_file():
            raise Refused(Problem("source-unknown", "This source was never uploaded", sha256, status=404))
        return FileResponse(path, media_type="application/gzip")

    async def upload(self, sha256: str, chunks: AsyncIterator[bytes], kind: UploadKind = SOURCE) -> None:
        """Keep an uploaded archive under its digest; an artifact may be larger than a source.

        Raises Refused: `source-digest-mismatch` (422), `source-too-large` (413), `archive-too-large` (422), `disk-full`
        (507).
        """
        path = self._path(sha256)
        partial = path.with_name(f"{path.name}.{os.urandom(6).hex()}.part")
        digest, size = hashlib.sha256(), 0
        try:
            with partial.open("wb") as handle:
                async for chunk in chunks:
                    size += len(chunk)
                    _check_size(size, kind)
                    digest.update(chunk)
                    handle.write(chunk)
                handle.flush()
                await asyncio.to_thread(os.fsync, handle.fileno())
            if digest.hexdigest() != sha256:
                raise Refused(
                    Problem(
                        "source-digest-mismatch",
                        "The upload is not what its address says",
                        f"Received {digest.hexdigest()}.",
                        "Upload again.",
                        status=422,
                    )
                )
            partial.replace(path)
        except OSError as failed:
            raise Refused(
                Problem("disk-full", "The upload could not be kept", str(failed), "Free some disk space.", status=507)
            ) from failed
        finally:
            partial.unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise Refused(Problem("source-unknown", "A source is named by its hex SHA-256", sha256, status=404))
        return self._control.settings.sources / f"{sha256}.tar.gz"


def cancel_unbuilt(tx: Tx, operation: Operation) -> None:
    """End a canceled deploy that no worker holds: nobody else would ever look at it."""
    leased = operations.lease(tx, operation, "")
    assert leased is not None, "one writer: the token cannot have moved inside a transaction"
    problem = problem_document(Problem("operation-canceled", "Canceled on request"))
    operations.record(tx, operation.id, "canceled", token=leased.token, problem=problem)
    apps.set_deployment_state(tx, operation.input["deployment_id"], "canceled")


def _record(tx: Tx, id: str, report: BuildReport) -> BuildReply:
    operation = operations.require(tx, id)
    operations.record(tx, id, operation.state, token=report.token)  # the fence comes first
    if operation.cancel:
        _finish(tx, operation, report, "canceled", Problem("operation-canceled", "Canceled on request"))
        return BuildReply(go_on=False)
    if report.stage in ("blocked", "failed"):
        problem = Problem(
            report.code or "build-failed",
            f"The {'import' if is_import(operation) else 'build'} is {report.stage}",
            report.detail,
            report.hint,
            facts={"log_tail": list(report.log_tail)},
        )
        if operation.state == "queued":
            operations.record(tx, id, "fetching", token=report.token)
        _finish(tx, operation, report, report.stage, problem)
        return BuildReply(go_on=False)
    facts: dict[str, Any] = {}
    if report.stage == "built":
        _check_artifact(report)
        apps.register_artifact(tx, report.artifact, operation.app, report.manifest, report.size_bytes)
        apps.set_deployment_state(tx, operation.input["deployment_id"], "validating", report.artifact)
        facts = {"artifact": report.artifact}
    state = _advance(tx, operation, _STATES[report.stage], report.token)
    operations.record(tx, id, state, token=report.token, note=_news(tx, id, report), facts=facts)
    return BuildReply(go_on=True)


def _advance(tx: Tx, operation: Operation, wanted: str, token: int) -> str:
    """Pass every stage up to the wanted one; the state then. The machine never goes back: a worker that begins anew
    after an earlier one died stays where that one had come to."""
    order = _ORDER_OF_IMPORT if is_import(operation) else _ORDER
    reached = max(operation.state, wanted if wanted in order else operation.state, key=order.index)
    for passed in order[order.index(operation.state) + 1 : order.index(reached)]:
        operations.record(tx, operation.id, passed, token=token)
    return reached


def _check_artifact(report: BuildReport) -> None:
    """Raise Refused (`artifact-invalid`) unless the manifest is one and the digest is well formed.

    The report leaves the list of files out (it may be longer than a request); whether the files are those of the
    digest is verified by the runner before each start.
    """
    try:
        _MANIFEST.validate_python(report.manifest)
    except ValidationError as wrong:
        first = wrong.errors(include_url=False, include_input=False)[0]
        raise Refused(_invalid(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")) from wrong
    if not is_digest(report.artifact):
        raise Refused(_invalid(f"{report.artifact or 'nothing'} is not the digest of an artifact."))


def _invalid(detail: str) -> Problem:
    return Problem("artifact-invalid", "The build's result is not an artifact", detail, "Build it again.", status=422)


def _news(tx: Tx, id: str, report: BuildReport) -> str:
    """A worker repeats its stage to keep its lease; only what is new becomes a stage of its own."""
    told = operations.stages(tx, id)
    return "" if told and told[-1]["note"] == report.progress else report.progress


def _finish(tx: Tx, operation: Operation, report: BuildReport, state: str, problem: Problem) -> None:
    operations.record(tx, operation.id, state, token=report.token, note=str(problem), problem=problem_document(problem))
    apps.set_deployment_state(tx, operation.input["deployment_id"], state)


def is_import(operation: Operation) -> bool:
    """Whether a deploy is of an artifact that was built elsewhere."""
    return bool(operation.input.get("kind", SOURCE) != SOURCE)


def _check_size(size: int, kind: UploadKind) -> None:
    if kind == SOURCE and size > SOURCE_TOTAL_MAX_BYTES:
        raise Refused(_too_large(size))
    if size > ARCHIVE_MAX_BYTES:
        raise too_large(f"{size} bytes so far; {ARCHIVE_MAX_BYTES} are allowed")


def _too_large(size: int) -> Problem:
    return Problem(
        "source-too-large",
        "The source archive is too large",
        f"{size} bytes so far; {SOURCE_TOTAL_MAX_BYTES} are allowed.",
        "Exclude what is not needed with .moorageignore.",
        status=413,
    )
