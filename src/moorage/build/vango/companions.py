"""The companions of one artifact: written by the framework's tool where there is one, else the platform's own document
in their place, with the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moorage.build.bench import Bench, in_thread
from moorage.build.outcome import Blocked
from moorage.build.vango.framework import NoTool, Stage, ask_tool, find_tool
from moorage.build.vango.sources import Source, text_of
from moorage.build.vango.toolchain import Go
from moorage.system.files import sha256_of
from moorage.vango.acknowledgement import ACKNOWLEDGEMENT_FILE
from moorage.vango.companions import FOLDER, OWN_FILE, own_document
from moorage.vango.generated import BINDINGS_FILE, check_sources
from moorage.vango.schema import MANIFEST_FILE, SCHEMA_FILE
from moorage.vango.settings import GO_MOD, SETTINGS_FILE, Unsafe

NO_GO = "there was no Go that knows the module, to build the framework's tool with"


@dataclass(frozen=True, slots=True)
class Framework:
    """The framework that is compiled in: its version without a `v`, the folder of its source (None: not here)."""

    version: str
    folder: Path | None


@dataclass(frozen=True, slots=True)
class Companions:
    """The companions of an artifact: path within `app/` to content, who wrote them (`framework` or `moorage`), why it
    was not the framework (else empty), what its tool says of the source, unsafe settings that it names."""

    files: Mapping[str, bytes]
    by: str
    why: str = ""
    classification: str = ""
    unsafe: tuple[Unsafe, ...] = ()

    def fact(self) -> Mapping[str, object]:
        """Them as a fact of an artifact."""
        digests = {path: f"sha256:{hashlib.sha256(content).hexdigest()}" for path, content in self.files.items()}
        return {"by": self.by, "why": self.why, "digests": digests}

    def write(self, app: Path) -> None:
        """Write them into the tree."""
        for path, content in self.files.items():
            place = app / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)


async def companions_of(
    bench: Bench, go: Go | None, source: Source, framework: Framework, files: Sequence[Path], cache: Path, stage: Stage
) -> Companions:
    """The companions of a source. `go` None: there is none for this module; `files` are the app's own Go files.

    Raises Blocked for what the tool or, without it, our own reading finds stale, and for an unknown version.
    """
    if go is None:
        return await in_thread(_by_ourselves, source, framework, files, NO_GO)
    try:
        tool = await find_tool(bench, go, framework.version, framework.folder, cache, stage)
        answers = await ask_tool(bench, tool, go.analysing())
    except NoTool as absent:
        return await in_thread(_by_ourselves, source, framework, files, str(absent))
    found = {f"{FOLDER}/{path}": content for path, content in answers.companions.items()}
    return Companions(found, "framework", "", answers.classification, answers.unsafe)


def _by_ourselves(source: Source, framework: Framework, files: Sequence[Path], why: str) -> Companions:
    """Our own reading: what the tool would check in the sources, as far as we see it, and one document."""
    inside = [place for place in files if place.is_relative_to(source.folder)]
    texts = {place.relative_to(source.folder).as_posix(): text_of(place) for place in inside}
    own = {path: text for path, text in texts.items() if path.rpartition("/")[2] != BINDINGS_FILE}
    problem = check_sources(source.state, own, source.generated)
    if problem is not None:
        raise Blocked(problem)
    named = (SETTINGS_FILE, GO_MOD, MANIFEST_FILE, SCHEMA_FILE, ACKNOWLEDGEMENT_FILE, *source.generated)
    digests = {name: f"sha256:{sha256_of(source.folder / name)}" for name in named if (source.folder / name).is_file()}
    document = own_document(source.settings.module, framework.version, source.state, digests)
    return Companions({OWN_FILE: document.encode()}, "moorage", why)
