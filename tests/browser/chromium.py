"""A headless Chromium with an empty profile, and what every browser test asks of a page.

Pages forbid `eval`, so a condition is handed over as a function. A picture hides nothing: the caret stays, since hiding
it sets a style on the focused field, and a framework that owns the page takes that for damage and reloads.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page, TimeoutError, ViewportSize, async_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
)
DESKTOP, PHONE = ViewportSize(width=1280, height=800), ViewportSize(width=390, height=844)
PATIENCE_MS = 30_000

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)


@asynccontextmanager
async def running_chromium(profile: Path) -> AsyncIterator[BrowserContext]:
    """A Chromium of its own; no script on any of its pages may fail."""
    problems: list[str] = []
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=list(ARGUMENTS), viewport=DESKTOP
        )
        context.on("weberror", lambda error: problems.append(str(error.error)))
        yield context
        await context.close()
    assert problems == []


async def new_tab(browser: BrowserContext, url: str, size: ViewportSize = DESKTOP) -> Page:
    """A new tab on this URL, marked so that another load of it would be noticed."""
    page = await browser.new_page()
    await page.set_viewport_size(size)
    await page.goto(url)
    await page.evaluate("window.marked = performance.timeOrigin")
    return page


async def is_same_load(page: Page) -> bool:
    """Whether the page was loaded once, by going there, and never again."""
    return bool(
        await page.evaluate(
            "window.marked === performance.timeOrigin"
            " && performance.getEntriesByType('navigation').map((n) => n.type).join() === 'navigate'"
        )
    )


async def until(page: Page, *conditions: str) -> None:
    """Wait until the page's own script says so; survives another load of the page. Names what is still missing."""
    function = f"() => {' && '.join(f'({each})' for each in conditions)}"
    try:
        await page.wait_for_function(function, timeout=PATIENCE_MS)
    except TimeoutError as late:
        missing = [each for each in conditions if not await page.evaluate(f"() => {each}")]
        raise AssertionError(f"not so after {PATIENCE_MS} ms: {missing}") from late


async def picture(page: Page, path: Path) -> None:
    """Keep what the page looks like; on no width does it grow wider than the window."""
    await page.screenshot(path=path, caret="initial")
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
