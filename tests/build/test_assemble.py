"""Builds for real: pip, build commands, sites; the same source is the same artifact, and each bad one has its code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from moorage.artifacts.store import ArtifactStore
from moorage.artifacts.tree import hash_tree
from moorage.build.outcome import Blocked, Failed, disk_failure
from moorage.build.tools import run_tool
from moorage.build.validate import parse_schema
from moorage.domain.artifact import Depth, Migration, StateEntry, artifact_digest
from moorage.system.clock import monotonic_s
from tests.build.making import PLAIN, Build

pytestmark = pytest.mark.servers

APP = "import tiny\nprint(tiny.NAME)\n"
TINY = {
    "vendor/tiny/pyproject.toml": (
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "tiny"\nversion = "1.2"\n[project.scripts]\ntiny = "tiny:main"\n'
    ),
    "vendor/tiny/tiny/__init__.py": "NAME = 'tiny'\n\ndef main():\n    print(NAME)\n",
    "vendor/tiny/tiny/__main__.py": "from tiny import main\nmain()\n",
}
# the local package is built with the tools that are installed here (0 is how pip spells it): nothing is fetched
OFFLINE = {"host": {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}}
PYTHON = {"moorage.toml": PLAIN, "app.py": APP, "requirements.txt": "./vendor/tiny\n", **TINY}
SDK_APP = {
    "moorage.toml": 'name = "demo"\n[process]\ncommand = "python -m demo demo:app"\n',
    "requirements.txt": "moorage-app\n",
    "demo.py": (
        "from moorage_app import Live, SessionState, SharedState\n"
        "class Draft(SessionState, id='demo:draft:v1'):\n    text: str = ''\n    size: int = 12\n"
        "class Notes(SharedState, id='demo:notes:v1'):\n    items: list[str] = []\n"
        "print('imported')\napp = Live()\n"
    ),
}


async def test_a_python_app_with_a_package(tmp_path: Path) -> None:
    build = Build(tmp_path, PYTHON, **OFFLINE)
    manifest = await build.run()
    paths = {entry.path for entry in manifest.files}
    assert {"app/app.py", "app/moorage.toml", "site/tiny/__init__.py", "site/tiny-1.2.dist-info/METADATA"} <= paths
    assert (manifest.app, manifest.kind, manifest.depth, manifest.state) == ("demo", "python", Depth.PLAIN, ())
    assert manifest.process.command == "python app.py"
    assert manifest.facts["distributions"] == [["tiny", "1.2"]]
    assert manifest.facts["packages_from"] == "requirements.txt"
    assert not {p for p in paths if p.startswith("site/bin") or "__pycache__" in p or p.endswith(".pyc")}
    noise = {"INSTALLER", "REQUESTED", "direct_url.json"}
    assert not {p for p in paths if p.rsplit("/", 1)[-1] in noise}
    assert not {p for p in paths if p.startswith("app/vendor/tiny/build") or ".egg-info" in p}
    assert [stage for stage, _ in build.stages] == ["building", "validating"]

    environ = {"PYTHONPATH": str(build.tree / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-S", "app.py"]
    done = await run_tool(command, folder=build.tree / "app", environ=environ, timeout_s=20.0)
    assert (done.exit_code, done.lines) == (0, ("tiny",))
    assert hash_tree(build.tree) == manifest.files

    listed = PathDistribution(build.tree / "site" / "tiny-1.2.dist-info").files
    assert listed is not None
    assert {str(f) for f in listed} == {p.removeprefix("site/") for p in paths if p.startswith("site/")}


async def test_the_same_source_twice_is_the_same_artifact_and_a_changed_byte_is_another(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    first = await Build(tmp_path / "one", PYTHON, **OFFLINE).stored(store)
    second = await Build(tmp_path / "somewhere" / "else" / "two", PYTHON, **OFFLINE).stored(store)
    assert first == second
    changed = PYTHON | {
        "vendor/tiny/tiny/__init__.py": TINY["vendor/tiny/tiny/__init__.py"].replace("'tiny'", "'tinY'")
    }
    third = await Build(tmp_path / "three", changed, **OFFLINE).stored(store)
    assert third != first
    fourth = await Build(tmp_path / "four", PYTHON | {"app.py": APP.replace("print", "print ")}, **OFFLINE).stored(
        store
    )
    assert len({first, third, fourth}) == 3
    for digest in (first, third, fourth):
        store.verify(digest)


async def test_packages_of_pyproject_and_of_the_registry(tmp_path: Path) -> None:
    """A real download, by the user's own configuration of pip."""
    project = '[project]\nname = "demo"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["valkey==6.1.1"]\n'
    files = {"moorage.toml": PLAIN, "app.py": "import valkey\n", "pyproject.toml": project}
    first = await Build(tmp_path / "1", files).run()
    second = await Build(tmp_path / "2", files).run()
    assert artifact_digest(first) == artifact_digest(second)
    assert ["valkey", "6.1.1"] in first.facts["distributions"]  # type: ignore[operator]
    assert first.facts["packages_from"] == "pyproject.toml"


async def test_a_plain_python_app_needs_no_pip(tmp_path: Path) -> None:
    build = Build(tmp_path, {"moorage.toml": PLAIN, "app.py": "print(1)"}, shop={"pip_python": "/nowhere/python"})
    manifest = await build.run()
    assert manifest.kind == "python"
    assert not (build.tree / "site").exists()


async def test_an_sdk_app_gets_the_sdk_of_this_platform_and_tells_its_state(tmp_path: Path) -> None:
    migration = '[[migration]]\nname = "0001"\nimpact = "additive"\n'
    promotion = '[promotion]\nmode = "drain"\ndrain_deadline_s = 30\n'
    files = SDK_APP | {"moorage.toml": SDK_APP["moorage.toml"] + migration + promotion}
    build = Build(tmp_path / "1", files)
    manifest = await build.run()
    assert manifest.depth is Depth.SDK
    assert manifest.state == (
        StateEntry("demo:draft:v1", "size", "session", "field", manifest.state[0].fingerprint, True),
        StateEntry("demo:draft:v1", "text", "session", "field", manifest.state[1].fingerprint, True),
        StateEntry("demo:notes:v1", "items", "shared", "field", manifest.state[2].fingerprint, True),
    )
    assert len({entry.fingerprint for entry in manifest.state}) == 3
    assert manifest.migrations == (Migration("0001", "additive"),)
    facts = manifest.facts
    assert (facts["promotion_mode"], facts["promotion_drain_deadline_s"], facts["store"]) == ("drain", 30.0, True)
    assert "promotion_bake_s" not in facts
    names = [name for name, _ in facts["distributions"]]  # type: ignore[attr-defined]
    assert {"moorage-app", "valkey"} <= set(names)
    assert "moorage" not in names
    assert hash_tree(build.tree) == manifest.files  # reading the schema wrote nothing into the tree
    again = await Build(tmp_path / "2", files).run()
    assert artifact_digest(again) == artifact_digest(manifest)


def foreign_sdk(folder: Path) -> Path:
    """A wheel of the SDK's name and a higher version, as a registry might offer it."""
    folder.mkdir()
    info = "moorage_app-99.0.dist-info"
    wheel = folder / "moorage_app-99.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("moorage_app/__init__.py", "FOREIGN = True\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: moorage-app\nVersion: 99.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


async def test_the_sdk_is_ours_whatever_a_registry_offers(tmp_path: Path) -> None:
    foreign = foreign_sdk(tmp_path / "foreign")
    manifest = await Build(tmp_path / "build", SDK_APP, host={"PIP_FIND_LINKS": str(foreign.parent)}).run()
    assert ["moorage-app", manifest.facts["sdk"]] in manifest.facts["distributions"]  # type: ignore[operator]
    assert len(manifest.state) == 3


def locked(name: str) -> str:
    """A package's lines in this repository's own lock."""
    lock = (Path(__file__).parents[2] / "requirements.lock").read_text()
    return lock[lock.index(f"\n{name}==") + 1 :].split("\n    # via")[0]


async def test_a_lock_with_hashes_may_ask_for_the_sdk_without_one(tmp_path: Path) -> None:
    """Every other hash is still demanded."""
    valkey = locked("valkey")
    good = await Build(tmp_path / "good", SDK_APP | {"requirements.txt": f"{valkey}\nmoorage-app\n"}).run()
    assert good.depth is Depth.SDK
    bad = re.sub("sha256:.{8}", "sha256:00000000", valkey)
    ended = await Build(tmp_path / "bad", SDK_APP | {"requirements.txt": f"{bad}\nmoorage-app\n"}).ending()
    assert ended.problem.code == "dependencies-failed"


async def test_a_static_site(tmp_path: Path) -> None:
    toml = 'name = "demo"\n[static]\nroot = "public"\nspa = true\n'
    files = {"moorage.toml": toml, "public/index.html": "<h1>", "public/a/b.css": "x", "notes.md": "not served"}
    build = Build(tmp_path, files)
    manifest = await build.run()
    assert [e.path for e in manifest.files] == ["app/public/a/b.css", "app/public/index.html", "app/serve.py"]
    assert manifest.assets == ("/a/b.css", "/index.html")
    assert (manifest.kind, manifest.process.command) == ("static", "python serve.py public --spa")


async def test_a_site_at_the_top_serves_none_of_the_platform_s_files(tmp_path: Path) -> None:
    files = {"moorage.toml": 'name = "demo"\n[static]\n', "index.html": "<h1>", ".moorageignore": "x"}
    manifest = await Build(tmp_path, files).run()
    assert manifest.assets == ("/index.html",)


COMMAND = (
    'name = "demo"\n[process]\ncommand = "./serve --port $PORT"\n[build]\noutput = "out"\ncommand = """\n{}\n"""\n'
)


async def test_a_build_command_makes_the_output_and_sees_build_secrets_only(tmp_path: Path) -> None:
    script = "mkdir out && env > out/environ && cp template out/serve && chmod +x out/serve && ln -s serve out/link"
    files = {"moorage.toml": COMMAND.format(script), "template": "#!/bin/sh\n", "__pycache__/x.pyc": ""}
    host = {"DATABASE_URL": "postgres://secret", "MOORAGE_TOKEN": "admin", "HOME": str(tmp_path)}
    build = Build(tmp_path / "b", files, secrets={"NPM_TOKEN": "npm-token-1"}, host=host)
    manifest = await build.run()
    assert manifest.kind == "command"
    assert {e.path: e.mode for e in manifest.files} == {"app/environ": 0o644, "app/serve": 0o755, "app/link": 0o755}
    lines = (build.tree / "app" / "environ").read_text().splitlines()
    seen = dict(line.split("=", 1) for line in lines)
    assert seen["NPM_TOKEN"] == "npm-token-1"
    assert seen["HOME"] == str(tmp_path)
    assert Path(seen["TMPDIR"]).is_relative_to(tmp_path / "b")
    assert not {"DATABASE_URL", "MOORAGE_TOKEN", "PYTHONPATH", "PYTEST_CURRENT_TEST"} & seen.keys()
    assert str(manifest.facts["build_command"]).strip() == script
    digest = ArtifactStore(tmp_path / "artifacts").put(build.tree, manifest)
    assert not (ArtifactStore(tmp_path / "artifacts").tree(digest) / "app" / "link").is_symlink()


async def test_a_failing_build_command_shows_its_last_lines_without_secrets(tmp_path: Path) -> None:
    files = {"moorage.toml": COMMAND.format("echo using $NPM_TOKEN; echo no such target >&2; exit 7")}
    ended = await Build(tmp_path, files, secrets={"NPM_TOKEN": "npm-token-1"}).ending()
    assert isinstance(ended, Failed)
    assert (ended.problem.code, ended.problem.facts["exit_code"]) == ("build-command-failed", 7)
    assert ended.log_tail == ("using ***", "no such target")


async def test_a_build_that_hangs_is_ended(tmp_path: Path) -> None:
    began = monotonic_s()
    files = {"moorage.toml": COMMAND.format("echo waiting for the network; sleep 600 & sleep 600")}
    ended = await Build(tmp_path, files, shop={"timeout_s": 1.0}).ending()
    assert isinstance(ended, Failed)
    assert (ended.problem.code, ended.log_tail) == ("build-timeout", ("waiting for the network",))
    assert monotonic_s() - began < 30


def cmd(command: str, tail: str = "") -> str:
    return f"name = 'demo'\n[process]\ncommand = \"{command}\"\n{tail}"


SITE = "name = 'demo'\n[static]\nroot = 'public'\n"
STATE = "[state]\nmodule = 'demo:app'\n"
BAD: list[tuple[str, dict[str, str]]] = [
    ("appfile-missing", {"app.py": ""}),
    ("appfile-invalid", {"moorage.toml": "name = 'demo'\n"}),
    ("name-contains-topology", {"moorage.toml": cmd("x").replace("'demo'", "'demo-eu-west-1'")}),
    ("appfile-other-app", {"moorage.toml": cmd("python app.py").replace("'demo'", "'other'"), "app.py": ""}),
    ("command-not-found", {"moorage.toml": cmd("python app.py")}),
    ("command-not-found", {"moorage.toml": cmd("python -m uvicorn app:app"), "app.py": ""}),
    ("command-not-found", {"moorage.toml": cmd("python -u -X dev nothing.py")}),
    ("command-not-found", {"moorage.toml": cmd("./serve"), "serve": "#!/bin/sh"}),
    ("command-not-found", {"moorage.toml": cmd("no-such-program --port 1")}),
    ("build-output-missing", {"moorage.toml": COMMAND.format("true")}),
    ("build-output-outside", {"moorage.toml": COMMAND.format("ln -s /usr out")}),
    ("tree-special-file", {"moorage.toml": COMMAND.format("mkdir out; mkfifo out/pipe")}),
    ("build-output-missing", {"moorage.toml": SITE}),
    ("static-index-missing", {"moorage.toml": SITE, "public/a.html": ""}),
    ("state-schema-unreadable", {"moorage.toml": cmd("python app.py", STATE), "app.py": ""}),
    ("state-schema-unreadable", {"moorage.toml": cmd("python app.py", "[state]\nschema = 's.json'\n"), "app.py": ""}),
    ("state-schema-unreadable", {**SDK_APP, "demo.py": "raise ValueError('boom at import')\n"}),
    ("state-schema-unreadable", {**SDK_APP, "demo.py": "import nowhere\n"}),
    ("state-schema-unreadable", {**SDK_APP, "demo.py": "import os\nos._exit(0)\n"}),
    ("state-schema-unreadable", {**SDK_APP, "moorage.toml": cmd("python demo.py")}),
    (
        "python-dependencies-unreadable",
        {"moorage.toml": PLAIN, "app.py": "", "requirements.txt": "x" * 2_000_000},
    ),
    (
        "python-version-unsupported",
        {"moorage.toml": PLAIN, "app.py": "", "pyproject.toml": "[project]\nrequires-python='<3.9'"},
    ),
]


@pytest.mark.parametrize(("code", "files"), BAD)
async def test_a_source_that_cannot_become_an_artifact(tmp_path: Path, code: str, files: dict[str, str]) -> None:
    ended = await Build(tmp_path, files).ending()
    assert (ended.problem.code, isinstance(ended, Blocked)) == (code, True), ended.problem
    assert ended.problem.hint


async def test_what_the_app_said_at_import_is_shown(tmp_path: Path) -> None:
    ended = await Build(tmp_path, {**SDK_APP, "demo.py": "raise ValueError('boom at import')\n"}).ending()
    assert "boom at import" in ended.problem.detail
    assert any("boom at import" in line for line in ended.log_tail)


async def test_a_package_for_another_python_is_refused_in_pip_s_words(tmp_path: Path) -> None:
    tiny = TINY["vendor/tiny/pyproject.toml"].replace('version = "1.2"', 'version = "1.2"\nrequires-python = ">=3.99"')
    ended = await Build(tmp_path, PYTHON | {"vendor/tiny/pyproject.toml": tiny}, **OFFLINE).ending()
    assert isinstance(ended, Blocked)
    assert ended.problem.code == "python-version-unsupported"
    assert "3.99" in ended.problem.detail
    assert any("3.99" in line for line in ended.log_tail)


async def test_a_package_that_does_not_exist_fails_with_pip_s_last_lines(tmp_path: Path) -> None:
    files = {"moorage.toml": PLAIN, "app.py": "", "requirements.txt": "moorage-no-such-package-zz==1\n"}
    ended = await Build(tmp_path, files, host={"PIP_NO_INDEX": "1"}).ending()
    assert isinstance(ended, Failed)
    assert ended.problem.code == "dependencies-failed"
    assert "moorage-no-such-package-zz" in ended.problem.detail
    assert ended.log_tail


async def test_an_artifact_beyond_its_limit_is_refused(tmp_path: Path) -> None:
    files = {"moorage.toml": PLAIN, "app.py": "x" * 1000}
    problem = await Build(tmp_path, files, shop={"total_max_bytes": 900}).problem()
    assert problem.code == "artifact-too-large"


async def test_a_schema_file_is_read(tmp_path: Path) -> None:
    schema = '{"format": 1, "entries": [{"id": "a:b:v1", "field": "text", "type": "str"}]}'
    tail = "[state]\nschema = 'state.json'\n"
    files = {"moorage.toml": cmd("python app.py", tail), "app.py": "", "state.json": schema}
    manifest = await Build(tmp_path, files).run()
    assert manifest.state == (StateEntry("a:b:v1", "text", "session", "field", "str", True),)
    assert (manifest.depth, manifest.facts["state"]["source"]) == (Depth.PLAIN, "state.json")  # type: ignore[index]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 2, "entries": []}',
        '{"format": 1, "entries": [{"id": "a", "field": "b"}]}',
        '{"format": 1, "entries": [{"id": "a", "field": "b", "type": 3}]}',
        '{"format": 1, "entries": [{"id": "a", "field": "b", "type": "s", "more": 1}]}',
        '{"format": 1, "entries": [{"id": "a", "field": "b", "type": "s"}, {"id": "a", "field": "b", "type": "i"}]}',
    ],
)
def test_a_broken_schema_is_never_an_empty_one(text: str) -> None:
    with pytest.raises(Blocked) as raised:
        parse_schema(text, "state.json")
    assert raised.value.problem.code == "state-schema-unreadable"


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can only be mounted by root")
async def test_a_full_disk_is_said(tmp_path: Path) -> None:
    """A file system of 3 MB for real, filled by a tool, by pip and by the copy."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=False)  # noqa: ASYNC221
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a file system")
    try:
        big = {"moorage.toml": PLAIN, "app.py": "x" * 2_000_000}
        command = {"moorage.toml": COMMAND.format("mkdir out; head -c 9000000 /dev/zero > out/serve")}
        package = {**PYTHON, "vendor/tiny/tiny/__init__.py": "#" * 1_400_000}
        for name, files in {"copy": big, "command": command, "pip": package}.items():
            work = disk / name
            try:
                ended: Exception | None = await Build(work, files, **OFFLINE).ending()
            except OSError as full:
                ended = disk_failure(full)
            assert isinstance(ended, Failed)
            assert ended.problem.code == "disk-full", (name, ended.problem, ended.log_tail)
            subprocess.run(["rm", "-rf", str(work)], check=True)  # noqa: ASYNC221
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: ASYNC221
