"""The page as it stands in front of a person: as it came, with the patches since.

A page is read when somebody looks at it, not when it comes: hundreds of pages that come at the same moment must not
make each other late.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Final

from moorage.vango.page import Page, read_page
from tests.support.vango.patches import Appeared, Batch, Value, Words

COUNT: Final = "count"
DRAFT: Final = "draft"
DRAFT_ECHO: Final = "draft-echo"
INCREASE: Final = "inc"


@dataclass(frozen=True, slots=True)
class Kept:
    """What a session holds, as its page shows it."""

    count: int
    draft: str


class Screen:
    """One page that was loaded, or sent whole on the socket."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._page: Page | None = None
        self._hids: dict[str, str] = {}
        self._words: dict[str, str] = {}

    @property
    def page(self) -> Page:
        """The page as it came."""
        if self._page is None:
            self._page = read_page(self._source)
            for element_id, element in self._page.elements.items():
                self._hids[element_id] = element.hid
                self._words[element.hid] = element.text
        return self._page

    def hid(self, element_id: str) -> str:
        """The hydration id of an element. Raises LookupError when the page has none of this id."""
        _ = self.page
        found = self._hids.get(element_id)
        if not found:
            raise LookupError(f"the page has no element {element_id!r}")
        return found

    def text(self, element_id: str) -> str:
        """What stands in an element now."""
        return self._words[self.hid(element_id)]

    def show(self, batch: Batch) -> None:
        """Apply a batch of patches."""
        _ = self.page
        for change in batch.changes:
            match change:
                case Words(hid, text):
                    self._words[hid] = text
                case Appeared(element_id, hid, text):
                    self._hids[element_id], self._words[hid] = hid, text
                case Value():
                    pass  # what stands in an input is its person's own

    def kept(self) -> Kept:
        """What the session holds, by what stands on the page now."""
        return Kept(_number(self.text(COUNT)), self.text(DRAFT_ECHO))

    def kept_at_first(self) -> Kept:
        """What the session held when the page was rendered; cheap."""
        return Kept(_number(self._seek(COUNT)), self._seek(DRAFT_ECHO))

    def _seek(self, element_id: str) -> str:
        found = re.search(rf'\sid="{re.escape(element_id)}"[^>]*>([^<]*)<', self._source)
        return html.unescape(found.group(1)) if found else ""


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
