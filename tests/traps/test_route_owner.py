"""Route owner: confused with allocation selection. Where the owner has nobody, the answer is an honest 503."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from moorage.edge.proxy.render import PIN_COOKIE
from tests.support.asking import ask_many, attached, who
from tests.support.deeds import deploy, serve
from tests.support.platform import Platform
from tests.support.tiny_app import tiny_app
from tests.support.truth import history, owner, rows
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

APP = "lonely"
HOST = f"{APP}.localhost"
HONEST = {"no-ready-allocation", "allocation-unreachable"}  # the second: it died and the edge has not heard it yet
FAILED_STARTS = 3


async def test_route_owner_without_a_healthy_allocation_is_an_honest_503(platform: Platform, tmp_path: Path) -> None:
    """The owner's process is killed and every new one fails. Healthy ones of others stand right beside it: of an
    earlier owner in the same environment, kept by its last session; of two previews; of another app."""
    broken = tmp_path / "broken"
    source = tiny_app(tmp_path / APP, APP, text="first", broken=broken)
    await serve(platform, source)
    await serve(platform, tiny_app(tmp_path / "other", "other"))
    async with attached(platform, HOST) as socket:
        early_pin = platform.get(HOST, headers={"Cookie": pin_of_socket(socket.response)}).headers.get("set-cookie")
        assert early_pin is None, "the session's pin leads where the session is"
        tiny_app(source, APP, text="second", broken=broken)
        await serve(platform, source, mode="drain")
        tiny_app(source, APP, text="third", broken=broken)
        await deploy(platform, source)
        last, row = await platform.allocation(APP), owner(platform, APP)
        pin = platform.get(HOST).headers["set-cookie"].split(";")[0]
        broken.touch()
        os.kill(last.pid or 0, signal.SIGKILL)
        answers: list[httpx.Response] = []

        async def has_failed_again() -> bool:
            answers.extend(await ask_many(platform, HOST, 20, Accept="application/json"))
            answers.extend(await ask_many(platform, HOST, 20, Accept="application/json", Cookie=pin))
            return len(await failed_starts(platform)) >= FAILED_STARTS

        await wait_until(has_failed_again, timeout_s=40, what="the replacements fail, too")
        check_honest(answers)
        await check_upgrades(platform)
        check_page(platform)
        assert owner(platform, APP) == row
        assert [entry["deployment_number"] for entry in history(platform, APP)] == [1, 2]
        await check_the_others_are_well(platform)
        assert socket.close_code is None
        broken.unlink()
        await wait_until(lambda: platform.get(HOST).status_code == 200, timeout_s=40, what="the owner is back")
        assert who(platform.get(HOST))["deployment"] == "2"
        assert owner(platform, APP) == row


def pin_of_socket(response: object) -> str:
    """The pin that came with an accepted upgrade, as a Cookie header."""
    (pin,) = [line for line in response.headers.get_all("Set-Cookie") if line.startswith(PIN_COOKIE)]  # type: ignore[attr-defined]
    return str(pin.split(";")[0])


async def failed_starts(platform: Platform) -> list[int]:
    """The owner's allocations that did not start."""
    return [
        int(row["number"])
        for row in rows(
            platform,
            "select number from allocations where app = ? and deployment_number = 2 and state = 'failed'"
            " and environment in (select id from environments where kind = 'production') and ready_ms is null",
            APP,
        )
    ]


def check_honest(answers: list[httpx.Response]) -> None:
    """Not one request was answered by an app; each answer says what is the matter and when to come again."""
    assert len(answers) >= 40
    alive = [answer for answer in answers if answer.status_code == 200]
    assert {json.loads(answer.text)["deployment"] for answer in alive} <= {"2"}, "nobody stood in for the owner"
    refused = answers[next(n for n, answer in enumerate(answers) if answer.status_code != 200) :]
    assert {answer.status_code for answer in refused} == {503}
    assert {answer.json()["code"] for answer in refused} <= HONEST
    assert refused[-1].json()["code"] == "no-ready-allocation"
    assert {answer.headers["content-type"] for answer in refused} == {"application/problem+json"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert len(refused) > len(answers) // 2


async def check_upgrades(platform: Platform) -> None:
    """A new session is not begun elsewhere either."""
    with pytest.raises(InvalidStatus) as refused:
        async with attached(platform, HOST):
            pass
    assert (refused.value.response.status_code, refused.value.response.headers["Retry-After"]) == (503, "1")


def check_page(platform: Platform) -> None:
    """A browser gets a page with the same code."""
    answer = platform.get(HOST, headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert "no-ready-allocation" in answer.text


async def check_the_others_are_well(platform: Platform) -> None:
    """Every other one was ready all the time, and would have answered."""
    async with platform.api() as api:
        found = [a for a in await api.allocations() if a.state == "ready"]
    assert {(a.app, a.environment, a.deployment) for a in found} >= {
        (APP, "production", 1),
        (APP, "preview 2", 2),
        (APP, "preview 3", 3),
        ("other", "production", 1),
    }
    answers = await asyncio.gather(*(asyncio.to_thread(httpx.get, f"http://{a.address}/") for a in found))
    assert {answer.status_code for answer in answers} == {200}
    assert who(platform.get("other.localhost"))["app"] == "other"
    assert who(platform.get(f"3--{HOST}"))["deployment"] == "3"


def test_route_owner_and_allocation_are_two_tables(platform: Platform) -> None:
    """An owner names a deployment and an environment, never an allocation."""
    columns = {row["name"] for row in rows(platform, "select name from pragma_table_info('route_owners')")}
    assert {"route_key", "epoch", "environment", "deployment"} <= columns
    assert [name for name in columns if any(word in name for word in ("alloc", "host", "port", "pid", "ready"))] == []
