"""Requests of strangers: many at once, without a cookie unless one is given, each answer kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from moorage.system.clock import pause
from tests.support.platform import Platform

AT_ONCE = 20
PATIENCE_S = 30.0


def stranger(platform: Platform) -> httpx.AsyncClient:
    """A client of the edge that forgets every cookie."""
    nothing = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{platform.http_port}", cookies=nothing, trust_env=False, timeout=PATIENCE_S
    )


async def ask_many(platform: Platform, host: str, count: int, **headers: str) -> list[httpx.Response]:
    """`count` requests to a host, AT_ONCE at a time. Where an app died on a connection that was used before, the proxy
    hangs up without a word: no answer is no wrong answer, and is left out."""
    door = asyncio.Semaphore(AT_ONCE)
    async with stranger(platform) as client:

        async def ask() -> list[httpx.Response]:
            async with door:
                try:
                    return [await client.get("/", headers={"Host": f"{host}:{platform.http_port}", **headers})]
                except httpx.RemoteProtocolError:
                    return []

        return [answer for answers in await asyncio.gather(*(ask() for _ in range(count))) for answer in answers]


@dataclass
class Traffic:
    """What a steady stream of requests was answered: `failures` holds everything but a 200, `courses` the deployments
    that answered each client, one after the other."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    courses: list[list[str]] = field(default_factory=list)

    def take(self, answer: httpx.Response, course: list[str]) -> None:
        """Count one answer."""
        self.answered += 1
        if answer.status_code != 200:
            self.failures.append(f"{answer.status_code} {answer.text[:100]}")
        elif course[-1:] != [answer.json()["deployment"]]:
            course.append(answer.json()["deployment"])


@asynccontextmanager
async def traffic(platform: Platform, host: str, *, clients: int = 3, pause_s: float = 0.005) -> AsyncIterator[Traffic]:
    """Requests without end, of several clients, as long as the block runs."""
    seen = Traffic(courses=[[] for _ in range(clients)])

    async def ask_on(course: list[str]) -> None:
        async with stranger(platform) as client:
            while True:
                try:
                    seen.take(await client.get("/", headers={"Host": f"{host}:{platform.http_port}"}), course)
                except httpx.HTTPError as failed:
                    seen.failures.append(repr(failed))
                await pause(pause_s)

    tasks = [asyncio.create_task(ask_on(course)) for course in seen.courses]
    try:
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def attached(platform: Platform, host: str, path: str = "/") -> AsyncIterator[ClientConnection]:
    """A socket that stays attached to whoever it was given to, as long as the block runs."""
    url = f"ws://{host}:{platform.http_port}{path}"
    async with connect(
        url, host="127.0.0.1", port=platform.http_port, proxy=None, ping_interval=None, close_timeout=1
    ) as socket:
        yield socket


def who(answer: httpx.Response) -> dict[str, Any]:
    """Who answered, in the words of the tiny app."""
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found
