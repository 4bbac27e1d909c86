"""The public API as the CLI uses it: one method per endpoint; every mutation sends an idempotency key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from moorage.client.agents import chunks_of
from moorage.client.http import Http
from moorage.wire.api import (
    AllocationView,
    AppView,
    DeploymentView,
    DeployRequest,
    Explanation,
    LogChunk,
    OperationRef,
    OperationView,
    PromoteRequest,
    PromotionReport,
    RestartRequest,
    RouteView,
    SecretRequest,
    SecretView,
    SessionsView,
    StatusView,
)
from moorage.wire.artifact import ArtifactDetail, ArtifactView, ImportRequest, MachineView
from moorage.wire.bindings import BindingView, RotationRequest, RotationView
from moorage.wire.message import Message

M = TypeVar("M", bound=Message)
Seen = Callable[[int], object]  # told how many more bytes went through
UPLOAD_TIMEOUT_S = 600.0


class Api:
    """The control API. Every method raises Refused or Unavailable with the server's problem."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()

    async def status(self) -> StatusView:
        """The installation at a glance."""
        return await self._get("/v1/status", StatusView)

    async def apps(self) -> tuple[AppView, ...]:
        """All apps."""
        return await self._list("/v1/apps", AppView)

    async def deployments(self, app: str) -> tuple[DeploymentView, ...]:
        """The app's deployments, newest first."""
        return await self._list(f"/v1/apps/{app}/deployments", DeploymentView)

    async def deployment(self, app: str, number: int) -> DeploymentView:
        """One deployment."""
        return await self._get(f"/v1/apps/{app}/deployments/{number}", DeploymentView)

    async def promotion_report(
        self, app: str, number: int, *, rollback: bool = False, mode: str | None = None
    ) -> PromotionReport:
        """What promoting (or rolling back to) this deployment would do now; `mode` None: by default."""
        path = f"/v1/apps/{app}/deployments/{number}/report"
        asked = {"mode": mode} if mode else {}
        return await self._get(path, PromotionReport, rollback=str(rollback).lower(), **asked)

    async def routes(self) -> tuple[RouteView, ...]:
        """All route owners."""
        return await self._list("/v1/routes", RouteView)

    async def allocations(self, app: str | None = None, *, all: bool = False) -> tuple[AllocationView, ...]:
        """Live allocations, or with `all` the newest ones that are gone too."""
        query = {"all": str(all).lower()} | ({"app": app} if app else {})
        return await self._list("/v1/allocations", AllocationView, **query)

    async def sessions(self, app: str) -> SessionsView:
        """The app's live sessions and its last accounts."""
        return await self._get(f"/v1/apps/{app}/sessions", SessionsView)

    async def operations(self, app: str | None = None) -> tuple[OperationView, ...]:
        """The newest operations."""
        return await self._list("/v1/operations", OperationView, **({"app": app} if app else {}))

    async def operation(self, id: str, *, after_seq: int = -1, wait_s: float = 0) -> OperationView:
        """One operation with all its stages; waits for a stage after `after_seq` or its end."""
        query = {"after": after_seq, "wait_s": wait_s}
        answer = await self._http.send("GET", f"/v1/operations/{id}", query=query, timeout_s=wait_s + 15)
        return OperationView.model_validate_json(answer.content)

    async def logs(self, allocation: int, *, offset: int = -1, wait_s: float = 0) -> LogChunk:
        """A piece of an allocation's log from `offset` (-1: the last 64 KiB), waiting for more if there is none."""
        query = {"offset": offset, "wait_s": wait_s}
        answer = await self._http.send("GET", f"/v1/allocations/{allocation}/logs", query=query, timeout_s=wait_s + 15)
        return LogChunk.model_validate_json(answer.content)

    async def explain(self, url: str, *, pin: str | None = None) -> Explanation:
        """Why a request to this URL goes where it goes."""
        return await self._get("/v1/explain", Explanation, url=url, **({"pin": pin} if pin else {}))

    async def upload(self, archive: Path, sha256: str) -> None:
        """Upload a packed source; the same digest twice is one source."""
        await self._http.send("PUT", f"/v1/sources/{sha256}", content=chunks_of(archive), timeout_s=UPLOAD_TIMEOUT_S)

    async def deploy(self, app: str, request: DeployRequest, *, key: str) -> OperationRef:
        """Start a deploy of an uploaded source."""
        return await self._change("POST", f"/v1/apps/{app}/deployments", request, key, OperationRef)

    async def machine(self) -> MachineView:
        """What artifacts with native code must have been built for."""
        return await self._get("/v1/machine", MachineView)

    async def artifacts(self, app: str | None = None) -> tuple[ArtifactView, ...]:
        """The artifacts that deployments name, newest first."""
        return await self._list("/v1/artifacts", ArtifactView, **({"app": app} if app else {}))

    async def artifact(self, digest: str) -> ArtifactDetail:
        """All that is known of an artifact."""
        return await self._get(f"/v1/artifacts/{digest}", ArtifactDetail)

    async def download_artifact(self, digest: str, target: Path, *, seen: Seen) -> None:
        """Write the archive of an artifact to `target`."""
        path = f"/v1/artifacts/{digest}/archive"
        await self._http.download(path, target, seen=seen, timeout_s=UPLOAD_TIMEOUT_S)

    async def upload_artifact(self, archive: Path, sha256: str, *, seen: Seen) -> None:
        """Upload the archive of an artifact; the same digest twice is one upload."""
        path, content = f"/v1/sources/{sha256}?kind=artifact", chunks_of(archive, seen)
        await self._http.send("PUT", path, content=content, timeout_s=UPLOAD_TIMEOUT_S)

    async def import_artifact(self, app: str, request: ImportRequest, *, key: str) -> OperationRef:
        """Start a deploy of an uploaded archive."""
        return await self._change("POST", f"/v1/apps/{app}/imports", request, key, OperationRef)

    async def promote(self, app: str, request: PromoteRequest, *, key: str) -> OperationRef:
        """Start a promotion."""
        return await self._change("POST", f"/v1/apps/{app}/promotions", request, key, OperationRef)

    async def rollback(self, app: str, request: PromoteRequest, *, key: str) -> OperationRef:
        """Start a rollback to an earlier deployment."""
        return await self._change("POST", f"/v1/apps/{app}/rollbacks", request, key, OperationRef)

    async def restart(self, app: str, request: RestartRequest, *, key: str) -> OperationRef:
        """Start a replacement of the owner's allocations."""
        return await self._change("POST", f"/v1/apps/{app}/restarts", request, key, OperationRef)

    async def destroy(self, app: str, *, key: str) -> OperationRef:
        """Start the removal of an app."""
        return await self._change("DELETE", f"/v1/apps/{app}", None, key, OperationRef)

    async def cancel(self, operation: str, *, key: str) -> OperationRef:
        """Ask an operation to stop."""
        return await self._change("POST", f"/v1/operations/{operation}/cancel", None, key, OperationRef)

    async def secrets(self, app: str) -> tuple[SecretView, ...]:
        """The app's secrets without values."""
        return await self._list(f"/v1/apps/{app}/secrets", SecretView)

    async def set_secret(self, app: str, name: str, request: SecretRequest, *, key: str) -> SecretView:
        """Set a secret; running allocations see it after a restart."""
        return await self._change("PUT", f"/v1/apps/{app}/secrets/{name}", request, key, SecretView)

    async def rotate_secrets(self, app: str, request: RotationRequest, *, key: str) -> RotationView:
        """New secrets of those that the platform made for production; allocations get them with a restart."""
        return await self._change("POST", f"/v1/apps/{app}/rotations", request, key, RotationView)

    async def bindings(self, app: str) -> tuple[BindingView, ...]:
        """The services that the app's next production allocation is given."""
        return await self._list(f"/v1/apps/{app}/bindings", BindingView)

    async def unset_secret(self, app: str, name: str, *, key: str, scope: str = "runtime") -> SecretView:
        """Unset a secret of one scope."""
        return await self._change("DELETE", f"/v1/apps/{app}/secrets/{name}?scope={scope}", None, key, SecretView)

    async def _get(self, path: str, kind: type[M], **query: Any) -> M:
        answer = await self._http.send("GET", path, query=query)
        return kind.model_validate_json(answer.content)

    async def _list(self, path: str, kind: type[M], **query: Any) -> tuple[M, ...]:
        answer = await self._http.send("GET", path, query=query)
        # Items are parsed JSON already: arrays are lists here, which strict messages take as tuples only in JSON text.
        return tuple(kind.model_validate(item, strict=False) for item in answer.json()["items"])

    async def _change(self, method: str, path: str, body: Message | None, key: str, kind: type[M]) -> M:
        answer = await self._http.send(
            method,
            path,
            json=body.model_dump(mode="json") if body else None,
            headers={"Idempotency-Key": key},
        )
        return kind.model_validate_json(answer.content)
