"""The API against its own description: generated requests, good and bad, never meet a bug.

Every answer must be one that the description allows: a documented one, or problem details. Examples are few and the
same in each run; what is found becomes a test of its own in `test_api`. Schemathesis is imported by the fixture alone:
it costs more than a second, which every other run of any tests would pay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings

from moorage.control.api.app import create_app
from moorage.store import apps, operations
from moorage.store.database import Tx
from moorage.system.rand import new_secret
from tests.control.rig import ADMIN, TOKENS, World

if TYPE_CHECKING:
    from schemathesis import Case

EXAMPLES_COUNT = 10  # of each endpoint
APP = "board"
READY = "/readyz"  # answers 503 while something is missing: that is its purpose


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A control plane with one app and without an engine: nothing that a request starts goes on."""
    import schemathesis

    world = World(tmp_path_factory.mktemp("openapi") / "home")
    asyncio.run(world.plane.start(engine=False))
    asyncio.run(world.plane.db.write(_populate))
    yield schemathesis.openapi.from_asgi("/openapi.json", create_app(world.plane.control, world.plane.builds))
    asyncio.run(world.plane.stop())


def _populate(tx: Tx) -> None:
    apps.create_app(tx, APP, "app_1")
    operations.create(tx, id="opn_1", kind=operations.Kind.DEPLOY, app=APP, input={"deployment_id": "dep_1"})
    apps.create_deployment(tx, id="dep_1", app=APP, source={}, operation="opn_1")


def _checks() -> list[Any]:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    return [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]


def test_every_answer_is_one_that_the_description_allows(description: Any) -> None:
    tried, expected = 0, _checks()
    for found in description.get_all_operations():
        operation = found.ok()
        if operation.path.startswith(READY):
            continue

        @settings(max_examples=EXAMPLES_COUNT, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def attempt(case: Case) -> None:
            _reach_behind_the_door(case)
            case.validate_response(case.call(headers=_headers(case)), checks=expected)

        attempt()
        tried += 1
    assert tried > 25, "every endpoint was tried"


def _reach_behind_the_door(case: Case) -> None:
    """Every other request is about things that exist, and none waits for news."""
    given = case.path_parameters or {}
    if case.query and "wait_s" in case.query:
        case.query["wait_s"] = 0
    if "app" in given and len(str(given["app"])) % 2:
        given["app"] = APP
        if "number" in given:
            given["number"] = 1
    for name, known in (("operation", "opn_1"), ("edge", "edge-1"), ("runner", "runner-1")):
        if name in given:
            given[name] = known


def _headers(case: Case) -> dict[str, str]:
    agents = {"/v1/edges/": TOKENS["edge-1"], "/v1/runners/": TOKENS["runner-1"], "/v1/builds/": TOKENS["runner-1"]}
    token = next((token for prefix, token in agents.items() if case.path.startswith(prefix)), ADMIN)
    return {"Authorization": f"Bearer {token}", "Idempotency-Key": new_secret()}


def test_the_description_is_openapi_3_1_and_names_problems_and_tokens(description: Any) -> None:
    raw = description.raw_schema
    assert raw["openapi"].startswith("3.1")
    for path, verbs in raw["paths"].items():
        for verb, operation in verbs.items():
            assert "application/problem+json" in operation["responses"]["default"]["content"], (verb, path)
            assert ("security" in operation) is (path.split("/")[1] not in ("healthz", "readyz")), (verb, path)


def test_every_change_declares_its_key(description: Any) -> None:
    for path, verbs in description.raw_schema["paths"].items():
        for verb, operation in verbs.items():
            if "changes" in operation.get("tags", ()) and not path.startswith("/v1/sources"):
                names = [p["name"] for p in operation["parameters"] if p["in"] == "header" and p["required"]]
                assert names == ["Idempotency-Key"], (verb, path)
