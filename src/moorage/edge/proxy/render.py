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
from moorage.edge.proxy.commands import POOL
from moorage.edge.proxy.hot import COUNT_UNIT, HELD_FLAG, KNOWN_FLAG, SLOTS_MAX_COUNT
from moorage.edge.proxy.rules import PIN_COOKIE as PIN_COOKIE
from moorage.edge.proxy.rules import answer_rules, quoted, request_rules, server_rules

CONFIG_NAME = "haproxy.cfg"
LUA_NAME = "hold.lua"
CODE_HEADER = "X-Moorage-Code"  # on every answer of the edge itself: why, for programs

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


def _global(settings: ProxySettings) -> Iterable[str]:
    lua = [
        settings.directory / LUA_NAME,
        settings.hold_budget_s,
        settings.admission_per_s,
        HELD_FLAG,
        COUNT_UNIT,
        "hot",
    ]
    yield "global"
    yield f"    stats socket {quoted(settings.runtime_socket)} mode 600 level admin"
    yield "    stats timeout 1h"
    yield "    stats maxconn 32"
    yield f"    maxconn {settings.maxconn}"
    yield "    noreuseport"  # else a second proxy shares the port in silence and traffic splits
    if settings.threads is not None:
        yield f"    nbthread {settings.threads}"
    yield f"    tune.bufsize {_BUFFER_BYTES}"
    yield f"    tune.maxrewrite {_REWRITE_BYTES}"
    yield f"    lua-load {' '.join(quoted(word) for word in lua)}"


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
        path = quoted(settings.directory / f"{answer.code}.page")
        yield f"    http-error status {answer.status} {_HTML} lf-file {path} {_headers(answer)}"
    bad = pages.BAD_REQUEST
    yield f"    errorfile {bad.status} {quoted(settings.directory / f'{bad.code}.http')}"


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
    is_six = ":" in settings.bind_host
    host = f"[{settings.bind_host}]" if is_six else settings.bind_host
    yield "frontend edge"
    yield f"    bind {host}:{settings.http_port}"
    if settings.access_log is AccessLog.SAMPLED:
        yield "    log stdout format raw sample 1:100 local0 info"
        yield "    option httplog"
    yield "    unique-id-format %[uuid()]"
    yield from request_rules(settings.trusted_proxies, is_six=is_six)
    yield from _refusals(settings)
    own = f"{{ var(txn.json) -m found }} {{ res.fhdr({CODE_HEADER}) -m found }}"  # an app's failures are left alone
    yield f"    http-after-response set-header Content-Type application/problem+json if {own}"
    yield f"    default_backend {POOL}"


def _pool() -> Iterable[str]:
    yield f"backend {POOL}"
    yield from server_rules()
    yield from answer_rules()


def _refusals(settings: ProxySettings) -> Iterable[str]:
    """The answers that need no app, the most telling one first: for what no rule before has let pass."""
    yield f"    acl known var(txn.p),and({KNOWN_FLAG}) gt 0"
    yield "    acl filled var(proc.mark) -m found"
    yield "    acl json var(txn.json) -m found"
    for answer, condition in (
        (pages.EDGE_STARTING, "!known !filled"),
        (pages.UNKNOWN_HOST, "!known"),
        (pages.TABLE_STALE, "closed"),
        (pages.NO_READY_ALLOCATION, ""),
    ):
        for kind, content, wish in (("json", _JSON, "json"), ("html", _HTML, "!json")):
            file = f"file {quoted(settings.directory / f'{answer.code}.{kind}')}"
            status = f"status {answer.status} {content} {file} {_headers(answer)}"
            yield f"    http-request return {status} if {wish} {condition}".rstrip()
