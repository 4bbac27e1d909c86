"""Deploying and promoting through the API, without the command line's start: for tests that do it many times."""

from __future__ import annotations

import asyncio
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from moorage.system.source_archive import pack
from moorage.wire.api import DeployRequest, OperationView
from tests.support.platform import Platform, key
from tests.support.truth import owner_epoch


async def upload(platform: Platform, folder: Path) -> str:
    """Pack and upload a folder; the digest that names the source."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "source.tar.gz"
        facts = await asyncio.to_thread(pack, folder, archive)
        async with platform.api() as api:
            await api.upload(archive, facts.sha256)
    return facts.sha256


async def begin_deploy(platform: Platform, folder: Path) -> str:
    """Start a deploy of a folder; its operation."""
    name = tomllib.loads((folder / "moorage.toml").read_text())["name"]
    request = DeployRequest(source=await upload(platform, folder))
    async with platform.api() as api:
        return (await api.deploy(name, request, key=key())).operation


async def deploy(platform: Platform, folder: Path) -> tuple[str, int]:
    """Deploy a folder up to its preview; the app's name and the deployment's number."""
    view = await platform.finished(await begin_deploy(platform, folder))
    assert view.state == "preview_ready", view.problem
    return view.app, int(view.input["deployment"])


async def promote(platform: Platform, app: str, number: int, **how: Any) -> OperationView:
    """Promote from the epoch as it is now; the finished operation, whatever it ended as."""
    epoch = owner_epoch(platform, app)
    return await platform.finished(await platform.begin_promote(app, number, epoch=epoch, **how))


async def serve(platform: Platform, folder: Path, **how: Any) -> tuple[str, int]:
    """Deploy and promote a folder; fails unless it is healthy."""
    app, number = await deploy(platform, folder)
    view = await promote(platform, app, number, **how)
    assert view.state == "healthy", view.problem
    return app, number
