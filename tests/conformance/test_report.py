"""The report: its shape against the schema, a summary that is never kinder than its parts, nothing of one run in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from conformance import page, run
from conformance.catalogue import BY_ID, REQUIRED_TIER, ROWS, TIERS, absent, of_tool
from conformance.report import (
    PREFIX,
    Cleaner,
    Diagnostic,
    Report,
    Result,
    Seen,
    Status,
    merged,
    result_of,
    summary,
    tier_status,
    to_json,
)

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "conformance" / "report.schema.json").read_text())
WRITTEN, PAGE = ROOT / "docs" / "conformance-vango.json", ROOT / "docs" / "conformance-vango.md"


def result(id: str, status: Status = Status.PASSED, *, required: bool = True) -> Result:
    """A result of this id with what the schema asks of its status."""
    evidence = ("GET / -> 200",) if status in (Status.PASSED, Status.WARNING) else ()
    diagnostics = () if status is Status.PASSED else (Diagnostic("error", "seen: 500"),)
    aside = status in (Status.SKIPPED, Status.NOT_APPLICABLE)
    return Result(id, BY_ID[id].tier, status, required and not aside, evidence, 12, diagnostics)


def report(**odd: Status) -> Report:
    """A report in which everything passed but the ids named here (`AREA__CASE`)."""
    named = {f"{PREFIX}{name.replace('__', '.')}": status for name, status in odd.items()}
    assert named.keys() <= BY_ID.keys()
    away = {row.id: found.status for row in ROWS if (found := absent(row.id)) is not None}
    results = tuple(result(row.id, named.get(row.id, away.get(row.id, Status.PASSED))) for row in ROWS)
    versions = dict.fromkeys(("moorage", "framework", "tool", "go", "haproxy", "valkey", "nats", "python"), "1")
    manifest = {
        "app": "board",
        "kind": "vango",
        "depth": "store_aware",
        "state_schema": "sha256:" + "0" * 64,
        "documents": ["vango.host.v1.0"],
        "documents_by": "framework",
    }
    target = {"environment": "test", "topology": "one host", "routes": ["board.localhost"]}
    return Report(versions, target, manifest, TIERS, results, REQUIRED_TIER)


def problems(document: Any) -> list[str]:
    """What the schema has against a document."""
    return [error.message for error in jsonschema_rs.validator_for(SCHEMA).iter_errors(document)]


def test_a_report_has_the_specified_shape() -> None:
    assert problems(to_json(report(HTTP__SSR_PAGE=Status.FAILED, WS__UPGRADE=Status.BLOCKED))) == []


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("status", "fine"),
        ("tier", 8),
        ("id", "HTTP.SSR_PAGE"),
        ("evidence", []),
        ("duration_ms", 1.5),
        ("session_id", "x"),
    ],
)
def test_the_schema_sees_another_shape(change: str, value: object) -> None:
    document = to_json(report())
    document["results"][0][change] = value
    assert problems(document) != []


def test_what_is_skipped_cannot_be_required() -> None:
    document = to_json(report())
    found = next(each for each in document["results"] if each["status"] == "skipped")
    assert problems(document) == []
    found["required"] = True
    assert problems(document) != []


# ---- the summary
def test_everything_passed() -> None:
    told = summary(report())
    assert (told["overall_status"], told["required_failed"]) == ("passed", 0)
    assert told["highest_passed_tier"] == 2, "tier 3 was not tried, so the row ends before it"


@pytest.mark.parametrize("status", [Status.FAILED, Status.BLOCKED])
def test_one_required_failure_fails_the_whole(status: Status) -> None:
    told = summary(report(FORM__CSRF_TOKEN_PRESENT=status))
    assert (told["overall_status"], told["required_failed"], told["highest_passed_tier"]) == ("failed", 1, 1)


def test_a_failure_in_tier_0_leaves_no_tier() -> None:
    assert summary(report(MANIFEST__PARSE=Status.FAILED))["highest_passed_tier"] is None


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([Status.PASSED, Status.NOT_APPLICABLE], Status.PASSED),
        ([Status.PASSED, Status.WARNING], Status.WARNING),
        ([Status.SKIPPED, Status.NOT_APPLICABLE], Status.SKIPPED),
        ([Status.NOT_APPLICABLE, Status.NOT_APPLICABLE], Status.NOT_APPLICABLE),
        ([Status.PASSED, Status.FAILED, Status.BLOCKED], Status.FAILED),
        ([Status.PASSED, Status.BLOCKED], Status.BLOCKED),
    ],
)
def test_what_a_tier_comes_to(statuses: list[Status], expected: Status) -> None:
    assert tier_status([result(ROWS[i].id, status) for i, status in enumerate(statuses)]) is expected


# ---- what a check sees
def test_an_expectation_that_does_not_hold_fails_and_says_what_was_seen() -> None:
    seen = Seen()
    assert seen.expect(True, "GET / -> 200", "200 OK")
    assert not seen.expect(False, "GET /second -> 200", "500 Internal Server Error")
    assert (seen.status, seen.evidence) == (Status.FAILED, ["GET / -> 200"])
    assert "500 Internal Server Error" in seen.diagnostics[0].message


def test_a_warning_does_not_cover_a_failure() -> None:
    seen = Seen()
    seen.expect(False, "it answers")
    seen.warn("slowly")
    assert seen.status is Status.FAILED


def test_several_places_are_as_good_as_the_worst() -> None:
    good, bad = Seen(), Seen()
    good.note("GET / -> 200")
    bad.expect(False, "GET / -> 200", "404")
    whole = merged({"production": good, "preview": bad})
    assert whole.status is Status.FAILED
    assert whole.evidence == ["production: GET / -> 200"]
    assert whole.diagnostics[0].message.startswith("preview: expected")


def test_nothing_secret_and_nothing_of_one_run_is_told() -> None:
    line = (
        "session 0123456789abcdef0123456789abcdef at redis://alc_1:pass@127.0.0.1:6379/0 wrote /tmp/x/y and "
        "/scratch/here/app/main.go of http://board.localhost:31999/second, operation opn_01m889vqncf5e9wyt8xhrymq45"
    )
    seen = Seen()
    seen.note(line)
    told = result_of(ROWS[0].id, 0, True, seen, 1, Cleaner((31999,), ("/scratch/here",))).evidence[0]
    assert told == (
        "session <id> at <store url> wrote <path> and <path> of http://board.localhost/second, operation <id>"
    )


def test_paths_of_requests_stay() -> None:
    seen = Seen()
    seen.note("GET /_vango/health/live -> 200, GET /%2e%2e/etc/passwd -> 404")
    assert result_of(ROWS[0].id, 0, True, seen, 1, Cleaner()).evidence == tuple(seen.evidence)


# ---- the catalogue
def test_every_id_is_played_or_its_absence_explained() -> None:
    played = {f"{PREFIX}{check.id}" for check in run.CHECKS}
    played |= {f"{PREFIX}{id}" for id in run.OF_SCENES}
    tools = {row.id for row in ROWS if row.id.startswith(f"{PREFIX}TOOL.")}
    away = {row.id for row in ROWS if absent(row.id) is not None}
    assert played | tools | away == BY_ID.keys()
    assert played & away == set()
    assert len(BY_ID) == len(ROWS)


def test_the_tool_has_sixteen_checks() -> None:
    tools = [row for row in ROWS if row.id.startswith(f"{PREFIX}TOOL.")]
    assert len(tools) == 16
    assert of_tool("ssr_route") in BY_ID


def test_tiers_0_1_2_are_complete() -> None:
    specified = [row for row in ROWS if not row.id.startswith(f"{PREFIX}TOOL.")]
    counts = [sum(row.tier == tier.number for row in specified) for tier in TIERS]
    assert counts == [7, 19, 16, 9, 9, 13, 5, 6]
    assert all(absent(row.id) is None for row in specified if row.tier <= 2)


# ---- the page
def test_a_page_says_the_same_twice_and_no_durations() -> None:
    whole = report(HTTP__NOT_FOUND=Status.FAILED)
    text = page.render(whole)
    assert text == page.render(whole)
    assert "**`HTTP.NOT_FOUND`** **failed**" in text
    assert "1 required checks fail" in text
    assert "12 ms" not in text


def test_a_line_seen_at_two_routes_is_told_once() -> None:
    lines = ["production: GET / -> 200", "preview: GET / -> 200", "livePath: /_vango/live"]
    assert page.joined(lines) == ["GET / -> 200 (production, preview)", "livePath: /_vango/live"]


def read_report(document: dict[str, Any]) -> Report:
    """A report as it was before it became JSON."""
    results = tuple(
        Result(
            each["id"],
            each["tier"],
            Status(each["status"]),
            each["required"],
            tuple(each["evidence"]),
            each["duration_ms"],
            tuple(Diagnostic(d["severity"], d["message"]) for d in each["diagnostics"]),
        )
        for each in document["results"]
    )
    required = document["summary"]["required_tier"]
    return Report(document["toolchain"], document["target"], document["manifest"], TIERS, results, required)


def test_the_report_in_the_documentation_is_whole_and_no_required_check_fails() -> None:
    document = json.loads(WRITTEN.read_text())
    assert problems(document) == []
    assert {each["id"] for each in document["results"]} == BY_ID.keys()
    assert to_json(read_report(document)) == document, "the summary is that of the results"
    assert document["summary"]["required_failed"] == 0


def test_the_page_in_the_documentation_is_that_of_the_report() -> None:
    assert PAGE.read_text() == page.render(read_report(json.loads(WRITTEN.read_text())))
