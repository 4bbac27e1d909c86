"""Apps that do not start: the operation says why with their last lines, and whoever served goes on serving."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moorage.cli.call import Exit
from tests.badinput.kit import STEADY, code_of, owner_stays, source
from tests.support.platform import Platform
from tests.support.waiting import wait_until

pytestmark = pytest.mark.servers

EXITS = 'import sys\nprint("looking for the database")\nsys.exit("there is no database")\n'
NEVER_READY = """
import time
print("warming up", flush=True)
time.sleep(600)
"""
UNHEALTHY = """
import http.server, os
class Ill(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(500)
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Ill).serve_forever()
"""
LISTENS_ELSEWHERE = """
import http.server
http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler).serve_forever()
"""
SHORT = "ready_timeout_s = 2\n"

BROKEN = {
    "exits": (EXITS, "allocation-exited", "there is no database"),
    "never listens": (NEVER_READY, "allocation-ready-timeout", "warming up"),
    "answers with an error": (UNHEALTHY, "allocation-ready-timeout", '"GET / HTTP/1.1" 500'),
    "listens elsewhere": (LISTENS_ELSEWHERE, "allocation-ready-timeout", ""),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_an_app_that_does_not_become_ready_fails_its_deploy_with_its_last_lines(
    platform: Platform, tmp_path: Path, how: str
) -> None:
    app, code, line = BROKEN[how]
    with owner_stays(platform):
        answer = await platform.run("deploy", str(source(tmp_path / "app", app, more=SHORT)), "--json")
        assert answer.code == Exit.ENDED
        problem = answer.json["problem"]
        assert (answer.json["state"], problem["code"]) == ("failed", code)
        assert line in "\n".join(problem["log_tail"])
        number = str(answer.json["input"]["deployment"])
        refused = await platform.run("promote", STEADY, "--deployment", number, "--json")
        assert (refused.code, refused.json["code"]) == (Exit.REFUSED, "deployment-not-promotable")


async def test_an_app_that_starts_in_the_preview_only_fails_its_promotion_and_not_the_owner(
    platform: Platform, tmp_path: Path
) -> None:
    gate = 'import os, sys\nif os.environ["MOORAGE_ENVIRONMENT"] == "production":\n    sys.exit("no licence")\n'
    folder = source(tmp_path / "app")
    (folder / "app.py").write_text(gate + (folder / "app.py").read_text())
    _, number = await platform.deploy(folder)
    with owner_stays(platform):
        view = await platform.promote(STEADY, number)
        assert (view.state, code_of(view)) == ("failed", "allocation-exited")
        assert "no licence" in "\n".join((view.problem or {})["log_tail"])


async def test_a_port_answered_by_somebody_else_makes_no_allocation_ready(platform: Platform, tmp_path: Path) -> None:
    app = 'import time\nprint("slow today", flush=True)\ntime.sleep(600)\n'
    folder = source(tmp_path / "app", app, more="ready_timeout_s = 30\n")
    with owner_stays(platform):
        deploying = asyncio.create_task(platform.run("deploy", str(folder), "--json"))
        port: list[int] = []

        async def starting() -> bool:
            async with platform.api() as api:
                found = await api.allocations(STEADY)
            port[:] = [int(a.address.rsplit(":", 1)[1]) for a in found if a.state == "starting" and a.pid]
            return bool(port)

        await wait_until(starting, what="the allocation is starting")
        with stranger(port[0]):
            answer = await deploying
        assert answer.code == Exit.ENDED
        problem = answer.json["problem"]
        assert (answer.json["state"], problem["code"]) == ("failed", "allocation-port-taken")
        assert problem["log_tail"] == ["slow today"]


@contextmanager
def stranger(port: int) -> Iterator[None]:
    """Somebody who is no part of the platform answers every request on this port, and well."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
