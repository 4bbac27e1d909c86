"""The worker against the real control API and database: leases, endings, what is left after a kill."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from moorage.artifacts.store import ArtifactStore
from moorage.build.assemble import Workshop
from moorage.build.worker import Tempo, Worker, sweep
from moorage.client.agents import BuildClient
from moorage.client.api import Api
from moorage.domain.errors import Problem, Unavailable
from moorage.system import proc
from moorage.system.rand import new_secret
from moorage.system.settings import inherited_environ
from moorage.system.source_archive import pack
from moorage.wire.api import DeployRequest, OperationView, SecretRequest
from moorage.wire.build import BuildJob, BuildReply, BuildReport
from tests.build.making import PLAIN, write_files
from tests.control.rig import RUNNER, TOKENS, World
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

FILES: Mapping[str, str] = {"moorage.toml": PLAIN, "app.py": "print(1)\n"}
SLOW = 'name = "demo"\n[process]\ncommand = "python app.py"\n[build]\ncommand = "{}"\n'
TEMPO = Tempo(renew_s=0.05, claim_wait_s=0.5, retry_s=0.02)


class Bench:
    """A control plane without engine, and the place of one worker."""

    def __init__(self, home: Path) -> None:
        self.home, self.builds = home, home / "builds"
        self.store = ArtifactStore(home / "artifacts")
        self._world = World(home / "control")
        self.plane = self._world.plane

    async def start(self) -> Bench:
        await self.plane.start(engine=False)
        self.api = Api(self.plane.http())
        self.client = BuildClient(self.plane.http(TOKENS[RUNNER]), RUNNER)
        self.worker = Worker(self.client, self.store, self.builds, Workshop(inherited_environ()), TEMPO)
        return self

    async def deploy(self, files: Mapping[str, str | bytes]) -> str:
        """Pack and upload a source, start its deploy; the operation."""
        source = write_files(self.home / f"source-{new_secret(4)}", files)
        archive = self.home / "source.tar.gz"
        facts = pack(source, archive)
        await self.api.upload(archive, facts.sha256)
        request = DeployRequest(source=facts.sha256, facts=facts.to_json())
        return (await self.api.deploy("demo", request, key=new_secret())).operation

    async def operation(self, id: str) -> OperationView:
        return await self.api.operation(id)

    async def state(self, id: str) -> str:
        return (await self.operation(id)).state

    def left(self) -> list[Path]:
        """Work folders that are still there."""
        return list(self.builds.iterdir()) if self.builds.exists() else []


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    running = await Bench(tmp_path).start()
    yield running
    await running.plane.stop()


async def test_a_source_becomes_a_registered_artifact(bench: Bench) -> None:
    id = await bench.deploy(FILES)
    assert await bench.worker.work_once(1.0) is True
    done = await bench.operation(id)
    assert done.state == "validating", done.problem
    digest = done.facts["artifact"]
    bench.store.verify(digest)
    manifest = bench.store.manifest(digest)
    assert {entry.path for entry in manifest.files} == {"app/app.py", "app/moorage.toml"}
    assert manifest.source["archive"] == done.input["source"]
    assert str(manifest.source["tree_digest"]).startswith("sha256:")
    view = await bench.api.deployment("demo", 1)
    assert (view.artifact, view.depth) == (digest, "plain")
    assert bench.left() == []
    states = [stage.state for stage in done.stages]
    assert list(dict.fromkeys(states)) == ["queued", "fetching", "building", "validating"]
    assert await bench.worker.work_once(0.0) is False


async def test_an_artifact_of_many_files_fits_into_a_report(bench: Bench) -> None:
    """Ten thousand names would not fit into a request."""
    names = {f"public/{'n' * 60}-{i}.txt": "" for i in range(10_000)}
    site = 'name = "demo"\n[static]\nroot = "public"\n'
    id = await bench.deploy({"moorage.toml": site, "public/index.html": "", **names})
    await bench.worker.work_once(1.0)
    done = await bench.operation(id)
    assert done.state == "validating", done.problem
    assert len(bench.store.manifest(done.facts["artifact"]).files) == 10_002


async def test_the_same_source_twice_is_one_artifact(bench: Bench) -> None:
    digests = []
    for _ in range(2):
        id = await bench.deploy(FILES)
        await bench.worker.work_once(1.0)
        digests.append((await bench.operation(id)).facts["artifact"])
    assert digests[0] == digests[1]
    assert bench.store.digests() == {digests[0]}


async def test_a_bad_source_is_blocked_and_a_bad_command_fails(bench: Bench) -> None:
    wrong = await bench.deploy({"moorage.toml": "name = 'demo'\nproces = 1\n"})
    failing = await bench.deploy({"moorage.toml": SLOW.format("echo the reason; exit 4"), "app.py": ""})
    await bench.worker.work_once(1.0)
    await bench.worker.work_once(1.0)
    blocked, failed = await bench.operation(wrong), await bench.operation(failing)
    assert blocked.problem is not None
    assert failed.problem is not None
    assert (blocked.state, blocked.problem["code"]) == ("blocked", "appfile-invalid")
    assert "moorage.toml, line 2" in blocked.problem["detail"]
    assert (failed.state, failed.problem["code"]) == ("failed", "build-command-failed")
    assert failed.problem["log_tail"] == ["the reason"]
    assert bench.store.digests() == frozenset()
    assert bench.left() == []


async def test_an_archive_that_is_none_is_blocked(bench: Bench) -> None:
    archive = bench.home / "x"
    archive.write_bytes(b"no archive")
    sha256 = hashlib.sha256(b"no archive").hexdigest()
    await bench.api.upload(archive, sha256)
    id = (await bench.api.deploy("demo", DeployRequest(source=sha256), key=new_secret())).operation
    await bench.worker.work_once(1.0)
    done = await bench.operation(id)
    assert done.problem is not None
    assert (done.state, done.problem["code"]) == ("blocked", "source-archive-invalid")


async def test_a_damaged_download_fails(bench: Bench) -> None:
    id = await bench.deploy(FILES)
    stored = next((bench.plane.home / "sources").iterdir())
    stored.write_bytes(stored.read_bytes() + b"\0")
    await bench.worker.work_once(1.0)
    done = await bench.operation(id)
    assert done.problem is not None
    assert (done.state, done.problem["code"]) == ("failed", "source-digest-mismatch")


async def test_a_build_secret_reaches_the_command_and_is_in_no_report(bench: Bench) -> None:
    first = await bench.deploy(FILES)
    await bench.worker.work_once(1.0)
    assert await bench.state(first) == "validating"
    await bench.api.set_secret(
        "demo", "NPM_TOKEN", SecretRequest(value="npm-token-value", scope="build"), key=new_secret()
    )
    await bench.api.set_secret(
        "demo", "DB_PASSWORD", SecretRequest(value="runtime-value", scope="runtime"), key=new_secret()
    )
    id = await bench.deploy({"moorage.toml": SLOW.format("env; exit 1"), "app.py": ""})
    await bench.worker.work_once(1.0)
    said = json.dumps((await bench.operation(id)).model_dump(mode="json"))
    assert "NPM_TOKEN=***" in said
    assert "npm-token-value" not in said
    assert "DB_PASSWORD" not in said


async def test_a_canceled_build_ends_its_tool(bench: Bench) -> None:
    id = await bench.deploy({"moorage.toml": SLOW.format("echo $$ > pid; exec sleep 600"), "app.py": ""})
    working = asyncio.create_task(bench.worker.work_once(1.0))
    pid = await tool_pid(bench)
    await bench.api.cancel(id, key=new_secret())
    await asyncio.wait_for(working, 20.0)
    assert await bench.state(id) == "canceled"
    assert not proc.is_alive(pid)
    assert bench.left() == []


async def tool_pid(bench: Bench) -> int:
    """The pid that the build command has written."""

    def found() -> int:
        return next((int(p.read_text() or 0) for p in bench.builds.glob("*/source/pid")), 0)

    await wait_until(found, what="the build command runs")
    return found()


async def test_a_worker_whose_lease_went_to_another_changes_nothing(bench: Bench) -> None:
    """Both build; only what the second says counts."""
    script = (
        "if mkdir ../../../first 2>/dev/null; then echo $$ > pid; while ! test -e ../../../go; do sleep 0.05; done; fi"
    )
    id = await bench.deploy({"moorage.toml": SLOW.format(script), "app.py": ""})
    deaf = Deaf(bench.client)
    slow = asyncio.create_task(Worker(deaf, bench.store, bench.builds, None, TEMPO).work_once(1.0))
    await tool_pid(bench)
    deaf.cut = True  # its renewals no longer arrive
    bench.plane.builds._heard[id] -= 1000  # as if that had been so for long
    assert await bench.worker.work_once(1.0) is True
    done = await bench.operation(id)
    assert done.state == "validating", done.problem
    deaf.cut = False
    (bench.home / "go").touch()
    await asyncio.wait_for(slow, 20.0)
    after = await bench.operation(id)
    assert (after.state, after.facts["artifact"]) == (done.state, done.facts["artifact"])
    assert bench.left() == []


class Deaf:
    """The real client over a line that can be cut."""

    def __init__(self, client: BuildClient) -> None:
        self._client, self.cut, self.lost = client, False, 0

    async def claim(self, wait_s: float) -> BuildJob | None:
        return await self._through(self._client.claim(wait_s))

    async def report(self, operation: str, report: BuildReport) -> BuildReply:
        return await self._through(self._client.report(operation, report))

    async def fetch_source(self, source: str, target: Path) -> None:
        await self._through(self._client.fetch_source(source, target))

    async def _through(self, call: Any) -> Any:
        if self.cut:
            call.close()
            self.lost += 1
            raise Unavailable(Problem("control-unreachable", "The line is cut"))
        return await call


class Garbling(Deaf):
    """Loses a part of the manifest on the way."""

    async def report(self, operation: str, report: BuildReport) -> BuildReply:
        if report.stage == "built":
            report = report.model_copy(update={"manifest": {**report.manifest, "process": None}})
        return await super().report(operation, report)


async def test_an_ending_is_said_until_it_is_heard(bench: Bench) -> None:
    script = "echo $$ > pid; while ! test -e ../../../go; do sleep 0.05; done"
    id = await bench.deploy({"moorage.toml": SLOW.format(script), "app.py": ""})
    line = Deaf(bench.client)
    working = asyncio.create_task(Worker(line, bench.store, bench.builds, None, TEMPO).work_once(1.0))
    await tool_pid(bench)
    line.cut = True
    (bench.home / "go").touch()
    await wait_until(bench.store.digests, what="the artifact is stored")
    await wait_until(lambda: line.lost > 3, what="the ending was said in vain")
    assert await bench.state(id) == "building"
    line.cut = False
    await asyncio.wait_for(working, 20.0)
    assert await bench.state(id) == "validating"


async def test_a_result_that_is_not_taken_is_a_failed_build(bench: Bench) -> None:
    """Else the build would be handed out again and again."""
    id = await bench.deploy(FILES)
    await Worker(Garbling(bench.client), bench.store, bench.builds, None, TEMPO).work_once(1.0)
    done = await bench.operation(id)
    assert done.problem is not None
    assert (done.state, done.problem["code"]) == ("failed", "artifact-invalid")


async def test_the_worker_goes_on_after_the_control_plane_came_back(bench: Bench) -> None:
    line = Deaf(bench.client)
    line.cut = True
    running = asyncio.create_task(Worker(line, bench.store, bench.builds, None, TEMPO).run())
    await wait_until(lambda: line.lost > 2, what="claims failed")
    id = await bench.deploy(FILES)
    line.cut = False

    async def built() -> bool:
        return await bench.state(id) == "validating"

    await wait_until(built, what="the build is done")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_fault_in_a_build_fails_that_build_only(bench: Bench) -> None:
    id = await bench.deploy(FILES)
    shop = Workshop(inherited_environ(), timeout_s="a bug")  # type: ignore[arg-type]
    await Worker(bench.client, bench.store, bench.builds, shop, TEMPO).work_once(1.0)
    done = await bench.operation(id)
    assert done.problem is not None
    assert (done.state, done.problem["code"]) == ("failed", "build-crashed")
    assert bench.left() == []


async def test_a_killed_worker_leaves_work_for_the_next(bench: Bench) -> None:
    """A process of its own, killed in the middle: its tool dies, the next worker clears up and builds again."""
    script = "echo $$ > pid; if mkdir ../../../first 2>/dev/null; then sleep 600; fi"
    id = await bench.deploy({"moorage.toml": SLOW.format(script), "app.py": ""})
    job = await bench.client.claim(1.0)
    assert job is not None
    (bench.home / "job.json").write_text(job.model_dump_json())
    archive = bench.plane.home / "sources" / f"{job.source}.tar.gz"
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.build.lonely_worker", str(bench.home), str(archive), env=dict(os.environ)
    )
    try:
        pid = await tool_pid(bench)
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
        await wait_until(lambda: not proc.is_alive(pid), what="the tool died with its worker")
        assert len(bench.left()) == 1
        assert sweep(bench.builds) == 1
        assert bench.left() == []
        bench.plane.builds._heard[id] -= 1000
        assert await bench.worker.work_once(1.0) is True
        assert await bench.state(id) == "validating"
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()


def test_the_cache_of_modules_outlives_what_a_killed_worker_left(tmp_path: Path) -> None:
    for name in ("opn_1-1", "cache"):
        (tmp_path / name / "inside").mkdir(parents=True)
    assert sweep(tmp_path) == 1
    assert [place.name for place in tmp_path.iterdir()] == ["cache"]
