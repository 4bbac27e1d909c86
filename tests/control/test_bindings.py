"""What an environment binds to a Vango app: variables in the desired state, secrets made once, rotation, own stores."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from moorage.artifacts.manifest import manifest_to_json
from moorage.client.api import Api
from moorage.control import bindings
from moorage.control.desired import desired_state
from moorage.control.operations.allocate import plan_allocation
from moorage.domain.allocation import Posture, State
from moorage.domain.artifact import artifact_digest
from moorage.domain.errors import Refused, Unavailable
from moorage.domain.secrets import SEALED
from moorage.store import allocations, apps, log
from moorage.store.allocations import Allocation
from moorage.store.database import Tx
from moorage.system.rand import new_secret
from moorage.vango.variables import Source
from moorage.wire.api import SecretRequest
from moorage.wire.bindings import RotationRequest
from tests.control.rig import ADMIN, Plane
from tests.runner.kit import ADMIN_PASSWORD
from tests.sessions.kit import running_store
from tests.support.nouns import manifest

SESSIONS, PUBSUB = "VANGO_SESSION_STORE_URL", "VANGO_PUBSUB_URL"
PERSISTENCE, PREVIOUS, CSRF = "VANGO_PERSISTENCE_SECRET", "VANGO_PERSISTENCE_SECRET_PREVIOUS", "VANGO_CSRF_SECRET"
EXPIRY_MS = 4_000_000_000_000
OWN = "rediss://me:pass-of-mine@store.example:6380/2"


class World:
    """A control plane of which only database and API run: nothing here has to be started to be told."""

    def __init__(self, plane: Plane) -> None:
        self.plane, self.control = plane, plane.control
        self.api = Api(plane.http())
        self.store_port: int | None = None  # of a store that runs; else one is planned and not there

    async def plan(self, *, kind: str = "vango", app: str = "board", preview: int | None = None) -> Allocation:
        """Plan an allocation in production, or in the preview of a deployment."""
        made = manifest(app, kind=kind, content=f"{kind} {app}")

        def body(tx: Tx) -> Allocation:
            digest = artifact_digest(made)
            apps.create_app(tx, app, f"app_{app}")
            apps.register_artifact(tx, digest, app, json.loads(manifest_to_json(made))["manifest"], 1)
            deployment = apps.create_deployment(tx, id=new_secret(), app=app, source={}, operation="opn_1")
            apps.set_deployment_state(tx, deployment.id, "preview_ready", digest)
            environment = apps.open_environment(
                tx,
                app=app,
                kind=apps.PRODUCTION if preview is None else apps.PREVIEW,
                id=f"env_{app}_{preview or 'production'}",
                store_password=ADMIN_PASSWORD,
                deployment_number=preview,
            )
            if self.store_port is not None and environment.store_port is None:
                tx.run("give_store_port", id=environment.id, port=self.store_port)
            planned = apps.require_deployment(tx, app, deployment.number)
            return plan_allocation(self.control, tx, environment=environment, deployment=planned, operation="opn_1")

        return await self.plane.db.write(body)

    async def environ(self, allocation: Allocation) -> dict[str, str]:
        """What the runner is told that the allocation should see."""
        desired = await self.plane.read(lambda tx: desired_state(self.control, tx))
        return next(a.environ for a in desired.allocations if a.allocation == allocation.id)

    async def set(self, name: str, value: str, scope: str = "runtime", app: str = "board") -> None:
        """Set a secret as a user does."""
        request = SecretRequest(value=value, scope=scope)  # type: ignore[arg-type]
        await self.api.set_secret(app, name, request, key=new_secret())

    async def gone(self, allocation: Allocation) -> None:
        """The allocation has ended."""
        await self.plane.db.write(lambda tx: allocations.observe(tx, allocation.id, State.STOPPED))
        await self.plane.db.write(lambda tx: allocations.set_posture(tx, allocation.id, Posture.GONE, reason="test"))

    async def rotate(self, **how: Any) -> Any:
        """Rotate as a user does."""
        return await self.api.rotate_secrets("board", RotationRequest(**how), key=new_secret())

    def dump(self) -> str:
        """Everything in the database, as text."""
        with closing(sqlite3.connect(self.plane.db.path)) as connection:
            return "\n".join(connection.iterdump())


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    plane = await Plane(tmp_path, Ed25519PrivateKey.generate(), bytes(range(32))).start(engine=False)
    yield World(plane)
    await plane.stop()


# --- variables


async def test_a_vango_app_is_given_sealed_bindings(world: World) -> None:
    allocation = await world.plan()
    environ = await world.environ(allocation)
    store = environ["REDIS_URL"]
    assert re.fullmatch(rf"redis://{allocation.id}:[\w-]+@127\.0\.0\.1:\d+/0", store)
    vango = {name: value for name, value in environ.items() if name.startswith("VANGO_")}
    assert re.fullmatch(r"[0-9a-f]{64}", vango.pop(PERSISTENCE))
    assert len(vango.pop(CSRF).strip().encode()) >= 32
    assert vango == {
        "VANGO_PLATFORM_SEALED": "1",
        "VANGO_ENV": "production",
        "VANGO_SESSION_STORE_URL": store,
        "VANGO_PUBSUB_URL": store,
        "VANGO_PUBLIC_URL": "http://board.localhost:7080",
        "VANGO_ALLOWED_HOSTS": "board.localhost:7080,board.localhost",
        "VANGO_TRUSTED_PROXIES": "127.0.0.1",
        "VANGO_COOKIE_SECURE": "0",
    }
    assert (environ["HOST"], environ["PORT"]) == (allocation.host, str(allocation.port))


async def test_a_preview_is_known_by_its_own_host(world: World) -> None:
    environ = await world.environ(await world.plan(preview=3))
    assert environ["VANGO_PUBLIC_URL"] == "http://3--board.localhost:7080"
    assert environ["VANGO_ENV"] == "production"


@pytest.mark.parametrize("kind", ["static", "python", "command"])
async def test_other_apps_are_given_none_of_it(world: World, kind: str) -> None:
    environ = await world.environ(await world.plan(kind=kind))
    assert [name for name in environ if name.startswith("VANGO_")] == []
    assert await world.plane.read(lambda tx: apps.environment_secrets(tx, "env_board_production")) == {}


async def test_the_platform_wins_over_a_secret_that_is_older_than_its_being_refused(world: World) -> None:
    def put(tx: Tx) -> None:
        apps.create_app(tx, "board", "app_board")
        for name in [*SEALED, "API_KEY"]:
            apps.put_secret(tx, "board", name, "runtime", world.control.vault.seal("board", name, "of the app"))

    await world.plane.db.write(put)
    environ = await world.environ(await world.plan())
    assert [name for name, value in environ.items() if value == "of the app"] == ["API_KEY"]


# --- secrets that the platform makes


async def test_secrets_are_made_once_for_all_allocations_of_an_environment(world: World) -> None:
    first, second, preview = await world.plan(), await world.plan(), await world.plan(preview=1)
    other = await world.plan(app="notes")
    seen = [await world.environ(a) for a in (first, second, preview, other)]
    for name in (PERSISTENCE, CSRF):
        assert seen[0][name] == seen[1][name]
        assert len({environ[name] for environ in seen}) == 3, "each environment has its own"
    assert all(PREVIOUS not in environ for environ in seen)


async def test_reading_makes_none(world: World) -> None:
    allocation = await world.plan()
    await world.plane.db.write(lambda tx: tx.run("delete_environment_secrets", environment=allocation.environment))
    before = world.dump()
    environ = await world.environ(allocation)
    assert not environ.keys() & {PERSISTENCE, CSRF}, "an environment that has ended has none any more"
    assert world.dump() == before


async def test_a_plan_that_is_taken_back_leaves_no_secret(world: World) -> None:
    await world.plan(kind="python")
    environment = "env_board_production"

    def break_off(tx: Tx) -> None:
        bindings.ensure_secrets(world.control, tx, environment)
        assert len(apps.environment_secrets(tx, environment)) == 2
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await world.plane.db.write(break_off)
    assert await world.plane.read(lambda tx: apps.environment_secrets(tx, environment)) == {}


async def test_secrets_end_with_their_environment(world: World) -> None:
    allocation = await world.plan(preview=1)
    await world.plane.db.write(lambda tx: apps.close_environment(tx, allocation.environment))
    assert await world.plane.read(lambda tx: apps.environment_secrets(tx, allocation.environment)) == {}
    environ = await world.environ(allocation)  # it is still there to be stopped
    assert "VANGO_PUBLIC_URL" in environ


async def test_values_are_nowhere_in_the_database(world: World) -> None:
    environ = await world.environ(await world.plan())
    await world.rotate(csrf=True)
    after = await world.environ(await world.plan())
    files = b"".join(file.read_bytes() for file in world.plane.home.glob("control.db*"))
    for value in (environ[PERSISTENCE], environ[CSRF], after[PERSISTENCE], after[CSRF]):
        assert value.encode() not in files
        assert value not in world.dump()


async def test_a_sealed_value_of_one_environment_opens_in_no_other(world: World) -> None:
    first, second = await world.plan(), await world.plan(preview=1)

    def swap(tx: Tx) -> None:
        theirs = apps.environment_secrets(tx, second.environment)[CSRF]
        apps.rotate_environment_secret(tx, first.environment, CSRF, theirs.sealed, expected_version=1)

    await world.plane.db.write(swap)
    with pytest.raises(Exception, match="cannot be opened"):
        await world.plane.read(lambda tx: bindings.secrets_of(world.control, tx, first.environment))


# --- rotation


async def test_a_rotation_keeps_the_value_so_far_as_the_previous_one(world: World) -> None:
    before = await world.environ(allocation := await world.plan())
    said = await world.rotate()
    assert (said.app, [(r.name, r.version) for r in said.rotated]) == ("board", [(PERSISTENCE, 2)])
    assert said.running == (allocation.number,)
    after = await world.environ(await world.plan())
    assert after[PREVIOUS] == before[PERSISTENCE] != after[PERSISTENCE]
    assert after[CSRF] == before[CSRF], "it has no previous value: open pages would lose their sessions"
    (row,) = await world.plane.read(lambda tx: [r for r in log.audit_of(tx, "board") if r["action"] == "secret.rotate"])
    assert (row["actor"], row["outcome"], row["detail"]["names"]) == ("admin", "rotated", [PERSISTENCE])


async def test_the_csrf_secret_is_rotated_when_that_is_said(world: World) -> None:
    before = await world.environ(await world.plan())
    said = await world.rotate(csrf=True)
    assert [(r.name, r.version) for r in said.rotated] == [(PERSISTENCE, 2), (CSRF, 2)]
    after = await world.environ(await world.plan())
    assert after[CSRF] != before[CSRF]
    assert f"{CSRF}_PREVIOUS" not in after


async def test_a_retry_rotates_once(world: World) -> None:
    await world.plan()
    key = new_secret()
    said = [await world.api.rotate_secrets("board", RotationRequest(), key=key) for _ in range(3)]
    assert [[r.version for r in view.rotated] for view in said] == [[2]] * 3


async def test_a_second_rotation_waits_for_allocations_that_know_only_the_first_value(world: World) -> None:
    """Two rotations in a row would leave what the first allocation stores unreadable for the next one."""
    first = await world.plan()
    key = new_secret()
    said = await world.api.rotate_secrets("board", RotationRequest(), key=key)
    assert (said.dropped, said.signed_anew) == (False, 0)
    second = await world.plan()
    before = await world.environ(second)
    with pytest.raises(Refused) as refused:
        await world.rotate()
    assert refused.value.problem.code == "rotation-unfinished"
    assert refused.value.problem.facts == {"allocations": [first.number]}
    assert await world.environ(second) == before
    assert await world.api.rotate_secrets("board", RotationRequest(), key=key) == said, "a retry is no second one"


@pytest.mark.servers
async def test_a_second_rotation_loses_nothing_that_is_stored(world: World, tmp_path: Path) -> None:
    """What bears the value that drops out is signed anew; nothing else is touched, and an expiry stays."""
    (tmp_path / "store").mkdir()
    async with running_store(tmp_path / "store") as store, store.admin() as admin:
        world.store_port = store.port
        first = await world.plan()
        values = [(await world.environ(first))[PERSISTENCE]]
        await world.rotate()
        await world.gone(first)
        second = await world.plan()
        values.append((await world.environ(second))[PERSISTENCE])
        session, shared = f"vango:session:{'a1' * 16}", "vango:session:vango:global:{global}:1317e787"
        kept = {
            "vango:session:later": record(values[1]),
            "vango:session:strange": b"\xff",
            "app:own": record(values[0]),
        }
        stored = {session: record(values[0]), shared: record(values[0], b"VGGS"), **kept}
        commands: Any = [("SET", key, value, "PXAT", EXPIRY_MS) for key, value in stored.items()]
        await admin.raw(commands)
        await admin.command("SADD", "vango:session:set", "no record at all")
        said = await world.rotate()
        assert (said.dropped, said.signed_anew) == (True, 2)
        found = dict(zip(stored, await admin.raw([("GET", key) for key in stored]), strict=True))
        assert found == {session: record(values[1]), shared: record(values[1], b"VGGS"), **kept}
        assert {await admin.command("PEXPIRETIME", key) for key in stored} == {EXPIRY_MS}
    third = await world.environ(await world.plan())
    assert third[PREVIOUS] == values[1]
    assert third[PERSISTENCE] not in values


async def test_without_the_store_no_value_is_dropped(world: World) -> None:
    first = await world.plan()
    await world.rotate()
    await world.gone(first)
    before = await world.environ(await world.plan())
    with pytest.raises(Unavailable) as down:
        await world.rotate()
    assert down.value.problem.code == "store-down"
    assert {PERSISTENCE: before[PERSISTENCE]}.items() <= (await world.environ(await world.plan())).items()


async def test_nobody_can_look_into_an_own_store(world: World) -> None:
    await world.set(SESSIONS, OWN)
    first = await world.plan()
    await world.rotate()
    await world.gone(first)
    said = await world.rotate()
    assert (said.dropped, said.signed_anew) == (True, None)


def record(secret: str, magic: bytes = b"VNGO") -> bytes:
    """A record of the framework as far as its signature goes."""
    body = magic + bytes(78) + b"payload"
    return body + hmac.digest(bytes.fromhex(secret), body, hashlib.sha256)


async def test_there_is_nothing_to_rotate_where_nothing_was_made(world: World) -> None:
    with pytest.raises(Refused) as refused:
        await world.rotate()
    assert refused.value.problem.code == "app-unknown"
    await world.plan(kind="python")
    await world.plan(preview=1)  # a preview's secrets end with it; they are not production's
    with pytest.raises(Refused) as refused:
        await world.rotate()
    assert refused.value.problem.code == "nothing-to-rotate"


# --- the user's own store


async def test_an_own_store_replaces_the_managed_one_in_its_scope(world: World) -> None:
    await world.set(SESSIONS, OWN)
    served, preview = await world.environ(await world.plan()), await world.environ(await world.plan(preview=1))
    assert (served[SESSIONS], served[PUBSUB]) == (OWN, OWN)
    assert served["REDIS_URL"] != OWN
    assert preview[SESSIONS] == preview[PUBSUB] == preview["REDIS_URL"], "no production credential in a preview"
    await world.set(SESSIONS, OWN, "preview")
    await world.set(PUBSUB, "redis://elsewhere.example", "preview")
    preview = await world.environ(await world.plan(preview=2))
    assert (preview[SESSIONS], preview[PUBSUB]) == (OWN, "redis://elsewhere.example")


async def test_operations_are_told_whose_store_it_is(world: World) -> None:
    allocation = await world.plan()

    async def look() -> tuple[object, ...]:
        return await world.plane.read(
            lambda tx: (
                bindings.binding_in_force(world.control, tx, "board").sessions,
                bindings.binding_in_force(world.control, tx, "board").can_be_fenced,
                bindings.has_changed(tx, allocation),
                bindings.has_changed(tx, allocation, apps.PREVIEW),
            )
        )

    await world.set("API_KEY", "x")
    assert await look() == (Source.MANAGED, True, False, False)
    await world.set(SESSIONS, OWN)
    assert await look() == (Source.OWN, False, True, False)
    await world.api.unset_secret("board", SESSIONS, key=new_secret())
    assert await look() == (Source.MANAGED, True, True, False)
    later = await world.plan()
    assert not await world.plane.read(lambda tx: bindings.has_changed(tx, later))


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        (SESSIONS, "postgres://me:pass-of-mine@db.example/board", "store-url-invalid"),
        (PUBSUB, "nats://pass-of-mine@bus.example", "store-url-invalid"),
        (PERSISTENCE, "pass-of-mine", "secret-name-sealed"),
        ("VANGO_ALLOWED_HOSTS", "pass-of-mine", "secret-name-sealed"),
    ],
)
async def test_what_cannot_be_is_said_where_it_is_set(world: World, name: str, value: str, code: str) -> None:
    transport = httpx.ASGITransport(world.plane.app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {ADMIN}", "Idempotency-Key": new_secret()}
    async with httpx.AsyncClient(transport=transport, base_url="http://control", headers=headers) as asking:
        answer = await asking.put(f"/v1/apps/board/secrets/{name}", json={"value": value})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert "pass-of-mine" not in answer.text
    assert await world.api.apps() == ()


# --- what is told of bindings


async def test_bindings_as_they_are_told(world: World) -> None:
    await world.plan(kind="python", app="notes")
    assert await world.api.bindings("notes") == ()
    allocation = await world.plan()
    found = await world.api.bindings("board")
    assert [(b.service_class, b.source, b.variable, b.state) for b in found] == [
        ("vango_session_store", "managed", SESSIONS, "declared"),
        ("global_signal_store", "managed", SESSIONS, "declared"),
        ("broadcast_backend", "managed", PUBSUB, "declared"),
    ]
    probe = {"bindings": {"vango_session_store": True}, "why": "no shared state on this page"}
    await world.plane.db.write(lambda tx: apps.set_deployment_facts(tx, allocation.deployment, {"probe": probe}))
    found = await world.api.bindings("board")
    seen = ("managed", "active", "")
    assert [(b.source, b.state, b.why) for b in found] == [
        seen,
        seen,
        ("managed", "declared", "no shared state on this page"),
    ]
    probe["bindings"] = {"vango_session_store": True, "broadcast_backend": True}
    await world.plane.db.write(lambda tx: apps.set_deployment_facts(tx, allocation.deployment, {"probe": probe}))
    await world.set(PUBSUB, "redis://:pass-of-mine@elsewhere.example")
    found = await world.api.bindings("board")
    assert [(b.source, b.state, b.why) for b in found] == [
        seen,
        seen,
        ("own", "declared", "a store of your own: a promotion asks whether it answers, no session is tried there"),
    ], "what was seen at the preview was another store"
    assert "pass-of-mine" not in repr(found)
    with pytest.raises(Refused) as refused:
        await world.api.bindings("nobody")
    assert refused.value.problem.code == "app-unknown"
