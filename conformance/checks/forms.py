"""Tier 2, what is sent: forms with and without their token, uploads, a post whose answer got lost."""

from __future__ import annotations

import hashlib
from typing import Final
from urllib.parse import urlencode

from conformance.asking import Answer, Route, ask, multipart
from conformance.checks.pages import CODE
from conformance.checks.security import CSRF_COOKIE
from conformance.guest import PATIENCE_S, Guest
from conformance.report import Seen
from conformance.stage import Stage
from moorage.vango import wire
from moorage.vango.wire import Frame, FrameKind

UPLOAD_BYTES: Final = 8 << 20
_FORM: Final = "application/x-www-form-urlencoded"


async def csrf_token_present(stage: Stage, route: Route, seen: Seen) -> None:
    answer = await ask(route, "/form")
    cookie = answer.cookies.get(CSRF_COOKIE, "")
    seen.expect(bool(cookie), f"GET /form sets {CSRF_COOKIE}")
    field = answer.page.value("csrf")
    seen.expect(bool(cookie) and field == cookie, "the form's hidden field has the cookie's value")
    seen.expect(answer.page.csrf == cookie, "the client script is given the same token")


async def _post(route: Route, note: str, *, token: str | None, cookies: dict[str, str]) -> Answer:
    fields = {"note": note} if token is None else {"note": note, "csrf": token}
    return await ask(
        route,
        "/form",
        method="POST",
        headers={"Content-Type": _FORM, "Origin": route.url},
        body=urlencode(fields).encode(),
        cookies=cookies,
    )


async def valid_post(stage: Stage, route: Route, seen: Seen) -> None:
    page, note = await ask(route, "/form"), stage.mark("form")
    answer = await _post(route, note, token=page.cookies[CSRF_COOKIE], cookies=page.cookies)
    there = answer.header("Location")
    seen.expect(
        (answer.status, there) == (303, "/form"), "POST /form with its token -> 303, Location: /form", answer.line
    )
    count = await stage.counted(route, "form", note)
    seen.expect(count == 1, "the app took it once", f"{count} times")


async def missing_token(stage: Stage, route: Route, seen: Seen) -> None:
    page, note = await ask(route, "/form"), stage.mark("form")
    other = (await ask(route, "/form")).cookies[CSRF_COOKIE]
    ways: tuple[tuple[str, str | None, dict[str, str]], ...] = (
        ("no token", None, page.cookies),
        ("no cookie", page.cookies[CSRF_COOKIE], {}),
        ("another page's token", other, page.cookies),
        ("a made-up token", "x" * len(other), {**page.cookies, CSRF_COOKIE: "x" * len(other)}),
    )
    for how, token, cookies in ways:
        answer = await _post(route, note, token=token, cookies=cookies)
        own = not answer.header(CODE)
        seen.expect(answer.status == 403 and own, f"POST /form with {how} -> 403 by the app", answer.line)
    count = await stage.counted(route, "form", note)
    seen.expect(count == 0, "the app took none of them", f"{count} times")


async def http_upload(stage: Stage, route: Route, seen: Seen) -> None:
    page, name = await ask(route, "/"), f"{stage.mark('upload')}.bin"
    content = hashlib.shake_256(name.encode()).digest(UPLOAD_BYTES)
    kind, body = multipart(name, content)
    headers = {"Content-Type": kind, "X-CSRF-Token": page.cookies[CSRF_COOKIE]}
    answer = await ask(route, "/upload", method="POST", headers=headers, body=body, cookies=page.cookies)
    seen.expect(
        200 <= answer.status < 300, f"POST /upload with {UPLOAD_BYTES >> 20} MiB -> {answer.status}", answer.line
    )
    digest = hashlib.sha256(content).hexdigest()
    seen.expect(digest in answer.text, "its SHA-256 at the app is that of what was sent", answer.text[:80])
    count = await stage.counted(route, "upload", name)
    seen.expect(count == 1, "the app took it once", f"{count} times")


async def live_upload_blocked(stage: Stage, route: Route, seen: Seen) -> None:
    async with Guest(route) as guest:
        hello = await guest.enter()
        seen.expect(hello.ok, "a live socket is open", hello.status.name)
        large = Frame(FrameKind.EVENT, bytes(2 * wire.CLIENT_FRAME_MAX_BYTES))
        await guest.send_raw(wire.encode_frame(large))
        limit = wire.CLIENT_FRAME_MAX_BYTES >> 10
        seen.expect(await guest.is_lost(PATIENCE_S), f"a message of {2 * limit} KiB ends it: {limit} KiB are the limit")
    answer = await ask(route, "/api/health")
    seen.expect(answer.status == 200, "the app serves on", answer.line)


async def not_replayed(stage: Stage, route: Route, seen: Seen) -> None:
    """The app counts the request and closes the connection instead of answering: nobody may send it again."""
    for how, key in (("a form", stage.mark("break")), ("an upload", stage.mark("break"))):
        kind, body = multipart("part.bin", bytes(1 << 20)) if how == "an upload" else (_FORM, b"note=1")
        page = await ask(route, "/")
        headers = {"Content-Type": kind, "Idempotency-Key": key}
        answer = await ask(
            route, f"/break-off?key={key}", method="POST", headers=headers, body=body, cookies=page.cookies
        )
        code = answer.header(CODE)
        told = f"POST of {how}, the app breaks off -> 502, {CODE}: allocation-broke-off"
        seen.expect((answer.status, code) == (502, "allocation-broke-off"), told, f"{answer.line} {code}")
        count = await stage.counted(route, "break-off", key)
        seen.expect(count == 1, "the app saw it once", f"{count} times")
