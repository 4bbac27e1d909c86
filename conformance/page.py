"""The report as a page for people, pure: the same report gives the same text, and durations stay out of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from conformance.catalogue import BY_ID
from conformance.report import PREFIX, Report, Result, Status, capability_tiers, summary

_WORDS: Final = {
    Status.PASSED: "passed",
    Status.WARNING: "passed with a warning",
    Status.FAILED: "**failed**",
    Status.BLOCKED: "**could not be tried**",
    Status.SKIPPED: "skipped",
    Status.NOT_APPLICABLE: "not applicable",
}
PLACES: Final = {
    "production": "the route that users type; where a line names no place, it was seen there",
    "preview": "the route of a preview; for the framework's tool one whose sessions can be resumed for ten seconds",
    "source": "the app's source, before it was deployed",
    "two allocations": "production while a replacement drains: whoever is new, as the tool is, goes to the new one",
}
_LEFT_OUT: Final = frozenset({Status.SKIPPED, Status.NOT_APPLICABLE})


def render(report: Report) -> str:
    """The page as Markdown."""
    parts = [_head(report), _tiers(report), _versions(report)]
    for tier in report.tiers:
        own = [result for result in report.results if result.tier == tier.number]
        if own:
            parts.append(f"## Tier {tier.number}: {tier.name}\n\n{_capital(tier.about)}.\n\n{_results(own)}")
    return "\n\n".join(parts) + "\n"


def _head(report: Report) -> str:
    told = summary(report)
    counts = told["counts"]
    named = ", ".join(f"{counts[str(s)]} {_plain(s)}" for s in Status if counts[str(s)])
    failing = told["required_failed"]
    verdict = f"{failing} required checks fail." if failing else "No required check fails."
    return (
        "# Conformance with the Vango host contract\n\n"
        "<!-- Written by `make conformance-vango`; do not edit. -->\n\n"
        "A platform on free ports, a Vango app deployed and promoted like any other, and everything below asked\n"
        "through its edge: by the framework's own tool (`vango conformance run`), and by checks of our own under the\n"
        "ids that the contract gives. `make conformance-vango` does it again, in some minutes, and needs Go. The same\n"
        "in the contract's own shape, with durations: [conformance-vango.json](conformance-vango.json).\n\n"
        f"**{verdict}** {_capital(named)}."
    )


def _plain(status: Status) -> str:
    return _WORDS[status].replace("*", "")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _tiers(report: Report) -> str:
    rows = ["| tier | about | status |", "|---|---|---|"]
    abouts = {tier.number: tier.about for tier in report.tiers}
    for tier in capability_tiers(report):
        status = Status(tier["status"])
        rows.append(f"| {tier['tier']} {tier['name']} | {abouts[tier['tier']]} | {_WORDS[status]} |")
    return "\n".join(rows)


def _versions(report: Report) -> str:
    named = "\n".join(f"| {name} | {_value(value)} |" for name, value in report.toolchain.items())
    target = "\n".join(f"| {name.replace('_', ' ')} | {_value(value)} |" for name, value in report.target.items())
    app = "\n".join(f"| {name.replace('_', ' ')} | {_value(value)} |" for name, value in report.manifest.items())
    where = "\n".join(f"- *{place}*: {about}" for place, about in PLACES.items())
    return f"## What was run\n\n| | |\n|---|---|\n{named}\n{target}\n{app}\n\nWhere it was run:\n\n{where}"


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(each)}" for name, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _results(results: Iterable[Result]) -> str:
    listed = list(results)
    tried = [result for result in listed if result.status not in _LEFT_OUT]
    aside = [result for result in listed if result.status in _LEFT_OUT]
    parts = [_result(result) for result in tried]
    if aside:
        rows = [
            f"| `{_short(r)}` | {_WORDS[r.status]} | {'; '.join(d.message for d in r.diagnostics)} |" for r in aside
        ]
        parts.append("\n".join(["| not tried | | why |", "|---|---|---|", *rows]))
    return "\n\n".join(parts)


def _short(result: Result) -> str:
    return result.id.removeprefix(PREFIX)


def _result(result: Result) -> str:
    """One result: its id, what it demands, and what was seen, the same line at two routes told once."""
    lines = [f"**`{_short(result)}`** {_WORDS[result.status]}: {BY_ID[result.id].demands}.", ""]
    lines += [f"- {_code(line)}" for line in joined(result.evidence)]
    for severity in dict.fromkeys(d.severity for d in result.diagnostics):
        told = joined(d.message for d in result.diagnostics if d.severity == severity)
        lines += [f"- {severity}: {_code(line)}" for line in told]
    return "\n".join(lines)


def joined(evidence: Iterable[str]) -> list[str]:
    """Lines that were seen at several places, told once with the places behind."""
    found: dict[str, list[str]] = {}
    for line in evidence:
        place, colon, rest = line.partition(": ")
        known = colon and place in PLACES
        found.setdefault(rest if known else line, []).extend([place] if known else [])
    return [line + (f" ({', '.join(dict.fromkeys(places))})" if places else "") for line, places in found.items()]


def _code(line: str) -> str:
    """A line whose angle brackets and bars mean themselves."""
    return line.replace("<", "&lt;").replace("|", "&#124;")
