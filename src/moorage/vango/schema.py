"""The framework's state files: what an app keeps for its users, read from `vango_state_manifest.json` and
`vango_state_schema.json`. Pure: texts in, entries or the problem out.

Rules: the files are believed only when they hold together. The schema's hash is computed anew and the schema must say
exactly what the manifest says; an unknown major version is refused, unknown fields are not. Identities are random, so
a broken manifest is restored and never written anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from moorage.domain.artifact import StateEntry
from moorage.domain.errors import Problem

MANIFEST_FILE, SCHEMA_FILE = "vango_state_manifest.json", "vango_state_schema.json"
SCHEMA_MAX_BYTES = 256 << 10  # its entries travel in a report, and those end at 1 MiB
MANIFEST_MAX_BYTES = 4 << 20  # it also tells where in the source each primitive stands
SESSION_KEY = "session-key"  # the `state` of an entry that is a session key
KNOWN_MAJOR = "1"
_SCOPES = ("session", "global")

Table = Mapping[str, object]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Primitive:
    """One persisted signal: identity, scope (`session` or `global`), kind, fingerprint of its type."""

    stable_id: str
    scope: str
    kind: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class SessionKey:
    """One typed session key; `has_default` decides nothing."""

    name: str
    stable_id: str
    fingerprint: str
    has_default: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """What a generated file must say about one anchor of the manifest."""

    stable_id: str
    name: str
    kind: str
    scope: str
    fingerprint: str
    persisted: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where the source declares something: file (POSIX, relative), line and column from 1; `what` is the scope of a
    primitive (`session`, `global`, `local`) or `session-key`."""

    file: str
    line: int
    column: int
    what: str


@dataclass(frozen=True, slots=True)
class StateFiles:
    """What both files say together. `bindings` are all anchors, aliases among them, persisted or not; `hash` is the
    schema's (`sha256:...`); `packages` are the folders whose sources declare state."""

    entries: tuple[StateEntry, ...]
    hash: str
    schema_version: str
    manifest_version: str
    globals_count: int
    bindings: Mapping[str, Binding]
    keys: tuple[SessionKey, ...]
    packages: frozenset[str]
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class _Schema:
    version: str
    hash: str
    primitives: tuple[Primitive, ...]
    keys: tuple[SessionKey, ...]


@dataclass(frozen=True, slots=True)
class _Manifest:
    version: str
    bindings: Mapping[str, Binding]
    keys: tuple[SessionKey, ...]
    places: tuple[Place, ...]


class _Shape(ValueError):
    """A value that is not what its place asks for; the message completes "the file ..."."""


class _Version(ValueError):
    """A version that this platform does not know."""


def schema_hash(version: str, primitives: Sequence[Primitive], keys: Sequence[SessionKey]) -> str:
    """The hash of a schema as the framework computes it: `sha256:<hex>` over NUL-ended texts in a fixed order."""
    parts = [version]
    for each in sorted(primitives, key=lambda p: p.stable_id):
        parts += [each.stable_id, each.fingerprint, each.scope, each.kind]
    for key in sorted(keys, key=lambda k: k.name):
        parts += [key.name, key.stable_id, key.fingerprint]
    return "sha256:" + hashlib.sha256(b"".join(part.encode() + b"\0" for part in parts)).hexdigest()


def read_state(manifest: bytes | None, schema: bytes | None) -> StateFiles | Problem:
    """The state that both files (None: there is no such file) declare, or why they cannot be believed. Never raises.

    Codes: `vango-state-missing`, `vango-state-unreadable`, `vango-version-unknown`, `vango-state-edited`.
    """
    for name, content in ((MANIFEST_FILE, manifest), (SCHEMA_FILE, schema)):
        if content is None:
            return _missing(name)
    assert manifest is not None
    assert schema is not None
    told = _read(MANIFEST_FILE, manifest, MANIFEST_MAX_BYTES, _manifest)
    if isinstance(told, Problem):
        return told
    declared = _read(SCHEMA_FILE, schema, SCHEMA_MAX_BYTES, _schema)
    if isinstance(declared, Problem):
        return declared
    return _check_together(told, declared) or _together(told, declared)


def _together(told: _Manifest, declared: _Schema) -> StateFiles:
    labels = {b.stable_id: b.name for b in told.bindings.values()}
    entries = [
        StateEntry(p.stable_id, "", p.scope, p.kind, p.fingerprint, True, labels.get(p.stable_id, ""))
        for p in declared.primitives
    ]
    entries += [
        StateEntry(SESSION_KEY, shown, "session", SESSION_KEY, f"{k.stable_id} {k.fingerprint}", k.has_default, shown)
        for k in declared.keys
        for shown in [_shown(k.name)]
    ]
    return StateFiles(
        entries=tuple(sorted(entries, key=lambda e: (e.state, e.field))),
        hash=declared.hash,
        schema_version=declared.version,
        manifest_version=told.version,
        globals_count=sum(p.scope == "global" for p in declared.primitives),
        bindings=told.bindings,
        keys=told.keys,
        packages=frozenset(place.file.rpartition("/")[0] for place in told.places),
        places=told.places,
    )


def _check_together(told: _Manifest, declared: _Schema) -> Problem | None:
    """Whether the hash holds and both files say the same."""
    computed = schema_hash(declared.version, declared.primitives, declared.keys)
    if computed != declared.hash:
        detail = f"{SCHEMA_FILE} says its hash is {declared.hash or 'nothing'}; its content has {computed}"
        return _edited(detail)
    persisted = {
        b.stable_id: Primitive(b.stable_id, b.scope, b.kind, b.fingerprint)
        for b in told.bindings.values()
        if b.persisted
    }
    listed = {p.stable_id: p for p in declared.primitives}
    for name in sorted(persisted.keys() ^ listed.keys()):
        where, other = (MANIFEST_FILE, SCHEMA_FILE) if name in persisted else (SCHEMA_FILE, MANIFEST_FILE)
        return _edited(f"`{name}` is persisted in {where} and not in {other}")
    for name, each in sorted(persisted.items()):
        if each != listed[name]:
            return _edited(f"`{name}` has another type, scope or kind in {MANIFEST_FILE} than in {SCHEMA_FILE}")
    return _check_keys(told.keys, declared.keys)


def _check_keys(told: Sequence[SessionKey], declared: Sequence[SessionKey]) -> Problem | None:
    one, other = {k.name: k for k in told}, {k.name: k for k in declared}
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            return _edited(f"the session key `{name}` is not the same in {MANIFEST_FILE} and {SCHEMA_FILE}")
    return None


def _read(name: str, content: bytes, max_bytes: int, parse: Callable[[Table], _T]) -> _T | Problem:
    """One file: bounded, JSON, of the shape that `parse` reads."""
    if len(content) > max_bytes:
        return _unreadable(name, f"has {len(content)} bytes; at most {max_bytes} are read")
    table = json_table(content)
    if isinstance(table, str):
        return _unreadable(name, table)
    try:
        return parse(table)
    except _Version as unknown:
        return unknown_version(name, str(unknown))
    except _Shape as wrong:
        return _unreadable(name, str(wrong))


def json_table(content: bytes) -> Table | str:
    """The object in a JSON text, or why it is none, as the end of "the file ...". A key that stands twice is an
    error: two readers could take different ones."""
    try:
        table = json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError:
        return "is not UTF-8"
    except RecursionError:
        return "is nested too deeply"
    except _Shape as twice:
        return str(twice)
    except ValueError as bad:
        return f"is not JSON ({bad})"
    return table if isinstance(table, dict) else "is not a JSON object"


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Shape(f"has `{next(n for n in names if names.count(n) > 1)}` twice in one object")
    return table


def _schema(table: Table) -> _Schema:
    version = _version(table, "schemaVersion")
    primitives = tuple(_primitive(each) for each in _tables(table, "persistedPrimitives"))
    keys = tuple(_listed_key(each) for each in _tables(table, "sessionKeys"))
    _no_twice([p.stable_id for p in primitives], "persistedPrimitives")
    _no_twice([k.name for k in keys], "sessionKeys")
    return _Schema(version, _text(table, "schemaHash"), primitives, keys)


def _primitive(table: Table) -> Primitive:
    scope = _text(table, "scope")
    if scope not in _SCOPES:
        raise _Shape(f"has the unknown scope `{scope}`")
    return Primitive(_text(table, "stableID"), scope, _text(table, "kind"), _text(table, "codecFingerprint"))


def _listed_key(table: Table) -> SessionKey:
    name = "name" if "name" in table else "keyName"  # the older spelling
    return _key(_name(table.get(name)), table)


def _key(name: str, table: Table) -> SessionKey:
    return SessionKey(name, _text(table, "stableID"), _text(table, "codecFingerprint"), _flag(table, "hasDefault"))


def _manifest(table: Table) -> _Manifest:
    version = _version(table, "manifestVersion")
    _version(table, "anchorFormatVersion")
    bindings, places = dict[str, Binding](), list[Place]()
    for anchor, each in _tables_by_name(table, "primitives"):
        binding = _binding(anchor, each)
        places.append(_place(each, binding.scope))
        for name in (anchor, *_aliases(each)):
            if name in bindings:
                raise _Shape(f"has the anchor `{name}` twice")
            bindings[name] = binding
    keys = list[SessionKey]()
    for name, each in _tables_by_name(table, "sessionKeys"):
        keys.append(_key(_name(name), each))
        places.append(_place(each, SESSION_KEY))
    _no_twice_persisted(bindings)
    return _Manifest(version, bindings, tuple(sorted(keys, key=lambda k: k.name)), tuple(places))


def _binding(anchor: str, table: Table) -> Binding:
    persisted, scope = _flag(table, "persisted"), _text(table, "class")
    if scope not in (*_SCOPES, "local"):
        raise _Shape(f"has the unknown class `{scope}`")
    fingerprint = _text(table, "codecFingerprint") if persisted else _text(table, "codecFingerprint", "")
    if persisted and scope not in _SCOPES:
        raise _Shape(f"persists `{anchor}`, whose class is `{scope}`")
    return Binding(
        _text(table, "stableID"), _text(table, "debugName", ""), _text(table, "kind"), scope, fingerprint, persisted
    )


def _no_twice_persisted(bindings: Mapping[str, Binding]) -> None:
    """An identity stands for one primitive: two anchors with the same one would share a value."""
    seen = dict[str, Binding]()
    for binding in bindings.values():
        if seen.setdefault(binding.stable_id, binding) is not binding:
            raise _Shape(f"gives the identity `{binding.stable_id}` to two primitives")


def _aliases(table: Table) -> list[str]:
    found = table.get("aliases") or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise _Shape("has `aliases` that are no list of texts")
    return list(dict.fromkeys(found))


def _place(table: Table, what: str) -> Place:
    source = table.get("source")
    if not isinstance(source, dict):
        raise _Shape("has an entry without `source`")
    line, column = source.get("line"), source.get("col")
    if type(line) is not int or type(column) is not int:
        raise _Shape("has a `source` without line and column")
    return Place(_text(source, "file"), line, column, what)


def _version(table: Table, name: str) -> str:
    found = _text(table, name)
    if found.split(".")[0] != KNOWN_MAJOR:
        raise _Version(f"{name} {found}")
    return found


def _text(table: Table, name: str, default: str | None = None) -> str:
    found = table.get(name, default)
    if not isinstance(found, str) or (default is None and not found):
        raise _Shape(f"has no text `{name}` where one must be")
    return _printable(found, name)


def _name(found: object) -> str:
    """The name of a session key, which the author chose freely."""
    if not isinstance(found, str) or not found or any("\ud800" <= char <= "\udfff" for char in found):
        raise _Shape("has a session key without a name")
    return found


def _shown(name: str) -> str:
    """A session key's name as reports and screens may show it."""
    return name if name.isprintable() else json.dumps(name)


def _printable(text: str, name: str) -> str:
    """The text, when every character of it can be shown: it ends up in reports and on screens."""
    if not text.isprintable():
        raise _Shape(f"has characters in `{name}` that cannot be shown")
    return text


def _flag(table: Table, name: str) -> bool:
    found = table.get(name, False)
    if not isinstance(found, bool):
        raise _Shape(f"has a `{name}` that is neither true nor false")
    return found


def _tables(table: Table, name: str) -> list[Table]:
    found = table.get(name)
    if found is None and name in table:  # the framework writes null for none
        return []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise _Shape(f"has no list `{name}`")
    return found


def _tables_by_name(table: Table, name: str) -> list[tuple[str, Table]]:
    found = table.get(name)
    if found is None and name in table:
        return []
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise _Shape(f"has no object `{name}`")
    return list(found.items())


def _no_twice(names: Sequence[str], where: str) -> None:
    if len(set(names)) < len(names):
        raise _Shape(f"names `{next(n for n in names if names.count(n) > 1)}` twice in `{where}`")


def _missing(name: str) -> Problem:
    detail = f"there is no `{name}` beside vango.json"
    hint = (
        "If the app has been deployed before, restore it from version control: its identities are random, and new ones "
        "make every session start fresh. Else run `vango state apply` and `vango gen bindings`, and commit both."
        if name == MANIFEST_FILE
        else "Run `vango state apply`: it writes the schema anew from the manifest. Commit it and deploy again."
    )
    return Problem("vango-state-missing", "The app's state files are missing", detail, hint, 422, {"file": name})


def _unreadable(name: str, why: str) -> Problem:
    hint = (
        f"Restore {name} from version control: its identities are random, and new ones make every session start fresh."
        if name == MANIFEST_FILE
        else "Run `vango state apply`: it writes the schema anew from the manifest."
    )
    title = "A state file of the app cannot be read"
    return Problem("vango-state-unreadable", title, f"{name} {why}", hint, 422, {"file": name})


def unknown_version(name: str, found: str) -> Problem:
    """The problem of a file in a format of another major version than this platform knows."""
    hint = (
        "Update Moorage, or write the file with a framework that this version knows (`vango state apply`,"
        " `vango inspect --write .vango`)."
    )
    title = "A file of the framework is in a version that this platform does not know"
    return Problem("vango-version-unknown", title, f"{name}: {found}", hint, 422, {"file": name, "found": found})


def _edited(detail: str) -> Problem:
    hint = "Run `vango state apply` (and `vango gen bindings`), commit what they write, and deploy again."
    return Problem("vango-state-edited", "The app's state files contradict each other", detail, hint, 422)
