"""A part of the run for real: the app built and promoted, the framework's tool and our checks at its route, and a
relay before the edge that the tool does not notice and our checks do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.asking import Route
from conformance.checks import live, security
from conformance.fixture import APP
from conformance.ground import platform
from conformance.report import GOOD, PREFIX, Seen, Status
from conformance.run import CHECKS, FIXTURES, Play, Played, play_some
from conformance.stage import Stage, stage
from conformance.tool import build_tool, run_checks
from tests.conformance.wrong_host import relay
from tests.support.vango.ground import needs_go

AREAS = ("HTTP.", "RUNTIME.", "WS.", "STATIC.", "SECURITY.HOST", "SECURITY.TRUSTED", "FORM.", "UPLOAD.FINALIZE")
NEEDS_CANDIDATES = "deploy-impact-path"
ROOT = Path(__file__).resolve().parents[2]


@needs_go
@pytest.mark.servers
@pytest.mark.timeout(900)  # with nothing in Go's cache the app and the tool take minutes to compile
async def test_a_part_of_the_run() -> None:
    tool = await build_tool()
    async with platform() as ground, stage(ground, tool) as own:
        await own.open()
        await _our_checks(own)
        await _the_tool(own)
        await _a_relay_that_spoils(own)


async def _our_checks(own: Stage) -> None:
    played = Played(own)
    await play_some(played, AREAS)
    wanted = [f"{PREFIX}{check.id}" for check in CHECKS if check.id.startswith(AREAS)]
    results = played.results(wanted)
    assert len(results) == len(wanted)
    assert [(r.id, r.diagnostics) for r in results if r.status not in GOOD] == []
    told = " ".join(line for result in results for line in result.evidence)
    assert str(own.ground.port) not in told
    assert str(own.folder) not in told


async def _the_tool(own: Stage) -> None:
    fixtures = {flag: path for flag, path in FIXTURES.items() if flag != NEEDS_CANDIDATES}
    url = own.ground.production().url
    verdicts = await run_checks(own.tool, own.folder, url, [f"{APP}.localhost"], fixtures=fixtures)
    named = {verdict.name: verdict.status for verdict in verdicts}
    assert len(named) == 16
    aside = {"generated_artifacts_current", "state_impact_available", "sleep_wake_fixture"}
    aside |= {"deploy_impact_fixture", "deploy_impact_active_session"}
    assert {name: status for name, status in named.items() if status != "pass"} == dict.fromkeys(
        aside, "not_applicable"
    )


async def _a_relay_that_spoils(own: Stage) -> None:
    """Every live path becomes that of the first page; and a proxy in front adds what a client might."""

    def forget_the_page(head: bytes) -> bytes:
        return re.sub(rb"([?&]path=)[^& ]*", rb"\g<1>%2F", head)

    def add_origin(head: bytes) -> bytes:
        return re.sub(rb"(?im)^origin: [^\r]*", b"Origin: " + own.ground.production().url.encode(), head)

    for spoil, check in (
        (forget_the_page, live.live_path_query),
        (forget_the_page, live.exactness),
        (add_origin, security.origin_rejected),
    ):
        async with relay(own.ground.production(), spoil) as route:
            assert (await _seen(own, check, route)).status is Status.FAILED, check.__name__


async def _seen(own: Stage, check: Play, route: Route) -> Seen:
    seen = Seen()
    await check(own, route, seen)
    return seen


def test_without_go_it_says_so_and_ends_with_3() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "conformance.vango"],
        env={**os.environ, "PATH": "/nowhere"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith("conformance cannot be run here: this machine has no Go toolchain")
    assert done.stdout == ""
