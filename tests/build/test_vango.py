"""Vango apps, compiled for real: the board's versions, the same bytes twice, and each bad source with its code."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from moorage.build.outcome import Blocked, Failed
from moorage.build.tools import run_tool
from moorage.build.vango.companions import NO_GO as NO_GO_WORDS
from moorage.domain.artifact import Depth, Manifest, artifact_digest
from moorage.system.proc import free_port
from moorage.vango.acknowledgement import (
    ACKNOWLEDGEMENT_FILE,
    Standing,
    acknowledgement_of,
    check_acknowledgement,
)
from moorage.vango.companions import FAMILIES, OWN_FILE
from moorage.vango.schema import MANIFEST_FILE, SCHEMA_FILE
from tests.build.making import Build, write_files
from tests.support.waiting import wait_until
from tests.vango.board import BOARD, changed
from tests.vango.test_example import MATERIALISE

pytestmark = pytest.mark.servers

needs_go = pytest.mark.skipif(
    shutil.which("go") is None, reason="no Go toolchain on this machine: Vango apps are not compiled here"
)
NO_GO = ":".join(p for p in ("/usr/bin", "/bin") if not Path(p, "go").exists())
BINDINGS = "app/board/vango_state_bindings_gen.go"
MAIN, BOARD_GO = "cmd/server/main.go", "app/board/board.go"
START_WITHIN_S = 30.0


class Board(Build):
    """A build of a version of the board, with files replaced (None: removed)."""

    def __init__(
        self,
        work: Path,
        files: Mapping[str, str | bytes | None] | None = None,
        *,
        version: str = "v1",
        **how: object,
    ) -> None:
        super().__init__(work, {}, **how)
        self.source = work / "source"
        MATERIALISE.materialise(version, self.source)
        self.rename("vango-board")
        write_files(self.source, {name: content for name, content in (files or {}).items() if content is not None})
        for name in (name for name, content in (files or {}).items() if content is None):
            (self.source / name).unlink()

    def edited(self, name: str, before: str, after: str) -> Board:
        """The same with a text of the source exchanged."""
        text = (self.source / name).read_text()
        assert before in text
        (self.source / name).write_text(text.replace(before, after, 1))
        return self


def without_tool(folder: Path) -> dict[str, object]:
    """A host on which the framework's tool cannot be kept, so that there is none; Go has its usual caches."""
    folder.mkdir(exist_ok=True)
    (folder / "no-folder").write_text("")
    return {"host": {"XDG_CACHE_HOME": str(folder / "no-folder"), "GOCACHE": go_says("GOCACHE")}}


def vango(manifest: Manifest) -> dict[str, object]:
    found = manifest.facts["vango"]
    assert isinstance(found, dict)
    return found


@dataclass(frozen=True)
class Built:
    """One build that several tests look at."""

    build: Board
    manifest: Manifest


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The board's first version, with the framework's tool."""
    build = Board(tmp_path_factory.mktemp("board") / "work")
    return Built(build, asyncio.run(build.run()))


@needs_go
def test_a_board_becomes_an_artifact(built: Built) -> None:
    manifest = built.manifest
    paths = {entry.path for entry in manifest.files}
    tops = {"server", "vango.json", MANIFEST_FILE, SCHEMA_FILE, "public", ".vango"}
    assert {path.split("/")[1] for path in paths} == tops
    assert "app/public/board.css" in paths
    assert (manifest.kind, manifest.depth) == ("vango", Depth.STORE_AWARE)
    assert (manifest.process.command, manifest.process.health) == ("./server", "/_vango/health/ready")
    assert {entry.label for entry in manifest.state} == {"draft", "color", "count", "message", "notes", "berths"}
    assert "/board.css" in manifest.assets
    assert manifest.facts["store"] is True
    told = vango(manifest)
    assert (told["version"], told["globals"], told["resume_cure"]) == ("0.2.4", 1, False)
    assert told["schema_hash"] == json.loads((BOARD / SCHEMA_FILE).read_bytes())["schemaHash"]
    assert not {"acknowledgement", "unsafe"} & set(told)
    (stage, said), (last, _) = built.build.stages[-2:]
    assert (stage, last) == ("building", "validating")
    assert re.fullmatch(r"compiling \./cmd/server with go1\.\d+(\.\d+)?", said)


@needs_go
def test_the_framework_s_own_tool_writes_the_companions(built: Built) -> None:
    told, app = vango(built.manifest), built.build.tree / "app"
    companions = told["companions"]
    assert isinstance(companions, dict)
    assert (companions["by"], companions["why"]) == ("framework", "")
    assert told["tool_classification"] == "neutral"
    digests = companions["digests"]
    assert set(digests) <= {f".vango/{path}" for path in FAMILIES}
    assert {".vango/host/vango_host_manifest.json", ".vango/state/vango_state_impact.json"} <= set(digests)
    for path, digest in digests.items():
        assert digest == f"sha256:{hashlib.sha256((app / path).read_bytes()).hexdigest()}"
    assert {p.relative_to(app).as_posix() for p in (app / ".vango").rglob("*.json")} == set(digests)


@needs_go
async def test_the_same_source_twice_is_the_same_artifact_wherever_it_is_built(tmp_path: Path, built: Built) -> None:
    """What lies above the source (a workspace of somebody else's) is not seen."""
    write_files(tmp_path, {"go.work": "go 1.26\n\nuse ./nowhere\n", "go.mod": "module above\n"})
    manifest = await Board(tmp_path / "some" / "where" / "else").run()
    assert artifact_digest(manifest) == artifact_digest(built.manifest)
    assert manifest == built.manifest


@needs_go
async def test_a_changed_byte_is_another_artifact(tmp_path: Path, built: Built) -> None:
    other = Board(tmp_path / "work").edited(BOARD_GO, 'Version = "v1"', 'Version = "v8"')
    assert artifact_digest(await other.run()) != artifact_digest(built.manifest)


@needs_go
async def test_the_client_script_is_the_one_that_a_page_asks_for(built: Built) -> None:
    build, manifest = built.build, built.manifest
    port = free_port()
    environ = {"PATH": os.environ["PATH"], "HOST": "127.0.0.1", "PORT": str(port), "VANGO_DEV": "1"}
    server = await asyncio.create_subprocess_exec("./server", cwd=build.tree / "app", env=environ)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

            async def ready() -> bool:
                try:
                    return (await client.get(manifest.process.health)).status_code == 200
                except httpx.TransportError:
                    return False

            await wait_until(ready, timeout_s=START_WITHIN_S)
            page = (await client.get("/")).text
            script = await client.get("/_vango/client.js")
            static = [(await client.get(path)).status_code for path in manifest.assets]
    finally:
        server.terminate()
        await server.wait()
    asked = re.search(r"/_vango/client\.js\?v=([0-9a-f]+)", page)
    assert asked is not None
    told = vango(manifest)["client_script"]
    assert told == asked.group(1) == hashlib.sha256(script.content).hexdigest()
    assert static == [200] * len(manifest.assets) != []


@needs_go
async def test_an_acknowledgement_travels_with_the_artifact(tmp_path: Path) -> None:
    manifest = await Board(tmp_path, version="v3").run()
    assert f"app/{ACKNOWLEDGEMENT_FILE}" in {entry.path for entry in manifest.files}
    told = vango(manifest)
    before = json.loads((BOARD / "variants" / "v2" / SCHEMA_FILE).read_bytes())["schemaHash"]
    found = acknowledgement_of(told["acknowledgement"])
    assert check_acknowledgement(found, before, str(told["schema_hash"])).standing is Standing.VALID
    assert check_acknowledgement(found, str(told["schema_hash"]), before).standing is Standing.OTHER_PAIR


@needs_go
async def test_a_broken_acknowledgement_blocks_nothing_and_is_said(tmp_path: Path) -> None:
    manifest = await Board(tmp_path, {ACKNOWLEDGEMENT_FILE: "{"}).run()
    found = acknowledgement_of(vango(manifest)["acknowledgement"])
    assert check_acknowledgement(found, "a", "b").standing is Standing.UNREADABLE


@needs_go
async def test_without_the_tool_our_own_reading_stands_in_and_says_why(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        build = Board(tmp_path / name, **without_tool(tmp_path))
        manifest = await build.run()
        found.append(artifact_digest(manifest))
    assert len(set(found)) == 1
    told = vango(manifest)
    companions = told["companions"]
    assert isinstance(companions, dict)
    assert companions["by"] == "moorage"
    assert "could not be kept" in companions["why"]
    assert list(companions["digests"]) == [OWN_FILE]
    assert "tool_classification" not in told
    document = json.loads((build.tree / "app" / OWN_FILE).read_text())
    for path, digest in document["files"].items():
        assert digest == f"sha256:{hashlib.sha256((build.source / path).read_bytes()).hexdigest()}"
    assert {MANIFEST_FILE, SCHEMA_FILE, "vango.json", "go.mod", BINDINGS} == set(document["files"])


def go_says(variable: str) -> str:
    return subprocess.run(["go", "env", variable], capture_output=True, text=True, check=True).stdout.strip()


@needs_go
async def test_the_tool_is_compiled_once_and_kept(tmp_path: Path, built: Built) -> None:
    host = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "GOCACHE": go_says("GOCACHE")}
    first, second = Board(tmp_path / "one", host=host), Board(tmp_path / "two", host=host)
    assert (await first.run(), await second.run()) == (built.manifest, built.manifest)
    compiling = ("building", "compiling the framework's own tool, once for Vango 0.2.4")
    assert (compiling in first.stages, compiling in second.stages) == (True, False)
    assert [p.name for p in (tmp_path / "cache/moorage").rglob("*") if p.is_file()] == ["vango"]


STALE = '{"status": "stale", "families": [{"name": "routes", "status": "stale", "repair_command": "vango gen routes"}]}'
CURRENT = '{"status": "current", "families": []}'
HOST_FILE = ".vango/host/vango_host_manifest.json"
WRITES = f"mkdir -p .vango/host && echo '%s' > {HOST_FILE}"
VALID = "echo '{\"valid\": true}'"
UNSAFE = '{"schema_version": "vango.host.v1.0", "unsafe_config": {"entries": [{"code": "x", "severity": "critical"}]}}'
ELSEWHERE = '{"schema_version": "vango.host.v1.0", "inputs": [{"path": "vango.json", "digest": "sha256:0"}]}'
TOOLS = {
    "crashes": ({"*": "echo broken >&2; exit 3"}, "`vango generated verify` gave no answer: broken"),
    "finds stale files": ({"generated": f"echo '{STALE}'; exit 1"}, "vango-generated-stale"),
    "writes nothing": ({"generated": f"echo '{CURRENT}'", "inspect": "exit 1"}, "`vango inspect` failed"),
    "does not accept its own": (
        {"generated": f"echo '{CURRENT}'", "inspect": "true", "host": "echo '{\"valid\": false}'; exit 1"},
        "does not accept",
    ),
    "is from the future": (
        {"generated": f"echo '{CURRENT}'", "inspect": WRITES % '{"schema_version": "vango.host.v2.0"}'},
        "vango-version-unknown",
    ),
    "names an unsafe setting": (
        {"generated": f"echo '{CURRENT}'", "inspect": WRITES % UNSAFE},
        "vango-unsafe-settings",
    ),
    "speaks of other files": (
        {"generated": f"echo '{CURRENT}'", "inspect": WRITES % ELSEWHERE},
        f"its {HOST_FILE} speaks of another vango.json",
    ),
}


@needs_go
@pytest.mark.parametrize("what", TOOLS)
async def test_a_tool_that(tmp_path: Path, what: str) -> None:
    """A stand-in for the tool: what it finds wrong with the app blocks, what is wrong with itself does not."""
    answers, expected = TOOLS[what]
    cases = "".join(
        f"{word}) {script} ;;\n" for word, script in {"host": "echo '{\"valid\": true}'", **answers}.items()
    )
    name = f"moorage/vango-0.2.4-{go_says('GOVERSION')}/vango"
    write_files(tmp_path, {name: f'#!/bin/sh\ncase "$1" in\n{cases}esac\n'})
    (tmp_path / name).chmod(0o755)
    build = Board(tmp_path / "work", host={"XDG_CACHE_HOME": str(tmp_path), "GOCACHE": go_says("GOCACHE")})
    if expected.startswith("vango-"):
        assert (await build.problem()).code == expected
        return
    companions = vango(await build.run())["companions"]
    assert isinstance(companions, dict)
    assert companions["by"] == "moorage"
    assert expected in companions["why"]


@needs_go
async def test_a_vendored_source_needs_no_network(tmp_path: Path) -> None:
    build = Board(tmp_path / "vendoring")
    done = await run_tool(("go", "mod", "vendor"), folder=build.source, environ=os.environ, timeout_s=120.0)
    assert done.succeeded, done.lines
    offline = Board(tmp_path / "offline", host={"GOPROXY": "off", "GOFLAGS": "-mod=vendor"})
    shutil.copytree(build.source / "vendor", offline.source / "vendor")
    manifest = await offline.run()
    told = vango(manifest)
    script = build.source / "vendor/github.com/vango-go/vango/client/dist/vango.min.js"
    assert told["client_script"] == hashlib.sha256(script.read_bytes()).hexdigest()
    companions = told["companions"]
    assert isinstance(companions, dict)
    assert companions["by"] == "moorage"


APPFILE = 'name = "vango-board"\n'
OWN_COMMAND = (
    f"{APPFILE}[build]\ncommand = \"mkdir dist && printf '#!/bin/sh\\n' > dist/server && chmod 755 dist/server\"\n"
    'output = "dist"\n[vango]\nresume_cure = true\n'
)


async def test_a_build_command_replaces_go(tmp_path: Path) -> None:
    """No Go is needed then; what was checked is laid beside what the command left."""
    build = Board(tmp_path, {"moorage.toml": OWN_COMMAND}, host={"PATH": NO_GO})
    manifest = await build.run()
    paths = {entry.path for entry in manifest.files}
    assert {"app/server", "app/public/board.css", f"app/{SCHEMA_FILE}", f"app/{OWN_FILE}"} <= paths
    assert not {p for p in paths if p.startswith("app/dist")}
    told = vango(manifest)
    assert (told["version"], told["client_script"], told["resume_cure"]) == ("0.2.4", "", True)
    companions = told["companions"]
    assert isinstance(companions, dict)
    assert (companions["by"], companions["why"]) == ("moorage", NO_GO_WORDS)


@needs_go
async def test_beside_a_build_command_go_still_looks(tmp_path: Path, built: Built) -> None:
    """The script's hash is known and the framework's tool is asked, though Go does not compile the program."""
    manifest = await Board(tmp_path, {"moorage.toml": OWN_COMMAND}).run()
    told = vango(manifest)
    assert told["client_script"] == vango(built.manifest)["client_script"]
    assert (told["tool_classification"], "go" in manifest.facts) == ("neutral", False)
    assert next(e.size for e in manifest.files if e.path == "app/server") < 100


async def test_a_build_command_must_leave_the_program(tmp_path: Path) -> None:
    text = OWN_COMMAND.replace("dist/server", "dist/other")
    problem = await Board(tmp_path, {"moorage.toml": text}, host={"PATH": NO_GO}).problem()
    assert (problem.code, problem.facts["word"]) == ("command-not-found", "./server")


async def test_no_go_and_no_build_command(tmp_path: Path) -> None:
    ended = await Board(tmp_path, host={"PATH": NO_GO}).ending()
    assert isinstance(ended, Failed)
    assert ended.problem.code == "go-missing"
    assert "moorage artifact import" in ended.problem.hint


@needs_go
async def test_a_module_that_asks_for_a_newer_go(tmp_path: Path) -> None:
    build = Board(tmp_path)
    text = re.sub(r"(?m)^go [\d.]+$", "go 1.99", (build.source / "go.mod").read_text())
    (build.source / "go.mod").write_text(text)
    problem = await build.problem()
    assert (problem.code, problem.facts["wanted"]) == ("go-version-unsupported", "1.99")
    assert str(problem.facts["found"]) in problem.detail


STATE = json.loads((BOARD / SCHEMA_FILE).read_bytes())
BAD_FILES: dict[str, tuple[dict[str, str | bytes | None], str]] = {
    "no schema": ({SCHEMA_FILE: None}, "vango-state-missing"),
    "no manifest": ({MANIFEST_FILE: None}, "vango-state-missing"),
    "a truncated schema": ({SCHEMA_FILE: (BOARD / SCHEMA_FILE).read_bytes()[:200]}, "vango-state-unreadable"),
    "a schema edited by hand": (
        {SCHEMA_FILE: changed((BOARD / SCHEMA_FILE).read_bytes(), lambda t: t["persistedPrimitives"].pop())},
        "vango-state-edited",
    ),
    "the schema of another version": (
        {SCHEMA_FILE: (BOARD / "variants" / "v2" / SCHEMA_FILE).read_bytes()},
        "vango-state-edited",
    ),
    "a schema from the future": (
        {SCHEMA_FILE: changed((BOARD / SCHEMA_FILE).read_bytes(), lambda t: t.update(schemaVersion="2.0"))},
        "vango-version-unknown",
    ),
    "no bindings": ({BINDINGS: None}, "vango-generated-stale"),
    "bindings of another version": (
        {BINDINGS: (BOARD / "variants" / "v2" / f"{BINDINGS}.txt").read_bytes()},
        "vango-generated-stale",
    ),
    "a companion from the future": (
        {".vango/host/vango_host_manifest.json": '{"schema_version": "vango.host.v2.0"}'},
        "vango-version-unknown",
    ),
    "a truncated companion": ({".vango/state/vango_state_impact.json": "{"}, "vango-companion-invalid"),
    "settings that are no JSON": ({"vango.json": "{"}, "vango-settings-invalid"),
    "settings of another module": ({"vango.json": '{"module": "example.com/other"}'}, "vango-settings-invalid"),
    "no framework": ({"go.mod": "module example.com/moorage/vango-board\n\ngo 1.22\n"}, "vango-framework-missing"),
}


@pytest.mark.parametrize("what", BAD_FILES)
async def test_bad_files_are_found_before_go_is_asked(tmp_path: Path, what: str) -> None:
    files, code = BAD_FILES[what]
    ended = await Board(tmp_path, files, host={"PATH": NO_GO}).ending()
    assert isinstance(ended, Blocked)
    assert ended.problem.code == code
    assert ended.problem.hint


BAD_SOURCES = {
    "does not compile": (MAIN, "func main() {", "func main() {\n\tundefined()", "go-build-failed"),
    "development mode": (
        MAIN,
        "func main() {",
        "type mode struct{ DevMode bool }\n\nvar _ = mode{DevMode: true}\n\nfunc main() {",
        "vango-unsafe-settings",
    ),
    "state that was not applied": (
        BOARD_GO,
        "scratch := setup.Signal(&s, 0)",
        "scratch := setup.SharedSignal(&s, 0)",
        "vango-generated-stale",
    ),
    "a line more above the state": (BOARD_GO, "\nimport (", "\n// more\n\nimport (", "vango-generated-stale"),
}


@needs_go
@pytest.mark.parametrize("what", BAD_SOURCES)
@pytest.mark.parametrize("tool", [True, False])
async def test_bad_sources(tmp_path: Path, what: str, tool: bool) -> None:
    """With the framework's tool and without, a bad source has the same code."""
    file, before, after, code = BAD_SOURCES[what]
    how = {} if tool else without_tool(tmp_path)
    ended = await Board(tmp_path / "work", **how).edited(file, before, after).ending()
    assert isinstance(ended, Blocked)
    assert ended.problem.code == code, ended.problem
    if code == "go-build-failed":
        assert "undefined" in ended.problem.detail
    if code == "vango-unsafe-settings":
        assert MAIN in ended.problem.detail


@needs_go
async def test_only_the_tool_sees_stale_routes(tmp_path: Path) -> None:
    routes = "app/routes/routes_gen.go"
    ended = await Board(tmp_path / "with").edited(routes, "func Register", "// by hand\nfunc Register").ending()
    assert ended.problem.code == "vango-generated-stale"
    assert "vango gen routes" in ended.problem.hint
    build = Board(tmp_path / "without", **without_tool(tmp_path))
    manifest = await build.edited(routes, "func Register", "// by hand\nfunc Register").run()
    companions = vango(manifest)["companions"]
    assert isinstance(companions, dict)
    assert companions["by"] == "moorage"


@needs_go
async def test_a_program_that_leaves_out_the_state(tmp_path: Path) -> None:
    """The framework would compare one hash over all bindings and turn persistence off, in its log alone."""
    plain = 'package main\n\nimport _ "github.com/vango-go/vango"\n\nfunc main() {}\n'
    problem = await Board(
        tmp_path, {"cmd/spare/main.go": plain, "moorage.toml": f'{APPFILE}[vango]\nmain = "cmd/spare"\n'}
    ).problem()
    assert problem.code == "vango-bindings-unlinked"
    assert BINDINGS in problem.detail


@needs_go
@pytest.mark.parametrize("main", ["./cmd/nowhere", "app/board", "."])
async def test_a_main_package_that_is_none(tmp_path: Path, main: str) -> None:
    text = f'{APPFILE}[vango]\nmain = "{main}"\n'
    problem = await Board(tmp_path, {"moorage.toml": text}).problem()
    assert problem.code in (("go-build-failed",) if main == "." else ("go-main-missing",))


@needs_go
async def test_a_milder_unsafe_setting_is_a_fact(tmp_path: Path) -> None:
    build = Board(tmp_path).edited(MAIN, "func main() {", "var AuthResumePolicyTrustSessionID = 1\n\nfunc main() {")
    told = vango(await build.run())
    assert told["unsafe"] == [
        {"code": "trust_session_id", "severity": "high", "where": f"{MAIN}:{_line(build.source / MAIN)}"}
    ]


def _line(place: Path) -> int:
    lines = place.read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if "TrustSessionID" in line)
