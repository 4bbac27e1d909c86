"""Tier 1 over the live socket: upgrade, path and query, reconnect, the older path."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from conformance.asking import Route, ask
from conformance.guest import Guest
from conformance.report import Seen
from conformance.stage import Stage


async def upgrade(stage: Stage, route: Route, seen: Seen) -> None:
    async with Guest(route) as guest:
        hello = await guest.enter()
        seen.expect(hello.ok, "upgrade -> 101, ServerHello: ok", hello.status.name)
        await guest.press("inc")
        seen.expect(await guest.shows("count", "1"), "a click changes the page", guest.reads("count"))


async def live_path_query(stage: Stage, route: Route, seen: Seen) -> None:
    page = f"/second?b=2&a=1&mark={stage.mark('query')}"
    async with Guest(route) as guest:
        await guest.load(page)
        hello = await guest.open()
    seen.expect(hello.ok, "the live socket of a page with a query greets ok", hello.status.name)
    found = [parse_qs(urlsplit(each["uri"]).query) for each in await stage.overheard(route, page.rsplit("=", 1)[1])]
    paths = [query.get("path", [""])[0] for query in found]
    seen.expect(paths == [page], "the app decodes the page's path and query as they were sent", paths)


async def exactness(stage: Stage, route: Route, seen: Seen) -> None:
    """Percent signs of either case, empty values, double encoding, plus signs and semicolons stay as they are."""
    odd = "x=a%2Fb&y=1+2&&empty=&%C3%BC=%e2%82%ac&twice=%252F&semi=a;b&slash=/../"
    found = await stage.seen(route, f"/api/seen?{odd}")
    seen.expect(found.get("uri") == f"/api/seen?{odd}", "an odd query arrives byte for byte", found.get("uri"))
    mark = stage.mark("exact")
    target = f"/_vango/live?z=%2f&path=%2Fsecond%3Fx%3Da%252Fb%26y%3D%C3%BC&{odd}&mark={mark}"
    async with Guest(route) as guest:
        await guest.load("/second")
        hello = await guest.open(target=target)
    seen.expect(hello.ok, "the upgrade greets ok", hello.status.name)
    uris = [each["uri"] for each in await stage.overheard(route, mark)]
    seen.expect(uris == [target], "the target of the upgrade arrives byte for byte", uris)
    hosts = {each["host"] for each in await stage.overheard(route, mark)}
    seen.expect(hosts == {route.host}, "with its Host", hosts)


async def reconnect(stage: Stage, route: Route, seen: Seen) -> None:
    async with Guest(route) as guest:
        await guest.enter()
        await guest.press("inc")
        await guest.shows("count", "1")
        before = guest.session
        guest.drop()
        hello = await guest.open(before)
        seen.expect(hello.ok and hello.session_id == before, "ok, and the id that was sent", hello.status.name)
        seen.expect(await guest.is_sent_whole(), "the page is sent whole")
        seen.expect(guest.reads("count") == "1", "the counter is 1 still", guest.reads("count"))


async def legacy_path(stage: Stage, route: Route, seen: Seen) -> None:
    async with Guest(route) as guest:
        await guest.load("/")
        hello = await guest.open(target="/_vango/ws?path=%2F")
        seen.expect(hello.ok, "/_vango/ws: ServerHello: ok", hello.status.name)
    plain = await ask(route, "/_vango/ws?path=%2F")
    seen.expect(plain.status == 400, "a plain GET of it reaches the app -> 400", plain.line)
