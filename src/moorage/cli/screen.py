"""What a verb prints and how it looks: lines, aligned tables, problems, JSON.

A screen is either for people or for programs: in JSON mode everything for people is dropped, and the other way round,
so a verb says both and the screen keeps one. Colours appear in a terminal alone (Rich honours NO_COLOR).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from moorage.cli.table import Column, fact_lines, table_lines
from moorage.cli.words import plain
from moorage.domain.errors import Problem
from moorage.wire.problem import problem_document

PIPE_WIDTH_COLUMNS = 1_000  # nothing is cut or wrapped for a program that reads lines

_GOOD = "green"
_DOUBTFUL = "yellow"
_BAD = "red"
_STYLES: Mapping[str, str] = {
    **dict.fromkeys(("ready", "running", "up", "ok", "healthy", "preview_ready", "settled", "destroyed"), _GOOD),
    **dict.fromkeys(("allow", "neutral", "warm", "resumed", "live", "serving", "yes"), _GOOD),
    **dict.fromkeys(("warning", "cold", "review", "needs_acknowledgement", "fresh", "unknown", "draining"), _DOUBTFUL),
    **dict.fromkeys(("canceled", "rolled_back", "restarting", "starting", "behind", "fenced", "cut"), _DOUBTFUL),
    **dict.fromkeys(("blocked", "failed", "rejected", "lost", "settled_with_losses", "down", "fault"), _BAD),
    **dict.fromkeys(("stopped", "gone", "none", "-"), "dim"),
}


def style_of(word: str) -> str:
    """The style of a state, verdict or outcome; empty for an ordinary one."""
    return _STYLES.get(word, "")


def as_json(value: Any) -> Any:
    """Messages (also inside lists and mappings) as JSON values."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(name): as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return value


class Screen:
    """The two streams of one invocation."""

    def __init__(self, *, for_programs: bool, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.for_programs = for_programs
        self._stdout = out or sys.stdout
        self._out = _console(self._stdout)
        self._err = _console(err or sys.stderr)

    @property
    def console(self) -> Console:
        """The console of answers, for what renders itself live."""
        return self._out

    @property
    def live(self) -> bool:
        """Whether something may move on the screen: a terminal that people look at."""
        return not self.for_programs and self._out.is_terminal and not self._out.is_dumb_terminal

    def say(self, *parts: str | Text, style: str = "") -> None:
        """One line for people; it is never broken, so that it can be copied."""
        if not self.for_programs:
            self._out.print(_joined(parts, style), soft_wrap=True)

    def paragraph(self, *parts: str | Text, style: str = "") -> None:
        """A sentence for people; wraps at words."""
        if not self.for_programs:
            self._out.print(_joined(parts, style), soft_wrap=not self._out.is_terminal)

    def raw(self, text: str) -> None:
        """Text as it is (an app's log): only its own lines."""
        if not self.for_programs:
            self._stdout.write(text if self._out.is_terminal else plain(text))
            self._stdout.flush()

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[object]], *, empty: str = "") -> None:
        """An aligned table for people, or one line when there are no rows."""
        found = [list(row) for row in rows]
        if self.for_programs:
            return
        if not found:
            self.say(empty or "Nothing to show.", style="dim")
            return
        cells = [[_cell(value, column) for value, column in zip(row, columns, strict=True)] for row in found]
        self._lines(table_lines(columns, cells, self._out.width))

    def facts(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Names and values, one pair a line."""
        if self.for_programs:
            return
        texts = [(name, value if isinstance(value, Text) else Text(plain(value))) for name, value in pairs]
        self._lines(fact_lines(texts, self._out.width))

    def _lines(self, lines: Iterable[Text]) -> None:
        for line in lines:
            self._out.print(line, soft_wrap=True)

    def document(self, value: Any, *, line: bool = False) -> None:
        """The JSON document for programs: one line, unless a person reads it in a terminal; `line` marks the documents
        of a stream, which are lines everywhere."""
        if self.for_programs:
            indent = 2 if self._out.is_terminal and not line else None
            text = json.dumps(as_json(value), ensure_ascii=False, indent=indent)
            # A file name may hold bytes that are no text; written like this they are JSON's own escapes.
            self._stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
            self._stdout.flush()

    def problem(self, problem: Problem) -> None:
        """Why it did not work: on stderr for people, the problem document on stdout for programs."""
        self.document(problem_document(problem), line=True)
        self.remark(problem)

    def remark(self, problem: Problem) -> None:
        """A problem for people alone, where programs find it in the document of the answer."""
        if self.for_programs:
            return
        head = Text.assemble(("error", "bold red"), (f"[{problem.code}]", "red"), f": {plain(problem.title)}")
        self._err.print(head, soft_wrap=True)
        for line in plain(problem.detail).splitlines():
            self._err.print(Text(f"  {line}"), soft_wrap=True)
        for line in _log_tail(problem):
            self._err.print(Text(f"  | {line}", style="dim"), soft_wrap=True)
        if problem.hint:
            self._err.print(Text.assemble(("hint", "cyan"), f": {plain(problem.hint)}"), soft_wrap=True)

    def aside(self, text: str) -> None:
        """A remark on stderr that is no part of the answer."""
        if not self.for_programs:
            # A moving line belongs to the console of answers; only that one can print above it.
            (self._out if self.live else self._err).print(Text(plain(text), style="dim"), soft_wrap=True)


def _cell(value: object, column: Column) -> Text:
    if isinstance(value, Text):
        return value
    text = "-" if value is None or value == "" else " ".join(plain(value).split())
    shown = text.replace("_", " ") if column.state else text
    return Text(shown, style=style_of(text) if column.state or text == "-" else "")


def _joined(parts: Sequence[str | Text], style: str) -> Text:
    line = Text(style=style)
    for part in parts:
        line.append_text(part) if isinstance(part, Text) else line.append(plain(part))
    return line


def _console(stream: TextIO) -> Console:
    terminal = stream.isatty()
    return Console(
        file=stream,
        width=None if terminal else PIPE_WIDTH_COLUMNS,
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )


def _log_tail(problem: Problem) -> list[str]:
    """The last log lines that a problem carries, wherever it was put together."""
    inner = problem.facts.get("facts")
    facts = {**problem.facts, **(inner if isinstance(inner, Mapping) else {})}
    tail = facts.get("log_tail")
    return [plain(line) for line in tail] if isinstance(tail, list | tuple) else []
