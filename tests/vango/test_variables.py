"""Variables and bindings of a Vango app: names, whose store, the contract's file."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from moorage.domain.secrets import (
    MADE,
    PUBSUB_URL,
    SEALED,
    SESSION_STORE_URL,
    STORE_URLS,
    check_secret_name,
    check_secret_value,
)
from moorage.vango.bindings import (
    BROADCAST,
    GLOBALS,
    HOST_CAPABILITIES,
    SESSIONS,
    binding_document,
    services,
)
from moorage.vango.variables import (
    Secrets,
    Source,
    allowed_hosts,
    host_variables,
    store_binding,
    without_sealed,
)

MANAGED = "redis://alc_1:word@127.0.0.1:20001/0"
OWN, OTHER = "rediss://me:pw@store.example:6380/2", "redis://other.example"
SECRETS = Secrets("ab" * 32, "c" * 43)
URL = "http://board.localhost:7080"


# --- variables


def test_all_variables_of_an_allocation_on_the_managed_store() -> None:
    assert host_variables(URL, store_binding({}, MANAGED), SECRETS) == {
        "VANGO_PLATFORM_SEALED": "1",
        "VANGO_ENV": "production",
        "VANGO_SESSION_STORE_URL": MANAGED,
        "VANGO_PUBSUB_URL": MANAGED,
        "VANGO_PERSISTENCE_SECRET": "ab" * 32,
        "VANGO_CSRF_SECRET": "c" * 43,
        "VANGO_PUBLIC_URL": URL,
        "VANGO_ALLOWED_HOSTS": "board.localhost:7080,board.localhost",
        "VANGO_TRUSTED_PROXIES": "127.0.0.1",
        "VANGO_COOKIE_SECURE": "0",
    }


def test_only_the_persistence_secret_has_a_previous_value() -> None:
    given = host_variables(URL, store_binding({}), replace(SECRETS, persistence_previous="ef" * 32))
    assert {name for name in given if name.endswith("_PREVIOUS")} == {"VANGO_PERSISTENCE_SECRET_PREVIOUS"}
    assert given["VANGO_PERSISTENCE_SECRET_PREVIOUS"] == "ef" * 32
    assert "VANGO_PERSISTENCE_SECRET_PREVIOUS" not in host_variables(URL, store_binding({}), SECRETS)


def test_nothing_is_given_empty() -> None:
    """The framework takes an empty variable for one that is not there, an app may not."""
    given = host_variables(URL, store_binding({}), None)
    assert all(given.values())
    assert not given.keys() & (MADE | STORE_URLS)


def test_every_variable_is_the_platforms_alone_but_for_the_store_urls() -> None:
    given = host_variables(URL, store_binding({}, MANAGED), replace(SECRETS, persistence_previous="1"))
    assert given.keys() - SEALED == STORE_URLS


@pytest.mark.parametrize(
    ("url", "hosts", "secure"),
    [
        ("http://board.localhost:7080", ("board.localhost:7080", "board.localhost"), "0"),
        ("http://board.example", ("board.example",), "0"),
        ("https://board.example", ("board.example",), "1"),
        ("https://3--board.example:7443", ("3--board.example:7443", "3--board.example"), "1"),
    ],
)
def test_a_route_is_named_with_and_without_its_port(url: str, hosts: tuple[str, ...], secure: str) -> None:
    assert allowed_hosts(url) == hosts
    given = host_variables(url, store_binding({}, MANAGED), SECRETS)
    assert (given["VANGO_ALLOWED_HOSTS"], given["VANGO_COOKIE_SECURE"]) == (",".join(hosts), secure)


def test_a_secret_that_is_older_than_its_being_refused_reaches_no_app() -> None:
    old = {"VANGO_CSRF_SECRET": "mine", "VANGO_PUBLIC_HOST": "evil.example", "VANGO_DEV": "1", "API_KEY": "x"}
    assert without_sealed({**old, SESSION_STORE_URL: OWN}) == {"API_KEY": "x"}


# --- whose store


@pytest.mark.parametrize(
    ("own", "sessions", "broadcast", "fence"),
    [
        ({}, (Source.MANAGED, MANAGED), (Source.MANAGED, MANAGED), True),
        ({SESSION_STORE_URL: OWN}, (Source.OWN, OWN), (Source.OWN, OWN), False),
        ({SESSION_STORE_URL: OWN, PUBSUB_URL: OTHER}, (Source.OWN, OWN), (Source.OWN, OTHER), False),
        ({PUBSUB_URL: OTHER}, (Source.MANAGED, MANAGED), (Source.OWN, OTHER), True),
        ({SESSION_STORE_URL: "", PUBSUB_URL: ""}, (Source.MANAGED, MANAGED), (Source.MANAGED, MANAGED), True),
    ],
    ids=["none", "sessions", "both", "broadcast", "empty"],
)
def test_which_binding_is_in_force(
    own: dict[str, str], sessions: tuple[Source, str], broadcast: tuple[Source, str], fence: bool
) -> None:
    found = store_binding(own, MANAGED)
    assert (found.sessions, found.sessions_url) == sessions
    assert (found.broadcast, found.broadcast_url) == broadcast
    assert found.can_be_fenced is fence


# --- what may be given as a secret


@pytest.mark.parametrize("name", sorted(SEALED))
def test_sealed_names_are_refused(name: str) -> None:
    problem = check_secret_name(name)
    assert problem is not None
    assert problem.code == "secret-name-sealed"
    assert ("moorage secret rotate" in problem.hint) is (name in MADE)


@pytest.mark.parametrize("name", [*sorted(STORE_URLS), "API_KEY", "VANGO_BLOBS_URL", "VANGO_ENVIRONMENT"])
def test_other_names_are_not(name: str) -> None:
    assert check_secret_name(name) is None


@pytest.mark.parametrize("name", sorted(STORE_URLS))
@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://127.0.0.1:6379/0",
        "rediss://user:p%40ss%2Fword@store.example:6380/15",
        "redis://:only-password@store.example",
        "redis://user:a@b@store.example:1",  # the last @ ends the password, there as here
        "redis://[::1]:6379/1",
        "redis://store.example/?db=2&protocol=3&dial_timeout=5s&read_timeout=1m30s&pool_fifo=true&client_name=board",
        "redis://store.example:6379/0?pool_size=20&min_idle_conns=&conn_max_idle_time=300",
    ],
)
def test_urls_of_a_store(name: str, url: str) -> None:
    assert check_secret_value(name, url) is None


EXAMPLE = "rediss://user:password@store.example:6379/0"  # of the hint
BAD_URLS = [
    "store.example:6379",
    "http://store.example",
    "postgres://u:secretword@db.example/x",
    "memory://",
    "unix:///run/valkey.sock",
    "redis://",
    "redis:///0",
    "redis://:secretword@/0",
    "redis://store.example:0",
    "redis://store.example:port",
    "redis://store.example:70000",
    "redis://user:secret/word@store.example",
    "redis://user:secret?word@store.example",
    "redis://user:secret#word@store.example",
    "redis://user:secret word@store.example",
    "redis://user:secret%wordx@store.example",
    "redis://user:secretw\u00f6rd@store.example",
    "redis://store.example/zero",
    "redis://store.example/0/1",
    "redis://store.example/0?tls=true",
    "redis://store.example/0?db=zero",
    "redis://store.example/0?dial_timeout=soon",
    "redis://store.example/0?pool_fifo=yes",
    "redis://[::1",
    " redis://store.example",
    "redis://store.example\n",
    "",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_what_is_no_url_of_a_store(url: str) -> None:
    """The framework would only log it and start without a store; no answer shows the value, it has a password in it."""
    for name in STORE_URLS:
        problem = check_secret_value(name, url)
        assert problem is not None, url
        assert (problem.code, problem.status, problem.facts) == ("store-url-invalid", 422, {"name": name})
        told = f"{problem.title} {problem.detail} {problem.hint}".replace(EXAMPLE, "")
        assert not [word for word in ("secret", "store.example", "db.example") if word in told]


def test_other_values_are_not_looked_at() -> None:
    assert check_secret_value("API_KEY", "http://") is None


# --- the binding file


def document(probed: dict[str, bool] | None = None, own: dict[str, str] | None = None) -> dict[str, object]:
    bound = services(store_binding(own or {}, MANAGED), probed)
    return binding_document(bound, environment="production", environment_id="env_1")


def test_the_binding_file_has_the_form_of_the_contract() -> None:
    made = document()
    assert made["schema_version"] == "vango.runtime.service_bindings.v1.0"
    by_class = {entry["service_class"]: entry for entry in made["bindings"]}  # type: ignore[attr-defined]
    assert by_class.keys() == {SESSIONS, GLOBALS, BROADCAST}
    assert by_class[SESSIONS] == {
        "service_id": "service:session-store",
        "service_class": "vango_session_store",
        "provider": "redis",
        "binding_id": "env_1/session-store",
        "environment": "production",
        "region_id": "local",
        "cell_id": "local",
        "secret_ref": "env_1/VANGO_SESSION_STORE_URL",
        "capabilities": {"atomic_set": True, "secret_backed": True, "touch": True, "ttl": True},
        "state": "declared",
    }
    assert by_class[BROADCAST]["secret_ref"] == "env_1/VANGO_PUBSUB_URL"
    assert by_class[BROADCAST]["capabilities"] == {"fanout": True, "publish": True, "subscribe": True}


def test_a_service_is_active_only_when_it_was_seen_to_work() -> None:
    states = {True: "active", False: "failed", None: "declared"}
    for sessions, broadcast in ((True, False), (False, True), (True, True)):
        made = services(store_binding({}), {SESSIONS: sessions, BROADCAST: broadcast})
        assert [s.state for s in made] == [states[sessions], states[sessions], states[broadcast]]
    assert {s.state for s in services(store_binding({}))} == {"declared"}
    (_, globals_, _) = services(store_binding({}), {SESSIONS: True, GLOBALS: False})
    assert globals_.state == "failed"


def test_the_file_holds_no_value_of_a_secret() -> None:
    text = json.dumps(document(own={SESSION_STORE_URL: OWN, PUBSUB_URL: OTHER}))
    assert "store.example" not in text
    assert "pw" not in text


def test_what_the_platform_cannot_do_is_said() -> None:
    made = document()["host_capabilities"]
    assert isinstance(made, dict)
    assert made.keys() == {f"capability:{name.replace('_', '-')}" for name in HOST_CAPABILITIES}
    assert made["capability:wake-routing"] is False
    assert made["capability:sticky-live-session-routing"] is True
    assert all(re.fullmatch(r"capability:[a-z-]+", name) for name in made)


def test_nothing_is_claimed_for_sleeping_apps() -> None:
    bound = services(store_binding({}, MANAGED))
    said = [
        binding_document(bound, environment="production", environment_id="env_1", operation=operation)[
            "host_capabilities"
        ]
        for operation in ("production_promotion", "scale_to_zero")
    ]
    assets = "capability:static-asset-wake-free-serving"
    assert [capabilities.pop(assets) for capabilities in said] == [True, False]
    assert said[0] == said[1]
