"""A real Vango app in a browser, on a whole platform: two open tabs live through deploys, a crash and a cold promotion.

One story, told once: what the store shows of a move settles with the framework's tick of 30 s, so the accounts of all
moves settle while the story goes on, and only the last one is waited for. `REWRITE_SCREENSHOTS=1` writes the pictures
of the docs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, ViewportSize

from moorage.cli.call import Exit
from moorage.domain.session import Outcome
from moorage.system.clock import now_ms
from moorage.wire.api import OperationView
from tests.browser.chromium import (
    DESKTOP,
    PHONE,
    is_same_load,
    needs_chromium,
    new_tab,
    picture,
    running_chromium,
    until,
)
from tests.support.platform import Answer, Platform
from tests.support.vango_stage import NAME, Shelf, needs_go, preview, serve

STORY_WITHIN_S = 900  # nearly all of it is the first Go build on a machine that has never made one
SETTLED_WITHIN_S = 60.0
CLOCKS_MS = 1_000  # between a kill here and its being noted there
TYPING_MS = 60
DOCS_IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
BANNER = ".vango-session-refresh-banner--visible"
BANNER_IS_IN_PLACE = f"document.querySelector({BANNER!r})?.getBoundingClientRect().top >= 0"
LIVE = "document.documentElement.classList.contains('vango-connected')"
RECONNECTING = "document.documentElement.classList.contains('vango-reconnecting')"
RESUMED = "document.getElementById('story')?.textContent.startsWith('resumed from the session store')"
SERVER_HAS_THE_DRAFT = "document.getElementById('draft')?.value === document.getElementById('draft-echo')?.textContent"

pytestmark = [
    pytest.mark.servers,
    pytest.mark.browser,
    pytest.mark.timeout(STORY_WITHIN_S),
    needs_chromium,
    needs_go,
]


def is_text(element: str, words: str) -> str:
    """A condition: the element's text is exactly this."""
    return f"document.getElementById({element!r})?.textContent === {json.dumps(words)}"


def is_value(field: str, words: str) -> str:
    """A condition: what stands in the field is exactly this."""
    return f"document.getElementById({field!r})?.value === {json.dumps(words)}"


def mentions(element: str, words: str) -> str:
    """A condition: the element's text has these words somewhere."""
    return f"document.getElementById({element!r})?.textContent.includes({json.dumps(words)})"


@dataclass(frozen=True)
class Kept:
    """What a session keeps, as its page shows it."""

    draft: str
    message: str
    colour: str
    count: int

    @property
    def shown(self) -> tuple[str, ...]:
        """The conditions that the page shows exactly this, and that the server has the draft."""
        return (
            is_value("draft", self.draft),
            is_text("draft-echo", self.draft),
            is_value("note-text", self.message),
            is_text("color", self.colour),
            is_text("count", str(self.count)),
        )


@dataclass
class Tab:
    """An open page, and what its person knows to be kept."""

    page: Page
    kept: Kept


@dataclass(frozen=True)
class Crash:
    """When a person last changed something, when the process was killed, and whether the change came back."""

    changed_ms: int
    killed_ms: int
    change_is_kept: bool


AT_DEFAULTS = Kept("", "", "yellow", 0)
ON_THE_DESK = Kept("Ask Ines for the charts of the north channel", "Who has the key of the blue locker?", "mint", 3)
ON_THE_PHONE = Kept("Two ropes, one lantern", "", "sky", 2)
TYPED_THROUGH = ", for the tide table of the next week, and for the list of moorings that are free until the regatta"
NOTES = ("Low tide at 14:20", "The crane is free from four o'clock")


@pytest.fixture(scope="module")
def board(platform: Platform) -> str:
    """Version 1 is served; 2 (warm) and 3 (cold) have previews. All three were built before, or are now."""
    asyncio.run(_boards(platform, Shelf()))
    return NAME


async def _boards(platform: Platform, shelf: Shelf) -> None:
    assert await serve(platform, shelf, NAME) == 1
    assert [await preview(platform, shelf, version, NAME) for version in ("v2", "v3")] == [2, 3]


@pytest_asyncio.fixture
async def browser(tmp_path: Path) -> AsyncIterator[BrowserContext]:
    """An empty Chromium."""
    async with running_chromium(tmp_path / "profile") as context:
        yield context


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures go: to the docs when these are to be written anew."""
    return DOCS_IMAGES if os.environ.get("REWRITE_SCREENSHOTS") else tmp_path


async def test_two_open_tabs_live_through_deploys_a_crash_and_a_cold_promotion(
    platform: Platform, board: str, browser: BrowserContext, pictures: Path
) -> None:
    desk = await at_work(platform, browser, DESKTOP, ON_THE_DESK)
    phone = await at_work(platform, browser, PHONE, ON_THE_PHONE, pins=NOTES)
    await desk.page.click("#scratch-inc")
    await until(desk.page, is_text("scratch", "1"), *(mentions("notes", note) for note in NOTES))

    await promoted_warm(platform, desk, phone, pictures)
    acknowledge = await refused_twice(platform, desk, phone)
    crash = await crashed(platform, desk, phone)
    await promoted_cold(platform, desk, phone, acknowledge, pictures)

    warm, replacement, cold = await settled_moves(platform)
    assert outcomes(warm) == {Outcome.RESUMED: 2}
    assert outcomes(replacement) == {Outcome.RESUMED: 2}
    assert outcomes(cold) == {Outcome.FRESH: 2}
    assert account(cold)["reasons"] == {"fresh": {"schema-cold": 2}}
    age_ms = account(replacement)["age_max_s"] * 1000
    assert age_ms <= crash.killed_ms - warm.facts["cut_ms"] + CLOCKS_MS, "the move had stored all that there was"
    if crash.change_is_kept:
        assert age_ms <= crash.killed_ms - crash.changed_ms + CLOCKS_MS
    else:
        assert age_ms >= crash.killed_ms - crash.changed_ms, "the account says that the change is within what was lost"


async def at_work(
    platform: Platform, browser: BrowserContext, size: ViewportSize, work: Kept, *, pins: tuple[str, ...] = ()
) -> Tab:
    """A tab whose person has done this much, after pinning some notes for everybody."""
    page = await new_tab(browser, f"http://{platform.host(NAME)}/", size)
    await until(page, LIVE, is_text("story", "fresh"), is_text("version", "v1"))
    for note in pins:
        await page.fill("#note-text", note)
        await page.click("#note-add")
        await until(page, mentions("notes", note), is_value("note-text", ""))
    await page.click(f"#color-{work.colour}")
    for _ in range(work.count):
        await page.click("#inc")
    for field, words in (("note-text", work.message), ("draft", work.draft)):
        await page.fill(f"#{field}", words)
    await until(page, *work.shown)
    return Tab(page, work)


async def promoted_warm(platform: Platform, desk: Tab, phone: Tab, pictures: Path) -> None:
    """Version 2 takes over, while somebody goes on typing: no page is loaded anew, and all that was there is there."""
    old = await platform.allocation(NAME)
    await desk.page.click("#draft")
    await desk.page.keyboard.press("End")
    promotion = asyncio.create_task(platform.run("promote", NAME, "--deployment", "2", "--json"))
    going_on = asyncio.create_task(desk.page.keyboard.type(TYPED_THROUGH, delay=TYPING_MS))
    await until(phone.page, RECONNECTING)
    await picture(phone.page, pictures / "vango-handover.png")
    done, _ = await asyncio.gather(promotion, going_on)
    assert done.code == Exit.OK, done.out + done.err

    new = await platform.allocation(NAME)
    assert new.number != old.number
    await until(desk.page, LIVE, is_text("version", "v2"), SERVER_HAS_THE_DRAFT)
    desk.kept = replace(desk.kept, draft=await desk.page.input_value("#draft"))
    assert desk.kept.draft.startswith(ON_THE_DESK.draft), "what was there before the move"
    await still_there(desk, phone, allocation=new.number)
    for tab in (desk, phone):
        await until(tab.page, is_text("version", "v2"), is_text("mood", "calm"), is_text("scratch", "0"))
    await picture(desk.page, pictures / "vango-board.png")
    await picture(phone.page, pictures / "vango-phone.png")


async def still_there(*tabs: Tab, allocation: int) -> None:
    """Each page is the one that was opened, and shows all that its person and everybody else had written."""
    for tab in tabs:
        await until(tab.page, LIVE, RESUMED, is_text("allocation", str(allocation)))
        await until(tab.page, *tab.kept.shown, *(mentions("notes", note) for note in NOTES))
        assert await is_same_load(tab.page)


async def refused_twice(platform: Platform, desk: Tab, phone: Tab) -> str:
    """The way back over an addition and the way on to a retyped field are both cold, and named. What accepts the
    second one."""
    served = await platform.allocation(NAME)
    back = await platform.run("rollback", NAME, "--json")
    assert refusal(back) == ("acknowledgement-required", "cold", ["mood removed"])
    on = await platform.run("promote", NAME, "--deployment", "3", "--json")
    code, impact, changes = refusal(on)
    assert (code, impact, len(changes)) == ("acknowledgement-required", "cold", 1)
    assert changes[0].startswith("count retyped from ")
    for answer in (back, on):
        assert answer.json["report"]["expected"] == {
            **dict.fromkeys(("resume", "stay", "unknown"), 0),
            "fresh": 2,
            "how": "the state impact is cold",
        }
    await still_there(desk, phone, allocation=served.number)
    return str(on.json["acknowledge"])


def refusal(answer: Answer) -> tuple[str, str, list[str]]:
    """Code, impact and changes of a refused promotion."""
    assert answer.code == Exit.ACKNOWLEDGEMENT, answer.out + answer.err
    return answer.json["code"], answer.json["impact"], [c["text"] for c in answer.json["report"]["forward_changes"]]


async def crashed(platform: Platform, desk: Tab, phone: Tab) -> Crash:
    """kill -9 of the only allocation, right after somebody has changed something: what was stored comes back."""
    dead = await platform.allocation(NAME)
    assert dead.pid is not None
    await desk.page.click("#inc")
    await until(desk.page, is_text("count", str(desk.kept.count + 1)))
    changed_ms = now_ms()
    os.kill(dead.pid, signal.SIGKILL)
    killed_ms = now_ms()
    for tab in (desk, phone):
        await until(tab.page, LIVE, RESUMED, f"!({is_text('allocation', str(dead.number))})")
    await until(desk.page, SERVER_HAS_THE_DRAFT)
    count, draft = int(await desk.page.inner_text("#count")), await desk.page.input_value("#draft")
    assert draft.startswith(ON_THE_DESK.draft), "what the move had stored; what was typed after it may be lost"
    crash = Crash(changed_ms, killed_ms, change_is_kept=count == desk.kept.count + 1)
    desk.kept = replace(desk.kept, count=desk.kept.count + crash.change_is_kept, draft=draft)
    new = await platform.allocation(NAME)
    assert new.number != dead.number
    await still_there(desk, phone, allocation=new.number)
    return crash


async def promoted_cold(platform: Platform, desk: Tab, phone: Tab, acknowledge: str, pictures: Path) -> None:
    """Version 3, acknowledged: every page is loaded anew, says why, and starts at the defaults; the notes stay."""
    words = ("promote", NAME, "--deployment", "3", "--acknowledge", acknowledge, "--json")
    promotion = asyncio.create_task(platform.run(*words))
    banners = [tab.page.locator(BANNER) for tab in (desk, phone)]
    for said in await asyncio.gather(*(banner.inner_text() for banner in banners)):
        assert "app update" in said
    await until(desk.page, BANNER_IS_IN_PLACE)
    await picture(desk.page, pictures / "vango-cold.png")
    done = await promotion
    assert done.code == Exit.OK, done.out + done.err
    new = await platform.allocation(NAME)
    for tab in (desk, phone):
        await until(tab.page, LIVE, is_text("story", "fresh"), is_text("version", "v3"), *AT_DEFAULTS.shown)
        await until(tab.page, is_text("allocation", str(new.number)), *(mentions("notes", note) for note in NOTES))
        assert not await is_same_load(tab.page)


async def settled_moves(platform: Platform) -> list[OperationView]:
    """Every move of sessions, oldest first, once its account is settled."""
    async with platform.api() as api:
        moves = [o.id for o in await api.operations(NAME) if o.kind in ("handover", "replacement")]
    found = [await platform.finished(move, timeout_s=SETTLED_WITHIN_S) for move in reversed(moves)]
    assert all(account(move)["settled"] for move in found)
    return found


def account(move: OperationView) -> Mapping[str, Any]:
    """The account that a move has drawn up."""
    drawn: Mapping[str, Any] = move.facts["account"]
    return drawn


def outcomes(move: OperationView) -> dict[Outcome, int]:
    """How many sessions ended how, without the empty rows; they add up."""
    found = {outcome: int(account(move)[outcome]) for outcome in Outcome if account(move)[outcome]}
    assert sum(found.values()) == account(move)["total"]
    return found
