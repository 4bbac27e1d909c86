"""The Vango board: every version builds and serves, and its state files say what the board's README promises."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from moorage.system.proc import free_port
from tests.support.waiting import wait_until

BOARD = Path(__file__).resolve().parents[2] / "examples" / "vango-board"
VERSIONS = ("v1", "v2", "v3")
LIVE, READY = "/_vango/health/live", "/_vango/health/ready"
PRESSED = ("note-text", "note-add", "color-yellow", "color-coral", "color-mint", "color-sky", "draft", "inc")
IDS = (*PRESSED, "scratch-inc", "color", "draft-echo", "count", "scratch", "notes", "version", "allocation", "story")
MOOD = ("mood", "mood-calm", "mood-busy", "mood-stormy")
BUILD_WITHIN_S = 600
ABSENT = "127.0.0.1:9"  # the discard port: nobody answers

needs_go = pytest.mark.skipif(
    shutil.which("go") is None, reason="no Go toolchain on this machine: see go.dev/doc/install"
)


def _materialiser() -> ModuleType:
    """materialise.py of the board, whose folder has a name that Python cannot import."""
    spec = importlib.util.spec_from_file_location("vango_board_materialise", BOARD / "materialise.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MATERIALISE = _materialiser()


@dataclass(frozen=True)
class App:
    """One version as a folder of its own."""

    folder: Path

    def table(self, name: str) -> dict[str, Any]:
        """A JSON file of it."""
        found: dict[str, Any] = json.loads((self.folder / name).read_text())
        return found

    @property
    def schema(self) -> dict[str, Any]:
        """What it persists."""
        return self.table("vango_state_schema.json")

    @property
    def types(self) -> Mapping[str, tuple[str, str, str]]:
        """Scope, kind and type of each persisted primitive, by its stable id."""
        entries = self.schema["persistedPrimitives"]
        return {each["stableID"]: (each["scope"], each["kind"], each["codecFingerprint"]) for each in entries}

    @property
    def names(self) -> Mapping[str, str]:
        """The name of each primitive in the source, by its stable id."""
        entries = self.table("vango_state_manifest.json")["primitives"].values()
        return {each["stableID"]: each["debugName"] for each in entries if "debugName" in each}


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, App]:
    """Every version."""
    folder = tmp_path_factory.mktemp("vango-board")
    return {version: App(MATERIALISE.materialise(version, folder / version)) for version in VERSIONS}


def test_there_are_three_versions() -> None:
    assert MATERIALISE.versions() == VERSIONS


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no version 'v9'"):
        MATERIALISE.materialise("v9", tmp_path / "v9")
    assert not (tmp_path / "v9").exists()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_is_a_complete_app(apps: Mapping[str, App], version: str) -> None:
    folder = apps[version].folder
    for name in ("go.mod", "go.sum", "vango.json", "moorage.toml", "public/board.css"):
        assert (folder / name).is_file(), name
    assert [path.parent.name for path in folder.rglob("vango_state_bindings_gen.go")] == ["board"]
    assert not list(folder.rglob("*.txt"))
    assert not (folder / "variants").exists()
    assert f'const Version = "{version}"' in (folder / "app/board/board.go").read_text()
    assert "github.com/vango-go/vango v0.2.4\n" in (folder / "go.mod").read_text()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schema_hash_is_of_what_the_file_declares(apps: Mapping[str, App], version: str) -> None:
    schema = apps[version].schema
    words = [schema["schemaVersion"]]
    for each in sorted(schema["persistedPrimitives"], key=lambda entry: entry["stableID"]):
        words += [each["stableID"], each["codecFingerprint"], each["scope"], each["kind"]]
    for each in sorted(schema["sessionKeys"], key=lambda entry: entry["name"]):
        words += [each["name"], each["stableID"], each["codecFingerprint"]]
    told = "".join(f"{word}\0" for word in words)
    assert schema["schemaHash"] == "sha256:" + hashlib.sha256(told.encode()).hexdigest()


@pytest.mark.parametrize("version", VERSIONS)
def test_manifest_and_bindings_belong_to_the_schema(apps: Mapping[str, App], version: str) -> None:
    app = apps[version]
    entries = app.table("vango_state_manifest.json")["primitives"].values()
    persisted = {each["stableID"]: each["codecFingerprint"] for each in entries if each.get("persisted")}
    assert persisted == {identity: type_ for identity, (_scope, _kind, type_) in app.types.items()}
    bindings = (app.folder / "app/board/vango_state_bindings_gen.go").read_text()
    bound = dict(re.findall(r'StableID:\s+"(\w+)",\n.*\n\s+CodecFingerprint: "(\S+)"', bindings))
    assert persisted.items() <= bound.items()


def test_version_1_persists_what_its_readme_says(apps: Mapping[str, App]) -> None:
    app = apps["v1"]
    scopes = {app.names[identity]: scope for identity, (scope, _kind, _type) in app.types.items()}
    session = dict.fromkeys(("draft", "color", "count", "message"), "session")
    assert scopes == {**session, "notes": "global"}
    assert [key["name"] for key in app.schema["sessionKeys"]] == ["berths"]
    assert "scratch" in app.names.values()


def test_version_2_only_adds(apps: Mapping[str, App]) -> None:
    before, after = apps["v1"], apps["v2"]
    assert before.types.items() < after.types.items()
    (added,) = after.types.keys() - before.types.keys()
    assert after.names[added] == "mood"
    assert after.types[added][0] == "session"
    assert before.schema["sessionKeys"] == after.schema["sessionKeys"]


def test_version_3_retypes_the_counter_of_version_2(apps: Mapping[str, App]) -> None:
    before, after = apps["v2"], apps["v3"]
    assert before.types.keys() == after.types.keys()
    (changed,) = [each for each in after.types if before.types[each] != after.types[each]]
    assert (before.names[changed], after.names[changed]) == ("count", "count")
    assert before.types[changed][:2] == after.types[changed][:2]
    assert before.schema["sessionKeys"] == after.schema["sessionKeys"]


def test_version_3_acknowledges_the_step_from_version_2(apps: Mapping[str, App]) -> None:
    before, after = apps["v2"], apps["v3"]
    told = after.table("vango_cold_deploy_ack.json")
    assert told["schemaHashBefore"] == before.schema["schemaHash"]
    assert told["schemaHashAfter"] == after.schema["schemaHash"]
    (change,) = told["details"]["changedFingerprints"]
    assert before.types[change["stableID"]][2] == change["from"]
    assert after.types[change["stableID"]][2] == change["to"]
    for version in ("v1", "v2"):
        assert not (apps[version].folder / "vango_cold_deploy_ack.json").exists()


# ---- built and run -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers(apps: Mapping[str, App]) -> Mapping[str, App]:
    """Every version, its server built."""
    for app in apps.values():
        command = ["go", "build", "-trimpath", "-o", "server", "./cmd/server"]
        done = subprocess.run(command, cwd=app.folder, capture_output=True, text=True, timeout=BUILD_WITHIN_S)
        assert done.returncode == 0, done.stderr
    return apps


@asynccontextmanager
async def running(app: App, **variables: str) -> AsyncIterator[httpx.AsyncClient]:
    """The server of a version, ready, with these variables; it must end by itself when it is told to."""
    port = free_port()
    told = {"PATH": os.environ["PATH"], "PORT": str(port), "HOST": "127.0.0.1", **variables}
    process = await asyncio.create_subprocess_exec(
        app.folder / "server", cwd=app.folder, env=told, stderr=-3, stdout=-3
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            await wait_until(lambda: _answers(client), what="the board is ready")
            yield client
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get(READY)).status_code == 200
    except httpx.TransportError:
        return False


def element(page: str, identity: str) -> tuple[str, str]:
    """The number and the text of the element with this id."""
    found = re.search(rf'<[^>]* id="{identity}"[^>]* data-hid="(h\d+)">([^<]*)', page)
    assert found is not None, identity
    return found[1], found[2]


@needs_go
@pytest.mark.servers
@pytest.mark.timeout(BUILD_WITHIN_S)
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_version_serves_its_pages(servers: Mapping[str, App], version: str) -> None:
    async with running(servers[version], MOORAGE_ALLOCATION_NUMBER="7") as client:
        page = (await client.get("/")).text
        told = {name: element(page, name)[1] for name in (*IDS, *(MOOD if version != "v1" else ()))}
        assert (told["version"], told["allocation"], told["story"]) == (version, "7", "connecting")
        assert (told["count"], told["scratch"], told["draft-echo"], told["color"]) == ("0", "0", "", "yellow")
        assert ('id="mood"' in page) == (version != "v1")
        about = await client.get("/about")
        assert about.status_code == 200
        assert element(about.text, "about")
        for path in ("/board.css", "/cursor.js", "/icon.svg", LIVE):
            assert (await client.get(path)).status_code == 200, path


@needs_go
@pytest.mark.servers
@pytest.mark.timeout(BUILD_WITHIN_S)
async def test_what_can_be_pressed_has_one_number_in_all_versions(servers: Mapping[str, App]) -> None:
    numbers = []
    for app in servers.values():
        async with running(app) as client:
            page = (await client.get("/")).text
            numbers.append([element(page, name)[0] for name in (*PRESSED, "scratch-inc")])
    assert numbers[0] == numbers[1] == numbers[2]


@needs_go
@pytest.mark.servers
@pytest.mark.timeout(BUILD_WITHIN_S)
async def test_the_frameworks_variables_reach_it(servers: Mapping[str, App]) -> None:
    """Sealed, with a store that is not there: nobody notices, the cookie is plain, another host is refused."""
    store = f"redis://{ABSENT}/0"
    secrets = {"VANGO_PERSISTENCE_SECRET": "5a" * 32, "VANGO_CSRF_SECRET": "5a" * 32}
    urls = {
        "VANGO_SESSION_STORE_URL": store,
        "VANGO_PUBSUB_URL": store,
        "VANGO_PUBLIC_URL": "http://board.localhost:7000",
    }
    async with running(servers["v1"], VANGO_ENV="production", VANGO_PLATFORM_SEALED="1", **secrets, **urls) as client:
        answer = await client.get("/", headers={"host": "board.localhost:7000"})
        assert answer.status_code == 200
        assert "secure" not in answer.headers["set-cookie"].lower()
        assert (await client.get("/", headers={"host": "elsewhere.localhost"})).status_code == 421
        assert (await client.get(READY)).status_code == 200


@needs_go
@pytest.mark.servers
@pytest.mark.timeout(BUILD_WITHIN_S)
@pytest.mark.parametrize("window", ["2", "soon", "-1m", "0s"])
def test_a_resume_window_of_no_use_is_refused(servers: Mapping[str, App], window: str) -> None:
    told = {"PATH": os.environ["PATH"], "RESUME_WINDOW": window, "PORT": str(free_port())}
    server = servers["v1"].folder / "server"
    done = subprocess.run([server], cwd=server.parent, env=told, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "RESUME_WINDOW must be a duration" in done.stderr
