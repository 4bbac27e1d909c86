"""A page's facts: what its script needs, where its elements are; pages that lack them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.vango.page import Bootstrap, Element, Reconnect, read_page

HASH = "ada77c7b"
RUNTIME = {"livePath": "/_vango/live", "clientScriptUrl": f"/_vango/client.js?v={HASH}", "clientHash": HASH}


def page(body: str, *, bootstrap: object = None, csrf: str = "token=") -> str:
    """A page as the framework renders it: compact, the bootstrap and the script at the end."""
    document = json.dumps(bootstrap if bootstrap is not None else {"runtime": RUNTIME})
    return (
        '<!DOCTYPE html><html data-hid="h1"><head data-hid="h2"><meta charset="utf-8" data-hid="h3"></head>'
        f'<body data-hid="h6">{body}<script data-vango-bootstrap="1" id="__vango_bootstrap__" type="application/json" '
        f'data-hid="h22">{document}</script><script data-csrf="{csrf}" defer src="/_vango/client.js"></script></body>'
    )


def test_the_script_finds_what_it_needs() -> None:
    found = read_page(page(""))
    assert found.bootstrap == Bootstrap("/_vango/live", HASH, f"/_vango/client.js?v={HASH}", Reconnect())
    assert found.csrf == "token="


def test_a_page_that_says_how_to_come_back() -> None:
    policy = {"enabled": False, "maxRetries": 3, "baseDelay": 500, "maxDelay": 900}
    found = read_page(page("", bootstrap={"runtime": RUNTIME, "reconnect": policy})).bootstrap
    assert found is not None
    assert found.reconnect == Reconnect(enabled=False, retries=3, first_ms=500, max_ms=900)
    assert [found.reconnect.wait_ms(attempt) for attempt in (1, 2, 3)] == [500, 900, 900]


def test_waits_double_up_to_half_a_minute() -> None:
    waits = [Reconnect().wait_ms(attempt) for attempt in range(1, 11)]
    assert waits == [1000, 2000, 4000, 8000, 16_000, *[30_000] * 5]


@pytest.mark.parametrize("policy", [{"baseDelay": -1, "maxRetries": "many", "maxDelay": True}, [], None, "x"])
def test_a_policy_of_no_use_is_the_usual_one(policy: object) -> None:
    found = read_page(page("", bootstrap={"runtime": RUNTIME, "reconnect": policy})).bootstrap
    assert found is not None
    assert found.reconnect == Reconnect()


@pytest.mark.parametrize("bootstrap", [[], {}, {"runtime": []}, {"runtime": {"livePath": "/x"}}, "text"])
def test_a_page_whose_bootstrap_says_nothing_has_none(bootstrap: object) -> None:
    assert read_page(page("", bootstrap=bootstrap)).bootstrap is None


@pytest.mark.parametrize(
    "html", ["", "internal error", "<h1>It works</h1>", "<script id='__vango_bootstrap__'>{</script>"]
)
def test_a_page_without_the_framework_has_no_bootstrap(html: str) -> None:
    assert read_page(html).bootstrap is None


def test_elements_have_a_hydration_id_a_text_and_a_value() -> None:
    found = read_page(
        page(
            '<button id="inc" data-ve="click" data-hid="h12">count</button><span id="count" data-hid="h13">3</span>'
            '<input id="draft" type="text" value="a &amp; &quot;b&quot;" data-hid="h18"><span data-hid="h19" id="echo">'
            "a &lt;b&gt;</span><p id=static>no live part</p>"
        )
    )
    assert found.elements["inc"] == Element("h12", "count", "")
    assert (found.text("count"), found.hid("count")) == ("3", "h13")
    assert found.value("draft") == 'a & "b"'
    assert found.text("echo") == "a <b>"
    assert found.elements["static"] == Element("", "no live part", "")


def test_an_element_that_is_not_there_is_empty() -> None:
    found = read_page(page(""))
    assert (found.hid("nobody"), found.text("nobody"), found.value("nobody")) == ("", "", "")


def test_the_text_of_an_element_is_all_text_within_it() -> None:
    found = read_page(page('<div id="notes" data-hid="h9"><p data-hid="h10">one</p><br><p id="two">two</p></div>after'))
    assert (found.text("notes"), found.text("two")) == ("onetwo", "two")


def test_the_token_of_a_meta_element_comes_first() -> None:
    assert read_page('<meta name="csrf-token" content="meta"><script data-csrf="script"></script>').csrf == "meta"
    assert read_page('<script data-csrf="script"></script><meta name="csrf-token" content="meta">').csrf == "meta"


def test_ends_without_starts_and_starts_without_ends_do_no_harm() -> None:
    found = read_page('</div><div id="open"><span id="inner" data-hid="h2">x</div></p>tail')
    assert (found.text("open"), found.text("inner"), found.hid("inner")) == ("x", "x", "h2")
    assert read_page('<p id="last">to the end').text("last") == "to the end"


@given(st.text(max_size=200))
def test_any_text_is_a_page(html: str) -> None:
    assert read_page(html).bootstrap is None


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=60))
def test_a_text_comes_back_as_it_was_escaped(words: str) -> None:
    escaped = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    found = read_page(page(f'<span id="echo">{escaped}</span><input id="draft" value="{escaped}">'))
    assert (found.text("echo"), found.value("draft")) == (words, words)
