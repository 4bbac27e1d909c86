"""Aligned tables without borders, as lines of text for a width in columns. Pure: values in, lines out.

What does not fit is never cut, for people copy ids and URLs from here. First the flexible columns move to a line of
their own below each row, then the spare ones go (`--json` has them), then the line is longer than the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

GAP = "  "
STACK_INDENT = "      "
ROOM_MIN_COLUMNS = 20
_WORD = re.compile(r"\S+\s*")


@dataclass(frozen=True, slots=True)
class Column:
    """A column: numbers stand `right`, a `flexible` one moves below its row when the terminal is narrow, a `spare` one
    is then left out, a `state` is coloured."""

    title: str
    right: bool = False
    flexible: bool = False
    spare: bool = False
    state: bool = False


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> list[Text]:
    """The lines of a table: its header, and one or more for each row."""
    widths = [
        max(cell_len(column.title), *(cell_len(row[place].plain) for row in rows), 0)
        for place, column in enumerate(columns)
    ]
    shown = _fitting(columns, widths, width)
    stacked = [place for place, column in enumerate(columns) if column.flexible and place not in shown]
    lines = [_line([(Text(columns[p].title, style="bold"), widths[p], columns[p].right) for p in shown])]
    for row in rows:
        lines.append(_line([(row[p], widths[p], columns[p].right) for p in shown]))
        for place in stacked:
            if row[place].plain not in ("", "-"):
                lines += _indented(row[place], STACK_INDENT, width)
    return lines


def fact_lines(pairs: Sequence[tuple[str, Text]], width: int) -> list[Text]:
    """Names with their values; a long value goes on below its beginning."""
    longest = max((cell_len(name) for name, _ in pairs), default=0)
    lines: list[Text] = []
    for name, value in pairs:
        label = Text(name + " " * (longest - cell_len(name)) + GAP, style="dim")
        first, *rest = _indented(value, " " * (longest + len(GAP)), width) or [Text("")]
        lines += [label + first[longest + len(GAP) :], *rest]
    return lines


def _fitting(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """The places of the columns that stand in a row."""
    shown = list(range(len(columns)))
    if _total(shown, widths) <= width:
        return shown
    shown = [place for place in shown if not columns[place].flexible]
    for place in reversed(range(len(columns))):
        if _total(shown, widths) > width and columns[place].spare:
            shown.remove(place)
    return shown


def _total(places: Sequence[int], widths: Sequence[int]) -> int:
    return sum(widths[place] for place in places) + len(GAP) * (len(places) - 1)


def _line(cells: Sequence[tuple[Text, int, bool]]) -> Text:
    line = Text()
    for text, width, right in cells:
        fill = " " * (width - cell_len(text.plain))
        line += Text(fill if right else "") + text + Text(("" if right else fill) + GAP)
    line.rstrip()
    return line


def _indented(text: Text, indent: str, width: int) -> list[Text]:
    """Text wrapped at words behind an indent; a word that is longer than the line stays whole."""
    lines = []
    for part in text.divide(_breaks(text.plain, max(width - len(indent), ROOM_MIN_COLUMNS))):
        part.rstrip()
        lines.append(Text(indent) + part)
    return lines


def _breaks(text: str, room: int) -> list[int]:
    """Where lines of at most `room` columns begin, beyond the first."""
    breaks: list[int] = []
    taken = 0
    for word in _WORD.finditer(text):
        if taken and taken + cell_len(word.group().rstrip()) > room:
            breaks.append(word.start())
            taken = 0
        taken += cell_len(word.group())
    return breaks
