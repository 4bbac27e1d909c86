"""One Vango app, step by step: check the source, compile it, lay out the tree, say what it is.

The tree: `app/` is the working folder of the process and holds `server`, the static files under their own name,
`vango.json`, both state files, the acknowledgement file if there is one, and the companions below `.vango/`.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

from moorage.build.bench import Bench, in_thread
from moorage.build.outcome import Blocked, Failed
from moorage.build.plan import APP
from moorage.build.tree import copy_tree
from moorage.build.validate import Made, Served, State
from moorage.build.vango.companions import Companions, Framework, companions_of
from moorage.build.vango.framework import Stage, check_committed
from moorage.build.vango.sources import Source, go_files, read_source, text_of
from moorage.build.vango.toolchain import Go, find_go, go_environ, go_missing
from moorage.domain.appfile import AppFile
from moorage.domain.artifact import Depth
from moorage.domain.errors import Problem
from moorage.system.files import sha256_of
from moorage.vango.acknowledgement import ACKNOWLEDGEMENT_FILE, acknowledgement_fact
from moorage.vango.companions import FOLDER
from moorage.vango.generated import check_linked
from moorage.vango.schema import MANIFEST_FILE, SCHEMA_FILE
from moorage.vango.settings import FRAMEWORK, SETTINGS_FILE, Unsafe, check_unsafe, unsafe_fact, unsafe_in_source

MAIN, MAIN_AT_TOP = "./cmd/server", "."
CLIENT_SCRIPT = "client/dist/vango.min.js"  # what the framework embeds and serves as client.js
UNSAFE_NAMED_MAX_COUNT = 20
_LISTED = '{{if .Module}}{{if .Module.Main}}{{.Name}}\t{{.Dir}}\t{{join .GoFiles "\t"}}{{end}}{{end}}'


class VangoBuild:
    """The part of a build that is special to Vango apps."""

    def __init__(self, bench: Bench, cache: Path) -> None:
        """`cache` is a folder that outlives builds."""
        self._bench, self._cache = bench, cache
        self._app = bench.tree / APP

    async def run(self, appfile: AppFile, content: Path, stage: Stage) -> Made:
        """Fill `tree/` and say what it is; `content` is the output of the app's own build command, if it has one.

        Raises Blocked, Failed and OSError.
        """
        source = await in_thread(read_source, self._bench.source)
        _raise(check_unsafe(source.settings.unsafe))
        await in_thread(check_committed, source.folder)
        facts: dict[str, object] = {"native": f"{platform.system().lower()}-{platform.machine()}"}
        compiles = not appfile.build.command
        if not compiles:
            go = await self._toolchain_for_looking(source)
            files = await in_thread(lambda: tuple(go_files(source.folder)))
        else:
            go = await self._toolchain(source)
            facts["go"] = go.version
            package = _main_package(appfile, source.folder)
            await stage("building", f"resolving the modules of {package} with {go.version}")
            files = await self._linked(go, source, package)
            _raise(check_linked(source.generated, {_path_in(source, place) for place in files}))
        unsafe = await in_thread(_find_unsafe, source, files)
        _raise(check_unsafe(unsafe))
        framework = await self._framework(go, source)
        await stage("building", f"reading what the app says to hosts (Vango {framework.version})")
        companions = await companions_of(self._bench, go, source, framework, files, self._cache, stage)
        _raise(check_unsafe(companions.unsafe))
        await in_thread(self._copy, source, None if compiles else content, companions)
        if compiles and go is not None:
            await stage("building", f"compiling {package} with {go.version}")
            settings = source.settings
            await go.build(package, self._app / "server", tags=settings.tags, ldflags=settings.ldflags)
        facts["vango"] = await in_thread(_vango_facts, source, framework, appfile, companions, unsafe)
        state = State(source.state.entries, SCHEMA_FILE, source.state.hash)
        served = Served(f"{APP}/{source.settings.static_dir}", source.settings.static_prefix)
        return Made(Depth.STORE_AWARE, state, served, facts)

    async def _toolchain(self, source: Source) -> Go:
        """The machine's Go, fit for this module. Raises Failed (`go-missing`) and Blocked."""
        program = find_go(self._bench.environ)
        if program is None:
            raise Failed(go_missing())
        go = Go(program, self._bench, go_environ(self._bench.environ, source.folder, self._cache))
        await go.check(source.go_mod.go)
        return go

    async def _toolchain_for_looking(self, source: Source) -> Go | None:
        """A Go that knows this module, for an app that makes its program by itself: without one, less is known."""
        try:
            go = await self._toolchain(source)
            await go.lines("list", "-m", FRAMEWORK)
        except (Blocked, Failed):
            return None
        return go

    async def _linked(self, go: Go, source: Source, package: str) -> tuple[Path, ...]:
        """The app's own Go files that become part of the program."""
        tags = [f"-tags={','.join(source.settings.tags)}"] if source.settings.tags else []
        listed = [line.split("\t") for line in await go.lines("list", "-deps", *tags, "-f", _LISTED, package)]
        named = [each for each in listed if len(each) >= 2]
        if not named or named[-1][0] != "main":
            raise Blocked(_no_main(package, f"`{package}` is no `package main`"))
        return tuple(Path(folder, file) for _, folder, *files in named for file in files if file)

    async def _framework(self, go: Go | None, source: Source) -> Framework:
        """The framework's version and source: as Go resolves it, else as go.mod and a `vendor` folder say."""
        version, vendored = source.go_mod.framework, source.folder / "vendor" / FRAMEWORK
        folder = vendored if vendored.is_dir() else None
        if go is not None:
            told = json.loads("\n".join(await go.lines("list", "-m", "-json", FRAMEWORK)))
            used = told.get("Replace") or told
            version = str(used.get("Version") or told.get("Version") or version)
            folder = Path(used["Dir"]) if used.get("Dir") else folder
        return Framework(version.removeprefix("v"), folder)

    def _copy(self, source: Source, output: Path | None, companions: Companions) -> None:
        """Lay out the tree around the program: the output of a build command first, then what was checked."""
        self._app.mkdir(parents=True)
        if output is not None:
            copy_tree(output, self._app)
        for name in (SETTINGS_FILE, MANIFEST_FILE, SCHEMA_FILE, ACKNOWLEDGEMENT_FILE):
            if (source.folder / name).is_file():
                shutil.copyfile(source.folder / name, self._app / name)
        shutil.rmtree(self._app / FOLDER, ignore_errors=True)
        companions.write(self._app)
        static = source.settings.static_dir
        if (source.folder / static).is_dir() and not (self._app / static).exists():
            copy_tree(source.folder / static, self._app / static)


def _main_package(appfile: AppFile, folder: Path) -> str:
    """The Go package that is the program, as `go build` takes it. Raises Blocked when its folder is missing."""
    said = appfile.vango.main if appfile.vango else ""
    if not said:
        return MAIN if (folder / MAIN).is_dir() else MAIN_AT_TOP
    parts = [part for part in said.split("/") if part not in ("", ".")]
    package = "/".join([".", *parts]) if parts else MAIN_AT_TOP
    if not (folder / package).is_dir():
        raise Blocked(_no_main(package, f"there is no folder `{package}`"))
    return package


def _no_main(package: str, why: str) -> Problem:
    hint = 'Set `[vango] main = "./cmd/server"` in moorage.toml to the folder of the Go package with `func main`.'
    return Problem("go-main-missing", "The program's Go package cannot be found", why, hint, 422, {"package": package})


def _find_unsafe(source: Source, files: Sequence[Path]) -> tuple[Unsafe, ...]:
    """Unsafe settings in vango.json and in the Go files of the app."""
    found = list(source.settings.unsafe)
    for place in files:
        found += unsafe_in_source(_path_in(source, place), text_of(place))
    return tuple(found)


def _path_in(source: Source, place: Path) -> str:
    """The path of a file within the source; its name when Go found it elsewhere."""
    inside = place.is_relative_to(source.folder)
    return place.relative_to(source.folder).as_posix() if inside else place.name


def _raise(problem: Problem | None) -> None:
    if problem is not None:
        raise Blocked(problem)


def _vango_facts(
    source: Source, framework: Framework, appfile: AppFile, companions: Companions, unsafe: Sequence[Unsafe]
) -> dict[str, object]:
    """What later decisions need to know of the framework in this artifact."""
    acknowledged = source.acknowledgement
    named = [unsafe_fact(each) for each in (*unsafe, *companions.unsafe)][:UNSAFE_NAMED_MAX_COUNT]
    return {
        "version": framework.version,
        "schema_hash": source.state.hash,
        "client_script": _client_script(framework),
        "globals": source.state.globals_count,
        "companions": companions.fact(),
        "resume_cure": appfile.vango is not None and appfile.vango.resume_cure,
        **({"acknowledgement": acknowledgement_fact(acknowledged)} if acknowledged is not None else {}),
        **({"tool_classification": companions.classification} if companions.classification else {}),
        **({"unsafe": named} if named else {}),
    }


def _client_script(framework: Framework) -> str:
    """The hash that a page asks for as `client.js?v=`; empty when the framework's source is not here."""
    place = framework.folder / CLIENT_SCRIPT if framework.folder else None
    return sha256_of(place) if place is not None and place.is_file() else ""
