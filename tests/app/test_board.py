"""The example app: its three versions, its actions, and what a person sees in a browser while versions change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from demo.people import Person, RefusedByAppError
from moorage_app.contract import NoticeKind
from moorage_app.declared import cold_change

from .servers import AppProcess, Platform, ValkeyProcess, started
from .switch import switch_to

BOARD = Path(__file__).parents[2] / "examples" / "board"
CHROMIUM = Path("/usr/bin/chromium")
HAS_CHROMIUM = CHROMIUM.exists()
NOTES = "board:notes:v1"
DRAFT = "board:draft:v1"


def materialise(version: str, destination: Path) -> Path:
    """The example's own script, run as a module."""
    spec = spec_from_file_location("materialise", BOARD / "materialise.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    written: Path = module.materialise(version, destination)
    return written


def schema(folder: Path, target: str = "board:app") -> subprocess.CompletedProcess[str]:
    """The schema command in an app's folder."""
    arguments = [sys.executable, "-m", "moorage_app.schema", target]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_versions_are_warm_and_cold_as_promised(tmp_path: Path) -> None:
    """v1 to v2 adds, v2 to v3 retypes; what the command prints says so, both ways."""
    printed = {}
    for version in ("v1", "v2", "v3"):
        folder = materialise(version, tmp_path / version)
        done = schema(folder)
        assert done.returncode == 0, done.stderr
        printed[version] = json.loads(done.stdout)
        assert not (folder / "variants").exists()
        assert tomllib.loads((folder / "moorage.toml").read_text())["state"]["module"] == "board:app"
    entries = {version: one["entries"] for version, one in printed.items()}
    assert [set(one) for one in entries["v1"]] == [{"id", "field", "scope", "kind", "type", "default"}] * 5
    assert cold_change(entries["v1"], entries["v2"]) is None
    assert cold_change(entries["v2"], entries["v1"]) == f"{DRAFT}.important is no longer declared"
    assert cold_change(entries["v2"], entries["v3"]) == f"{DRAFT}.colour was str and is now int"
    assert len({one["hash"] for one in printed.values()}) == 3
    with pytest.raises(ValueError, match="v9"):
        materialise("v9", tmp_path / "v9")


def test_the_schema_command_says_what_is_wrong(tmp_path: Path) -> None:
    """Nothing on stdout, the reason on stderr, an exit code of its own; prints of the module do not mix in."""
    (tmp_path / "wrong.py").write_text(
        'from moorage_app import SessionState\nclass A(SessionState, id="a:b:v1"):\n    x: str = 3\n'
    )
    (tmp_path / "chatty.py").write_text(
        'from moorage_app import SessionState\nprint("hello")\nclass A(SessionState, id="a:b:v1"):\n    x: str = ""\n'
    )
    for target, code, words in (
        ("wrong", 3, "default does not fit"),
        ("missing:app", 3, "ModuleNotFoundError"),
        ("chatty:nothing", 3, "AttributeError"),
        ("--help", 2, "usage"),
    ):
        done = schema(tmp_path, target)
        assert (done.returncode, done.stdout) == (code, ""), target
        assert words in done.stderr
    assert json.loads(schema(tmp_path, "chatty").stdout)["entries"][0]["id"] == "a:b:v1"


@pytest.mark.servers
async def test_the_board_runs_by_itself(tmp_path: Path) -> None:
    """Under plain uvicorn, in memory: notes, hearts, names, refusals; the client script is served."""
    app = AppProcess(materialise("v1", tmp_path / "v1"))
    with started(app):
        await app.ready()
        one, other = (Person(app.address, f"board.localhost:{app.port}") for _ in range(2))
        await one.arrive()
        await other.arrive()
        one.type("Who has the key?")
        one.set(DRAFT, "colour", "mint")
        await one.send("add_note")
        await other.until(lambda: len(notes_of(other)) == 1)
        note = notes_of(other)[0]
        assert (note["text"], note["colour"], note["by"]) == ("Who has the key?", "mint", one.welcomes[0].session_tag)
        assert one.states[DRAFT]["text"] == ""
        await other.send("heart", note["id"])
        await other.send("remove_note", note["id"])  # not theirs: it stays
        await one.until(lambda: len(notes_of(one)[0]["hearts"]) == 1)
        await one.send("rename", "Edda")
        await other.until(lambda: "Edda" in {person.get("name") for person in other.people["people"]})
        with pytest.raises(RefusedByAppError):
            await one.send("add_note")
        await one.send("remove_note", note["id"])
        await other.until(lambda: notes_of(other) == [])
        await one.leave()
        await other.leave()


def notes_of(person: Person) -> list[dict[str, Any]]:
    """The notes somebody sees."""
    notes: list[dict[str, Any]] = person.shared[NOTES]["notes"]
    return notes


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium."""
    if not HAS_CHROMIUM:
        pytest.skip("no Chromium on this machine")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        await launched.close()


async def wait_for(page: Page, script: str) -> None:
    """Waits until the page's own JavaScript says so."""
    await page.wait_for_function(script, timeout=20_000)


async def pictures(page: Page, name: str) -> None:
    """Keeps a picture where MOORAGE_PICTURES says, if it does."""
    folder = os.environ.get("MOORAGE_PICTURES")
    if folder:
        await page.screenshot(path=Path(folder) / f"{name}.png")


LIVE = "document.getElementById('connection').dataset.moorage === 'live'"
KEPT = "document.getElementById('kept').textContent.startsWith('Draft kept')"


def shows(words: str, element: str = "outcome") -> str:
    """A condition: an element's text contains the words."""
    return f"document.getElementById({element!r}).textContent.includes({words!r})"


@pytest.mark.servers
@pytest.mark.browser
async def test_one_open_page_lives_through_versions(
    valkey: ValkeyProcess, platform: Platform, tmp_path: Path, browser: Browser
) -> None:
    """Typing goes on through a warm hand-over on the same page load; a cold one says what it cost; a crash does not."""
    apps = [
        AppProcess(
            materialise(f"v{i}", tmp_path / f"v{i}"), f"alloc-{i}", i, 100 + i, await valkey.add_user(f"alloc-{i}")
        )
        for i in (1, 2, 3)
    ]
    problems: list[str] = []
    with started(*apps):
        for app in apps:
            await app.ready()
        async with switch_to(apps[0].address) as switch:
            page = await (await browser.new_context(viewport={"width": 1280, "height": 800})).new_page()
            page.on("pageerror", lambda error: problems.append(str(error)))
            await page.goto(f"http://127.0.0.1:{switch.port}/")
            await wait_for(page, LIVE)
            await page.evaluate("window.sameLoad = true")
            await page.click("#text")
            await page.keyboard.type("Typed before, ")
            await wait_for(page, KEPT)
            switch.target = apps[1].address
            await platform.give_notice("alloc-1", NoticeKind.HANDOVER)
            await page.keyboard.type("typed through, ", delay=20)
            await wait_for(page, shows("v2", "version"))
            await page.keyboard.type("typed after.", delay=5)
            await wait_for(page, f"{LIVE} && {KEPT} && {shows('Resumed from the session store, draft kept.')}")
            assert await page.input_value("#text") == "Typed before, typed through, typed after."
            assert await page.is_visible("#important-box")
            await pictures(page, "board-warm")
            session = (await platform.held("alloc-2")).pop()
            stored = await platform.kept(session)
            assert stored.states[DRAFT]["text"] == "Typed before, typed through, typed after."
            assert (await page.content()).find(session) == -1

            switch.target = apps[2].address  # kill -9: nobody said anything; the same version comes back elsewhere
            apps[2].stop()
            apps[1].kill()
            apps[2].folder, apps[2].allocation = apps[1].folder, "alloc-2b"
            apps[2].store_url = await valkey.add_user("alloc-2b")
            apps[2].start()
            await wait_for(page, f"{LIVE} && {shows('allocation 103', 'facts')}")
            assert await page.input_value("#text") == "Typed before, typed through, typed after."

            cold = AppProcess(tmp_path / "v3", "alloc-3b", 3, 104, await valkey.add_user("alloc-3b"))
            with started(cold):
                await cold.ready()
                switch.target = cold.address
                await platform.give_notice("alloc-2b", NoticeKind.HANDOVER)
                await wait_for(page, shows("Started fresh by deployment 3"))
                assert await page.input_value("#text") == ""
                await pictures(page, "board-cold")
                await page.click("#notice-action")
                await wait_for(page, f"{LIVE} && {KEPT}")
                assert await page.input_value("#text") == "Typed before, typed through, typed after."
                assert (await platform.kept(session)).states[DRAFT]["colour"] == 0
                assert await page.evaluate("window.sameLoad") is True
            await page.context.close()
    assert problems == []


@pytest.mark.servers
@pytest.mark.browser
async def test_a_duplicated_tab_and_a_reload(valkey: ValkeyProcess, tmp_path: Path, browser: Browser) -> None:
    """A reload resumes; a second tab with the same storage takes over; the first can take it back."""
    app = AppProcess(materialise("v1", tmp_path / "v1"), "alloc-1", store_url=await valkey.add_user("alloc-1"))
    with started(app):
        await app.ready()
        context = await browser.new_context(viewport={"width": 390, "height": 844})
        page = await context.new_page()
        await page.goto(f"http://127.0.0.1:{app.port}/")
        await wait_for(page, LIVE)
        await page.fill("#text", "Mine")
        await wait_for(page, KEPT)
        await page.reload()
        await wait_for(page, f"{LIVE} && {shows('Resumed from the session store, draft kept.')}")
        assert await page.input_value("#text") == "Mine"
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390
        kept = await page.evaluate("JSON.stringify({...sessionStorage})")
        second = await context.new_page()
        await second.add_init_script(f"Object.entries({kept}).forEach(([k, v]) => sessionStorage.setItem(k, v))")
        await second.goto(f"http://127.0.0.1:{app.port}/")
        await wait_for(second, f"{LIVE} && document.getElementById('text').value === 'Mine'")
        await wait_for(page, shows("Open in another tab", "connection"))
        await page.click("#notice-action")
        await wait_for(page, LIVE)
        await wait_for(second, shows("Open in another tab", "connection"))
        await context.close()
