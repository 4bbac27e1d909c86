"""`python -m conformance.vango`: a whole run, its report as JSON and as a page.

Exit codes: 0 no required check fails, 1 one does, 3 it cannot be run here (no Go, or the tool cannot be built).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from conformance.catalogue import REQUIRED_TIER, TIERS
from conformance.fixture import APP
from conformance.ground import CommandError
from conformance.ground import platform as running_platform
from conformance.page import render
from conformance.report import Report, Status, summary, to_json
from conformance.run import Played, play_all, play_some
from conformance.stage import Stage, stage
from conformance.tool import MODULE, NoToolError, Tool, build_tool
from moorage.system.binaries import find_haproxy, find_nats, find_valkey

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
NAME: Final = "conformance-vango"
CANNOT_RUN: Final = 3


async def run(tool: Tool, areas: Sequence[str] = ()) -> Report:
    """A whole run on a platform of its own, or the part of it whose ids begin so. Raises CommandError, NoToolError."""
    async with running_platform() as ground, stage(ground, tool) as own:
        await own.open()
        print("the fixture app is deployed and promoted", file=sys.stderr, flush=True)
        played = Played(own)
        await (play_some(played, areas) if areas else play_all(played))
        return await report_of(played)


async def report_of(played: Played) -> Report:
    """The report of what was played, with what it was played on."""
    return Report(
        toolchain=toolchain(played.stage.tool),
        target=target(),
        manifest=await manifest(played.stage),
        tiers=TIERS,
        results=played.results(),
        required_tier=REQUIRED_TIER,
    )


def toolchain(tool: Tool) -> dict[str, Any]:
    """The versions of everything that takes part."""
    return {
        "moorage": version("moorage"),
        "framework": f"{MODULE} v{tool.version}",
        "tool": f"vango {tool.version}",
        "go": tool.go.removeprefix("go"),
        "haproxy": find_haproxy().version(),
        "valkey": find_valkey().version(),
        "nats": find_nats().version(),
        "python": platform.python_version(),
    }


def target() -> dict[str, Any]:
    """What was asked, in words that hold for every run."""
    return {
        "environment": "test",
        "topology": "one host, one edge, HTTP",
        "routes": [f"{APP}.localhost", f"N--{APP}.localhost"],
    }


async def manifest(own: Stage) -> dict[str, Any]:
    """What the artifact under test says of itself."""
    artifact = await own.artifact(own.base)
    vango = artifact.facts["vango"]
    return {
        "app": APP,
        "kind": artifact.kind,
        "depth": artifact.depth,
        "state_schema": vango["schema_hash"],
        "documents": sorted(str(each["schema_version"]) for each in own.companions(artifact).values()),
        "documents_by": vango["companions"]["by"],
    }


def write(report: Report, folder: Path) -> None:
    """Write the report as JSON and as a page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.json").write_text(json.dumps(to_json(report), indent=1, ensure_ascii=False) + "\n")
    (folder / f"{NAME}.md").write_text(render(report))


def main() -> int:
    """Run, write, tell."""
    flags = argparse.ArgumentParser(prog="conformance.vango", description=__doc__.splitlines()[0])
    flags.add_argument("--out", type=Path, default=DOCS, help="folder for the report (default: docs)")
    flags.add_argument("--only", default="", help="ids to try, by how they begin, e.g. WS.,FORM.; writes no report")
    given = flags.parse_args()
    areas = [area for area in given.only.split(",") if area]
    try:
        tool = asyncio.run(build_tool())
        report = asyncio.run(run(tool, areas))
    except NoToolError as missing:
        print(f"conformance cannot be run here: {missing}", file=sys.stderr)
        return CANNOT_RUN
    except CommandError as failed:
        print(f"the platform could not be brought up for the run: {failed}", file=sys.stderr)
        return 1
    if areas:
        return 1 if any(result.status is Status.FAILED for result in report.results) else 0
    write(report, given.out)
    told = summary(report)
    counts = ", ".join(f"{count} {name}" for name, count in told["counts"].items() if count)
    print(f"{counts}; required checks that fail: {told['required_failed']}")
    print(f"RESULT {json.dumps(told)}")
    return 0 if told["required_failed"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
