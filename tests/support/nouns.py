"""Values of the domain for tests: every field has a plain default, a test names only what it is about."""

from __future__ import annotations

from collections.abc import Sequence

from moorage.domain.allocation import Endpoint, Posture
from moorage.domain.artifact import Depth, FileEntry, Manifest, Migration, Process, StateEntry
from moorage.domain.route import RouteOwner

ZERO_SHA256 = "0" * 64


def state_entry(field: str, kind: str = "str", *, state: str = "board:draft:v1", scope: str = "session") -> StateEntry:
    """A declared field whose fingerprint is its kind."""
    return StateEntry(state, field, scope, kind, kind)


def file_entry(path: str, content: str = "", *, mode: int = 0o644) -> FileEntry:
    """A file of a tree; `content` stands in for its digest."""
    return FileEntry(path, mode, len(content), (content.encode().hex() + ZERO_SHA256)[:64])


def manifest(
    app: str = "board",
    *,
    kind: str = "static",
    content: str = "v1",
    state: Sequence[StateEntry] = (),
    migrations: Sequence[tuple[str, str]] = (),
    depth: Depth = Depth.PLAIN,
    ready_timeout_s: float = 60.0,
) -> Manifest:
    """An artifact of one file. A `static` one needs no session store, so that no server has to run."""
    return Manifest(
        app=app,
        kind=kind,
        process=Process("serve --port $PORT", "/healthz", ready_timeout_s, 1.0),
        files=(file_entry("index.html", content),),
        depth=depth,
        state=tuple(state),
        migrations=tuple(Migration(name, impact) for name, impact in migrations),
    )


def owner(
    deployment: str = "dep_1",
    *,
    epoch: int = 1,
    route_key: str = "board.localhost",
    app: str = "board",
    environment: int = 1,
    number: int = 1,
    artifact: str = "sha256:1",
    held: bool = False,
) -> RouteOwner:
    """A route owner."""
    return RouteOwner(route_key, epoch, app, environment, deployment, number, artifact, held)


def endpoint(
    number: int = 1,
    *,
    deployment: str = "dep_1",
    environment: int = 1,
    posture: Posture = Posture.OPEN,
    ready: bool = True,
    version: int = 1,
) -> Endpoint:
    """An allocation as an edge sees it."""
    return Endpoint(
        number, f"alc_{number}", environment, deployment, "127.0.0.1", 20_000 + number, posture, ready, version
    )
