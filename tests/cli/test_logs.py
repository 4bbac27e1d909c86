"""Logs: which allocations a name means, pieces that go on, several at once."""

from __future__ import annotations

import pytest

from moorage.cli.call import Exit
from moorage.wire.api import LogChunk
from tests.cli.conftest import Run
from tests.cli.control import DROP, Control
from tests.cli.views import allocation_view


def chunk(allocation: int, text: str, end: int, *, over: bool = False) -> LogChunk:
    """A piece of a log."""
    return LogChunk(allocation=allocation, text=text, next_offset=end, over=over)


def test_an_app_means_what_runs_in_production(control: Control, run: Run) -> None:
    preview = allocation_view(9, environment="preview 5", deployment=5)
    control.on("GET", "/v1/allocations", (allocation_view(7), preview))
    control.on("GET", "/v1/allocations/7/logs", chunk(7, "hello\nworld", 11))
    assert run("logs", "board").out == "hello\nworld\n"
    control.on("GET", "/v1/allocations/9/logs", chunk(9, "preview\n", 8))
    assert run("logs", "board", "--deployment", 5).out == "preview\n"


def test_an_app_that_runs_nowhere_means_its_newest_allocation(control: Control, run: Run) -> None:
    gone = (allocation_view(4, state="failed"), allocation_view(6, state="failed"))
    control.on("GET", "/v1/allocations", (), gone)
    control.on("GET", "/v1/allocations/6/logs", chunk(6, "Traceback\n", 10, over=True))
    assert run("logs", "board").out == "Traceback\n"


def test_an_app_that_never_ran(control: Control, run: Run) -> None:
    control.on("GET", "/v1/allocations", ())
    ran = run("logs", "board", "--json")
    assert (ran.code, ran.json["code"]) == (Exit.REFUSED, "no-allocation")


def test_several_allocations_are_told_apart(control: Control, run: Run) -> None:
    control.on("GET", "/v1/allocations", (allocation_view(8), allocation_view(7)))
    control.on("GET", "/v1/allocations/7/logs", chunk(7, "a\nb\n", 4))
    control.on("GET", "/v1/allocations/8/logs", chunk(8, "c", 1))
    assert run("logs", "board").out == "7 | a\n7 | b\n8 | c\n"
    assert [item["allocation"] for item in run("logs", "board", "--json").json["items"]] == [7, 8]


def test_the_last_lines_alone(control: Control, run: Run) -> None:
    control.on("GET", "/v1/allocations/7/logs", chunk(7, "1\n2\n3\n", 6))
    assert run("logs", 7, "-n", 2).out == "2\n3\n"
    assert run("logs", 7, "-n", 0).out == ""
    assert run("logs", 7, "-n", 9).out == "1\n2\n3\n"


@pytest.mark.usefixtures("no_pauses")
def test_following_goes_on_where_the_piece_ended_until_it_is_over(control: Control, run: Run) -> None:
    pieces = (chunk(7, "one\nhal", 7), DROP, chunk(7, "f\n", 9), chunk(7, "", 9), chunk(7, "", 9, over=True))
    control.on("GET", "/v1/allocations/7/logs", *pieces)
    ran = run("logs", 7, "--follow", "-n", 1)
    assert ran.out == "half\n"
    assert "has ended" in ran.err
    assert [s.query["offset"] for s in control.sent] == ["-1", "7", "7", "9", "9"]


def test_following_in_json_is_a_line_per_piece(control: Control, run: Run) -> None:
    control.on("GET", "/v1/allocations/7/logs", chunk(7, "one\n", 4), chunk(7, "", 4, over=True))
    assert [line["text"] for line in run("logs", 7, "-f", "--json").json_lines] == ["one\n", ""]


def test_an_app_with_colours_is_plain_in_a_pipe(control: Control, run: Run) -> None:
    control.on("GET", "/v1/allocations/7/logs", chunk(7, "\x1b[32mok\x1b[0m\n", 12))
    assert run("logs", 7).out == "ok\n"
