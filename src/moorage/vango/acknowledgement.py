"""The framework's own acknowledgement of a cold deploy, `vango_cold_deploy_ack.json`: read, and checked against the
two schemas that a promotion is between. Pure.

Rules: it says that the author of the app knew; it never replaces what a person says to the platform at the promotion.
It counts for one pair of schemas alone: before = what serves, after = what is to serve.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from moorage.domain.errors import Problem
from moorage.vango.schema import KNOWN_MAJOR, json_table, unknown_version

ACKNOWLEDGEMENT_FILE = "vango_cold_deploy_ack.json"
ACKNOWLEDGEMENT_MAX_BYTES = 128 << 10
LISTED_MAX_COUNT = 100  # identities that are kept of it; it travels in a report
REASONS = ("removed_id", "changed_fingerprint", "schema_version_changed", "multiple")
AUTHORS = ("ci", "platform", "manual")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_SHOWN_CHARS = 19  # `sha256:` and twelve digits


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What the file says: the schema hashes before and after, why, by whom (`ci`, `platform`, `manual`), when (as
    written, RFC 3339), and which identities were removed or changed their type."""

    before: str
    after: str
    reason: str
    by: str
    at: str
    removed: tuple[str, ...] = ()
    retyped: tuple[str, ...] = ()


class Standing(StrEnum):
    """What an acknowledgement is worth for one promotion."""

    VALID = "valid"
    OTHER_PAIR = "other_pair"
    ABSENT = "absent"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The standing of an acknowledgement, in words for people."""

    standing: Standing
    words: str


def read_acknowledgement(content: bytes | None) -> Acknowledgement | Problem | None:
    """The acknowledgement in a file (None: there is none). Never raises.

    A file of another major version is the problem `vango-version-unknown`; one that cannot be read is
    `vango-acknowledgement-unreadable`.
    """
    if content is None:
        return None
    if len(content) > ACKNOWLEDGEMENT_MAX_BYTES:
        return _unreadable(f"has {len(content)} bytes; at most {ACKNOWLEDGEMENT_MAX_BYTES} are read")
    table = json_table(content)
    if isinstance(table, str):
        return _unreadable(table)
    version = table.get("ackVersion")
    if not isinstance(version, str) or not version:
        return _unreadable("has no `ackVersion`")
    if version.split(".")[0] != KNOWN_MAJOR:
        return unknown_version(ACKNOWLEDGEMENT_FILE, f"ackVersion {version}")
    why = _fault(table)
    return _unreadable(why) if why else _acknowledgement(table)


def check_acknowledgement(found: Acknowledgement | Problem | None, serving_hash: str, candidate_hash: str) -> Verdict:
    """What an acknowledgement is worth for a promotion from one schema hash to another."""
    if found is None:
        return Verdict(Standing.ABSENT, f"the app has no {ACKNOWLEDGEMENT_FILE}")
    if isinstance(found, Problem):
        return Verdict(Standing.UNREADABLE, found.detail or found.title)
    if (found.before, found.after) == (serving_hash, candidate_hash):
        return Verdict(Standing.VALID, f"acknowledged by {found.by} at {found.at} ({_reason(found)})")
    said = f"from {found.before[:_SHOWN_CHARS]} to {found.after[:_SHOWN_CHARS]}"
    asked = f"from {serving_hash[:_SHOWN_CHARS]} to {candidate_hash[:_SHOWN_CHARS]}"
    return Verdict(Standing.OTHER_PAIR, f"it acknowledges a change {said}; this promotion is {asked}")


def acknowledgement_fact(found: Acknowledgement | Problem) -> Mapping[str, object]:
    """The acknowledgement as a fact of an artifact, from which `acknowledgement_of` makes it again."""
    if isinstance(found, Problem):
        return {"unreadable": found.detail}
    return {
        "before": found.before,
        "after": found.after,
        "reason": found.reason,
        "by": found.by,
        "at": found.at,
        "removed": list(found.removed),
        "retyped": list(found.retyped),
    }


def acknowledgement_of(fact: object) -> Acknowledgement | Problem | None:
    """The acknowledgement behind a fact of an artifact (anything else than such a fact: none)."""
    if not isinstance(fact, Mapping):
        return None
    if "unreadable" in fact:
        return _unreadable(str(fact["unreadable"]).removeprefix(f"{ACKNOWLEDGEMENT_FILE} "))
    before, after, reason, by, at = (str(fact.get(key, "")) for key in ("before", "after", "reason", "by", "at"))
    return Acknowledgement(before, after, reason, by, at, _texts(fact.get("removed")), _texts(fact.get("retyped")))


def _reason(found: Acknowledgement) -> str:
    counts = [f"{len(found.removed)} removed" if found.removed else "", _counted(len(found.retyped))]
    return ", ".join(filter(None, counts)) or found.reason.replace("_", " ")


def _counted(retyped: int) -> str:
    return f"{retyped} of another type" if retyped else ""


def _fault(table: Mapping[str, object]) -> str:
    """What is wrong with the file, as the end of "the file ..."; empty if nothing."""
    for name in ("schemaHashBefore", "schemaHashAfter"):
        if not isinstance(found := table.get(name), str) or not _HASH.fullmatch(found):
            return f"has no hash in `{name}`"
    if table.get("reason") not in REASONS:
        return "has no `reason` that the framework gives"
    if table.get("acknowledgedBy") not in AUTHORS:
        return "has no `acknowledgedBy` that the framework gives"
    return "" if _is_time(table.get("timestamp")) else "has no time in `timestamp`"


def _is_time(found: object) -> bool:
    try:
        return isinstance(found, str) and "T" in found and datetime.fromisoformat(found).tzinfo is not None
    except ValueError:
        return False


def _acknowledgement(table: Mapping[str, object]) -> Acknowledgement:
    details = table.get("details")
    details = details if isinstance(details, dict) else {}
    changed = details.get("changedFingerprints")
    changed = changed if isinstance(changed, list) else []
    return Acknowledgement(
        before=str(table["schemaHashBefore"]),
        after=str(table["schemaHashAfter"]),
        reason=str(table["reason"]),
        by=str(table["acknowledgedBy"]),
        at=str(table["timestamp"]),
        removed=_texts(details.get("removedStableIDs")),
        retyped=_texts([each.get("stableID") for each in changed if isinstance(each, dict)]),
    )


def _texts(found: object) -> tuple[str, ...]:
    listed = found if isinstance(found, list | tuple) else ()
    return tuple(each for each in listed if isinstance(each, str) and each.isprintable())[:LISTED_MAX_COUNT]


def _unreadable(why: str) -> Problem:
    hint = "Run `vango state apply --ack-cold`: it writes the file anew."
    title = "The framework's acknowledgement cannot be read"
    detail = f"{ACKNOWLEDGEMENT_FILE} {why}"
    return Problem("vango-acknowledgement-unreadable", title, detail, hint, 422, {"file": ACKNOWLEDGEMENT_FILE})
