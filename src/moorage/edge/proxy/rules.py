"""What the proxy does with a request and with the answer to it, as rules of its configuration, in their order. Pure.

Most requests come on a connection that has carried one of the same session before: for them a few comparisons with what
that one had verified are all, and `allow` ends the rules. Everything below that line is the longer way. Header look-ups
stand before the header rules, because the proxy finds a header by walking over all of them.

Variables of a request: `host` as it was sent, `key` the host as a route key, `p` the route's hot entry, `env` its
environment (0: none), `n` how many slots to choose from, `number` the allocation that the pin names once it has held.
"""

from __future__ import annotations

from collections.abc import Iterable

from moorage.edge.proxy.commands import REFUSES_UPGRADES, TAKES_UPGRADES
from moorage.edge.proxy.hot import CLOSED_FLAG, COUNT_UNIT, CURED_FLAG, HELD_FLAG, SLOT_MASK

PIN_COOKIE = "moorage_pin"
LIVE_PATHS = ("/_vango/live", "/_vango/ws")  # where a cured route's clients ask for their live connection
CURE = "moorage=1"  # what the cure adds to the path of the page that such a client names
HOST_RULE = "http-request set-var(txn.host) req.fhdr(host)"

_REMEMBERED = (
    ("host", "var(txn.host)"),
    ("key", "var(txn.key)"),
    ("cookies", "req.fhdr(cookie)"),
    ("env", "var(txn.env)"),
    ("number", "var(txn.number)"),
)


def quoted(text: object) -> str:
    """The text as one word of the configuration, whatever it holds."""
    return "'" + str(text).replace("'", "'\\''") + "'"


def request_rules(trusted_proxies: tuple[str, ...], *, is_six: bool) -> Iterable[str]:
    """Everything up to where a request that can be served has been allowed; what passes this has no app to go to.

    `is_six`: clients may come by IPv6, whose addresses are written differently in `Forwarded`.
    """
    yield "    acl upgrade req.fhdr(upgrade) -m found"
    yield "    acl pinned var(txn.number) -m found"
    yield f"    {HOST_RULE}"
    wish = "{ req.fhdr(accept) -m beg application/json application/problem+json }"
    yield f"    http-request set-var(txn.json) bool(true) if {wish}"
    yield from _recognition_rules()
    yield from header_rules(trusted_proxies, is_six=is_six)
    yield f"    acl pin_leads_always var(txn.number),table_gpt0(numbers) eq {TAKES_UPGRADES}"
    yield "    http-request allow if pin_leads_always"
    yield from _route_rules()
    yield from _upgrade_rules()
    yield from _pin_rules()


def _recognition_rules() -> Iterable[str]:
    """A connection remembers host and cookies of a request whose pin was verified, and for which environment: while
    they stay the same and the host still belongs to that environment, the pin need not be verified again."""
    yield "    acl same_cookies req.fhdr(cookie),strcmp(sess.cookies) eq 0"
    yield "    acl same_host var(txn.host),strcmp(sess.host) eq 0"
    yield "    acl same_environment var(sess.key),table_gpc0(hot),sub(sess.env) eq 0"
    same = "same_cookies same_host same_environment"
    yield f"    http-request set-var(txn.number) var(sess.number) if {same} !upgrade"


def _route_rules() -> Iterable[str]:
    """The route, and the end of the rules for a plain request of a new session."""
    yield f"    acl pickable var(txn.p) -m int ge {COUNT_UNIT}"
    yield f"    acl has_pin req.cook({PIN_COOKIE}) -m found"
    # such a name is none, and would end the quoted string that it is passed on in
    yield """    http-request deny deny_status 400 if { var(txn.host) -m sub '"' '\\' }"""
    yield "    http-request set-var(txn.key) var(txn.host),host_only,lower"
    yield "    http-request set-var(txn.p) var(txn.key),table_gpt0(hot)"
    yield "    http-request set-var(txn.env) var(txn.key),table_gpc0(hot)"
    yield f"    http-request set-var(txn.n) var(txn.p),div({COUNT_UNIT})"
    yield "    http-request allow if pickable !upgrade !has_pin"


def _upgrade_rules() -> Iterable[str]:
    """Upgrades to a held route wait; the live paths of a cured route get a constant query.

    The parameter `path` of a live path names the client's page. Something is added to the value of the first one, as
    the framework reads it; every other byte stays, an empty or absent value too. txn.page is that value, still encoded:
    what precedes it becomes one space, which no request line can hold elsewhere. No expression repeats a group, so what
    a client sends does not decide how deep the library recurses.
    """
    yield f"    acl held var(txn.p),and({HELD_FLAG}) gt 0"
    yield f"    acl cured var(txn.p),and({CURED_FLAG}) gt 0"
    yield f"    acl live path {' '.join(LIVE_PATHS)}"
    yield "    acl names_page var(txn.page) -m len gt 0"
    yield "    acl page_has_query var(txn.page) -m sub ? %3F %3f"
    yield "    http-request lua.hold if upgrade held"  # sets p, env and n anew: what holds then decides
    page = 'query,regsub("(^|&)path="," "),field(2," "),field(1,&)'
    yield f"    http-request set-var(txn.page) {quoted(page)} if upgrade cured live"
    for sign, condition in (("%26", "page_has_query"), ("%3F", "!page_has_query")):
        query = f'%[query,regsub("(^|&)path=[^&]*","\\\\0{sign}{CURE}")]'
        yield f"    http-request set-query {quoted(query)} if names_page {condition}"


def _pin_rules() -> Iterable[str]:
    """Verify the pin, remember it for the connection, and let pass what has somewhere to go.

    An upgrade is its connection's last request: nothing is kept in memory for one that would follow. A known route
    without a slot still serves the pins of its environment, unless the whole table is too old.
    """
    mac = f"var(txn.pin),field(1,.),{_mac('txn.env')},secure_memcmp(txn.mac)"
    yield f"    acl refuses_upgrades var(txn.number),table_gpt0(numbers) eq {REFUSES_UPGRADES}"
    yield "    acl pin_leads var(txn.number),in_table(numbers)"
    yield f"    acl closed var(txn.p),and({CLOSED_FLAG}) gt 0"
    yield f"    http-request set-var(txn.pin) req.cook({PIN_COOKIE})"
    yield "    http-request set-var(txn.mac) var(txn.pin),field(2,.)"
    yield f"    http-request set-var(txn.number) var(txn.pin),field(1,-),add(0) if {{ {mac} 1 }}"
    yield "    http-request unset-var(txn.number) if refuses_upgrades upgrade"
    yield "    http-request allow if pickable upgrade"
    for name, value in _REMEMBERED:
        yield f"    http-request set-var(sess.{name}) {value} if pinned"
    yield "    http-request allow if pickable"
    yield "    http-request unset-var(txn.n)"  # there is no slot to choose, come what may
    yield "    http-request allow if pin_leads !closed"


def _mac(environment: str) -> str:
    """Converters from `<number>-<nonce>` to its MAC for an environment."""
    return f"concat(:,{environment}),hmac(sha256,proc.pin_key),ub64enc"


def header_rules(trusted_proxies: tuple[str, ...], *, is_six: bool) -> Iterable[str]:
    """Who asks and how, overwritten so that an app can believe it, and kept only from a trusted proxy in front.

    Expects the Host header in txn.host.
    """
    yield "    http-request del-header x-moorage- -m beg"
    if trusted_proxies:
        yield from _trusting_rules(trusted_proxies)
        return
    yield "    http-request del-header x-forwarded- -m beg"
    yield "    http-request add-header X-Forwarded-For %[src]"
    yield "    http-request add-header X-Forwarded-Proto http"
    yield "    http-request add-header X-Forwarded-Host %[var(txn.host)]"
    yield "    http-request set-header X-Request-Id %[unique-id]"
    if is_six:
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
    return quoted(f'for="{client}";host="%[var(txn.host)]";proto={proto}')


def server_rules() -> Iterable[str]:
    """Which server: the pin's, else the one that a random slot of the route names, else none."""
    yield "    balance random"
    yield "    stick match var(txn.number) table numbers"
    yield f"    stick match rand,mod(txn.n),add(txn.p),and({SLOT_MASK}) table slots"


def answer_rules() -> Iterable[str]:
    """A new pin where another allocation served than a pin named; attached sockets are counted.

    A pin's nonce is the request's own id: whatever is unique will do, its MAC is what nobody can make.
    """
    yield "    acl here srv_id,sub(txn.number) eq 0"
    yield "    acl upgraded status 101"
    yield "    http-response allow if here !upgraded"
    yield "    http-response set-var-fmt(txn.new) %[srv_id]-%[unique-id] if !here"
    pin = f"%[var(txn.new)].%[var(txn.new),{_mac('txn.env')}]"
    cookie = f"{PIN_COOKIE}={pin}; Path=/; HttpOnly; SameSite=Lax"
    yield f"    http-response add-header Set-Cookie {quoted(cookie)} if !here"
    yield "    http-response allow if !upgraded"
    yield "    http-response set-var(txn.attached) var(txn.new)"
    yield "    http-response set-var(txn.attached) var(txn.pin),field(1,.) if here"
    yield "    http-response track-sc1 var(txn.attached) table attached"
    yield "    http-response track-sc2 srv_id table attached_servers"
