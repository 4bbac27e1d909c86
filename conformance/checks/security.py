"""Tier 2, who asks and from where: hosts, origins, forwarded headers, cookies, content security policy, unsafe apps."""

from __future__ import annotations

import re

from conformance.asking import Answer, Route, ask, attributes
from conformance.checks.pages import CODE
from conformance.fixture import APP, with_development_mode
from conformance.ground import Ground
from conformance.guest import Guest, RefusedError
from conformance.report import Seen
from conformance.stage import Stage

CSRF_COOKIE, PIN_COOKIE = "__vango_csrf", "moorage_pin"
SPOOFED, SOURCE = "203.0.113.7", "127.0.0.9"


async def host_header_policy(stage: Stage, route: Route, seen: Seen) -> None:
    name = route.host.split(":")[0]
    for host in ("evil.example", f"{name}.evil.example", "localhost"):
        answer = await ask(route, "/", host=host)
        code = answer.header(CODE)
        seen.expect(
            (answer.status, code) == (404, "unknown-host"),
            f"Host: {host} -> 404 {CODE}: unknown-host",
            f"{answer.line} {code}",
        )
    upper = await ask(route, "/", host=name.upper())
    seen.expect(upper.status in (200, 421), f"the host without port, in capitals -> {upper.status}", upper.line)
    address = await _address_of(stage.ground, route)
    direct = await ask(route, "/", host="evil.example", address=address)
    seen.expect(
        direct.status == 421, "past the edge: Host: evil.example -> 421, the app allows its own only", direct.line
    )


async def _address_of(ground: Ground, route: Route) -> tuple[str, int]:
    """Where an allocation behind a route listens."""
    found = next(a for a in await ground.allocations(route.environment) if a.state == "ready" and a.posture == "open")
    host, _, port = found.address.rpartition(":")
    return host, int(port)


async def trusted_proxy_scheme(stage: Stage, route: Route, seen: Seen) -> None:
    spoofed = {"X-Forwarded-Proto": "https", "Forwarded": f"for={SPOOFED};proto=https;host=evil.example"}
    found = (await stage.seen(route, headers=spoofed))["headers"]
    proto = found.get("X-Forwarded-Proto")
    seen.expect(proto == "http", "sent: X-Forwarded-Proto: https; the app sees: http", proto)
    forwarded = found.get("Forwarded", "")
    clean = "proto=http" in forwarded and "https" not in forwarded and "evil" not in forwarded
    seen.expect(clean, "sent: Forwarded with proto=https; the app sees proto=http", forwarded)
    host = found.get("X-Forwarded-Host")
    seen.expect(host == route.host, "X-Forwarded-Host is the route's", host)


async def trusted_proxy_client_ip(stage: Stage, route: Route, seen: Seen) -> None:
    spoofed = {"X-Forwarded-For": SPOOFED, "X-Real-IP": SPOOFED, "Forwarded": f"for={SPOOFED}"}
    found = (await stage.seen(route, headers=spoofed, source=SOURCE))["headers"]
    told = found.get("X-Forwarded-For")
    seen.expect(told == SOURCE, f"sent: X-Forwarded-For: {SPOOFED}; the app sees: {SOURCE}", told)
    clean = SPOOFED not in found.get("Forwarded", "")
    seen.expect(clean, f"Forwarded does not repeat {SPOOFED}", found.get("Forwarded"))
    async with Guest(route, source=SOURCE) as guest:
        await guest.load("/")
        await guest.open(headers={"X-Forwarded-For": SPOOFED})
        await guest.press("tell")
        known = await guest.until(lambda: guest.reads("address") != "")
        seen.expect(
            known and guest.reads("address") == SOURCE,
            f"upgrade with X-Forwarded-For: {SPOOFED}; the framework counts it under {SOURCE}",
            guest.reads("address"),
        )


def _attributes(answer: Answer, name: str) -> list[str] | None:
    line = next((line for line in answer.all("Set-Cookie") if line.startswith(f"{name}=")), None)
    return None if line is None else [part.lower() for part in attributes(line)]


async def cookie_secure(stage: Stage, route: Route, seen: Seen) -> None:
    answer = await ask(route, "/")
    for name in (CSRF_COOKIE, PIN_COOKIE):
        found = _attributes(answer, name)
        seen.expect(
            found is not None and "secure" not in found, f"{name}: not Secure, as the route is plain HTTP", found
        )
    seen.warn(
        "the edge speaks plain HTTP, so that Secure cookies over HTTPS could not be tried: with TLS in front of the "
        "edge, cookies are not marked Secure yet"
    )


async def cookie_samesite(stage: Stage, route: Route, seen: Seen) -> None:
    answer = await ask(route, "/")
    csrf, pin = _attributes(answer, CSRF_COOKIE) or [], _attributes(answer, PIN_COOKIE) or []
    seen.expect("samesite=lax" in csrf, f"{CSRF_COOKIE}: SameSite=Lax", csrf)
    seen.expect("httponly" not in csrf, f"{CSRF_COOKIE}: the page's script can read it, as it must", csrf)
    for wanted in ("samesite=lax", "httponly", "path=/"):
        seen.expect(wanted in pin, f"{PIN_COOKIE}: {wanted}", pin)


def _directives(answer: Answer) -> dict[str, list[str]]:
    """The content security policy by directive."""
    parts = (part.split() for part in answer.header("Content-Security-Policy").split(";"))
    return {words[0]: words[1:] for words in parts if words}


async def csp_runtime_compatible(stage: Stage, route: Route, seen: Seen) -> None:
    answer = await ask(route, "/")
    policies = answer.all("Content-Security-Policy")
    if not seen.expect(len(policies) == 1, "one Content-Security-Policy", len(policies)):
        return
    found = _directives(answer)
    scripts = found.get("script-src", found.get("default-src", []))
    seen.expect("'self'" in scripts, f"script-src: {' '.join(scripts)}: the client script may run", scripts)
    seen.expect("'unsafe-inline'" not in scripts, "no inline script may", scripts)
    styles = found.get("style-src", found.get("default-src", []))
    seen.expect("'self'" in styles, f"style-src: {' '.join(styles)}", styles)


async def csp_connect_src(stage: Stage, route: Route, seen: Seen) -> None:
    found = _directives(await ask(route, "/")).get("connect-src", [])
    socket = f"ws://{route.host}"
    seen.expect(socket in found or "'self'" in found, f"connect-src: {' '.join(found)}", found)
    own = re.compile(rf"wss?://{re.escape(route.host)}\Z")
    strangers = [each for each in found if "//" in each and not own.match(each)]
    seen.expect(strangers == [], "no other host is named in it", strangers)


async def unsafe_config_blocked(stage: Stage, route: Route, seen: Seen) -> None:
    await expect_blocked(stage, seen, "development mode", "vango-unsafe-settings")


async def expect_blocked(stage: Stage, seen: Seen, what: str, code: str) -> None:
    """Deploy the spoilt app of this kind: it must end blocked, with its code, and change nothing."""
    from conformance.fixture import with_unknown_version

    before = await stage.ground.serving()
    spoil = with_development_mode if what == "development mode" else with_unknown_version
    said = await stage.ground.command("deploy", str(spoil(stage.folder / code)))
    operation = await stage.ground.operation("deploy")
    found = str((operation.problem or {}).get("code"))
    seen.expect(said.code != 0 and operation.state == "blocked", f"deploy of {what}: blocked", operation.state)
    seen.expect(found == code, f"its code: {code}", found)
    after = await stage.ground.serving()
    same = (before.number, before.deployment) == (after.number, after.deployment)
    seen.expect(same, f"{APP} is served as before")


async def origin_accepted(stage: Stage, route: Route, seen: Seen) -> None:
    async with Guest(route) as guest:
        await guest.load("/")
        hello = await guest.open(origin=route.url)
        seen.expect(hello.ok, f"Origin: {route.url}: 101, ServerHello: ok", hello.status.name)


async def origin_rejected(stage: Stage, route: Route, seen: Seen) -> None:
    for origin in ("http://evil.example", f"http://evil.{route.host}", "null"):
        async with Guest(route) as guest:
            await guest.load("/")
            try:
                hello = await guest.open(origin=origin)
                seen.expect(False, f"Origin: {origin} -> 403", f"101, {hello.status.name}")
            except RefusedError as refused:
                own = not refused.code
                seen.expect(refused.status == 403 and own, f"Origin: {origin} -> 403 by the app", refused)
