"""The API itself: who may ask, what is refused and how, retries, long polls, secrets at rest."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from moorage.domain.limits import API_BODY_MAX_BYTES, IDEMPOTENCY_KEY_MAX_CHARS, SECRET_VALUE_MAX_BYTES
from moorage.store import operations
from moorage.system.clock import monotonic_s
from moorage.system.rand import new_secret
from moorage.wire.api import SecretRequest
from tests.control.rig import ADMIN, TOKENS, World
from tests.support.nouns import manifest

V1 = manifest(content="v1")


def client(world: World, token: str | None = ADMIN) -> httpx.AsyncClient:
    """A plain HTTP client: it sends what a test wants, right or wrong."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(world.plane.app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://control", headers=headers)


def key() -> dict[str, str]:
    return {"Idempotency-Key": new_secret()}


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is problem details with this code and says what to do."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code), body
    assert body["title"]
    assert body["type"] == f"urn:moorage:error:{code}"
    return body


MUTATIONS = [
    ("POST", "/v1/apps/board/deployments", {"source": "0" * 64}),
    ("POST", "/v1/apps/board/promotions", {"deployment": 1, "expected_epoch": 0}),
    ("POST", "/v1/apps/board/rollbacks", {"deployment": 1, "expected_epoch": 0}),
    ("POST", "/v1/apps/board/restarts", {}),
    ("DELETE", "/v1/apps/board", None),
    ("PUT", "/v1/apps/board/secrets/API_KEY", {"value": "x"}),
    ("DELETE", "/v1/apps/board/secrets/API_KEY", None),
    ("POST", "/v1/apps/board/rotations", {}),
    ("POST", "/v1/operations/opn_unknown/cancel", None),
]
READS = [
    "/v1/apps",
    "/v1/apps/board/deployments",
    "/v1/apps/board/deployments/1",
    "/v1/apps/board/deployments/1/report",
    "/v1/apps/board/sessions",
    "/v1/apps/board/secrets",
    "/v1/apps/board/bindings",
    "/v1/routes",
    "/v1/allocations",
    "/v1/explain?url=http://board.localhost/",
    "/v1/operations",
    "/v1/operations/opn_unknown",
    "/v1/allocations/1/logs",
    "/v1/status",
]
AGENTS = [
    ("GET", "/v1/edges/edge-1/snapshot"),
    ("GET", "/v1/edges/edge-1/log?after=0"),
    ("POST", "/v1/edges/edge-1/report"),
    ("GET", "/v1/runners/runner-1/desired"),
    ("POST", "/v1/runners/runner-1/report"),
    ("POST", "/v1/builds/claim"),
    ("POST", "/v1/builds/opn_x/report"),
    ("GET", f"/v1/sources/{'0' * 64}"),
]
AGENT_BODIES: dict[str, Any] = {
    "/v1/edges/edge-1/report": {
        "edge": "edge-1",
        "incarnation": "inc",
        "applied_index": 0,
        "applied": 0,
        "duplicates": 0,
        "gaps": 0,
        "stale": 0,
    },
    "/v1/runners/runner-1/report": {"runner": "runner-1", "revision": 0, "allocations": [], "stores": []},
    "/v1/builds/claim": {"worker": "runner-1"},
    "/v1/builds/opn_x/report": {"token": 1, "stage": "fetching"},
}


async def test_nothing_but_health_and_openapi_is_told_without_a_token(world: World) -> None:
    for token in (None, "", "wrong", TOKENS["edge-1"], TOKENS["runner-1"]):
        asking = client(world, token)
        for path in READS:
            check_problem(await asking.get(path), 401, "unauthorized")
        for method, path, body in MUTATIONS:
            check_problem(await asking.request(method, path, json=body, headers=key()), 401, "unauthorized")
        check_problem(await asking.put(f"/v1/sources/{'0' * 64}", content=b"x"), 401, "unauthorized")
        assert (await asking.get("/healthz")).status_code == 200
        assert (await asking.get("/openapi.json")).json()["openapi"].startswith("3.1")
    rows = await world.plane.read(lambda tx: operations.newest(tx, None, 10))
    assert rows == ()


async def test_an_agent_needs_its_own_token(world: World) -> None:
    for method, path in AGENTS:
        own = TOKENS["edge-1"] if "/edges/" in path else TOKENS["runner-1"]
        for token in (None, "wrong", *({ADMIN, *TOKENS.values()} - {own})):
            answer = await client(world, token).request(method, path, json=AGENT_BODIES.get(path))
            check_problem(answer, 401, "unauthorized")
        assert (await client(world, own).request(method, path, json=AGENT_BODIES.get(path))).status_code != 401, path


async def test_an_agent_that_nobody_set_up_is_refused(world: World) -> None:
    for token in ("", "None", TOKENS["edge-1"]):
        check_problem(await client(world, token).get("/v1/edges/edge-2/snapshot"), 401, "unauthorized")


async def test_a_refusal_tells_how_to_authenticate(world: World) -> None:
    answer = await client(world, None).get("/v1/apps")
    assert answer.headers["www-authenticate"] == "Bearer"  # RFC 9110 section 11.6.1


NOT_JSON: list[Any] = [
    (b"{", "application/json"),
    (b"", "application/json"),
    (b"\xff\xfe", "application/json"),
    (b"source=x", "text/plain"),
]


async def test_a_deadline_that_is_none_is_refused_before_anything_moves(world: World) -> None:
    await world.deploy(V1)
    for deadline in ("NaN", "1e999", "-1", "-1e999", "1e12"):
        body = f'{{"deployment": 1, "expected_epoch": 0, "drain_deadline_s": {deadline}}}'
        headers = {**key(), "Content-Type": "application/json"}
        answer = await client(world).post("/v1/apps/board/promotions", content=body, headers=headers)
        check_problem(answer, 422, "request-invalid")


async def test_a_hand_over_has_no_deadline_that_could_be_forgotten(world: World) -> None:
    await world.deploy(V1)
    for mode, status in (("handover", 422), ("drain", 202), (None, 202)):
        body = {"deployment": 1, "expected_epoch": 0, "mode": mode, "drain_deadline_s": 5}
        answer = await client(world).post("/v1/apps/board/promotions", json=body, headers=key())
        assert answer.status_code == status, (mode, answer.text)


async def test_a_body_that_is_not_json(world: World) -> None:
    for content, kind in NOT_JSON:
        answer = await client(world).post(
            "/v1/apps/board/deployments", content=content, headers={**key(), "Content-Type": kind}
        )
        body = answer.json()
        assert (answer.status_code, body["code"]) in {(400, "request-not-json"), (422, "request-invalid")}
        assert answer.headers["content-type"] == "application/problem+json"
        assert body["hint"]


@pytest.mark.parametrize("length_told", [True, False])
async def test_a_body_that_is_too_large_is_refused_before_it_is_kept(world: World, length_told: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"source": "'
        for _ in range(API_BODY_MAX_BYTES // (1 << 16) + 1):
            yield b"x" * (1 << 16)

    content: Any = b"x" * (API_BODY_MAX_BYTES + 1) if length_told else pieces()
    headers = {**key(), "Content-Type": "application/json"}
    answer = await client(world).post("/v1/apps/board/deployments", content=content, headers=headers)
    check_problem(answer, 413, "request-too-large")


WRONG_TYPES: list[Any] = [
    ("/v1/apps/board/promotions", {"deployment": "1", "expected_epoch": 0}, "body.deployment"),
    ("/v1/apps/board/promotions", {"deployment": 1.5, "expected_epoch": 0}, "body.deployment"),
    ("/v1/apps/board/promotions", {"deployment": True, "expected_epoch": 0}, "body.deployment"),
    ("/v1/apps/board/promotions", {"deployment": 1}, "body.expected_epoch"),
    ("/v1/apps/board/promotions", {"deployment": 1, "expected_epoch": 0, "force": True}, "body.force"),
    ("/v1/apps/board/promotions", {"deployment": 1, "expected_epoch": 0, "mode": "fast"}, "body.mode"),
    ("/v1/apps/board/deployments", {"source": None}, "body.source"),
    ("/v1/apps/board/deployments", ["source"], "body"),
    ("/v1/apps/board/secrets/API_KEY", {"value": "x", "scope": "platform"}, "body.scope"),
]


async def test_wrong_types_are_named_field_by_field(world: World) -> None:
    for path, body, field in WRONG_TYPES:
        method = "PUT" if "secrets" in path else "POST"
        answer = await client(world).request(method, path, json=body, headers=key())
        told = check_problem(answer, 422, "request-invalid")
        assert field in [f["field"] for f in told["fields"]]


HUGE = 2**63


ODD_VALUES: list[Any] = [
    ("GET", f"/v1/apps/board/deployments/{HUGE}", None),
    ("GET", f"/v1/apps/board/deployments/{HUGE}/report", None),
    ("GET", f"/v1/allocations/{HUGE}/logs", None),
    ("GET", f"/v1/operations?limit={HUGE}", None),
    ("POST", "/v1/apps/board/promotions", {"deployment": HUGE, "expected_epoch": 0}),
    ("POST", "/v1/apps/board/promotions", {"deployment": 1, "expected_epoch": HUGE}),
    ("GET", "/v1/explain?url=http://[", None),
    ("GET", "/v1/explain?url=http://board.localhost:port/", None),
    ("GET", "/v1/explain?url=http://board.localhost/&pin=%C2%B2-nonce.mac", None),
    ("GET", f"/v1/explain?url=http://board.localhost/&pin={'9' * 5000}-nonce.mac", None),
    ("GET", "/v1/explain?url=%00", None),
    ("GET", "/v1/apps/%00/deployments", None),
]


async def test_odd_values_are_refused_or_answered_but_never_a_bug(world: World) -> None:
    await world.deploy(V1)
    for method, path, body in ODD_VALUES:
        answer = await client(world).request(method, path, json=body, headers=key())
        assert answer.status_code < 500, answer.json()


BAD_NAMES: list[Any] = ["Board", "board_1", "1board", "a--b", "-a", "a-", "www", "eu-west-1-app", "board%0A", "%C3%A9"]


async def test_a_name_that_is_not_allowed_creates_nothing(world: World) -> None:
    for name in BAD_NAMES:
        source = world.source(V1)
        answer = await client(world).post(f"/v1/apps/{name}/deployments", json={"source": source}, headers=key())
        body = answer.json()
        assert (answer.status_code, body["code"]) in {(422, "name-invalid"), (422, "name-contains-topology")}
        assert await world.api.apps() == ()


UNKNOWN: list[Any] = [
    ("GET", "/v1/apps/nobody/deployments", None, "app-unknown"),
    ("GET", "/v1/apps/nobody/sessions", None, "app-unknown"),
    ("GET", "/v1/apps/nobody/secrets", None, "app-unknown"),
    ("GET", "/v1/apps/nobody/bindings", None, "app-unknown"),
    ("POST", "/v1/apps/nobody/rotations", {}, "app-unknown"),
    ("GET", "/v1/allocations?app=nobody", None, "app-unknown"),
    ("DELETE", "/v1/apps/nobody", None, "app-unknown"),
    ("POST", "/v1/apps/nobody/promotions", {"deployment": 1, "expected_epoch": 0}, "app-unknown"),
    ("POST", "/v1/apps/nobody/restarts", {}, "app-unknown"),
    ("GET", "/v1/apps/board/deployments/7", None, "deployment-unknown"),
    ("GET", "/v1/apps/board/deployments/7/report", None, "deployment-unknown"),
    ("POST", "/v1/apps/board/promotions", {"deployment": 7, "expected_epoch": 0}, "deployment-unknown"),
    ("POST", "/v1/apps/board/rollbacks", {"deployment": 7, "expected_epoch": 0}, "deployment-unknown"),
    ("GET", "/v1/operations/opn_nothing", None, "operation-unknown"),
    ("POST", "/v1/operations/opn_nothing/cancel", None, "operation-unknown"),
    ("GET", "/v1/allocations/4711/logs", None, "allocation-unknown"),
    ("POST", "/v1/apps/board/deployments", {"source": "0" * 64}, "source-unknown"),
    ("DELETE", "/v1/apps/board/secrets/API_KEY", None, "secret-unknown"),
    ("GET", "/v1/nothing", None, "endpoint-unknown"),
]


async def test_what_does_not_exist_is_named(world: World) -> None:
    await world.deploy(V1)
    for method, path, body, code in UNKNOWN:
        check_problem(await client(world).request(method, path, json=body, headers=key()), 404, code)


async def test_a_method_that_an_endpoint_does_not_have(world: World) -> None:
    answer = await client(world).put("/v1/apps")
    check_problem(answer, 405, "method-not-allowed")
    assert "GET" in answer.headers["allow"]  # RFC 9110 section 15.5.6


async def test_an_upload_is_kept_only_under_its_digest(world: World) -> None:
    wrong = await client(world).put(f"/v1/sources/{'0' * 64}", content=b"archive")
    check_problem(wrong, 422, "source-digest-mismatch")
    check_problem(await client(world).put("/v1/sources/..%2f..%2fetc", content=b"x"), 404, "endpoint-unknown")
    check_problem(await client(world).put(f"/v1/sources/{'0' * 64}%0A", content=b"x"), 404, "source-unknown")
    assert list((world.plane.home / "sources").iterdir()) == []


# --- idempotency


async def test_a_change_needs_a_key(world: World) -> None:
    world.source(None, "archive")
    archive = hashlib.sha256(b"archive").hexdigest()
    for keys in ({}, {"Idempotency-Key": ""}):
        for method, path, body in MUTATIONS:
            sent = {"source": archive} if body and "source" in body else body
            answer = await client(world).request(method, path, json=sent, headers=keys)
            check_problem(answer, 400, "idempotency-key-missing")


async def test_a_key_has_a_limit(world: World) -> None:
    for bad in ("x" * (IDEMPOTENCY_KEY_MAX_CHARS + 1), "caf\xe9"):
        answer = await client(world).delete(
            "/v1/apps/board", headers=httpx.Headers([(b"Idempotency-Key", bad.encode("latin-1"))])
        )
        check_problem(answer, 422, "idempotency-key-invalid")


async def test_100_concurrent_retries_are_one_operation(world: World) -> None:
    source, same = world.source(V1), key()
    asking = client(world)
    answers = await asyncio.gather(
        *(asking.post("/v1/apps/board/deployments", json={"source": source}, headers=same) for _ in range(100))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1, "every retry attaches to the one operation"
    replayed = [answer.headers.get("idempotency-replayed") for answer in answers]
    assert (replayed.count("true"), replayed.count(None)) == (99, 1)
    rows = await world.plane.read(lambda tx: operations.newest(tx, None, 1000))
    assert len(rows) == 1
    await world.ended(rows[0].id)
    later = await asking.post("/v1/apps/board/deployments", json={"source": source}, headers=same)
    assert later.text == answers[0].text, "a retry after the end attaches to the ended operation"


async def test_a_retry_is_answered_also_when_its_source_has_been_cleared_away(world: World) -> None:
    """The record of the key comes before every other check, or a granted request would be told that it failed."""
    source, same, path = world.source(V1), key(), "/v1/apps/board/deployments"
    first = await client(world).post(path, json={"source": source}, headers=same)
    await world.ended(first.json()["operation"])
    (world.plane.home / "sources" / f"{source}.tar.gz").unlink()
    again = await client(world).post(path, json={"source": source}, headers=same)
    assert (again.status_code, again.text) == (first.status_code, first.text)
    check_problem(await client(world).post(path, json={"source": source}, headers=key()), 404, "source-unknown")


async def test_a_key_of_another_request_is_refused(world: World) -> None:
    await world.deploy(V1)
    same, asking = key(), client(world)
    body = {"deployment": 1, "expected_epoch": 0}
    assert (await asking.post("/v1/apps/board/promotions", json=body, headers=same)).status_code == 202
    others = [
        ("POST", "/v1/apps/board/promotions", {"deployment": 1, "expected_epoch": 1}),
        ("POST", "/v1/apps/board/rollbacks", body),
        ("POST", "/v1/apps/board/promotions?x=1", body),
        ("DELETE", "/v1/apps/board", None),
    ]
    for method, path, other in others:
        check_problem(await asking.request(method, path, json=other, headers=same), 422, "idempotency-key-reused")
    rows = await world.plane.read(lambda tx: operations.newest(tx, None, 1000))
    assert sorted(row.kind for row in rows) == ["deploy", "promotion"]


async def test_a_refused_request_does_not_use_up_its_key(world: World) -> None:
    same, asking = key(), client(world)
    check_problem(await asking.delete("/v1/apps/board", headers=same), 404, "app-unknown")
    await world.deploy(V1)
    assert (await asking.delete("/v1/apps/board", headers=same)).status_code == 202


# --- secrets


async def test_a_secret_is_nowhere_in_the_database_and_in_no_answer(world: World) -> None:
    await world.deploy(V1)
    value = "correct horse battery staple"
    same = key()
    asking = client(world)
    for _ in range(2):  # the retry's record must not hold it either
        answer = await asking.put("/v1/apps/board/secrets/API_KEY", json={"value": value}, headers=same)
        assert answer.status_code == 200
        assert value not in answer.text
    await world.promote(1)
    listed = await world.api.secrets("board")
    assert [(s.name, s.scope, s.version) for s in listed] == [("API_KEY", "runtime", 1)]
    for path in ("/v1/apps/board/secrets", "/v1/operations?limit=100", "/v1/allocations", "/v1/status"):
        assert value not in (await asking.get(path)).text
    assert any(environ.get("API_KEY") == value for environ in world.runner.environs.values())
    for file in world.plane.home.glob("control.db*"):
        assert value.encode() not in file.read_bytes(), file.name


async def test_a_secret_cannot_be_guessed_at_from_the_record_of_its_request(world: World) -> None:
    """The digest of a short secret tells the secret, unless it is keyed."""
    await world.deploy(V1)
    body = json.dumps({"value": "1234"}).encode()
    path = "/v1/apps/board/secrets/PIN"
    answer = await client(world).put(path, content=body, headers={**key(), "Content-Type": "application/json"})
    assert answer.status_code == 200
    kept = b"".join(file.read_bytes() for file in world.plane.home.glob("control.db*"))
    for text in (body, b"1234", f"PUT {path}?\n".encode() + body, f"PUT {path}?".encode() + body):
        assert hashlib.sha256(text).hexdigest().encode() not in kept


async def test_setting_a_secret_again_raises_its_version_and_unsetting_removes_it(world: World) -> None:
    await world.deploy(V1)
    for version in (1, 2):
        view = await world.api.set_secret("board", "API_KEY", SecretRequest(value=f"v{version}"), key=new_secret())
        assert view.version == version
    await world.api.unset_secret("board", "API_KEY", key=new_secret())
    assert await world.api.secrets("board") == ()


BAD_SECRETS: list[Any] = ["PORT", "MOORAGE_APP", "lower", "1ST", "A-B", "A%0A", "REDIS_URL"]


async def test_a_secret_may_not_take_the_platforms_names(world: World) -> None:
    await world.deploy(V1)
    for name in BAD_SECRETS:
        answer = await client(world).put(f"/v1/apps/board/secrets/{name}", json={"value": "x"}, headers=key())
        check_problem(answer, 422, "secret-name-invalid")


async def test_a_secret_has_a_limit(world: World) -> None:
    await world.deploy(V1)
    for value, status in (("x" * SECRET_VALUE_MAX_BYTES, 200), ("\xe9" * SECRET_VALUE_MAX_BYTES, 413)):
        answer = await client(world).put("/v1/apps/board/secrets/API_KEY", json={"value": value}, headers=key())
        assert answer.status_code == status


# --- long polls


async def test_a_long_poll_of_a_runner_wakes_at_once(world: World) -> None:
    await world.without("runner")
    revision = (await world.runner.client.desired(-1, 0)).revision
    waiting = asyncio.create_task(world.runner.client.desired(revision, 20.0))
    started = monotonic_s()
    await world.begin_deploy(V1)
    desired = await waiting
    assert desired.revision > revision
    assert [a.want for a in desired.allocations] == ["run"]
    assert monotonic_s() - started < 5.0, "far below what the poll would have waited"


async def test_a_long_poll_of_an_operation_wakes_at_once(world: World) -> None:
    await world.without("builder")
    id = await world.begin_deploy(V1)
    first = await world.api.operation(id)
    waiting = asyncio.create_task(world.api.operation(id, after_seq=first.stages[-1].seq, wait_s=20.0))
    started = monotonic_s()
    await world.api.cancel(id, key=new_secret())
    assert (await waiting).state == "canceled"
    assert monotonic_s() - started < 5.0


async def test_a_long_poll_for_work_wakes_at_once(world: World) -> None:
    await world.without("builder")
    waiting = asyncio.create_task(world.builder.client.claim(20.0))
    started = monotonic_s()
    id = await world.begin_deploy(V1)
    job = await waiting
    assert job is not None
    assert job.operation == id
    assert monotonic_s() - started < 5.0


async def test_a_long_poll_without_news_ends_in_time(world: World) -> None:
    await world.without("builder")
    started = monotonic_s()
    assert await world.builder.client.claim(0.2) is None
    assert 0.15 < monotonic_s() - started < 5.0
    answer = await client(world, TOKENS["runner-1"]).get("/v1/runners/runner-1/desired?wait_s=3600")
    check_problem(answer, 422, "request-invalid")


async def test_logs_are_read_in_pieces(world: World) -> None:
    await world.deploy(V1)
    one = (await world.api.allocations())[0]
    folder = world.plane.home / "allocations" / one.id
    folder.mkdir(parents=True)
    (folder / "app.log").write_text("first\nsecond\n")
    chunk = await world.api.logs(one.number)
    assert (chunk.text, chunk.over) == ("first\nsecond\n", False)
    with (folder / "app.log").open("a") as log:
        log.write("third\n")
    more = await world.api.logs(one.number, offset=chunk.next_offset)
    assert more.text == "third\n"


async def test_the_snapshot_is_the_fold_of_the_log(world: World) -> None:
    """An edge that starts now and one that followed from the beginning have the same table."""
    await world.serve(V1)
    await world.serve(manifest(content="v2"))
    raw = json.loads((await world.edge.client.snapshot()).payload)
    assert raw["index"] == world.edge.index
    followed = {key: owner for key, owner in world.edge.owners.items() if owner.type == "route.owner.updated"}
    assert {r["route_key"]: r["epoch"] for r in raw["routes"]} == {k: o.epoch for k, o in followed.items()}
    alive = {n: a for n, a in world.edge.allocations.items() if a.posture != "gone"}
    assert {a["number"]: (a["version"], a["posture"], a["ready"]) for a in raw["allocations"]} == {
        n: (a.version, a.posture, a.ready) for n, a in alive.items()
    }
