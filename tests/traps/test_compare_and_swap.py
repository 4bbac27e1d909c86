"""Compare-and-swap: a stale worker overwrites newer ownership. One winner per epoch; whoever slept changes nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from moorage.artifacts.store import ArtifactStore
from moorage.build.worker import Worker
from moorage.client.agents import BuildClient
from moorage.client.http import Http
from moorage.domain.limits import LEASE_S
from moorage.main.installation import RUNNER
from moorage.wire.api import OperationView
from tests.support.asking import who
from tests.support.deeds import begin_deploy, deploy, serve
from tests.support.platform import Platform
from tests.support.processes import frozen
from tests.support.tiny_app import tiny_app
from tests.support.truth import audited, history, owner, rows
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

FIRST_WAVE, SECOND_WAVE = 40, 24
DEPLOYMENTS = 3  # what a preview costs is kept for so many


async def test_compare_and_swap_has_one_winner_per_epoch_and_losers_hear_who(
    platform: Platform, tmp_path: Path
) -> None:
    """64 promotions race in two waves, all of the first expecting one epoch and all of the second the next one."""
    source, app = tiny_app(tmp_path / "race", "race", text="0"), "race"
    await serve(platform, source)
    for number in range(DEPLOYMENTS - 1):
        tiny_app(source, app, text=str(number + 1))
        await deploy(platform, source)
    first = await begin_wave(platform, app, FIRST_WAVE, epoch=1, targets=[2, 3])
    await wait_until(lambda: len(history(platform, app)) == 2, timeout_s=60, what="the first wave has a winner")
    others = [n for n in (1, 2, 3) if n != history(platform, app)[1]["deployment_number"]]
    second = await begin_wave(platform, app, SECOND_WAVE, epoch=2, targets=others)
    ended = [await platform.finished(id) for id in (*first, *second)]
    assert len(ended) == 64
    check_race(platform, app, ended, {1: set(first), 2: set(second)})
    await wait_until(lambda: only_owner_runs(platform, app), timeout_s=60, what="what lost the race is stopped")
    assert who(platform.get(f"{app}.localhost"))["deployment"] == str(owner(platform, app)["deployment_number"])


async def begin_wave(platform: Platform, app: str, count: int, *, epoch: int, targets: list[int]) -> list[str]:
    """Start `count` promotions at once, to the deployments in turn, each with a key of its own."""
    starts = (
        platform.begin_promote(app, targets[n % len(targets)], epoch=epoch, mode="drain", drain_deadline_s=0.1)
        for n in range(count)
    )
    return await asyncio.gather(*starts)


def check_race(platform: Platform, app: str, ended: list[OperationView], waves: dict[int, set[str]]) -> None:
    """One winner for each epoch that was expected; every loser was refused and told an owner that really was one."""
    owners = history(platform, app)
    assert [row["epoch"] for row in owners] == [1, 2, 3]
    winners = {view.id for view in ended if view.state == "healthy"}
    assert winners == {row["operation"] for row in owners[1:]}
    assert all(len(winners & wave) == 1 for wave in waves.values())
    losers = [view for view in ended if view.id not in winners]
    assert Counter((view.state, view.problem["code"]) for view in losers if view.problem) == {
        ("rejected", "epoch-stale"): len(ended) - 2
    }
    real = {(row["epoch"], row["deployment_number"]) for row in owners[1:]}
    told = {(view.problem["actual_epoch"], view.problem["winner_deployment"]) for view in losers if view.problem}
    assert told <= real
    assert all(view.problem["expected_epoch"] in waves for view in losers if view.problem)
    assert not any("epoch" in view.facts for view in losers), "no loser ever took itself for the owner"


async def only_owner_runs(platform: Platform, app: str) -> bool:
    """Whether of the whole race exactly one process is left in production: the owner's."""
    async with platform.api() as api:
        found = [a for a in await api.allocations(app) if a.environment == "production"]
    return [(a.deployment, a.state) for a in found] == [(owner(platform, app)["deployment_number"], "ready")]


async def test_compare_and_swap_worker_that_slept_past_its_lease_changes_nothing(
    own_platform: Platform, tmp_path: Path
) -> None:
    """The build worker is the one worker with a lease in a process of its own: it is stopped in the middle of a build.

    Another real worker takes the build over and finishes it. Each build writes its own number into the artifact, so
    that the two can be told apart. The first one wakes up and goes on: nothing of it is kept.
    """
    platform, gate = own_platform, tmp_path / "gate"
    source = tiny_app(tmp_path / "sleepy", "sleepy", toml=f'[build]\ncommand = "sh build.sh {gate}"\n')
    (source / "build.sh").write_text('echo $$ > built-by.txt\nuntil [ -e "$1" ]; do sleep 0.05; done\n')
    operation = await begin_deploy(platform, source)
    await wait_until(lambda: is_at(platform, operation, "building"), what="the first worker builds")
    await wait_until(lambda: any(built_by(platform.home / "builds")), what="its build command runs")
    (mine,) = built_by(platform.home / "builds")
    with frozen(platform.pid_of("runner")):
        other = asyncio.create_task(build_one(platform, tmp_path))
        await wait_until(lambda: token(platform, operation) == 2, timeout_s=LEASE_S + 10, what="the lease is over")
        gate.touch()
        assert await other, "another worker took the build over"
        taken = artifact_of(platform)
        assert built_by_in(platform, taken) != mine
        stages = rows(platform, "select * from operation_stages where operation = ? and token < 2", operation)
    await wait_until(lambda: audited(platform, "operation.report", "refused"), what="the late report is audited")
    view = await platform.finished(operation)
    assert view.state == "preview_ready", view.problem
    assert artifact_of(platform) == taken, "the artifact is the second worker's"
    assert [row["digest"] for row in rows(platform, "select digest from artifacts")] == [taken]
    assert rows(platform, "select * from operation_stages where operation = ? and token < 2", operation) == stages
    refused = audited(platform, "operation.report", "refused")
    assert {(row["subject"], row["actor"]) for row in refused} == {(operation, "build")}


async def build_one(platform: Platform, folder: Path) -> bool:
    """A second real build worker, in this process: waits for one build and finishes it, below the folder."""
    http = Http(platform.api_url, (platform.home / "keys" / f"{RUNNER}.token").read_text())
    try:
        return await Worker(BuildClient(http, RUNNER), ArtifactStore(platform.home / "artifacts"), folder).work_once(25)
    finally:
        await http.close()


def built_by(builds: Path) -> list[str]:
    """What the build commands of a worker's folder have written so far."""
    return [found.read_text() for found in builds.rglob("built-by.txt") if found.read_text()]


def built_by_in(platform: Platform, digest: str) -> str:
    """What the build command wrote into a stored artifact."""
    return next(
        (platform.home / "artifacts" / "sha256" / digest.removeprefix("sha256:")).rglob("built-by.txt")
    ).read_text()


def is_at(platform: Platform, operation: str, state: str) -> bool:
    return rows(platform, "select state from operations where id = ?", operation) == [{"state": state}]


def token(platform: Platform, operation: str) -> int:
    return int(rows(platform, "select token from operations where id = ?", operation)[0]["token"])


def artifact_of(platform: Platform) -> str:
    """The artifact of the one deployment there is."""
    return str(rows(platform, "select artifact from deployments")[0]["artifact"])
