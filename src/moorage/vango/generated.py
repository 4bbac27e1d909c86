"""The generated `vango_state_bindings_gen.go` files: what they say, and whether they say what the manifest says. Pure.

Rules: stale bindings compile. A missing one ends in a page that never gets its first answer, a wrong embedded hash
turns persistence off; so each anchor, key and the hash are compared before anything is compiled. The hash covers where
in the source each page begins, so it is computed over what the files themselves say.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import TypeVar

from moorage.domain.errors import Problem
from moorage.vango.schema import MANIFEST_FILE, Binding, SessionKey, StateFiles
from moorage.vango.settings import without_comments

BINDINGS_FILE = "vango_state_bindings_gen.go"
_HASH = re.compile(r'^\s*runtime\.SetEmbeddedBindingsHash\("([0-9a-f]{16})"\)\s*$')
_SECTION = re.compile(r"^\s*runtime\.Register(SetupCallsites|Bindings|SessionKeyBindings)\(map\[string\].*\{\s*$")
_ENTRY = re.compile(r'^\s*("(?:\\.|[^"\\])*"): \{\s*$')
_FIELD = re.compile(r'^\s*(\w+):\s+(true|"(?:\\.|[^"\\])*"),\s*$')
_PLACE = re.compile(r"^\s*\{Line: (\d{1,9}), SetupIndex: (\d{1,9})\},\s*$")
_IGNORED = re.compile(
    r"^\s*(?://.*|runtime\.Register\w+\(map\[string\].*\{\}\)|package \w+|func init\(\) \{|\},?|\}\)"
    r'|import "github\.com/vango-go/vango/pkg/runtime")?\s*$'
)


_T = TypeVar("_T")
_PAGE = re.compile(r"\bSetup\b")
_PERSISTED_CALL = re.compile(r"\bsetup\.(?:SharedSignal|GlobalSignal)[\[(]|\.NewSessionKey[\[(]")
_CALLS = {
    what: re.compile(rf"\w[\w.()]*?\b(?:{names})\b")
    for what, names in {
        "session": "SharedSignal",
        "global": "GlobalSignal",
        "session-key": "NewSessionKey",
        "local": r"Signal|URLParam|Memo|Resource|ResourceKeyed|Action|Effect|OnMount|OnChange|Form|RouteForm",
    }.items()
}


@dataclass(slots=True)
class Generated:
    """What one generated file registers: the hash that it embeds, bindings by anchor, session keys, and for each
    function the lines and numbers of its pages."""

    hash: str = ""
    bindings: dict[str, dict[str, str]] = field(default_factory=dict)
    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    places: dict[str, list[tuple[int, int]]] = field(default_factory=dict)


def read_bindings(text: str) -> Generated | str:
    """What a generated file says, or the line that no generator wrote."""
    reader = _Reader()
    for number, line in enumerate(text.split("\n"), 1):
        if not reader.take(line):
            return f"line {number}"
    return reader.found


class _Reader:
    """Reads a generated file line by line; where a line belongs is said by the last header and entry above it."""

    def __init__(self) -> None:
        self.found = Generated()
        self._section = ""
        self._entry: dict[str, str] = {}
        self._places: list[tuple[int, int]] = []

    def take(self, line: str) -> bool:
        """Take the next line; says whether a generator may have written it."""
        if match := _HASH.match(line):
            self.found.hash = match.group(1)
        elif match := _SECTION.match(line):
            self._section = match.group(1)
        elif match := _ENTRY.match(line):
            self._begin(_unquoted(match.group(1)))
        elif match := _PLACE.match(line):
            self._places.append((int(match.group(1)), int(match.group(2))))
        elif match := _FIELD.match(line):
            self._entry[match.group(1)] = "true" if match.group(2) == "true" else _unquoted(match.group(2))
        else:
            return bool(_IGNORED.match(line))
        return True

    def _begin(self, name: str) -> None:
        """An entry begins: what follows belongs to it."""
        self._entry, self._places = {}, []
        if self._section == "SetupCallsites":
            self.found.places[name] = self._places
        else:
            (self.found.bindings if self._section == "Bindings" else self.found.keys)[name] = self._entry


def bindings_hash(files: Mapping[str, Generated]) -> str:
    """The hash that the framework computes at start over everything that is registered."""
    digest = hashlib.sha256()
    for anchor, each in sorted(_merged(f.bindings for f in files.values()).items()):
        parts = (each.get(name, "") for name in ("StableID", "DebugName", "Kind", "Class"))
        digest.update(f"{':'.join((anchor, *parts))}:{_flag(each, 'Persisted')}\n".encode())
    for name, each in sorted(_merged(f.keys for f in files.values()).items()):
        parts = (each.get(field_, "") for field_ in ("StableID", "CodecFingerprint"))
        digest.update(f"sessionkey:{':'.join((name, *parts))}:{_flag(each, 'HasDefault')}\n".encode())
    for function, places in sorted(_merged(f.places for f in files.values()).items()):
        for line, index in sorted(places):
            digest.update(f"setup:{function}:{line}:{index}\n".encode())
    return digest.hexdigest()[:16]


def check_bindings(state: StateFiles, files: Mapping[str, str]) -> Problem | None:
    """Whether the generated files (POSIX path to text, all of a source) are what the manifest makes of them: the
    problem (`vango-generated-stale`) names the first difference."""
    folders = {path.rpartition("/")[0] for path in files}
    for folder in sorted(state.packages - folders):
        return stale(f"`{_path(folder)}` is missing, and {MANIFEST_FILE} has state of that package")
    for folder in sorted(folders - state.packages):
        return stale(f"`{_path(folder)}` is left over: {MANIFEST_FILE} has no state of that package")
    parsed = dict[str, Generated]()
    for path, text in sorted(files.items()):
        found = read_bindings(text)
        if isinstance(found, str):
            return stale(f"`{path}`, {found}: this was not generated")
        parsed[path] = found
    return _check_anchors(state, parsed) or _check_keys(state, parsed) or _check_hash(parsed)


def _check_anchors(state: StateFiles, files: Mapping[str, Generated]) -> Problem | None:
    registered = {
        anchor: Binding(
            each.get("StableID", ""),
            each.get("DebugName", ""),
            each.get("Kind", ""),
            each.get("Class", ""),
            each.get("CodecFingerprint", ""),
            "Persisted" in each,
        )
        for anchor, each in _merged(f.bindings for f in files.values()).items()
    }
    for anchor in sorted(state.bindings.keys() | registered.keys()):
        told, bound = state.bindings.get(anchor), registered.get(anchor)
        if told is None or bound is None:
            where = f"{MANIFEST_FILE} alone" if bound is None else "the generated files alone"
            return stale(f"`{anchor}` stands in {where}")
        if told != bound:
            return stale(f"`{anchor}` is not the same in {MANIFEST_FILE} and in the generated files")
    return None


def _check_keys(state: StateFiles, files: Mapping[str, Generated]) -> Problem | None:
    registered = {
        name: SessionKey(each.get("Name", ""), each.get("StableID", ""), each.get("CodecFingerprint", ""), _has(each))
        for name, each in _merged(f.keys for f in files.values()).items()
    }
    told = {key.name: key for key in state.keys}
    for name in sorted(told.keys() | registered.keys()):
        if told.get(name) != registered.get(name):
            return stale(f"the session key `{name}` is not the same in {MANIFEST_FILE} and in the generated files")
    return None


def _check_hash(files: Mapping[str, Generated]) -> Problem | None:
    computed = bindings_hash(files)
    for path, each in sorted(files.items()):
        if each.hash != computed:
            detail = f"`{path}` embeds the hash {each.hash or 'nothing'}; what is registered has {computed}"
            return stale(f"{detail}: the framework would turn persistence off")
    return None


def check_linked(generated: Iterable[str], linked: Set[str]) -> Problem | None:
    """Whether each generated file becomes part of the program: the embedded hash covers them all."""
    for path in sorted(generated):
        if path not in linked:
            detail = f"no package that the program imports has `{path}`: the framework would turn persistence off"
            hint = "Import its package in the program, or remove its state and run `vango state apply`."
            return Problem("vango-bindings-unlinked", "State of the app is not part of the program", detail, hint, 422)
    return None


def check_sources(state: StateFiles, files: Mapping[str, str], generated: Mapping[str, str]) -> Problem | None:
    """Whether the places that the manifest and the generated files name still hold what they are said to hold: `files`
    are Go sources, `generated` the generated files (POSIX path to text). This is our own reading, for machines without
    the framework's tool: it sees a source that moved on, not everything that the tool sees."""
    lines = {path: without_comments(text).split("\n") for path, text in files.items()}
    for place in state.places:
        if not _stands(lines.get(place.file, []), place.line, place.column, _CALLS[place.what]):
            return source_moved(f"{place.file}:{place.line} has no longer what {MANIFEST_FILE} says stands there")
    known = {(place.file, place.line) for place in state.places}
    for path, content in sorted(lines.items()):
        for number, line in enumerate(content, 1):
            if _PERSISTED_CALL.search(line) and (path, number) not in known:
                return source_moved(f"{path}:{number} declares state that {MANIFEST_FILE} does not have")
    return _check_pages(lines, generated)


def _check_pages(lines: Mapping[str, list[str]], generated: Mapping[str, str]) -> Problem | None:
    """Whether each line that a generated file names begins a page in some file of its package."""
    for path, text in sorted(generated.items()):
        found = read_bindings(text)
        folder = path.rpartition("/")[0]
        own = [content for name, content in lines.items() if name.rpartition("/")[0] == folder]
        for function, places in found.places.items() if isinstance(found, Generated) else ():
            for number, _ in places:
                if not any(number <= len(content) and _PAGE.search(content[number - 1]) for content in own):
                    return source_moved(f"`{path}` says that `{function}` begins a page in line {number}")
    return None


def _stands(lines: list[str], line: int, column: int, call: re.Pattern[str]) -> bool:
    """Whether a call begins at this place; columns count bytes from 1, as Go does."""
    if not 0 < line <= len(lines) or column < 1:
        return False
    return bool(call.match(lines[line - 1].encode()[column - 1 :].decode("utf-8", "replace")))


def stale(detail: str, command: str = "vango gen bindings") -> Problem:
    """The problem of generated files that are not what the source and the manifest make of them."""
    hint = f"Run `{command}`, commit what it writes, and deploy again."
    return Problem("vango-generated-stale", "Generated files of the app are stale", detail, hint, 422)


def source_moved(detail: str) -> Problem:
    """The problem of a source that was changed after its state was written down."""
    return stale(detail, "vango state apply && vango gen bindings")


def _path(folder: str) -> str:
    return f"{folder}/{BINDINGS_FILE}" if folder else BINDINGS_FILE


def _flag(each: Mapping[str, str], name: str) -> str:
    return "true" if name in each else "false"


def _has(each: Mapping[str, str]) -> bool:
    return "HasDefault" in each


def _merged(tables: Iterable[Mapping[str, _T]]) -> dict[str, _T]:
    return {name: value for table in tables for name, value in table.items()}


def _unquoted(text: str) -> str:
    """The value of a Go text in double quotes; its escapes are all known to Python too."""
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text
