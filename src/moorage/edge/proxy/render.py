"""The proxy's configuration from settings: written once before the proxy starts; routes never appear in it. Pure.

On the path of a request: one look-up of the host, integers packed by `hot`, a server chosen by native stickiness to
its id. No choice by name, no Lua except for upgrades to a held route, and every server has weight 0: where a slot or a
pin names nothing, the answer is an honest 503 and never another app's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from importlib import resources
from pathlib import Path

from moorage.domain.limits import ADMISSION_PER_S, HOLD_BUDGET_S
from moorage.edge.proxy import pages
from moorage.edge.proxy.commands import POOL, REFUSES_UPGRADES, TAKES_UPGRADES
from moorage.edge.proxy.hot import CLOSED_FLAG, COUNT_UNIT, HELD_FLAG, KNOWN_FLAG, SLOT_MASK, SLOTS_MAX_COUNT

CONFIG_NAME = "haproxy.cfg"
LUA_NAME = "hold.lua"
PIN_COOKIE = "moorage_pin"
CODE_HEADER = "X-Moorage-Code"  # on every answer of the edge itself: why, for programs
HOST_RULE = "http-request set-var(txn.host) req.fhdr(host)"

ROUTES_MAX_COUNT = 2_000_000  # entries of the hot table; memory is taken per entry that is used
ALLOCATIONS_MAX_COUNT = 1_000_000
HEADERS_MAX_BYTES = 30 << 10  # of one request or answer: what fits a buffer beside its reserve
CONNECTIONS_MAX_COUNT = 100_000
DESCRIPTORS_RESERVED_COUNT = 300  # runtime socket, listeners, logs
SOCKET_PATH_MAX_BYTES = 100  # of sun_path's 108, with room for the proxy's temporary suffix

_BUFFER_BYTES = 32 << 10
_REWRITE_BYTES = 2 << 10


class AccessLog(StrEnum):
    """How much of the traffic the proxy logs, to its standard output."""

    OFF = "off"
    SAMPLED = "sampled"  # one request in a hundred: a line for each would cost a third of the throughput


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Everything the configuration depends on.

    `directory` takes the written files; `runtime_socket` is a path of at most 100 bytes; `maxconn` comes from
    `connections_for`. `trusted_proxies` are networks (CIDR) whose forwarding headers are believed. `threads` None
    means one per core.
    """

    directory: Path
    runtime_socket: Path
    bind_host: str
    http_port: int
    maxconn: int
    trusted_proxies: tuple[str, ...] = ()
    access_log: AccessLog = AccessLog.OFF
    threads: int | None = None
    hold_budget_s: float = HOLD_BUDGET_S
    admission_per_s: int = ADMISSION_PER_S


def connections_for(open_files_max_count: int) -> int:
    """How many client connections fit the limit on open files: each may need a second one to its server."""
    return max(10, min(CONNECTIONS_MAX_COUNT, (open_files_max_count - DESCRIPTORS_RESERVED_COUNT) // 2))


def render(settings: ProxySettings) -> Mapping[str, str]:
    """The content of each file of the configuration, by file name; `CONFIG_NAME` is the one to start with."""
    files = {LUA_NAME: resources.files(__package__).joinpath(LUA_NAME).read_text()}
    for answer in pages.ANSWERED_BEFORE_AN_APP:
        files[f"{answer.code}.html"] = pages.page_of(answer) + "\n"
        files[f"{answer.code}.json"] = pages.problem_of(answer) + "\n"
    for answer in pages.ANSWERED_FOR_AN_APP:
        files[f"{answer.code}.page"] = _either(answer)
    files[f"{pages.BAD_REQUEST.code}.http"] = _message(pages.BAD_REQUEST)
    sections = (
        _global(settings),
        _defaults(settings),
        _tables(settings),
        _frontend(settings),
        _pool(),
        _refused(settings),
    )
    files[CONFIG_NAME] = "\n\n".join("\n".join(section) for section in sections) + "\n"
    return files


def _either(answer: pages.Answer) -> str:
    """A log-format text that becomes problem details for a program and a page for a browser.

    The proxy knows one body per status of its own failures, so the choice is an expression in it.
    """
    problem, page = pages.problem_of(answer), pages.page_of(answer)
    assert not set("'%[]") & set(problem + page), "the texts stand in a quoted expression"
    return f"%[var(txn.json,0),iif('{problem}','{page}')]\n"


def _message(answer: pages.Answer) -> str:
    """A whole HTTP message: a denied request is answered with a file. Bytes that are not HTTP at all never come this
    far; the proxy answers them with a line of its own."""
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        f"{CODE_HEADER}: {answer.code}",
        "Content-Type: text/html; charset=utf-8",
        "Cache-Control: no-store",
        "Connection: close",
    )
    page = pages.page_of(answer)
    return "\r\n".join((*head, f"Content-Length: {len(page.encode())}", "", page))


def _quoted(text: object) -> str:
    """The text as one word of the configuration, whatever it holds."""
    return "'" + str(text).replace("'", "'\\''") + "'"


def _global(settings: ProxySettings) -> Iterable[str]:
    lua = [settings.directory / LUA_NAME, settings.hold_budget_s, settings.admission_per_s, HELD_FLAG, "hot"]
    yield "global"
    yield f"    stats socket {_quoted(settings.runtime_socket)} mode 600 level admin"
    yield "    stats timeout 1h"
    yield "    stats maxconn 32"
    yield f"    maxconn {settings.maxconn}"
    yield "    noreuseport"  # else a second proxy shares the port in silence and traffic splits
    if settings.threads is not None:
        yield f"    nbthread {settings.threads}"
    yield f"    tune.bufsize {_BUFFER_BYTES}"
    yield f"    tune.maxrewrite {_REWRITE_BYTES}"
    yield f"    lua-load {' '.join(_quoted(word) for word in lua)}"


def _defaults(settings: ProxySettings) -> Iterable[str]:
    yield "defaults"
    yield "    mode http"
    yield "    timeout connect 3s"
    yield "    timeout client 10m"  # streams that are quiet for a while are what these apps are made of
    yield "    timeout server 10m"
    yield "    timeout tunnel 24h"
    yield "    timeout client-fin 10s"
    yield "    timeout server-fin 10s"
    yield "    timeout http-request 10s"
    yield "    timeout http-keep-alive 60s"
    yield "    http-reuse safe"
    yield "    retries 1"  # a second later; then an honest 503
    yield "    retry-on conn-failure"  # nothing that reached an app is sent twice
    yield "    option http-restrict-req-hdr-names delete"
    yield "    option abortonclose"  # a client that gave up while held does not reach the app
    yield "    option clitcpka"  # a peer that vanished does not count as attached for a day
    yield "    clitcpka-idle 60s"
    yield "    clitcpka-intvl 15s"
    yield "    clitcpka-cnt 4"
    for answer in pages.ANSWERED_FOR_AN_APP:
        path = _quoted(settings.directory / f"{answer.code}.page")
        yield f"    http-error status {answer.status} {_HTML} lf-file {path} {_headers(answer)}"
    bad = pages.BAD_REQUEST
    yield f"    errorfile {bad.status} {_quoted(settings.directory / f'{bad.code}.http')}"


_HTML = "content-type 'text/html; charset=utf-8'"
_JSON = "content-type application/problem+json"


def _headers(answer: pages.Answer) -> str:
    retry = f" hdr Retry-After {pages.RETRY_AFTER_S}" if answer.retry else ""
    return f"hdr {CODE_HEADER} {answer.code} hdr Cache-Control no-store{retry}"


def _tables(settings: ProxySettings) -> Iterable[str]:
    """Stick tables as key-value stores that the agent fills, and the two counters of attached sockets."""
    sockets = settings.maxconn * 2
    yield "backend hot"
    yield f"    stick-table type string len 254 size {ROUTES_MAX_COUNT} nopurge store gpt0,gpc0"
    yield "backend slots"
    yield f"    stick-table type integer size {SLOTS_MAX_COUNT} nopurge store server_id"
    yield "backend numbers"
    yield f"    stick-table type integer size {ALLOCATIONS_MAX_COUNT} nopurge store server_id,gpt0"
    yield "backend attached"
    yield f"    stick-table type string len 64 size {sockets} expire 10s store conn_cur"
    yield "backend attached_servers"
    yield f"    stick-table type integer size {sockets} expire 10s store conn_cur"


def _frontend(settings: ProxySettings) -> Iterable[str]:
    host = f"[{settings.bind_host}]" if ":" in settings.bind_host else settings.bind_host
    yield "frontend edge"
    yield f"    bind {host}:{settings.http_port}"
    if settings.access_log is AccessLog.SAMPLED:
        yield "    log stdout format raw sample 1:100 local0 info"
        yield "    option httplog"
    yield "    unique-id-format %[uuid()]"
    yield from _route_rules()
    yield from header_rules(settings)
    yield from _pin_rules()
    own = f"{{ var(txn.json) -m found }} {{ res.fhdr({CODE_HEADER}) -m found }}"  # an app's failures are left alone
    yield f"    http-after-response set-header Content-Type application/problem+json if {own}"
    yield f"    use_backend {POOL} if pickable"
    # a known route without a slot still serves the pins of its environment, unless the whole table is too old
    yield f"    use_backend {POOL} if pin_leads !closed"
    yield "    default_backend refused"


def _route_rules() -> Iterable[str]:
    """txn.p is the route's hot entry, txn.env its environment."""
    yield f"    acl held var(txn.p),and({HELD_FLAG}) gt 0"
    yield f"    acl closed var(txn.p),and({CLOSED_FLAG}) gt 0"
    yield f"    acl pickable var(txn.p) -m int ge {COUNT_UNIT}"
    yield "    acl upgrade req.fhdr(upgrade) -m found"
    yield f"    {HOST_RULE}"
    # such a name is none, and would end the quoted string that it is passed on in
    yield """    http-request deny deny_status 400 if { var(txn.host) -m sub '"' '\\' }"""
    yield "    http-request set-var(txn.key) var(txn.host),host_only,lower"
    yield "    http-request set-var(txn.p) var(txn.key),table_gpt0(hot)"
    yield "    http-request lua.hold if held upgrade"  # sets txn.p anew: everything below decides on what holds then
    yield "    http-request set-var(txn.env) var(txn.key),table_gpc0(hot)"
    wish = "{ req.fhdr(accept) -m beg application/json application/problem+json }"
    yield f"    http-request set-var(txn.json) bool(true) if {wish}"


def _pin_rules() -> Iterable[str]:
    """txn.number becomes the allocation that the pin names, once its MAC has held for this environment.

    A connection remembers the cookies whose pin was verified, and for which environment: while they stay the same, no
    cookie is parsed and no MAC is computed, and the rules after `allow` are the rare case.
    """
    cookie = f"req.cook({PIN_COOKIE})"
    mac = f"var(txn.pin),field(1,.),{_mac('txn.env')},secure_memcmp(txn.mac)"
    yield "    acl same_cookies req.fhdr(cookie),strcmp(sess.cookies) eq 0"
    yield "    acl same_environment var(sess.env),sub(txn.env) eq 0"
    yield "    acl pinned var(txn.number) -m found"
    yield f"    acl pin_leads_always var(txn.number),table_gpt0(numbers) eq {TAKES_UPGRADES}"
    yield f"    acl refuses_upgrades var(txn.number),table_gpt0(numbers) eq {REFUSES_UPGRADES}"
    yield "    acl pin_leads var(txn.number),in_table(numbers)"
    yield "    http-request set-var(txn.number) var(sess.number) if same_environment same_cookies"
    yield "    http-request allow if pin_leads_always"
    yield f"    http-request set-var(txn.n) var(txn.p),div({COUNT_UNIT})"  # how many slots to choose from
    yield f"    http-request set-var(txn.pin) {cookie}"
    yield "    http-request set-var(txn.mac) var(txn.pin),field(2,.)"
    yield f"    http-request set-var(txn.number) var(txn.pin),field(1,-),add(0) if !pinned {{ {mac} 1 }}"
    yield "    http-request set-var(sess.cookies) req.fhdr(cookie) if pinned"
    for name in ("pin", "env", "number"):
        yield f"    http-request set-var(sess.{name}) var(txn.{name}) if pinned"
    yield "    http-request unset-var(txn.number) if refuses_upgrades upgrade"


def _mac(environment: str) -> str:
    """Converters from `<number>-<nonce>` to its MAC for an environment."""
    return f"concat(:,{environment}),hmac(sha256,proc.pin_key),ub64enc"


def header_rules(settings: ProxySettings) -> Iterable[str]:
    """Who asks and how, overwritten so that an app can believe it, and kept only from a trusted proxy in front.

    Expects the Host header in txn.host.
    """
    yield "    http-request del-header x-moorage- -m beg"
    if settings.trusted_proxies:
        yield from _trusting_rules(settings.trusted_proxies)
        return
    yield "    http-request del-header x-forwarded- -m beg"
    yield "    http-request add-header X-Forwarded-For %[src]"
    yield "    http-request add-header X-Forwarded-Proto http"
    yield "    http-request add-header X-Forwarded-Host %[var(txn.host)]"
    yield "    http-request set-header X-Request-Id %[unique-id]"
    if ":" in settings.bind_host:
        yield from _forwarded_rules("src", "http")
    else:
        yield f"    http-request set-header Forwarded {_forwarded('%[src]', 'http')}"


def _trusting_rules(networks: tuple[str, ...]) -> Iterable[str]:
    yield f"    acl trusted src {' '.join(networks)}"
    yield "    acl passed_on req.fhdr(x-forwarded-for) -m found"
    yield "    http-request del-header x-forwarded- -m beg if !trusted"
    yield "    http-request set-var(txn.client) src"
    yield "    http-request set-var(txn.client) req.hdr_ip(x-forwarded-for,-1) if trusted passed_on"
    yield "    http-request set-header X-Forwarded-For '%[req.fhdr(x-forwarded-for)], %[src]' if trusted passed_on"
    for name, value in (
        ("X-Forwarded-For", "%[src]"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "%[var(txn.host)]"),
        ("X-Request-Id", "%[unique-id]"),
    ):
        yield f"    http-request set-header {name} {value} unless trusted {{ req.fhdr({name}) -m found }}"
    yield from _forwarded_rules("var(txn.client)", "%[req.fhdr(x-forwarded-proto)]")


def _forwarded_rules(client: str, proto: str) -> Iterable[str]:
    six = f"{{ {client} -m sub : }}"
    yield f"    http-request set-header Forwarded {_forwarded(f'[%[{client}]]', proto)} if {six}"
    yield f"    http-request set-header Forwarded {_forwarded(f'%[{client}]', proto)} unless {six}"


def _forwarded(client: str, proto: str) -> str:
    """RFC 7239, made from the rest: who asks, for which host, by which protocol."""
    return _quoted(f'for="{client}";host="%[var(txn.host)]";proto={proto}')


def _pool() -> Iterable[str]:
    yield f"backend {POOL}"
    yield "    balance random"
    yield "    stick match var(txn.number) table numbers"
    yield f"    stick match rand,mod(txn.n),add(txn.p),and({SLOT_MASK}) table slots"
    yield "    acl here srv_id,sub(txn.number) eq 0"
    yield "    acl upgraded status 101"
    yield "    http-response allow if here !upgraded"
    yield "    http-response set-var-fmt(txn.new) %[srv_id]-%[uuid()] if !here"
    yield f"    http-response set-var(txn.newmac) var(txn.new),{_mac('txn.env')}"
    cookie = f"{PIN_COOKIE}=%[var(txn.new)].%[var(txn.newmac)]; Path=/; HttpOnly; SameSite=Lax"
    yield f"    http-response add-header Set-Cookie '{cookie}' if {{ var(txn.newmac) -m found }}"
    yield "    http-response allow if !upgraded"
    yield "    http-response set-var(txn.attached) var(txn.new)"
    yield "    http-response set-var(txn.attached) var(sess.pin),field(1,.) if here"
    yield "    http-response track-sc1 var(txn.attached) table attached"
    yield "    http-response track-sc2 srv_id table attached_servers"


def _refused(settings: ProxySettings) -> Iterable[str]:
    """The answers that need no app, the most telling one first."""
    yield "backend refused"
    yield f"    acl known var(txn.p),and({KNOWN_FLAG}) gt 0"
    yield f"    acl closed var(txn.p),and({CLOSED_FLAG}) gt 0"
    yield "    acl filled var(proc.mark) -m found"
    yield "    acl json var(txn.json) -m found"
    for answer, condition in (
        (pages.EDGE_STARTING, "!known !filled"),
        (pages.UNKNOWN_HOST, "!known"),
        (pages.TABLE_STALE, "closed"),
        (pages.NO_READY_ALLOCATION, ""),
    ):
        for kind, content, wish in (("json", _JSON, "json"), ("html", _HTML, "!json")):
            file = f"file {_quoted(settings.directory / f'{answer.code}.{kind}')}"
            status = f"status {answer.status} {content} {file} {_headers(answer)}"
            yield f"    http-request return {status} if {wish} {condition}".rstrip()
