"""What the tests of bad input share: requests as any program may send them, a steady app, and what must not change."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from moorage.wire.api import DeployRequest, OperationView
from tests.support.platform import Platform, key

STEADY = "steady"
SERVER = """
import http.server, os
print("starting", os.environ["MOORAGE_DEPLOYMENT"], flush=True)
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"steady " + os.environ["MOORAGE_DEPLOYMENT"].encode())
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Answers).serve_forever()
"""
PROCESS = '[process]\ncommand = "python app.py"\nstop_grace_s = 1\n'


def source(folder: Path, app: str = SERVER, *, name: str = STEADY, more: str = "") -> Path:
    """A small Python app in a folder; `more` is added to its app file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "moorage.toml").write_text(f'name = "{name}"\n{PROCESS}{more}')
    (folder / "app.py").write_text(app)
    return folder


def ask(platform: Platform, method: str, path: str, **more: Any) -> httpx.Response:
    """A request to the API, with the admin's token and a fresh idempotency key unless other headers are given."""
    headers = {"Authorization": f"Bearer {platform.token}", "Idempotency-Key": key()}
    headers |= more.pop("headers", {})
    return httpx.request(method, platform.api_url + path, headers=headers, trust_env=False, timeout=30, **more)


def items(platform: Platform, path: str, *names: str) -> list[dict[str, Any]]:
    """These members of everything in a list of the API."""
    return [{name: item[name] for name in names} for item in ask(platform, "GET", path).json()["items"]]


OWNED = ("route_key", "epoch", "app", "environment", "deployment", "artifact", "held")


def world(platform: Platform) -> Mapping[str, Any]:
    """What is written down, but for what goes on by itself (an earlier drain that ends, an edge that acknowledges)."""
    apps = items(platform, "/v1/apps", "name", "epoch", "serving", "newest_deployment")
    return {
        "apps": apps,
        "routes": items(platform, "/v1/routes", *OWNED),
        "deployments": [
            items(platform, f"/v1/apps/{app['name']}/deployments", "number", "state", "serving", "artifact")
            for app in apps
        ],
        "operations": items(platform, "/v1/operations", "id"),
        "allocations": items(platform, "/v1/allocations?all=true", "number"),
        "sources": sorted(path.name for path in (platform.home / "sources").iterdir()),
    }


@contextmanager
def nothing_changes(platform: Platform) -> Iterator[None]:
    """Whatever is refused inside leaves everything as it was."""
    before = world(platform)
    yield
    assert world(platform) == before


@contextmanager
def owner_stays(platform: Platform, app: str = STEADY, *, given_back: bool = False) -> Iterator[None]:
    """Whatever fails inside leaves the app's route, its allocation and its answers as they were.

    With `given_back` the route may have gone to another deployment and come back, which takes two epochs.
    """

    def owned() -> Any:
        routes = items(platform, "/v1/routes", *OWNED)
        running = ask(platform, "GET", f"/v1/allocations?app={app}").json()["items"]
        kept = [a for a in running if a["environment"] == "production" and a["want"] == "run"]
        serving = [(a["number"], a["pid"], a["state"], a["posture"]) for a in kept]
        route = next(r for r in routes if r["app"] == app and r["environment"] == "production")
        if given_back:
            del route["epoch"]
        return route, serving, platform.get(f"{app}.localhost").text

    before = owned()
    yield
    after = owned()
    assert after == before, f"{before} became {after}"


Member = tuple[tarfile.TarInfo, bytes]


def archive(*members: Member) -> bytes:
    """A gzip-compressed tar of these members, behind a valid app file and app."""
    written = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=written, mode="wb", compresslevel=1) as stream,
        tarfile.open(fileobj=stream, mode="w") as tar,
    ):
        given = (member("moorage.toml", f'name = "{STEADY}"\n{PROCESS}'.encode()), member("app.py", SERVER.encode()))
        for info, content in (*given, *members):
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return written.getvalue()


def member(path: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, to: str = "") -> Member:
    """A member of a tar, whatever its path and kind."""
    info = tarfile.TarInfo(path)
    info.type, info.linkname, info.mode, info.size = kind, to, 0o644, len(content)
    return info, content


def upload(platform: Platform, data: bytes) -> str:
    """Upload an archive as it is; its digest."""
    digest = hashlib.sha256(data).hexdigest()
    answer = ask(platform, "PUT", f"/v1/sources/{digest}", content=data)
    assert answer.status_code == 204, answer.text
    return digest


async def deployed(platform: Platform, data: bytes, *, app: str = STEADY) -> OperationView:
    """Upload an archive and deploy it through the API; the deploy, once it has ended."""
    digest = upload(platform, data)
    async with platform.api() as api:
        started = await api.deploy(app, DeployRequest(source=digest), key=key())
    return await platform.finished(started.operation)


def code_of(view: OperationView) -> str:
    """The code of the problem that an operation ended with."""
    assert view.finished
    assert not view.succeeded
    return str((view.problem or {})["code"])
