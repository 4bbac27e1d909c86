"""Artifact: immutable build output, named by a digest over its manifest's file list and its process.

The digest covers what will run (paths, modes, contents, process, state schema) and what the app file settled about how
it is promoted and served, never when or where it was built, so the same source and lock give the same digest twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

DIGEST_PREFIX = "sha256:"


class Depth(StrEnum):
    """How much the platform can know about an app's sessions."""

    PLAIN = "plain"
    STORE_AWARE = "store_aware"
    SDK = "sdk"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an artifact: POSIX path relative to its root, permission bits (0o644 or 0o755), size in bytes,
    hex SHA-256. Symbolic links are resolved or refused before, never stored."""

    path: str
    mode: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Process:
    """How an artifact runs: a command line without a shell (`$PORT` and `$HOST` are replaced) and a health path."""

    command: str
    health: str = "/"
    ready_timeout_s: float = 60.0
    stop_grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class StateEntry:
    """One declared persisted field: `scope` is session or shared (global), `fingerprint` its type's stable name.

    `state` and `field` identify it; `label` is a name for people where the identity is none (it decides nothing).
    """

    state: str
    field: str
    scope: str
    kind: str
    fingerprint: str
    default: bool = True
    label: str = ""


@dataclass(frozen=True, slots=True)
class Migration:
    """A migration that the app declares: a fact from the first day; the platform runs none."""

    name: str
    impact: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artifact is. `source` (commit, dirty, tree digest), `facts` (validation) and `assets` inform people and
    decisions and are not part of the digest, except for the facts that are settings (`settings_of`)."""

    app: str
    kind: str
    process: Process
    files: tuple[FileEntry, ...]
    depth: Depth = Depth.PLAIN
    state: tuple[StateEntry, ...] = ()
    migrations: tuple[Migration, ...] = ()
    assets: tuple[str, ...] = ()
    source: Mapping[str, object] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)


SETTINGS = ("promotion_mode", "promotion_bake_s", "promotion_drain_deadline_s")  # facts that are decisions


def settings_of(manifest: Manifest) -> dict[str, object]:
    """What the app file settled about how the artifact is promoted and served: a change of these alone is another
    artifact, since the first manifest of a digest stays. What is left at its default is not part of it."""
    found = {name: manifest.facts[name] for name in SETTINGS if name in manifest.facts}
    store = manifest.facts.get("store")
    if isinstance(store, bool) and store != (manifest.depth is not Depth.PLAIN):
        found["store"] = store
    vango = manifest.facts.get("vango")
    if isinstance(vango, Mapping) and vango.get("resume_cure"):
        found["resume_cure"] = True
    return found


def artifact_digest(manifest: Manifest) -> str:
    """`sha256:<hex>` over the canonical JSON of everything that decides what runs."""
    process = manifest.process
    body: dict[str, object] = {
        "app": manifest.app,
        "kind": manifest.kind,
        "depth": manifest.depth,
        "process": [process.command, process.health, float(process.ready_timeout_s), float(process.stop_grace_s)],
        "files": [[f.path, f.mode, f.size, f.sha256] for f in sorted(manifest.files, key=lambda f: f.path)],
        "state": sorted([e.state, e.field, e.scope, e.kind, e.fingerprint, e.default] for e in manifest.state),
        "migrations": [[m.name, m.impact] for m in manifest.migrations],
    }
    if settings := settings_of(manifest):
        body["settings"] = settings
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return DIGEST_PREFIX + hashlib.sha256(text.encode()).hexdigest()


def is_digest(text: str) -> bool:
    """Whether the text is a well-formed artifact digest."""
    tail = text.removeprefix(DIGEST_PREFIX)
    return text.startswith(DIGEST_PREFIX) and len(tail) == 64 and all(c in "0123456789abcdef" for c in tail)


def changed_files(expected: Sequence[FileEntry], found: Sequence[FileEntry]) -> tuple[str, ...]:
    """Paths that are missing, added or different, sorted; empty when the trees are the same."""
    want, have = {f.path: f for f in expected}, {f.path: f for f in found}
    return tuple(sorted(p for p in want.keys() | have.keys() if want.get(p) != have.get(p)))
