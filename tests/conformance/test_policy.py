"""What the policy desk says in the contract's words, and to whom."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from conformance.asking import Route, ask
from conformance.policy import desk, marks
from moorage.wire.api import ExpectedSessions, PromotionReport
from moorage.wire.artifact import ArtifactDetail

BEFORE, AFTER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def a_report(forward: str, verdict: str) -> PromotionReport:
    """The platform's report with these two words in it."""
    return PromotionReport(
        app="board",
        deployment=2,
        serving=1,
        epoch=1,
        verdict=verdict,
        reasons=(),
        forward=forward,
        forward_changes=(),
        backward="cold",
        backward_changes=(),
        data_impact="none",
        mode="handover",
        mode_reason="",
        expected=ExpectedSessions(resume=0, stay=0, fresh=0, unknown=0, how=""),
        live_sessions=0,
        live_sessions_at_ms=0,
        live_sessions_how="",
        acknowledge=None,
        problem=None,
    )


def an_artifact(schema_hash: str, acknowledged: tuple[str, str] | None = None) -> ArtifactDetail:
    """An artifact with this state schema and, if any, the framework's acknowledgement of a pair."""
    vango: dict[str, object] = {"schema_hash": schema_hash}
    if acknowledged:
        vango["acknowledgement"] = {
            "before": acknowledged[0],
            "after": acknowledged[1],
            "reason": "changed_fingerprint",
            "by": "manual",
            "at": "2026-01-01T00:00:00Z",
            "removed": [],
            "retyped": [],
        }
    return ArtifactDetail(
        digest="sha256:0",
        app="board",
        kind="vango",
        depth="store_aware",
        native=None,
        state_entries=1,
        size_bytes=1,
        created_ms=1,
        deployments=(1,),
        process={},
        state=(),
        migrations=(),
        source={},
        facts={"vango": vango},
        present=True,
    )


def words(found: Mapping[str, str]) -> tuple[str, ...]:
    """The marks in the order of the contract."""
    return (
        found["Classification"],
        found["Ack-Required"],
        found["Ack-Valid"],
        found["Preview-Status"],
        found["Production-Status"],
        found["Blocking"],
    )


@pytest.mark.parametrize(
    ("forward", "verdict", "acknowledged", "expected"),
    [
        ("warm", "allow", None, ("warm", "false", "false", "ready", "ready", "false")),
        (
            "cold",
            "needs_acknowledgement",
            None,
            ("cold", "true", "false", "ready_with_warnings", "manual_required", "true"),
        ),
        (
            "cold",
            "needs_acknowledgement",
            (BEFORE, AFTER),
            ("cold", "true", "true", "ready_with_warnings", "manual_required", "false"),
        ),
        (
            "cold",
            "needs_acknowledgement",
            (AFTER, BEFORE),
            ("cold", "true", "false", "ready_with_warnings", "manual_required", "true"),
        ),
        ("warm", "blocked", (BEFORE, AFTER), ("warm", "false", "false", "ready", "blocked", "true")),
    ],
)
def test_the_words_follow_the_platforms_report(
    forward: str, verdict: str, acknowledged: tuple[str, str] | None, expected: tuple[str, ...]
) -> None:
    found = marks(a_report(forward, verdict), an_artifact(BEFORE), an_artifact(AFTER, acknowledged))
    assert words(found) == expected


async def test_the_desk_answers_what_it_knows_and_nothing_else() -> None:
    async def answer(scenario: str) -> Mapping[str, str] | None:
        return {"Classification": "warm"} if scenario == "warm" else None

    async with desk(answer) as url:
        host = url.removeprefix("http://").rstrip("/")
        name, _, port = host.partition(":")
        route = Route("desk", "", (name, int(port)), host)
        known = await ask(route, "/?scenario=warm")
        assert (known.status, json.loads(known.body)) == (200, {"Classification": "warm"})
        assert (await ask(route, "/?scenario=other")).status == 404
