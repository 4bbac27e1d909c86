"""Promotions that may not happen: of what is not there, not ready, not read, or not accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moorage.cli.call import Exit
from moorage.wire.api import OperationView, PromoteRequest
from tests.badinput.kit import STEADY, ask, code_of, nothing_changes, owner_stays, source
from tests.support.platform import Platform, key

pytestmark = pytest.mark.servers

FORMS = "forms"
STATE = '[state]\nschema = "schema.json"\n'


def stateful(folder: Path, *fields: str) -> Path:
    """An app that declares these session fields."""
    entries = [{"id": "steady:form:v1", "field": field, "type": "str"} for field in fields]
    source(folder, name=FORMS, more=STATE)
    (folder / "schema.json").write_text(json.dumps({"format": 1, "entries": entries}))
    return folder


async def promoted(
    platform: Platform, number: int, epoch: int, acknowledge: str | None = None, *, app: str = STEADY
) -> OperationView:
    """A promotion straight through the API."""
    async with platform.api() as api:
        request = PromoteRequest(deployment=number, expected_epoch=epoch, acknowledge=acknowledge)
        started = await api.promote(app, request, key=key())
    return await platform.finished(started.operation)


def epoch_of(platform: Platform, name: str = STEADY) -> int:
    """The epoch of an app's production route."""
    apps = ask(platform, "GET", "/v1/apps").json()["items"]
    return next(int(app["epoch"]) for app in apps if app["name"] == name)


async def test_what_is_unknown_cannot_be_promoted(platform: Platform) -> None:
    with nothing_changes(platform):
        for words, code in (
            (("promote", STEADY, "--deployment", "999"), "deployment-unknown"),
            (("rollback", STEADY, "--to", "999"), "deployment-unknown"),
            (("promote", "nobody", "--deployment", "1"), "app-unknown"),
            (("rollback", "nobody"), "app-unknown"),
            (("restart", "nobody"), "app-unknown"),
            (("destroy", "nobody", "--yes"), "app-unknown"),
        ):
            answer = await platform.run(*words, "--json")
            assert (answer.code, answer.json["code"]) == (Exit.REFUSED, code), words
        body = {"deployment": 999, "expected_epoch": epoch_of(platform)}
        for verb in ("promotions", "rollbacks"):
            refused = ask(platform, "POST", f"/v1/apps/{STEADY}/{verb}", json=body)
            assert (refused.status_code, refused.json()["code"]) == (404, "deployment-unknown")


async def test_a_blocked_deployment_cannot_be_promoted(platform: Platform, tmp_path: Path) -> None:
    folder = source(tmp_path / "app", more=STATE)
    (folder / "schema.json").write_text('{"format": 1, "entries": [{"id": 3}]}')
    with owner_stays(platform):
        answer = await platform.run("deploy", str(folder), "--json")
        assert (answer.code, answer.json["state"]) == (Exit.ENDED, "blocked")
        assert answer.json["problem"]["code"] == "state-schema-unreadable"
        number = int(answer.json["input"]["deployment"])
        refused = await platform.run("promote", STEADY, "--deployment", str(number), "--json")
        assert (refused.code, refused.json["code"]) == (Exit.REFUSED, "deployment-not-promotable")
        view = await promoted(platform, number, epoch_of(platform))
        assert (view.state, code_of(view)) == ("rejected", "deployment-not-promotable")


async def test_a_promotion_that_expects_another_epoch_is_told_who_owns_the_route(
    platform: Platform, tmp_path: Path
) -> None:
    _, number = await platform.deploy(source(tmp_path / "app", more="# another\n"))
    epoch = epoch_of(platform)
    with owner_stays(platform):
        for wrong in (epoch - 1, epoch + 1):
            view = await promoted(platform, number, wrong)
            assert (view.state, code_of(view)) == ("rejected", "epoch-stale")
            facts = view.problem or {}
            assert (facts["expected_epoch"], facts["actual_epoch"], facts["winner_deployment"]) == (wrong, epoch, 1)
        answer = await platform.run("promote", STEADY, "--deployment", str(number), "--epoch", "0", "--json")
        assert (answer.code, answer.json["problem"]["code"]) == (Exit.REFUSED, "epoch-stale")


async def test_a_stale_acknowledgement_is_refused_with_the_one_that_would_do(
    platform: Platform, tmp_path: Path
) -> None:
    await platform.serve(stateful(tmp_path / "two", "name", "street"))
    _, one = await platform.deploy(stateful(tmp_path / "one", "name"))
    report = ask(platform, "GET", f"/v1/apps/{FORMS}/deployments/{one}/report").json()
    assert (report["forward"], report["verdict"]) == ("cold", "needs_acknowledgement")
    epoch = epoch_of(platform, FORMS)
    with owner_stays(platform, FORMS):
        for given in ("ack:0000000000000000", "", "yes"):
            view = await promoted(platform, one, epoch, given, app=FORMS)
            assert (view.state, code_of(view)) == ("rejected", "acknowledgement-stale"), given
            assert refusal(view)["acknowledge"] == report["acknowledge"]
        view = await promoted(platform, one, epoch, app=FORMS)
        assert (view.state, code_of(view)) == ("rejected", "acknowledgement-required")
        answer = await platform.run("promote", FORMS, "--deployment", str(one), "--acknowledge", "ack:1", "--json")
        assert (answer.code, answer.json["problem"]["code"]) == (Exit.ACKNOWLEDGEMENT, "acknowledgement-stale")


def refusal(view: OperationView) -> dict[str, Any]:
    """The problem that an operation ended with."""
    assert view.problem is not None
    return view.problem
