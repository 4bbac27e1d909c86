"""The companions of a Vango app: documents below `.vango/` in which the framework's tool states facts for hosts. Pure.

Rules: facts are taken, verdicts are not. A known document counts only with the family and major version that this
platform knows; what lies at another path is not taken. Where the tool cannot be had, one document of our own stands in
their place, and the artifact's facts say so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moorage.domain.errors import Problem
from moorage.vango.generated import stale
from moorage.vango.schema import KNOWN_MAJOR, SESSION_KEY, StateFiles, json_table, unknown_version
from moorage.vango.settings import FRAMEWORK, Severity, Unsafe

FOLDER = ".vango"
OWN_FILE = f"{FOLDER}/moorage_host_facts.json"
COMPANION_MAX_BYTES = 4 << 20
FAMILIES: Mapping[str, str] = {
    "vango_inspect.json": "inspect",
    "auth/vango_auth_tenancy_contract.json": "auth.tenancy",
    "codegen/vango_codegen_manifest.json": "codegen.manifest",
    "db/vango_db_contract.json": "db.contract",
    "db/vango_db_impact.json": "db.impact",
    "db/vango_db_validation.json": "db.validation",
    "env/vango_secret_env_contract.json": "env.contract",
    "host/vango_host_manifest.json": "host",
    "operations/vango_operation_readiness.json": "operations.readiness",
    "payments/vango_stripe_payment_profile.json": "stripe.payment",
    "routes/vango_route_contract.json": "routes.contract",
    "runtime/vango_runtime_services.json": "runtime.services",
    "state/vango_state_impact.json": "state.impact",
    "storage/vango_object_storage_upload_profile.json": "object_storage.upload",
}
IMPACT_FILE = "state/vango_state_impact.json"
CLASSIFICATIONS = frozenset({"neutral", "warm", "cold", "manual_review"})
_VERSION = re.compile(r"vango\.([a-z_.]+)\.v(\d+)\.(\d+)")
_HARMLESS = ("current", "not_applicable")
_UNSAFE_WORDS = ("UNSAFE", "INSECURE")


@dataclass(frozen=True, slots=True)
class Reading:
    """What one companion says that the platform acts on: unsafe settings, and digests of files by path."""

    unsafe: tuple[Unsafe, ...]
    digests: Mapping[str, str]


def read_companion(path: str, content: bytes) -> Reading | Problem:
    """A document of the framework at a path below `.vango/` that is in FAMILIES. Never raises.

    Codes: `vango-companion-invalid`, `vango-version-unknown`.
    """
    if len(content) > COMPANION_MAX_BYTES:
        return _invalid(path, f"has {len(content)} bytes; at most {COMPANION_MAX_BYTES} are read")
    table = json_table(content)
    if isinstance(table, str):
        return _invalid(path, table)
    said = table.get("schema_version")
    version = _VERSION.fullmatch(said) if isinstance(said, str) else None
    if version is None or version.group(1) != FAMILIES[path] or version.group(2) != KNOWN_MAJOR:
        return unknown_version(f"{FOLDER}/{path}", f"schema_version {said!r}")
    return Reading(_unsafe(path, table), _digests(table))


def stale_references(digests: Mapping[str, str], found: Mapping[str, str]) -> tuple[str, ...]:
    """The paths for which a companion gives another digest than the files have (`sha256:<hex>`); paths that are not
    among the files are left out."""
    return tuple(sorted(path for path, digest in digests.items() if found.get(path, digest) != digest))


def check_verification(document: Mapping[str, object]) -> Problem | None:
    """What `vango generated verify --json` means: each family of generated files must be current."""
    families = document.get("families")
    for found in families if isinstance(families, list) else ():
        each = found if isinstance(found, dict) else {}
        status = each.get("status")
        if status in _HARMLESS:
            continue
        name, message, command = (str(each.get(key) or "") for key in ("name", "message", "repair_command"))
        return stale(f"{name or 'a family'}: {status}. {message}".strip(), command or "vango generated verify")
    status = document.get("status")
    return None if status == "current" else stale(f"`vango generated verify` says {status!r}")


def classification_in(impact: bytes) -> str:
    """The tool's own classification of a source against its committed state files, for people: what it does not say,
    or says in a word that nobody knows, is `manual_review`."""
    table = json_table(impact)
    said = table.get("classification") if not isinstance(table, str) else None
    return said if isinstance(said, str) and said in CLASSIFICATIONS else "manual_review"


def own_document(module: str, version: str, state: StateFiles, digests: Mapping[str, str]) -> str:
    """The document that stands in for companions: the same for the same source. `digests`: path to `sha256:<hex>`."""
    keys = sum(entry.state == SESSION_KEY for entry in state.entries)
    document = {
        "schema_version": "moorage.host_facts.v1.0",
        "producer": {"name": "moorage"},
        "app": {"module": module},
        "framework": {"module": FRAMEWORK, "version": version},
        "state": {
            "manifest_version": state.manifest_version,
            "schema_version": state.schema_version,
            "schema_hash": state.hash,
            "persisted_primitives": len(state.entries) - keys,
            "session_keys": keys,
            "global_signals": state.globals_count,
        },
        "files": dict(sorted(digests.items())),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _unsafe(path: str, table: Mapping[str, object]) -> tuple[Unsafe, ...]:
    """Unsafe settings in a document: its list of them, and critical diagnostics that call something unsafe."""
    where = f"{FOLDER}/{path}"
    config = table.get("unsafe_config")
    entries = _tables(config.get("entries")) if isinstance(config, dict) else []
    found = [
        Unsafe(_text(each, "code"), _severity(_text(each, "severity")), where, _text(each, "summary"))
        for each in entries
    ]
    for each in _tables(table.get("diagnostics")):
        code, message = _text(each, "code"), _text(each, "message")
        if _text(each, "severity") == "critical" and any(w in f"{code} {message}".upper() for w in _UNSAFE_WORDS):
            found.append(Unsafe(code, Severity.CRITICAL, where, message))
    return tuple(found)


def _severity(said: str) -> Severity:
    """An unknown severity is no mild one."""
    return Severity.HIGH if said in ("high", "moderate") else Severity.CRITICAL


def _digests(table: Mapping[str, object]) -> dict[str, str]:
    """The digests by path that a document gives for what it was made from."""
    references = table.get("references")
    listed = [
        *_tables(table.get("inputs")),
        *_tables(list(references.values()) if isinstance(references, dict) else []),
    ]
    return {_text(each, "path"): _text(each, "digest") for each in listed if each.get("digest") and each.get("path")}


def _tables(found: object) -> Sequence[Mapping[str, object]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _text(table: Mapping[str, object], name: str) -> str:
    return str(table.get(name) or "")


def _invalid(path: str, why: str) -> Problem:
    hint = "Run `vango inspect --write .vango`, or take the file out of the source: the build writes it anew."
    title = "A companion of the app cannot be read"
    return Problem("vango-companion-invalid", title, f"{FOLDER}/{path} {why}", hint, 422)
