"""What a server-rendered Vango page tells its own script, and where its elements are.

Rules of this room: HTML in, values out; total, no network. Only a page's facts are read, as the framework's script
reads them in a browser: the bootstrap (a JSON text in an element), the CSRF token, the hydration id (`data-hid`) that
names an element on the live socket, the text and the value of an element with an id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, Final

from moorage.vango.wire import LIVE_PATH

BOOTSTRAP_ID: Final = "__vango_bootstrap__"
_VOID: Final = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
)


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How the page's script comes back after an unclean close: at most `retries` times, the wait doubled each time."""

    enabled: bool = True
    retries: int = 10
    first_ms: int = 1000
    max_ms: int = 30_000

    def wait_ms(self, attempt: int) -> int:
        """How long the script waits before this attempt; the first is 1."""
        return min(self.first_ms << (attempt - 1), self.max_ms)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What the framework's script needs to open the live socket."""

    live_path: str
    client_hash: str
    client_script: str
    reconnect: Reconnect = Reconnect()


@dataclass(frozen=True, slots=True)
class Element:
    """An element with an id: its hydration id (empty when it has none), its own text, its value attribute."""

    hid: str
    text: str
    value: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it was rendered. `bootstrap` is None for a page that has no live part."""

    bootstrap: Bootstrap | None
    csrf: str
    elements: Mapping[str, Element]

    def hid(self, element_id: str) -> str:
        """The hydration id of the element with this id; empty when there is none."""
        found = self.elements.get(element_id)
        return found.hid if found else ""

    def text(self, element_id: str) -> str:
        """The text of the element with this id; empty when there is none."""
        found = self.elements.get(element_id)
        return found.text if found else ""

    def value(self, element_id: str) -> str:
        """The value of the input with this id; empty when there is none."""
        found = self.elements.get(element_id)
        return found.value if found else ""


def read_page(html: str) -> Page:
    """The facts of a page; never raises, whatever the HTML is."""
    reader = _PageReader()
    reader.feed(html)
    reader.close()
    reader.end()
    return Page(_bootstrap(reader.bootstrap), reader.csrf, reader.elements)


def _bootstrap(text: str) -> Bootstrap | None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    runtime = _mapping(_mapping(document).get("runtime"))
    client_hash, script = _text(runtime.get("clientHash")), _text(runtime.get("clientScriptUrl"))
    if not client_hash and not script:
        return None
    reconnect = _reconnect(_mapping(_mapping(document).get("reconnect")))
    return Bootstrap(_text(runtime.get("livePath")) or LIVE_PATH, client_hash, script, reconnect)


def _reconnect(document: Mapping[str, Any]) -> Reconnect:
    """The policy, with the script's own defaults for what is missing or of no use."""
    usual = Reconnect()
    first_ms = _number(document.get("baseDelay"), usual.first_ms, least=1)
    return Reconnect(
        document.get("enabled") is not False,
        _number(document.get("maxRetries"), usual.retries, least=0),
        first_ms,
        max(first_ms, _number(document.get("maxDelay"), usual.max_ms, least=1)),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object, otherwise: int, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        return otherwise
    return value


@dataclass(slots=True)
class _Open:
    """An element whose end has not come yet."""

    tag: str
    element_id: str
    hid: str
    value: str
    words: list[str] = field(default_factory=list)


class _PageReader(HTMLParser):
    """Walks a page once and keeps what has an id."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.bootstrap = ""
        self.csrf = ""
        self.elements: dict[str, Element] = {}
        self._open: list[_Open] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name: value or "" for name, value in attrs}
        self._see_csrf(tag, names)
        element = _Open(tag, names.get("id", ""), names.get("data-hid", ""), names.get("value", ""))
        if tag in _VOID:
            self._keep(element)
        else:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        for element in self._open:
            if element.element_id:
                element.words.append(data)

    def handle_endtag(self, tag: str) -> None:
        if not any(element.tag == tag for element in self._open):
            return  # an end without its start changes nothing
        while self._open:
            element = self._open.pop()
            self._keep(element)
            if element.tag == tag:
                return

    def end(self) -> None:
        """What was never ended ends here."""
        while self._open:
            self._keep(self._open.pop())

    def _keep(self, element: _Open) -> None:
        if element.element_id == BOOTSTRAP_ID:
            self.bootstrap = self.bootstrap or "".join(element.words)
        elif element.element_id:
            self.elements.setdefault(element.element_id, Element(element.hid, "".join(element.words), element.value))

    def _see_csrf(self, tag: str, names: Mapping[str, str]) -> None:
        """The script prefers a meta element over its own attribute."""
        if tag == "meta" and names.get("name") == "csrf-token" and names.get("content"):
            self.csrf = names["content"]
        elif names.get("data-csrf") and not self.csrf:
            self.csrf = names["data-csrf"]
