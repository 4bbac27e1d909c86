"""The board in a browser, on a whole platform: a page that is open lives through deploys, and tells what happened."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, ViewportSize

from demo.people import Person, crowd
from examples.board.materialise import materialise
from moorage.cli.call import Exit
from tests.browser.chromium import DESKTOP, PHONE, is_same_load, needs_chromium, new_tab, running_chromium, until
from tests.support.platform import Platform

APP = "board"

pytestmark = [pytest.mark.servers, pytest.mark.browser, needs_chromium]

LIVE = "document.getElementById('connection').dataset.moorage === 'live'"
KEPT = "document.getElementById('kept').textContent.startsWith('Draft kept')"
STORY = "[...document.querySelectorAll('#story li')].map((li) => li.firstChild.textContent)"
COST = "this version keeps its state differently (colour was str and is now int)"
RESUMED = "Resumed from the session store, draft kept."


@pytest.fixture(scope="module")
def board(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Version 1 is served; 2 (warm) and 3 (cold) have previews."""
    folder = tmp_path_factory.mktemp("source")
    asyncio.run(platform.serve(materialise("v1", folder / "v1")))
    for version in ("v2", "v3"):
        asyncio.run(platform.deploy(materialise(version, folder / version)))
    return APP


@pytest_asyncio.fixture
async def browser(tmp_path: Path) -> AsyncIterator[BrowserContext]:
    """A Chromium of its own with an empty profile; nothing on any of its pages may fail."""
    async with running_chromium(tmp_path / "profile") as context:
        yield context


async def opened(platform: Platform, browser: BrowserContext, size: ViewportSize = DESKTOP) -> Page:
    """A new tab on the board, live, marked so that another load of it would be noticed."""
    page = await new_tab(browser, f"http://{platform.host(APP)}/", size)
    await until(page, LIVE)
    return page


def shows(words: str, element: str = "outcome") -> str:
    """A condition: an element's text contains the words."""
    return f"document.getElementById({element!r}).textContent.includes({words!r})"


def draft(words: str) -> str:
    """A condition: the composer holds exactly these words."""
    return f"document.getElementById('text').value === {words!r}"


async def write(page: Page, words: str) -> None:
    """Type a draft; returns when the page says that it is kept."""
    await page.click("#text")
    await page.keyboard.type(words)
    await until(page, KEPT, draft(words))


async def picture(page: Page, folder: Path, name: str) -> None:
    """Keep what the page looks like; on no width does it grow wider than the window."""
    folder = Path(os.environ.get("BOARD_PICTURES", folder))
    await page.screenshot(path=folder / f"{name}.png")
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


async def test_a_warm_promotion_happens_under_open_pages_and_each_keeps_its_draft(
    platform: Platform, board: str, browser: BrowserContext, tmp_path: Path
) -> None:
    async with crowd(2, ("127.0.0.1", platform.http_port), platform.host(board)) as others:
        await neighbours(others)
        desk, phone = await opened(platform, browser), await opened(platform, browser, PHONE)
        old = await platform.allocation(board)
        assert await page_facts(desk) == (f"allocation {old.number}", "1")
        await until(desk, shows("v1", "version"))
        await write(phone, "Low tide at 14:20")
        await desk.click("#text")
        await desk.keyboard.type("Bring the charts, ")
        await until(desk, KEPT)

        promotion = asyncio.create_task(platform.run("promote", board, "--deployment", "2", "--json"))
        await desk.keyboard.type("the lamp and the long rope ", delay=60)
        answer = await promotion
        assert answer.code == Exit.OK, answer.out + answer.err
        await until(desk, shows("v2", "version"), LIVE)
        await desk.keyboard.type("to the harbour office")

        words = "Bring the charts, the lamp and the long rope to the harbour office"
        await until(desk, LIVE, KEPT, draft(words), shows(RESUMED), shows("from v1 to v2", "notice-text"))
        await until(phone, LIVE, KEPT, draft("Low tide at 14:20"), shows(RESUMED, "glance"), shows("v2", "version"))
        assert await is_same_load(desk)
        assert await is_same_load(phone)
        new = await platform.allocation(board)
        assert new.number != old.number
        for page in (desk, phone):
            assert await page_facts(page) == (f"allocation {new.number}", "2")
            told = await page.evaluate(
                "[...document.querySelectorAll('#story li')].map((li) => li.firstChild.textContent)"
            )
            assert [sentence.split(":")[0] for sentence in told] == [
                "Resumed from the session store by deployment 2",
                "Stored and handed over by deployment 1",
                "Session started by deployment 1",
            ]
        await until(desk, "!document.getElementById('important-box').hidden")
        await picture(desk, tmp_path, "warm-desk")
        await picture(phone, tmp_path, "warm-phone")
        account = (await platform.newest(board, "handover")).facts["account"]
        assert (account["total"], account["resumed"]) == (4, 4), "the platform says what the pages say"


async def test_a_duplicated_tab_takes_over_and_the_first_can_take_it_back(
    platform: Platform, board: str, browser: BrowserContext
) -> None:
    first = await opened(platform, browser)
    other = await opened(platform, browser)
    await write(first, "Mine alone")
    async with browser.expect_page() as waiting:
        await first.evaluate("window.open(location.href)")  # a browser gives the copy the tab's own storage
    second = await waiting.value
    await until(second, LIVE, draft("Mine alone"), shows("Resumed from the session store"))
    await until(first, shows("Open in another tab", "connection"))
    await second.click("#text")
    await second.keyboard.press("End")
    await second.keyboard.type(", here as well")
    await until(second, LIVE, KEPT)
    await first.click("#notice-action")
    await until(first, LIVE, draft("Mine alone, here as well"))
    await until(second, shows("Open in another tab", "connection"))
    await until(other, LIVE, draft(""), shows("New.", "outcome"))
    assert await is_same_load(first)


async def test_a_crash_leaves_the_page_open_and_the_draft_written(
    platform: Platform, board: str, browser: BrowserContext
) -> None:
    page = await opened(platform, browser)
    await write(page, "Before the crash")
    old = await platform.allocation(board)
    assert old.pid is not None
    os.kill(old.pid, signal.SIGKILL)
    await until(page, "document.getElementById('connection').dataset.moorage !== 'live'")
    await page.keyboard.type(", during it")
    await until(page, LIVE, KEPT, draft("Before the crash, during it"), shows(RESUMED))
    assert (await page_facts(page))[0] != f"allocation {old.number}"
    assert await is_same_load(page)


async def test_a_cold_promotion_says_what_it_cost_and_the_page_can_put_the_draft_back(
    platform: Platform, board: str, browser: BrowserContext, tmp_path: Path
) -> None:
    desk, phone = await opened(platform, browser), await opened(platform, browser, PHONE)
    await write(desk, "Paint the buoys")
    await write(phone, "Order more rope")
    refused = await platform.run("promote", board, "--deployment", "3", "--json")
    assert (refused.code, refused.json["code"]) == (Exit.ACKNOWLEDGEMENT, "acknowledgement-required")
    await until(desk, LIVE, draft("Paint the buoys"))
    done = await platform.run("promote", board, "--deployment", "3", "--acknowledge", refused.json["acknowledge"])
    assert done.code == Exit.OK, done.out + done.err

    for page in (desk, phone):
        await until(page, LIVE, draft(""), shows("Started fresh by deployment 3"), shows("v3", "version"))
        await until(
            page, shows("this version keeps its state differently (colour was str and is now int)", "notice-text")
        )
        assert (await page_facts(page))[1] == "3"
        assert await is_same_load(page)
    account = (await platform.newest(board, "handover")).facts["account"]
    assert (account["total"], account["reasons"]) == (2, {"fresh": {"schema": 2}})
    await picture(desk, tmp_path, "cold-desk")
    await picture(phone, tmp_path, "cold-phone")
    await phone.click("#notice-action")
    await until(phone, LIVE, KEPT, draft("Order more rope"))


async def neighbours(people: list[Person]) -> None:
    """Others who are there and have pinned something."""
    for person, name, colour, note in zip(
        people,
        ("Ines", "Tom"),
        ("mint", "sky"),
        ("Lantern on pier 2 repaired", "Fresh rope in the blue locker"),
        strict=True,
    ):
        await person.send("rename", name)
        person.set("board:draft:v1", "colour", colour)
        person.type(note)
        await person.send("add_note")


async def page_facts(page: Page) -> tuple[str, str]:
    """Who serves the page, and which deployment, as the page itself says."""
    values = await page.locator("#facts dd").all_inner_texts()
    return values[0], values[1]
