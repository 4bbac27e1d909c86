"""How a promotion report and the account of sessions are shown: rows from values, no terminal.

Rules of the room: an account is never shown kinder than it is. All six outcomes stand there, also the empty ones;
what does not add up is said in as many words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from moorage.cli.screen import Screen, style_of
from moorage.cli.table import Column
from moorage.cli.words import ago, count_of, listed, plain, spaced

if TYPE_CHECKING:
    from moorage.wire.api import ChangeView, OperationView, PromotionReport

OUTCOMES = ("attached", "ended", "resumed", "fresh", "lost", "unknown")
CHANGES_SHOWN_MAX_COUNT = 12
_MEANING = {
    "attached": "still with the old allocation",
    "ended": "closed by the person",
    "resumed": "gone on elsewhere with the stored state",
    "fresh": "gone on elsewhere at the defaults",
    "lost": "nobody serves it",
    "unknown": "no evidence (yet)",
}
_COLUMNS = (Column("OUTCOME"), Column("SESSIONS", right=True), Column("WHY", flexible=True))


@dataclass(frozen=True, slots=True)
class AccountTable:
    """An account ready to be shown: one row per outcome, and remarks that must not be overlooked."""

    total: int
    rows: tuple[tuple[str, int, str], ...]
    remarks: tuple[str, ...]
    age: str = ""


def account_table(account: Mapping[str, Any]) -> AccountTable:
    """The table of an account (`counts`, `total`, `reasons` by outcome); counts that are not there are not zero."""
    nested = account.get("counts")
    counts = nested if isinstance(nested, Mapping) else account
    reasons = account.get("reasons")
    reasons = reasons if isinstance(reasons, Mapping) else {}
    rows = tuple((name, int(counts[name]), _why(name, reasons.get(name))) for name in OUTCOMES if name in counts)
    missing = [name for name in OUTCOMES if name not in counts]
    total, added = int(account.get("total", 0)), sum(number for _, number, _ in rows)
    remarks = [f"not stated: {', '.join(missing)}"] if missing else []
    if added != total:
        remarks.append(f"these counts add up to {added}, not to {total}: the account is incomplete")
    if account.get("settled") is False:
        remarks.append("not settled: the counts may still change")
    if uncounted := account.get("uncounted"):
        named = ", ".join(map(str, uncounted))
        remarks.append(f"nobody had counted the sockets of allocation {named}: not all who were attached are known")
    return AccountTable(total, rows, tuple(remarks), _age(account))


def _age(account: Mapping[str, Any]) -> str:
    """How much the death of an allocation cost those who resumed; empty where none died."""
    if "age_max_s" not in account:
        return ""
    unknown = int(account.get("age_unknown", 0))
    more = f"; of {count_of(unknown, 'session')} it is not known" if unknown else ""
    return (
        f"what was resumed was stored up to {account['age_max_s']} s before the end (half: {account['age_p50_s']} s); "
        f"what was changed after that is lost{more}"
    )


def account_of(operation: OperationView) -> Mapping[str, Any] | None:
    """The account that an operation has drawn up, if it has."""
    account = operation.facts.get("account")
    return account if isinstance(account, Mapping) and "total" in account else None


def show_account(screen: Screen, account: Mapping[str, Any], *, title: str = "Account of the sessions") -> None:
    """Show an account as a compact table."""
    table = account_table(account)
    if not table.total and not table.remarks:
        screen.say(f"{title}: no session was attached", style="dim")
        return
    screen.say(Text(title, style="bold"), f": {count_of(table.total, 'session')}")
    rows = [
        (Text(name, style=style_of(name) if number else "dim"), _number(name, number), why)
        for name, number, why in table.rows
    ]
    screen.table(_COLUMNS, rows)
    if table.age:
        screen.say(Text("age", style="bold"), f": {table.age}")
    for remark in table.remarks:
        screen.say(Text("warning", style="yellow"), f": {remark}")


def show_report(screen: Screen, report: PromotionReport, *, rollback: bool, asked_mode: str | None, now: int) -> None:
    """Show what a promotion or rollback would do: impacts both ways, mode and why, live sessions with their time."""
    before = f"deployment {report.serving}" if report.serving is not None else "nothing"
    name = f"{'Rollback' if rollback else 'Promotion'} of {report.app}"
    screen.say(Text(name, style="bold"), f": {before} -> deployment {report.deployment} (at epoch {report.epoch})")
    mode = f"{report.mode} ({report.mode_reason})"
    if asked_mode and asked_mode != report.mode:
        mode = f"{asked_mode} (asked for; by default {report.mode}: {report.mode_reason})"
    elif asked_mode:
        mode = f"{asked_mode} (asked for)"
    counted = f"{report.live_sessions}, counted {ago(report.live_sessions_at_ms, now)} ({report.live_sessions_how})"
    screen.facts(
        [
            ("  state impact", _impact(report.forward, report.forward_changes)),
            ("  on the way back", _impact(report.backward, report.backward_changes)),
            ("  data impact", report.data_impact),
            ("  old sessions", mode),
            ("  live sessions", counted),
            *([("  of them", _expected(report))] if report.live_sessions else []),
            ("  verdict", _verdict(report)),
        ]
    )
    for note in report.notes:
        screen.say(Text("  note", style="cyan"), f": {note}")


def _impact(impact: str, changes: Sequence[ChangeView]) -> Text:
    text = Text(impact, style=style_of(impact))
    shown = [change.text or f"{change.state} {change.field} {change.what}" for change in changes]
    rest = len(shown) - CHANGES_SHOWN_MAX_COUNT
    lines = shown[:CHANGES_SHOWN_MAX_COUNT] + ([f"and {rest} more (see --json)"] if rest > 0 else [])
    if lines:
        text.append(": " + plain("; ".join(lines)), style="not bold default")
    return text


_EXPECTED = (
    ("resume", "go on elsewhere with what is stored"),
    ("stay", "stay with the old allocation until they end"),
    ("fresh", "start fresh"),
    ("unknown", "may lose what they hold: nothing is known of them"),
)


def _expected(report: PromotionReport) -> Text:
    """What would become of the live sessions, and on what grounds."""
    counts = [(getattr(report.expected, name), name, words) for name, words in _EXPECTED]
    told = ", ".join(f"{count} {words}" for count, _, words in counts if count)
    name = next((name for count, name, _ in counts if count), "unknown")
    style = style_of({"resume": "resumed", "stay": "attached"}.get(name, name))
    return Text(told, style=style).append(f" ({plain(report.expected.how)})", style="default")


def _verdict(report: PromotionReport) -> Text:
    text = Text(spaced(report.verdict), style=style_of(report.verdict))
    return text.append(f" ({plain(listed(report.reasons))})" if report.reasons else "", style="default")


def _number(name: str, number: int) -> Text:
    return Text(str(number), style=style_of(name) if number else "dim")


def _why(name: str, reasons: object) -> str:
    if isinstance(reasons, Mapping) and reasons:
        return "; ".join(f"{number} {reason}" for reason, number in reasons.items())
    return _MEANING[name]
