"""Requests that cannot be answered as they are: at the edge by visitors, at the API by programs."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.badinput.kit import STEADY, ask, nothing_changes, source
from tests.support.platform import Platform
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

BODY_MAX_BYTES = 1 << 20
CHANGES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", f"/v1/apps/{STEADY}/deployments", {"source": "0" * 64}),
    ("POST", f"/v1/apps/{STEADY}/promotions", {"deployment": 1, "expected_epoch": 0}),
    ("POST", f"/v1/apps/{STEADY}/rollbacks", {"deployment": 1, "expected_epoch": 0}),
    ("POST", f"/v1/apps/{STEADY}/restarts", {}),
    ("PUT", f"/v1/apps/{STEADY}/secrets/KEY", {"value": "x"}),
)


@pytest.mark.parametrize("host", ["nobody.localhost", "localhost", "steady.example.org", "999--steady.localhost", "x"])
def test_an_unknown_host_gets_an_honest_404(platform: Platform, host: str) -> None:
    page = platform.get(host, headers={"Accept": "text/html,*/*;q=0.8"})
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (404, "text/html")
    assert "unknown-host" in page.text
    told = platform.get(host, "/api/x", headers={"Accept": "application/json"})
    assert (told.status_code, told.headers["content-type"].split(";")[0]) == (404, "application/problem+json")
    assert told.json()["code"] == "unknown-host"
    for answer in (page, told):
        assert "steady 1" not in answer.text
        assert "set-cookie" not in answer.headers


async def test_an_owner_without_a_ready_allocation_gets_an_honest_503_and_never_another_apps_answer(
    platform: Platform, tmp_path: Path
) -> None:
    hurt = tmp_path / "hurt"
    gate = f"import os, sys\nif os.path.exists({str(hurt)!r}):\n    sys.exit('it hurts')\n"
    folder = source(tmp_path / "app", name="fragile")
    (folder / "app.py").write_text(gate + (folder / "app.py").read_text())
    await platform.serve(folder)
    assert platform.get("fragile.localhost").text == "steady 1"
    hurt.touch()
    pid = (await platform.allocation("fragile")).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    def refused() -> bool:
        try:
            answer = platform.get("fragile.localhost", headers={"Accept": "application/json"})
        except httpx.TransportError:
            return False  # it was on its way when the process died
        assert answer.status_code == 503 or answer.text == "steady 1"
        return answer.status_code == 503 and bool(answer.json()["code"] == "no-ready-allocation")

    await wait_until(refused, what="the edge knows that nobody is ready")
    page = platform.get("fragile.localhost", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (503, "text/html")
    assert int(page.headers["retry-after"]) >= 1
    assert "no-ready-allocation" in page.text
    assert platform.get(f"{STEADY}.localhost").status_code == 200, "the neighbour serves on"
    hurt.unlink()
    await wait_until(lambda: platform.get("fragile.localhost").text == "steady 1", what="it is served again")


def test_a_change_needs_a_body_of_its_own_types(platform: Platform) -> None:
    spoiled: list[tuple[str, str, Any]] = []
    for method, path, good in CHANGES:
        spoiled += [(method, path, [good]), (method, path, "text"), (method, path, {**good, "unheard": 1})]
        spoiled += [(method, path, {**good, name: [[]]}) for name in good]
    with nothing_changes(platform):
        for method, path, body in spoiled:
            answer = ask(platform, method, path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (422, "request-invalid"), (path, body)
            assert answer.headers["content-type"].startswith("application/problem+json")
            assert answer.json()["fields"], "it names what was wrong"
        for method, path, _ in CHANGES:
            for content in (b"{", b"\xff\xfe", b"deployment=1"):
                answer = ask(platform, method, path, content=content, headers={"Content-Type": "application/json"})
                assert (answer.status_code, answer.json()["code"]) == (400, "request-not-json"), (path, content)


def test_a_body_beyond_the_limit_is_refused_whether_or_not_it_says_its_size(platform: Platform) -> None:
    large = b'{"value": "' + b"x" * BODY_MAX_BYTES + b'"}'

    def pieces() -> Any:
        yield from (large[i : i + 65536] for i in range(0, len(large), 65536))

    with nothing_changes(platform):
        for method, path, _ in CHANGES:
            for content in (large, pieces()):
                answer = ask(platform, method, path, content=content, headers={"Content-Type": "application/json"})
                assert (answer.status_code, answer.json()["code"]) == (413, "request-too-large"), path


def test_a_change_needs_a_token_a_key_and_an_endpoint(platform: Platform) -> None:
    runner = (platform.home / "keys" / "runner-1.token").read_text()
    with nothing_changes(platform):
        for method, path, good in CHANGES:
            for sent in ("", "Bearer wrong", f"Bearer {runner}", f"Basic {platform.token}"):
                answer = ask(platform, method, path, json=good, headers={"Authorization": sent})
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), (path, sent)
        for method, path, good in CHANGES[1:]:
            for name, status, code in (("", 400, "missing"), ("x" * 129, 422, "invalid"), ("a\tb", 422, "invalid")):
                answer = ask(platform, method, path, json=good, headers={"Idempotency-Key": name})
                assert (answer.status_code, answer.json()["code"]) == (status, f"idempotency-key-{code}"), (path, name)
        answer = ask(platform, "POST", "/v1/nothing", json={})
        assert (answer.status_code, answer.json()["code"]) == (404, "endpoint-unknown")
        answer = ask(platform, "DELETE", "/v1/routes")
        assert (answer.status_code, answer.json()["code"]) == (405, "method-not-allowed")


def test_numbers_that_no_database_holds_are_refused_and_not_a_bug(platform: Platform) -> None:
    with nothing_changes(platform):
        for number in (-1, 0, 1 << 63, 10**40):
            body = {"deployment": number, "expected_epoch": number}
            answer = ask(platform, "POST", f"/v1/apps/{STEADY}/promotions", json=body)
            assert 400 <= answer.status_code < 500, (number, answer.text)
            answer = ask(platform, "GET", f"/v1/apps/{STEADY}/deployments/{number}")
            assert 400 <= answer.status_code < 500, (number, answer.text)
