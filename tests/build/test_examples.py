"""The examples are what their app files say: built, started, answering; and the page about `moorage.toml` is true."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from moorage.build.assemble import Workshop, read_appfile
from moorage.build.tree import copy_tree
from moorage.domain.appfile import AppFile, parse_appfile
from moorage.domain.appkeys import KEYS, TOP
from moorage.domain.artifact import Manifest
from moorage.system.clock import monotonic_s
from moorage.system.proc import free_port
from tests.build.making import Build
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "moorage-toml.md").read_text()
START_BUDGET_S = 5.0  # on a busy machine; alone it takes a tenth of a second


def test_the_page_names_every_key_and_no_other() -> None:
    named = set(re.findall(r"^\| `([a-z_.]+)` \|", PAGE.split("## What is packed")[0], re.M)) - {"migration"}
    known = {f"{section}.{key}" if section != TOP else key for section, keys in KEYS.items() for key in keys}
    assert named == known


@pytest.mark.parametrize("text", re.findall(r"```toml\n(.*?)```", PAGE, re.S))
def test_the_examples_on_the_page_are_valid(text: str) -> None:
    assert isinstance(parse_appfile(text), AppFile)


async def built(example: str, work: Path) -> tuple[Build, Manifest]:
    build = Build(work, {})
    copy_tree(ROOT / "examples" / example, work / "source")
    build.rename(example)
    return build, await build.run()


class App:
    """An example's own process, started as its manifest says."""

    def __init__(self, build: Build, manifest: Manifest) -> None:
        self._build, self._words = build, manifest.process.command.split()
        self._health = manifest.process.health
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> App:
        environ = {
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "PATH": os.environ["PATH"],
            "MOORAGE_ALLOCATION": "alc_1",
        }
        python = Workshop({}).app_python or sys.executable
        self.process = await asyncio.create_subprocess_exec(
            python, "-I", *self._words[1:], cwd=self._build.tree / "app", env=environ
        )
        began = monotonic_s()
        await wait_until(self._is_ready, what="the example is ready")
        self.started_s = monotonic_s() - began
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.terminate()
        await asyncio.wait_for(self.process.wait(), 10.0)

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.base, trust_env=False) as client:
            return await client.get(path)

    async def _is_ready(self) -> bool:
        try:
            return (await self.get(self._health)).status_code == 200
        except httpx.TransportError:
            return False


@pytest.mark.servers
async def test_the_plain_app_counts_in_memory(tmp_path: Path) -> None:
    build, manifest = await built("plain", tmp_path)
    assert not (build.tree / "site").exists()
    async with App(build, manifest) as app:
        assert app.started_s < START_BUDGET_S
        who = (await app.get("/whoami")).json()
        assert (who["allocation"], who["pid"], who["sockets"]) == ("alc_1", app.process.pid, 0)
        assert "alc_1" in (await app.get("/")).text
        assert (await app.get("/nothing")).status_code == 404
        address = f"ws://127.0.0.1:{app.port}/ws"
        async with connect(address, proxy=None) as first, connect(address, proxy=None) as second:
            for text in ("a", "ü" * 200, "x" * 60_000):
                await first.send(text)
            assert [await first.recv() for _ in range(3)] == ["1 a", "2 " + "ü" * 200, "3 " + "x" * 60_000]
            await second.send(["in ", "pieces"])
            assert await second.recv() == "1 in pieces"
            await (await first.ping())
            assert (await app.get("/whoami")).json()["sockets"] == 2
            app.process.terminate()
            with pytest.raises(ConnectionClosed) as closed:
                await second.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
        assert await asyncio.wait_for(app.process.wait(), 10.0) == 0


@pytest.mark.servers
async def test_the_plain_app_keeps_to_its_limits(tmp_path: Path) -> None:
    build, manifest = await built("plain", tmp_path)
    async with App(build, manifest) as app, connect(f"ws://127.0.0.1:{app.port}/ws", proxy=None) as socket:
        await socket.send("x" * 70_000)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


@pytest.mark.servers
async def test_the_static_site_is_served(tmp_path: Path) -> None:
    build, manifest = await built("static-site", tmp_path)
    async with App(build, manifest) as app:
        front = await app.get("/")
        assert "Moored." in front.text
        for asset in manifest.assets:
            assert (await app.get(asset)).status_code == 200, asset
        assert "Back to the quay" in (await app.get("/nowhere")).text


@pytest.mark.parametrize("example", ["plain", "static-site"])
def test_app_files_of_the_examples_are_valid(example: str) -> None:
    assert read_appfile(ROOT / "examples" / example, example).name == example
