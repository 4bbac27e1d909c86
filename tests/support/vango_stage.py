"""Vango boards on a platform: built once, moved side by side, and the platform's word held against the people's.

Rules of this room: a board is compiled once per machine and state of the sources, by the platform's own build code, and
imported as an artifact that was built elsewhere; under how many names is a matter of its manifest. Stories of several
apps go on side by side, because the store needs half a minute to show who was resumed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from websockets.asyncio.client import ClientConnection

from moorage.artifacts.archive import SUFFIX, archive_chunks, check_archive
from moorage.artifacts.manifest import manifest_to_json
from moorage.artifacts.store import ArtifactStore
from moorage.build.assemble import Assembly, Order, Workshop
from moorage.domain.artifact import DIGEST_PREFIX, artifact_digest
from moorage.system.clock import now_ms
from moorage.system.settings import inherited_environ
from moorage.vango.records import SESSION_PREFIX, is_session_key, label_of_key
from moorage.wire.api import AllocationView, OperationView, PromoteRequest, RestartRequest, SecretRequest
from moorage.wire.artifact import ImportRequest
from tests.support.platform import Platform, key
from tests.support.truth import owner_epoch
from tests.support.vango.client import Person
from tests.support.vango.crowd import ATTACHED, FRESH, RESUMED, Fate, crowd, differences, fate_of
from tests.support.vango.ground import needs_go
from tests.support.waiting import wait_until

__all__ = ["needs_go"]

ROOT: Final = Path(__file__).resolve().parents[2]
BOARD: Final = ROOT / "examples" / "vango-board"
TROUBLE: Final = Path(__file__).parent / "vango_apps" / "trouble"
NAME: Final = "vango-board"
BUILT_BY: Final = ("build", "vango", "artifacts", "domain")  # the rooms of the platform that decide what is built
PEOPLE_COUNT: Final = 6
KEPT_MS: Final = 24 * 3600 * 1000  # boards of sources that have changed since
OUTCOMES: Final = ("attached", "ended", "resumed", "fresh", "lost", "unknown")
SETTLED_WITHIN_S: Final = 95.0
STORED_WITHIN_S: Final = 10.0
CLOCKS_MS: Final = 250  # a person hears of a lost socket a little after it was lost
TICK_MS: Final = 30_000  # the framework stores what has changed that often
LEFT_COUNT: Final = 3


# ---- boards that are built once ---------------------------------------------------------------------------------
def _materialiser() -> ModuleType:
    """materialise.py of the board, whose folder has a name that Python cannot import."""
    spec = importlib.util.spec_from_file_location("vango_board_materialise", BOARD / "materialise.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_MATERIALISE = _materialiser()


def source(version: str, folder: Path, *, name: str = NAME) -> Path:
    """The sources of a version of the board ("trouble": version 1 with troubles to choose from), under a name."""
    _MATERIALISE.materialise("v1" if version == "trouble" else version, folder)
    if version == "trouble":
        shutil.copyfile(TROUBLE / "main.go", folder / "cmd" / "server" / "main.go")
    appfile = folder / "moorage.toml"
    appfile.write_text(appfile.read_text().replace(f'"{NAME}"', f'"{name}"'))
    return folder


def _built_from() -> str:
    """A digest of everything that a built board depends on."""
    digest = hashlib.sha256(subprocess.run(["go", "version"], capture_output=True, check=True).stdout)
    rooms = [ROOT / "src" / "moorage" / room for room in BUILT_BY]
    for path in sorted(place for folder in (BOARD, TROUBLE, *rooms) for place in folder.rglob("*") if place.is_file()):
        if path.suffix != ".pyc":
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


class Shelf:
    """Boards that were built, kept on this machine for the next run."""

    def __init__(self) -> None:
        beside, name = Path(tempfile.gettempdir()), f"moorage-vango-boards-{os.getuid()}-"
        self.folder = beside / f"{name}{_built_from()}"
        self.folder.mkdir(mode=0o700, exist_ok=True)
        for other in beside.glob(f"{name}*"):
            with contextlib.suppress(FileNotFoundError):  # another worker clears up as well
                if other != self.folder and now_ms() - other.stat().st_mtime * 1000 > KEPT_MS:
                    _clear(other)
        self._store = ArtifactStore(self.folder / "artifacts")
        self._turns: dict[str, asyncio.Lock] = {}

    @contextlib.asynccontextmanager
    async def board(self, version: str, app: str, **process: float) -> AsyncIterator[Path]:
        """The archive of a board under this app's name, its process with other limits where some are given."""
        async with self._turn(version):
            digest = await self._built(version)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            archive = Path(scratch) / f"{version}-{app}{SUFFIX}"
            await asyncio.to_thread(self._write, archive, digest, app, process)
            yield archive

    async def _built(self, version: str) -> str:
        noted = self.folder / f"{version}.digest"
        if not noted.exists():
            work = Path(tempfile.mkdtemp(dir=self.folder))
            source(version, work / "source")
            made = Assembly(work, Order(NAME), Workshop(inherited_environ()))
            manifest = await made.run(_hear_nothing)
            noted.write_text(await asyncio.to_thread(self._store.put, made.tree, manifest))
            shutil.rmtree(work)
        return noted.read_text()

    def _write(self, archive: Path, digest: str, app: str, process: Mapping[str, float]) -> None:
        """The same files with another manifest around them."""
        found = self._store.manifest(digest)
        manifest = replace(found, app=app, process=replace(found.process, **process))  # type: ignore[arg-type]
        other = artifact_digest(manifest)
        place = archive.parent / "sha256" / other.removeprefix(DIGEST_PREFIX)
        place.mkdir(parents=True)
        (place / "tree").symlink_to(self._store.tree(digest))
        (place / "manifest.json").write_text(manifest_to_json(manifest))
        with archive.open("wb") as file:
            file.writelines(archive_chunks(ArtifactStore(archive.parent), other))

    @contextlib.asynccontextmanager
    async def _turn(self, version: str) -> AsyncIterator[None]:
        """One at a time builds a version: several stories may ask at once, several workers too."""
        async with self._turns.setdefault(version, asyncio.Lock()):
            with (self.folder / f"{version}.lock").open("w") as lock:
                await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
                yield


def _clear(folder: Path) -> None:
    """Remove a shelf of sources that have changed since."""
    store = ArtifactStore(folder / "artifacts")
    for digest in store.digests():
        store.remove(digest)
    shutil.rmtree(folder, ignore_errors=True)


async def _hear_nothing(_stage: str, _note: str) -> None:
    """What a build tells of its steps is not wanted here."""


async def bring(platform: Platform, shelf: Shelf, version: str, app: str, **how: Any) -> OperationView:
    """Import a board; the deploy, whatever it ended as."""
    async with shelf.board(version, app, **how) as archive, platform.api() as api:
        checked = await asyncio.to_thread(check_archive, archive)
        await api.upload_artifact(archive, checked.sha256, seen=lambda _bytes: None)
        request = ImportRequest(archive=checked.sha256, file=archive.name)
        started = await api.import_artifact(app, request, key=key())
    return await platform.finished(started.operation)


async def preview(platform: Platform, shelf: Shelf, version: str, app: str, **how: Any) -> int:
    """Import a board up to its preview; the deployment's number."""
    view = await bring(platform, shelf, version, app, **how)
    assert view.state == "preview_ready", view.problem
    return int(view.input["deployment"])


async def serve(platform: Platform, shelf: Shelf, app: str, version: str = "v1", **how: Any) -> int:
    """Import and promote a board; the deployment's number."""
    return await make_owner(platform, app, await preview(platform, shelf, version, app, **how))


async def serve_first(platform: Platform, shelf: Shelf, app: str, following: str) -> tuple[int, int]:
    """Import version 1 and another one, promote the first; both numbers. They wait for the builder side by side."""
    first, second = await asyncio.gather(preview(platform, shelf, "v1", app), preview(platform, shelf, following, app))
    return await make_owner(platform, app, first), second


async def make_owner(platform: Platform, app: str, number: int) -> int:
    """Promote what has to succeed; the deployment's number."""
    view = await promote(platform, app, number)
    assert view.state == "healthy", view.problem
    return number


async def set_secret(platform: Platform, app: str, name: str, value: str, *scopes: str) -> None:
    """Set a variable that the app sees, in these scopes."""
    async with platform.api() as api:
        for scope in scopes:
            await api.set_secret(app, name, SecretRequest(value=value, scope=scope), key=key())  # type: ignore[arg-type]


# ---- moves ------------------------------------------------------------------------------------------------------
async def promote(platform: Platform, app: str, number: int, **how: Any) -> OperationView:
    """Promote from the epoch as it is now; the promotion as it ended, while its sessions may not be accounted for."""
    return await platform.finished(await begin(platform, app, number, **how))


async def begin(platform: Platform, app: str, number: int, **how: Any) -> str:
    """Start a promotion from the epoch as it is now."""
    request = PromoteRequest(deployment=number, expected_epoch=owner_epoch(platform, app), **how)
    async with platform.api() as api:
        return (await api.promote(app, request, key=key())).operation


async def begin_restart(platform: Platform, app: str, mode: Any = "handover") -> str:
    """Start a replacement of the app's allocations."""
    async with platform.api() as api:
        return (await api.restart(app, RestartRequest(mode=mode), key=key())).operation


async def child_of(platform: Platform, operation: str) -> str:
    """The hand-over or drain that an operation has begun, as soon as it has."""
    found: list[str] = []

    async def begun() -> bool:
        async with platform.api() as api:
            found[:] = (await api.operation(operation)).children
        return bool(found)

    await wait_until(begun, timeout_s=40.0, what=f"{operation} moves its sessions")
    return found[0]


async def killed(platform: Platform, app: str) -> OperationView:
    """Kill the only allocation; its replacement as it begins."""
    dead = await platform.allocation(app)
    assert dead.pid is not None
    os.kill(dead.pid, signal.SIGKILL)
    found: list[OperationView] = []

    async def begun() -> bool:
        async with platform.api() as api:
            found[:] = [o for o in await api.operations(app) if o.kind == "replacement"]
        return bool(found)

    await wait_until(begun, what="the replacement has begun")
    return found[0]


async def settled(platform: Platform, operation: str) -> OperationView:
    """A move of sessions, once all of them are accounted for or the time is over."""
    return await platform.finished(operation, timeout_s=SETTLED_WITHIN_S)


async def told_by(platform: Platform, operation: str, what: Callable[[OperationView], bool]) -> OperationView:
    """An operation as soon as something is true of it. Fails when the operation ends before."""
    async with platform.api() as api:
        seq = -1
        while True:
            view = await api.operation(operation, after_seq=seq, wait_s=2)
            if what(view):
                return view
            assert not view.finished, f"{view.state}: {view.problem}"
            seq = view.stages[-1].seq if view.stages else -1


async def allocation_numbered(platform: Platform, app: str, number: int) -> AllocationView:
    """An allocation of the app as it is now, ended ones included."""
    async with platform.api() as api:
        return next(a for a in await api.allocations(app, all=True) if a.number == number)


# ---- people -----------------------------------------------------------------------------------------------------
def at_board(
    platform: Platform, app: str, count: int = PEOPLE_COUNT
) -> contextlib.AbstractAsyncContextManager[list[Person]]:
    """People at the app's production route."""
    return crowd(count, ("127.0.0.1", platform.http_port), platform.host(app))


async def come_and_leave(platform: Platform, app: str) -> None:
    """People who were here before: records of theirs lie in the store for a while, and nobody asks for them."""
    async with at_board(platform, app, LEFT_COUNT) as people:
        await type_once(people)

    async def stored() -> bool:
        # the framework drops a session instead of storing it when it was just writing to its socket
        return bool({person.label for person in people} & (await records(platform, app)).keys())

    await wait_until(stored, timeout_s=STORED_WITHIN_S, what="somebody who left was stored")


class Listener(Person):
    """A person who reads everything that comes, also what has no name on the page."""

    def __init__(self, platform: Platform, host: str, name: str) -> None:
        super().__init__(("127.0.0.1", platform.http_port), host, name=name)
        self.heard = b""

    async def _patch(self, socket: ClientConnection, payload: bytes) -> None:
        self.heard += payload
        await super()._patch(socket, payload)

    def pin(self, text: str) -> None:
        """Pin a note, which is shared with everybody."""
        self.write("note-text", text)
        self.press("note-add")

    async def hears(self, text: str) -> None:
        """Wait until a note's text has come."""
        await self.until(lambda: text.encode() in self.heard)

    def shows(self, element_id: str) -> str:
        """What stands in an element."""
        return self.screen.text(element_id)


@contextlib.asynccontextmanager
async def listening(platform: Platform, host: str, name: str) -> AsyncIterator[Listener]:
    """A listener who has arrived."""
    person = Listener(platform, host, name)
    try:
        await person.arrive()
        yield person
    finally:
        await person.leave()


def goes_with_the_next_loss(person: Person) -> None:
    """When the connection is lost the next time, this person does not come back: a laptop that is closed by then."""
    person._leaving = True


async def type_once(people: Sequence[Person]) -> None:
    """Everybody changes what is kept, and has seen that the server has it."""
    for person in people:
        person.change()
    await asyncio.gather(*(p.until(lambda p=p: p.here and not p.unacknowledged) for p in people))  # type: ignore[misc]


async def store_everybody(platform: Platform, app: str, people: Sequence[Person]) -> None:
    """Everybody loses the connection once and comes back: the framework stores a session when its socket is lost."""
    before = {person.name: len(person.welcomes) for person in people}
    await asyncio.gather(*(person.drop() for person in people))
    await asyncio.gather(*(p.welcome_after(before[p.name]) for p in people))
    labels = {person.label for person in people}

    async def stored() -> bool:
        return labels <= (await records(platform, app)).keys()

    await wait_until(stored, timeout_s=STORED_WITHIN_S, what="everybody was stored once")


async def attached(platform: Platform, app: str, count: int) -> None:
    """Wait until the edge has told that so many sockets are attached to the one allocation that serves."""

    async def counted() -> bool:
        return (await platform.allocation(app)).attached_sockets == count

    await wait_until(counted, what=f"{count} sockets are counted")


async def records(platform: Platform, app: str) -> dict[str, bytes]:
    """Every session's record in the production store, by label."""
    async with platform.store_admin(app) as admin:
        found = await admin.raw([("KEYS", f"{SESSION_PREFIX}*")])
        keys = [place.decode() for place in found[0] if is_session_key(place.decode())]
        values = await admin.raw([("GET", place) for place in keys]) if keys else []
    return {label_of_key(place): bytes(value) for place, value in zip(keys, values, strict=True) if value is not None}


async def key_of(platform: Platform, app: str, person: Person) -> str:
    """The key of a person's record in the production store."""
    async with platform.store_admin(app) as admin:
        keys = await admin.command("KEYS", f"{SESSION_PREFIX}*")
    return next(str(place) for place in keys if is_session_key(place) and label_of_key(place) == person.label)


# ---- the platform's word and the people's -----------------------------------------------------------------------
def fates(people: Sequence[Person], before: Mapping[str, int]) -> tuple[Fate, ...]:
    """What a move did to everybody, by their own diaries."""
    return tuple(fate_of(person, before[person.name]) for person in people)


def check_account(account: Mapping[str, Any], seen: Sequence[Fate], **expected: int) -> None:
    """Each session's fate is named and is what its person saw; the numbers are these, and add up."""
    said = {row["label"]: row["outcome"] for row in account["rows"]}
    assert not differences(said, seen), f"{differences(said, seen)}: {account}"
    assert sorted(said.values()) == sorted(fate.seen for fate in seen), "nothing that was seen is called unknown"
    counts = {outcome: account[outcome] for outcome in OUTCOMES}
    assert counts == {**dict.fromkeys(OUTCOMES, 0), **expected}
    check_sums(account, len(seen))


def check_sums(account: Mapping[str, Any], total: int) -> None:
    """The numbers of an account add up, those of its reasons too."""
    assert sum(account[outcome] for outcome in OUTCOMES) == account["total"] == total, account
    for outcome, reasons in account["reasons"].items():
        assert sum(reasons.values()) <= account[outcome], account


def check_not_kinder(account: Mapping[str, Any], seen: Sequence[Fate]) -> None:
    """Nothing is said that its person did not see; what could not be seen may be unknown."""
    said = {row["label"]: row["outcome"] for row in account["rows"]}
    assert not differences(said, seen), f"{differences(said, seen)}: {account}"
    for outcome in (RESUMED, ATTACHED, FRESH):
        assert account[outcome] <= sum(fate.seen == outcome for fate in seen), account
    check_sums(account, len(seen))


def check_ages(account: Mapping[str, Any], seen: Sequence[Fate]) -> None:
    """How old each session's stored state was at the end is said, and is a true upper bound of what its person lost."""
    ages = {row["label"]: row["age_ms"] for row in account["rows"]}
    for fate in seen:
        lost_ms = (fate.loss_age_s or 0.0) * 1000
        assert lost_ms - CLOCKS_MS <= ages[fate.label] <= lost_ms + TICK_MS, (fate, ages[fate.label])


def check_kept(people: Sequence[Person], before: Mapping[str, int]) -> None:
    """Everybody was resumed and has everything that was acknowledged."""
    seen = fates(people, before)
    assert {fate.seen for fate in seen} == {RESUMED}, seen
    assert not any(fate.state_lost for fate in seen), seen


# ---- stories ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Stage:
    """Where stories take place."""

    platform: Platform
    shelf: Shelf
    folder: Path


Story = Callable[[Stage], Awaitable[None]]


class Stories:
    """Stories that were begun together; each test waits for the end of its own."""

    def __init__(self, stage: Stage, stories: Mapping[str, Story]) -> None:
        self._tasks: dict[str, asyncio.Future[None]] = {}
        self.begin(stage, stories)

    def begin(self, stage: Stage, stories: Mapping[str, Story]) -> None:
        """Begin these, too."""
        self._tasks |= {name: asyncio.ensure_future(story(stage)) for name, story in stories.items()}

    async def end_of(self, name: str) -> None:
        """Return when the story has ended well; raise what it raised."""
        await self._tasks[name]

    async def close(self) -> None:
        """End what still goes on."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


def asked_for(request: pytest.FixtureRequest) -> set[str]:
    """The stories whose tests were chosen in this run, by the parameter `story` of tests in the fixture's module."""
    params = [
        getattr(getattr(item, "callspec", None), "params", {})
        for item in request.session.items
        if item.getparent(pytest.Module) is request.node
    ]
    return {str(found["story"]) for found in params if "story" in found}
