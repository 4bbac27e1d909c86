"""The verbs that only look: what they ask, what they print for people, and that each answers in JSON."""

from __future__ import annotations

import pytest

from moorage.system.clock import now_ms
from moorage.wire.api import Candidate, Explanation, LogChunk, SecretView, SessionRow, SessionsView
from tests.cli.conftest import Run
from tests.cli.control import Control
from tests.cli.transcript import Transcript
from tests.cli.views import (
    DEPLOY_ID,
    DIGEST,
    HANDOVER_ID,
    account,
    allocation_view,
    app_view,
    deployment_view,
    edge_view,
    operation,
    past,
    route_view,
    status_view,
)


def explanation() -> Explanation:
    """The board's production URL, explained."""
    return Explanation(
        url="http://board.localhost:7080/",
        route_key="board.localhost",
        outcome="served",
        reason="a ready allocation of the owner takes it",
        epoch=4,
        app="board",
        environment="production",
        deployment=3,
        artifact=DIGEST,
        request_class="direct",
        pin="none",
        candidates=(
            Candidate(number=7, state="ready", posture="open", picked=True, why="ready, of the owner"),
            Candidate(number=6, state="ready", posture="no_picks", picked=False, why="takes no new sessions"),
        ),
        edges=(edge_view(),),
        history=(
            {
                "route_key": "board.localhost",
                "epoch": 4,
                "deployment": "dep_1",
                "deployment_number": 3,
                "artifact": DIGEST,
                "operation": DEPLOY_ID,
                "actor": "admin",
                "at_ms": past(2),
            },
        ),
    )


def live_sessions() -> SessionsView:
    """A session that was resumed, and the account of the last hand-over."""
    return SessionsView(
        app="board",
        depth="sdk",
        attached_sockets=2,
        sessions=(
            SessionRow(
                label="9f2c41",
                allocation=7,
                deployment=3,
                environment="production",
                attached=True,
                outcome="resumed",
                reason="holder-fenced",
                lease=2,
                revision=5,
                updated_ms=past(0.5),
            ),
        ),
        accounts=(
            {
                "operation": HANDOVER_ID,
                "kind": "handover",
                "state": "settled_with_losses",
                "at_ms": past(2),
                "account": {**account(resumed=48, lost=2), "reasons": {"lost": {"not-returned": 2}}},
            },
        ),
        at_ms=now_ms() + 60_000,
    )


@pytest.fixture
def furnished(control: Control) -> Control:
    """A control plane with something of everything."""
    control.on("GET", "/v1/status", status_view())
    control.on("GET", "/v1/apps", (app_view(), app_view("notes", serving=None, newest_deployment=None)))
    failed = {"code": "app-not-ready", "title": "The app did not become ready"}
    control.on(
        "GET",
        "/v1/apps/board/deployments",
        (
            deployment_view(5),
            deployment_view(4, "failed", artifact=None, preview_url=None, problem=failed),
            deployment_view(3, serving=True, preview_url=None, source={"tree_digest": DIGEST}),
        ),
    )
    behind = route_view(route_key="5--board.localhost", environment="preview 5", edges_behind=("edge-1",), held=True)
    control.on("GET", "/v1/routes", (route_view(), behind))
    gone = allocation_view(
        6,
        state="failed",
        posture="gone",
        pid=None,
        attached_sockets=None,
        reason="exited",
        exit_code=1,
        ended_ms=past(2),
    )
    control.on("GET", "/v1/allocations", (allocation_view(7), gone))
    control.on("GET", "/v1/apps/board/sessions", live_sessions())
    control.on("GET", "/v1/operations", (operation(DEPLOY_ID, "deploy", "queued", "failed", succeeded=False),))
    control.on("GET", f"/v1/operations/{DEPLOY_ID}", operation(DEPLOY_ID, "deploy", "queued", "fetching"))
    control.on("GET", "/v1/explain", explanation())
    control.on(
        "GET", "/v1/apps/board/secrets", (SecretView(name="API_KEY", scope="runtime", version=2, updated_ms=past(1)),)
    )
    control.on("GET", "/v1/allocations/7/logs", LogChunk(allocation=7, text="one\ntwo\n", next_offset=8, over=False))
    return control


LOOKING = [
    ("status",),
    ("apps",),
    ("deployments", "board"),
    ("routes",),
    ("allocations",),
    ("allocations", "board", "--all"),
    ("sessions", "board"),
    ("ops",),
    ("ops", "--app", "board"),
    ("ops", DEPLOY_ID),
    ("explain", "http://board.localhost:7080/"),
    ("secret", "list", "board"),
    ("logs", "7"),
    ("open", "board", "--no-browser"),
]


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
def test_every_verb_answers_with_one_json_document(furnished: Control, run: Run, words: tuple[str, ...]) -> None:
    ran = run(*words, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert isinstance(ran.json, dict)
    assert not furnished.changes()


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
def test_nothing_that_looks_is_wider_than_a_terminal(furnished: Control, run: Run, words: tuple[str, ...]) -> None:
    ran = run(*words)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "\n".join(line.rstrip() for line in ran.out.split("\n"))
    assert "\x1b" not in ran.out


def test_what_people_see(furnished: Control, run: Run) -> None:
    transcript = Transcript("look", run)
    for words in LOOKING:
        transcript.step(*words)
    transcript.check()


def test_flags_may_stand_before_the_verb(furnished: Control, run: Run) -> None:
    assert run("--json", "apps").json == run("apps", "--json").json
    assert run("--json", "secret", "list", "board").json["items"][0]["name"] == "API_KEY"


def test_lists_are_what_the_api_says(furnished: Control, run: Run) -> None:
    assert [item["number"] for item in run("deployments", "board", "--json").json["items"]] == [5, 4, 3]
    assert run("allocations", "board", "--all", "--json").json["items"][1]["exit_code"] == 1
    assert furnished.sent[-1].query == {"app": "board", "all": "true"}


def test_explain_takes_an_app_or_a_url_without_a_scheme(furnished: Control, run: Run) -> None:
    run("explain", "board")
    assert furnished.sent[-1].query["url"] == "http://board.localhost:7080/"
    run("explain", "notes.localhost/live?x=1", "--pin", "7-abc.def")
    assert furnished.sent[-1].query == {"url": "http://notes.localhost/live?x=1", "pin": "7-abc.def"}


def test_open_names_production_or_a_preview(furnished: Control, run: Run) -> None:
    furnished.on("GET", "/v1/apps/board/deployments/5", deployment_view(5))
    furnished.on("GET", "/v1/apps/board/deployments/2", deployment_view(2, "failed", preview_url=None))
    assert run("open", "board", "--no-browser").out == "http://board.localhost:7080/\n"
    assert run("open", "board", "--deployment", 5, "--json").json == {
        "url": "http://5--board.localhost:7080/",
        "opened": False,
    }
    assert run("open", "board", "--deployment", 2, "--json").json["code"] == "no-preview"
    assert run("open", "notes", "--json").json["code"] == "app-not-promoted"
    assert run("open", "other", "--json").json["code"] == "app-unknown"
