"""Tables for any width: aligned while they fit, never cut when they do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from moorage.cli.table import Column, fact_lines, table_lines

COLUMNS = (
    Column("NAME"),
    Column("COUNT", right=True),
    Column("PID", right=True, spare=True),
    Column("URL", flexible=True),
)
ROWS = (("board", "7", "4711", "http://board.localhost:7080/"), ("notes", "12", "-", "-"))


def shown(width: int, rows: tuple[tuple[str, ...], ...] = ROWS) -> list[str]:
    """The lines as plain text."""
    return [line.plain for line in table_lines(COLUMNS, [[Text(cell) for cell in row] for row in rows], width)]


def test_a_wide_terminal_has_one_line_a_row() -> None:
    assert shown(80) == [
        "NAME   COUNT   PID  URL",
        "board      7  4711  http://board.localhost:7080/",
        "notes     12     -  -",
    ]


def test_the_flexible_column_moves_below_its_row() -> None:
    assert shown(40) == [
        "NAME   COUNT   PID",
        "board      7  4711",
        "      http://board.localhost:7080/",
        "notes     12     -",
    ]


def test_then_the_spare_column_goes() -> None:
    assert shown(15)[:2] == ["NAME   COUNT", "board      7"]


def test_wide_characters_are_counted_as_the_terminal_does() -> None:
    lines = shown(80, (("漢字", "1", "2", "x"), ("board", "1", "2", "x")))
    assert lines[1] == "漢字       1    2  x"


WORDS = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=30)


@given(rows=st.lists(st.tuples(WORDS, WORDS, WORDS, WORDS), min_size=1, max_size=5), width=st.integers(1, 120))
def test_nothing_but_spare_columns_is_ever_left_out_or_cut(rows: list[tuple[str, ...]], width: int) -> None:
    lines = shown(width, tuple(rows))
    text = "\n".join(lines)
    for name, count, _, url in rows:
        assert name in text
        assert count in text
        assert url in text
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("width", [30, 80])
def test_long_values_go_on_below_their_beginning(width: int) -> None:
    lines = [line.plain for line in fact_lines([("mode", Text("hand over " * 8)), ("n", Text("1"))], width)]
    assert lines[0].startswith("mode  hand over")
    assert all(line.startswith(("      hand", "      over")) for line in lines[1:-1])
    assert lines[-1] == "n     1"
    assert max(map(len, lines)) <= width
