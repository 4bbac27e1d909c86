"""Promote and rollback: what is named, what is shown first, what is sent, how each end is told."""

from __future__ import annotations

from typing import Any

import pytest

from moorage.cli.call import Exit
from moorage.domain.errors import Problem
from moorage.wire.api import ChangeView, Explanation
from tests.cli.conftest import Run
from tests.cli.control import DROP, Control
from tests.cli.transcript import Transcript
from tests.cli.views import (
    HANDOVER_ID,
    PROMOTION_ID,
    account,
    app_view,
    deployment_view,
    operation,
    ref,
    report,
)

HEALTHY = ("requested", "policy_check", "route_cas", "propagating", "baking", "healthy")
MOVED = ("planned", "refusing_new", "cutting", "storing", "fenced", "admitting")
DIGEST = "ack:0123456789abcdef"


@pytest.fixture
def board(control: Control) -> Control:
    """A board whose deployment 5 may be promoted; the promotion works and hands 12 sessions over."""
    control.on("GET", "/v1/apps", (app_view(),))
    control.on("GET", "/v1/apps/board/deployments", (deployment_view(5), deployment_view(3, serving=True)))
    control.on("GET", "/v1/apps/board/deployments/5/report", report())
    control.on("POST", "/v1/apps/board/promotions", ref(PROMOTION_ID, 5))
    healthy = operation(PROMOTION_ID, "promotion", *HEALTHY, succeeded=True, children=(HANDOVER_ID,))
    control.on("GET", f"/v1/operations/{PROMOTION_ID}", operation(PROMOTION_ID, "promotion", "requested"), healthy)
    told = {"account": account(resumed=12)}
    settled = operation(HANDOVER_ID, "handover", *MOVED, "settled", succeeded=True, facts=told, parent=PROMOTION_ID)
    control.on("GET", f"/v1/operations/{HANDOVER_ID}", settled)
    return control


def cold(**other: Any) -> Any:
    """A cold promotion that nobody has accepted yet."""
    problem = {
        "code": "acknowledgement-required",
        "title": "This is a cold deploy: it needs an acknowledgement",
        "detail": "12 live sessions will start fresh when they move to it. "
        "Deciding change: draft color retyped from str to int.",
        "hint": "",
        "status": 409,
    }
    retyped = ChangeView(
        what="retyped",
        state="draft",
        field="color",
        before="str",
        after="int",
        text="draft color retyped from str to int",
    )
    fields = {
        "verdict": "needs_acknowledgement",
        "reasons": ("cold deploy without an acknowledgement",),
        "forward": "cold",
        "forward_changes": (retyped,),
        "backward_changes": (retyped,),
        "acknowledge": DIGEST,
        "problem": problem,
    }
    return report(**(fields | other))


def test_what_people_see_of_a_warm_promotion(board: Control, run: Run) -> None:
    transcript = Transcript("promote", run)
    transcript.step("promote", "board")
    transcript.check()


def test_the_newest_preview_is_named_with_the_epoch_that_was_read(board: Control, run: Run) -> None:
    assert run("promote", "board").code == Exit.OK
    (sent,) = board.changes()
    assert sent.json == {
        "deployment": 5,
        "expected_epoch": 4,
        "mode": None,
        "acknowledge": None,
        "drain_deadline_s": None,
    }
    assert sent.key


def test_every_invocation_has_a_key_of_its_own_unless_one_is_given(board: Control, run: Run) -> None:
    run("promote", "board")
    run("promote", "board")
    run("promote", "board", "--idempotency-key", "mine")
    first, second, third = (s.key for s in board.changes())
    assert first != second
    assert third == "mine"


def test_the_flags_are_sent(board: Control, run: Run) -> None:
    flags = ("--deployment", 5, "--drain", "--drain-deadline", "90", "--epoch", 9, "--acknowledge", DIGEST)
    run("promote", "board", *flags)
    (sent,) = board.changes()
    assert sent.json == {
        "deployment": 5,
        "expected_epoch": 9,
        "mode": "drain",
        "acknowledge": DIGEST,
        "drain_deadline_s": 90.0,
    }


def test_json_is_one_line_per_stage_and_ends_in_the_whole(board: Control, run: Run) -> None:
    ran = run("promote", "board", "--json")
    *stages, last = ran.json_lines
    assert (ran.code, ran.err) == (Exit.OK, "")
    assert [line["stage"]["state"] for line in stages] == list(HEALTHY)
    assert last["succeeded"] is True
    assert last["moves"][0]["facts"]["account"]["resumed"] == 12
    assert last["report"]["epoch"] == 4


def test_a_cold_promotion_shows_the_report_and_sends_nothing(board: Control, run: Run) -> None:
    board.on("GET", "/v1/apps/board/deployments/5/report", cold())
    transcript = Transcript("promote-cold", run)
    ran = transcript.step("promote", "board", "--handover")
    assert ran.code == Exit.ACKNOWLEDGEMENT
    assert not board.changes()
    transcript.check()


def test_the_command_to_repeat_is_complete(board: Control, run: Run) -> None:
    board.on("GET", "/v1/apps/board/deployments/5/report", cold())
    document = run("promote", "board", "--drain", "--drain-deadline", "60", "--json").json
    assert document["code"] == "acknowledgement-required"
    assert document["report"]["acknowledge"] == DIGEST
    expected = f"moorage promote board --deployment 5 --drain --drain-deadline 60 --acknowledge {DIGEST}"
    assert document["command"] == expected


def test_an_acknowledgement_that_the_server_calls_stale_has_its_own_exit_code(board: Control, run: Run) -> None:
    board.on("GET", "/v1/apps/board/deployments/5/report", cold())
    problem = {"code": "acknowledgement-stale", "title": "The acknowledgement does not name what would happen now"}
    rejected = operation(PROMOTION_ID, "promotion", "requested", "rejected", succeeded=False, problem=problem)
    board.on("GET", f"/v1/operations/{PROMOTION_ID}", rejected)
    ran = run("promote", "board", "--acknowledge", "ack:old")
    assert ran.code == Exit.ACKNOWLEDGEMENT
    assert "error[acknowledgement-stale]" in ran.err


def test_a_blocked_promotion_is_refused_with_the_problem_of_the_report(board: Control, run: Run) -> None:
    problem = {"code": "deployment-not-promotable", "title": "It failed", "why": "exit", "status": 409}
    board.on("GET", "/v1/apps/board/deployments/5/report", report(verdict="blocked", problem=problem))
    ran = run("promote", "board", "--json")
    assert (ran.code, ran.json["code"], ran.json["why"]) == (Exit.REFUSED, "deployment-not-promotable", "exit")
    assert not board.changes()


def test_another_epoch_is_the_servers_to_judge(board: Control, run: Run) -> None:
    board.on("GET", "/v1/apps/board/deployments/5/report", cold())
    assert run("promote", "board", "--epoch", 3).code == Exit.OK  # here it is the repetition of one that was granted
    assert board.changes()[0].json["expected_epoch"] == 3
    again = run("promote", "board", "--epoch", 4, "--json").json["command"]
    assert again == f"moorage promote board --deployment 5 --epoch 4 --acknowledge {DIGEST}"


@pytest.mark.parametrize(
    ("state", "code"), [("rejected", Exit.REFUSED), ("rolled_back", Exit.ENDED), ("failed", Exit.ENDED)]
)
def test_a_promotion_that_ends_without_success(board: Control, run: Run, state: str, code: Exit) -> None:
    board.on(
        "GET",
        f"/v1/operations/{PROMOTION_ID}",
        operation(PROMOTION_ID, "promotion", "requested", state, succeeded=False),
    )
    ran = run("promote", "board")
    assert ran.code == code
    assert f"error[operation-{state.replace('_', '-')}]" in ran.err


def test_losses_are_shown_and_are_no_success(board: Control, run: Run) -> None:
    facts = {"account": {**account(resumed=10, lost=2), "reasons": {"lost": {"not-returned": 2}}}}
    ended = operation(HANDOVER_ID, "handover", *MOVED, "settled_with_losses", succeeded=False, facts=facts)
    board.on("GET", f"/v1/operations/{HANDOVER_ID}", ended)
    transcript = Transcript("promote-losses", run)
    assert transcript.step("promote", "board").code == Exit.ENDED
    transcript.check()


def test_an_account_that_is_not_settled_is_not_called_settled(board: Control, run: Run) -> None:
    facts = {"account": account(resumed=11, unknown=1)}
    board.on("GET", f"/v1/operations/{HANDOVER_ID}", operation(HANDOVER_ID, "handover", *MOVED, facts=facts))
    transcript = Transcript("promote-unsettled", run)
    assert transcript.step("promote", "board").code == Exit.OK
    transcript.check()


def test_no_wait_returns_what_was_started(board: Control, run: Run) -> None:
    assert run("promote", "board", "--no-wait", "--json").json == {
        "operation": PROMOTION_ID,
        "app": "board",
        "deployment": 5,
    }


@pytest.mark.usefixtures("no_pauses")
def test_a_lost_connection_is_tried_again_with_the_same_key(board: Control, run: Run) -> None:
    board.on("POST", "/v1/apps/board/promotions", DROP, DROP, ref(PROMOTION_ID, 5))
    assert run("promote", "board").code == Exit.OK
    keys = [s.key for s in board.changes()]
    assert len(keys) == 3
    assert len(set(keys)) == 1


@pytest.mark.usefixtures("no_pauses")
def test_a_follower_survives_a_lost_connection(board: Control, run: Run) -> None:
    path = f"/v1/operations/{PROMOTION_ID}"
    board.on("GET", path, operation(PROMOTION_ID, "promotion", "requested"), DROP, board.answers["GET", path][-1])
    ran = run("promote", "board")
    assert ran.code == Exit.OK
    assert "healthy" in ran.out


def test_a_follower_does_not_wait_for_a_broken_server(board: Control, run: Run) -> None:
    path = f"/v1/operations/{PROMOTION_ID}"
    board.on("GET", path, operation(PROMOTION_ID, "promotion", "requested"), Problem("internal", "A bug", status=500))
    ran = run("promote", "board")
    assert ran.code == Exit.UNEXPECTED
    assert f"moorage ops {PROMOTION_ID} --follow" in ran.err


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ((), "nothing-to-promote"),
        ((deployment_view(5, "failed"),), "nothing-to-promote"),
        ((deployment_view(5, serving=True), deployment_view(3)), "already-owner"),
    ],
)
def test_there_must_be_something_to_promote(board: Control, run: Run, found: Any, code: str) -> None:
    board.on("GET", "/v1/apps/board/deployments", found)
    ran = run("promote", "board", "--json")
    assert (ran.code, ran.json["code"]) == (Exit.REFUSED, code)
    assert not board.changes()


def test_newer_deployments_without_a_preview_are_named(board: Control, run: Run) -> None:
    board.on("GET", "/v1/apps/board/deployments", (deployment_view(6, "building"), deployment_view(5)))
    assert "6 is building" in run("promote", "board").out


def history(*owners: tuple[int, int]) -> Explanation:
    """The route's past owners as (epoch, deployment), newest first."""
    return Explanation(
        url="u",
        route_key="board.localhost",
        outcome="served",
        reason="",
        epoch=owners[0][0],
        app="board",
        environment="production",
        deployment=owners[0][1],
        artifact=None,
        request_class="direct",
        pin="none",
        candidates=(),
        edges=(),
        history=tuple({"epoch": epoch, "deployment_number": number} for epoch, number in owners),
    )


@pytest.mark.parametrize(
    ("owners", "target"),
    [
        (((4, 3), (3, 2), (2, 1)), 2),
        (((4, 3), (3, 1)), 1),
        (((4, 3), (3, 5), (2, 2)), 2),  # after a rollback from 5 to 3, another one goes back further, not forward
    ],
)
def test_rollback_goes_to_the_previous_older_owner(board: Control, run: Run, owners: Any, target: int) -> None:
    board.on("GET", "/v1/explain", history(*owners))
    board.on("GET", f"/v1/apps/board/deployments/{target}/report", report(deployment=target))
    board.on("POST", "/v1/apps/board/rollbacks", ref(PROMOTION_ID, target))
    ran = run("rollback", "board")
    assert ran.code == Exit.OK
    assert [(s.path, s.json["deployment"]) for s in board.changes()] == [("/v1/apps/board/rollbacks", target)]
    assert {s.query["rollback"] for s in board.sent if s.path.endswith("/report")} == {"true"}


def test_rollback_without_an_older_owner_is_refused(board: Control, run: Run) -> None:
    board.on("GET", "/v1/explain", history((4, 3)))
    ran = run("rollback", "board", "--json")
    assert (ran.code, ran.json["code"]) == (Exit.REFUSED, "no-previous-owner")


def test_a_rollback_names_its_own_command(board: Control, run: Run) -> None:
    board.on("GET", "/v1/apps/board/deployments/2/report", cold(deployment=2))
    document = run("rollback", "board", "--to", 2, "--json").json
    assert document["command"] == f"moorage rollback board --to 2 --acknowledge {DIGEST}"


def test_usage_errors_ask_nothing(board: Control, run: Run) -> None:
    assert run("promote", "board", "--drain", "--handover").code == Exit.USAGE
    assert run("promote", "board", "--idempotency-key", "two words").code == Exit.USAGE
    assert run("promote", "board", "--deployment", 0).code == Exit.USAGE
    assert run("promote", "Board/../x", "--json").json["code"] == "name-invalid"
    assert board.sent == []


def test_a_lost_race_names_the_winner(board: Control, run: Run) -> None:
    board.on(
        "POST",
        "/v1/apps/board/promotions",
        Problem("epoch-stale", "Another promotion was faster", facts={"actual_epoch": 5}),
    )
    ran = run("promote", "board", "--json")
    assert (ran.code, ran.json["code"], ran.json["actual_epoch"]) == (Exit.REFUSED, "epoch-stale", 5)


def test_a_deadline_without_a_drain_is_refused_or_said(board: Control, run: Run) -> None:
    deadline = ("--drain-deadline", "60")
    for verb in ("promote", "rollback"):
        ran = run(verb, "board", "--handover", *deadline)
        assert ran.code == Exit.USAGE
        assert "--drain-deadline goes with --drain" in " ".join(ran.err.replace("│", " ").split())
    assert board.changes() == []
    assert "--drain-deadline has no effect" in run("promote", "board", *deadline).err, "the report says: handed over"
    assert "--drain-deadline" not in run("promote", "board", "--drain", *deadline).err
    assert "--drain-deadline" not in run("promote", "board").err
