"""The log: owner changes and allocation endpoints under one gapless index, and the signed snapshot of their fold."""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from moorage.domain.allocation import Endpoint, Posture
from moorage.domain.errors import MoorageError, Problem
from moorage.domain.route import RouteOwner
from moorage.wire.message import Message, canonical

SNAPSHOT_FORMAT = 1


class OwnerUpdated(Message):
    """A route key has a new owner (compare-and-swap committed)."""

    type: Literal["route.owner.updated"] = "route.owner.updated"
    route_key: str
    epoch: int
    app: str
    environment: int
    deployment: str
    deployment_number: int
    artifact: str
    held: bool = False
    cure: bool = False


class RouteHeld(Message):
    """Upgrades of a route wait at the edge, or no longer; the owner and its epoch stay."""

    type: Literal["route.held"] = "route.held"
    route_key: str
    epoch: int
    held: bool


class RouteRemoved(Message):
    """A route key belongs to nobody any more; `epoch` is one past the last owner's."""

    type: Literal["route.removed"] = "route.removed"
    route_key: str
    epoch: int


class AllocationUpdated(Message):
    """Where an allocation listens and what must be done with it; posture `gone` removes it."""

    type: Literal["allocation.updated"] = "allocation.updated"
    number: int
    allocation: str
    environment: int
    deployment: str
    host: str
    port: int
    posture: Posture
    ready: bool
    version: int


Event = Annotated[OwnerUpdated | RouteHeld | RouteRemoved | AllocationUpdated, Field(discriminator="type")]


class LogEntry(Message):
    """One entry of the log. `incarnation` names the log: another one means another history."""

    index: int
    incarnation: str
    at_ms: int
    event: Event


class Snapshot(Message):
    """The fold of the log up to and with `index`. `pin_key` (base64) signs the pins of sessions."""

    format: int = SNAPSHOT_FORMAT
    incarnation: str
    index: int
    issued_ms: int
    pin_key: str
    routes: tuple[OwnerUpdated, ...]
    allocations: tuple[AllocationUpdated, ...]


class SignedSnapshot(Message):
    """A snapshot's canonical bytes (as text) with SHA-256 (hex) and Ed25519 signature (base64) over them."""

    payload: str
    sha256: str
    signature: str


class SnapshotInvalid(MoorageError):
    """A snapshot that does not verify: it must not be loaded."""

    def __init__(self, why: str) -> None:
        super().__init__(
            Problem(
                "snapshot-invalid",
                "The route snapshot does not verify",
                why,
                "Check that edge and control share the same installation key.",
                status=502,
            )
        )


def sign_snapshot(snapshot: Snapshot, key: Ed25519PrivateKey) -> SignedSnapshot:
    """The snapshot with digest and signature over its canonical bytes."""
    payload = canonical(snapshot.model_dump(mode="json"))
    return SignedSnapshot(
        payload=payload.decode(),
        sha256=hashlib.sha256(payload).hexdigest(),
        signature=base64.b64encode(key.sign(payload)).decode(),
    )


def verify_snapshot(signed: SignedSnapshot, key: Ed25519PublicKey) -> Snapshot:
    """The snapshot, once digest, signature and format hold.

    Raises SnapshotInvalid; nothing of an unverified payload is parsed before its signature held.
    """
    payload = signed.payload.encode()
    if hashlib.sha256(payload).hexdigest() != signed.sha256:
        raise SnapshotInvalid("its SHA-256 is not the stated one")
    try:
        key.verify(base64.b64decode(signed.signature), payload)
    except (InvalidSignature, ValueError) as wrong:
        raise SnapshotInvalid("its signature is not the control plane's") from wrong
    snapshot = Snapshot.model_validate_json(payload)
    if snapshot.format != SNAPSHOT_FORMAT:
        raise SnapshotInvalid(f"format {snapshot.format} is not {SNAPSHOT_FORMAT}")
    return snapshot


def owner_of(event: OwnerUpdated) -> RouteOwner:
    """The domain value of an owner event."""
    return RouteOwner(**event.model_dump(exclude={"type"}))


def endpoint_of(event: AllocationUpdated) -> Endpoint:
    """The domain value of an allocation event."""
    return Endpoint(**event.model_dump(exclude={"type"}))


def owner_event(owner: RouteOwner) -> OwnerUpdated:
    """The event that announces an owner."""
    return OwnerUpdated(**{name: getattr(owner, name) for name in RouteOwner.__dataclass_fields__})


def endpoint_event(endpoint: Endpoint) -> AllocationUpdated:
    """The event that announces an allocation."""
    return AllocationUpdated(**{name: getattr(endpoint, name) for name in Endpoint.__dataclass_fields__})
