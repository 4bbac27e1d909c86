"""Operations, restart and destroy."""

from __future__ import annotations

import pytest

from moorage.cli.call import Exit
from moorage.domain.errors import Problem
from tests.cli.conftest import Run
from tests.cli.control import Control
from tests.cli.transcript import Transcript
from tests.cli.views import DEPLOY_ID, HANDOVER_ID, PROMOTION_ID, account, app_view, operation, ref

PATH = f"/v1/operations/{PROMOTION_ID}"


def test_following_ends_with_the_account_and_the_exit_code_of_the_end(control: Control, run: Run) -> None:
    draining = operation(PROMOTION_ID, "drain", "draining")
    ended = {"account": {**account(ended=3), "reasons": {"ended": {"closed": 2, "cut-at-deadline": 1}}}}
    settled = operation(PROMOTION_ID, "drain", "draining", "cutting", "fenced", "settled", succeeded=True, facts=ended)
    control.on("GET", PATH, draining, draining, settled)
    transcript = Transcript("ops-follow", run)
    assert transcript.step("ops", PROMOTION_ID, "--follow").code == Exit.OK
    transcript.check()
    control.on("GET", PATH, draining, settled)
    *stages, last = run("ops", PROMOTION_ID, "--follow", "--json").json_lines
    assert len(stages) == 4
    assert last["facts"]["account"]["ended"] == 3


def test_stages_are_asked_for_by_long_poll_and_shown_once(control: Control, run: Run) -> None:
    first = operation(PROMOTION_ID, "promotion", "requested", "policy_check")
    whole = operation(PROMOTION_ID, "promotion", "requested", "policy_check", "route_cas", "healthy", succeeded=True)
    control.on("GET", PATH, first, first, first, whole)
    ran = run("ops", PROMOTION_ID, "--follow")
    assert [line.split()[2] for line in ran.out.splitlines()[1:]] == ["requested", "policy", "route", "healthy"]
    assert [s.query["after"] for s in control.sent] == ["-1", "-1", "1", "1"]
    assert float(control.sent[-1].query["wait_s"]) > 10


@pytest.mark.parametrize("follow", [True, False])
def test_an_end_without_success(control: Control, run: Run, follow: bool) -> None:
    problem = {"code": "bake-failed", "title": "The new allocations did not stay ready", "status": 409}
    control.on(
        "GET", PATH, operation(PROMOTION_ID, "promotion", "requested", "rolled_back", succeeded=False, problem=problem)
    )
    ran = run("ops", PROMOTION_ID, *(["--follow"] if follow else []))
    assert ran.code == (Exit.ENDED if follow else Exit.OK)
    assert "error[bake-failed]" in ran.err


def test_an_id_that_cannot_be_is_refused_without_asking(control: Control, run: Run) -> None:
    ran = run("ops", "../apps", "--json")
    assert (ran.code, ran.json["code"]) == (Exit.REFUSED, "operation-unknown")
    assert control.sent == []


def test_cancel_is_asked_for_once_with_a_key(control: Control, run: Run) -> None:
    control.on("POST", f"{PATH}/cancel", ref(PROMOTION_ID))
    assert run("ops", PROMOTION_ID, "--cancel", "--json").json["operation"] == PROMOTION_ID
    (sent,) = control.changes()
    assert sent.key


def test_cancel_that_comes_too_late(control: Control, run: Run) -> None:
    control.on("POST", f"{PATH}/cancel", Problem("operation-not-cancelable", "Too late", facts={"state": "baking"}))
    ran = run("ops", PROMOTION_ID, "--cancel", "--json")
    assert (ran.code, ran.json["state"]) == (Exit.REFUSED, "baking")


def test_cancel_and_follow(control: Control, run: Run) -> None:
    control.on("POST", f"{PATH}/cancel", ref(PROMOTION_ID))
    control.on("GET", PATH, operation(PROMOTION_ID, "promotion", "requested", "canceled", succeeded=False))
    ran = run("ops", PROMOTION_ID, "--cancel", "--follow", "--json")
    assert (ran.code, ran.json_lines[-1]["state"]) == (Exit.ENDED, "canceled")


def test_restart_is_followed(control: Control, run: Run) -> None:
    control.on("POST", "/v1/apps/board/restarts", ref(PROMOTION_ID, 3))
    told = {"account": account(resumed=2)}
    states = ("requested", "starting", "admitting", "settled")
    control.on("GET", PATH, operation(PROMOTION_ID, "replacement", *states, succeeded=True, facts=told))
    transcript = Transcript("restart", run)
    assert transcript.step("restart", "board", "--handover").code == Exit.OK
    transcript.check()
    assert control.changes()[0].json == {"mode": "handover"}


def test_restart_shows_one_account_and_not_the_same_one_twice(control: Control, run: Run) -> None:
    control.on("POST", "/v1/apps/board/restarts", ref(PROMOTION_ID, 3))
    told = {"account": account(resumed=2)}
    parent = operation(
        PROMOTION_ID, "replacement", "requested", "settled", succeeded=True, facts=told, children=(HANDOVER_ID,)
    )
    control.on("GET", PATH, parent)
    child = operation(HANDOVER_ID, "handover", "planned", "settled", succeeded=True, facts=told, parent=PROMOTION_ID)
    control.on("GET", f"/v1/operations/{HANDOVER_ID}", child)
    assert run("restart", "board").out.count("OUTCOME") == 1


def test_destroy_needs_a_yes(control: Control, run: Run) -> None:
    control.on("GET", "/v1/apps", (app_view(),))
    ran = run("destroy", "board", "--json")
    assert (ran.code, ran.json["code"]) == (Exit.REFUSED, "confirmation-required")
    assert run("destroy", "board", stdin="y\n").code == Exit.REFUSED  # a pipe is nobody who has read the question
    assert not control.changes()


def test_destroy_with_a_yes(control: Control, run: Run) -> None:
    control.on("DELETE", "/v1/apps/board", ref(DEPLOY_ID))
    destroyed = operation(DEPLOY_ID, "destroy", "requested", "removing", "destroyed", succeeded=True)
    control.on("GET", f"/v1/operations/{DEPLOY_ID}", destroyed)
    ran = run("destroy", "board", "--yes")
    assert (ran.code, ran.out.splitlines()[-1]) == (Exit.OK, "board is gone.")
