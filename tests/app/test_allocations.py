"""Real uvicorn processes on a real Valkey: crash, freeze, takeover, hand-over, schema change, bad records."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from demo.people import Person, RefusedByAppError, crowd
from moorage_app import contract
from moorage_app.contract import NoticeKind, Outcome, Parted, Standing

from .servers import AppProcess, Platform, ValkeyProcess, started, write_small_app

pytestmark = pytest.mark.servers

DRAFT = "board:draft:v1"


async def allocation(valkey: ValkeyProcess, folder: Path, name: str, deployment: int = 1) -> AppProcess:
    """An allocation with its own user, not started yet."""
    number = deployment + 100
    return AppProcess(folder, name, deployment, number, await valkey.add_user(name))


def person(app: AppProcess, session: str | None = None) -> Person:
    """Somebody at this allocation."""
    return Person(app.address, f"board.localhost:{app.port}", session=session)


async def test_kill_9_loses_nothing_acknowledged(valkey: ValkeyProcess, platform: Platform, tmp_path: Path) -> None:
    """Declared fields are back at another allocation, the undeclared one is at its default and said so."""
    folder = write_small_app(tmp_path / "app")
    old, new = await allocation(valkey, folder, "alloc-old"), await allocation(valkey, folder, "alloc-new", 2)
    with started(old, new):
        await old.ready()
        await new.ready()
        someone = person(old)
        await someone.arrive()
        for letter in range(40):
            await someone.type("x" * letter)
        await someone.send("move", 7)
        old.kill()
        someone.address = new.address
        welcome = await someone.welcome_after(1)
        assert (welcome.outcome, welcome.draft, welcome.allocation) == ("resumed", "x" * 39, "alloc-new")
        assert welcome.changes_lost == 0
        record = await platform.kept(someone.session or "")
        assert (record.holder, record.outcome, record.previous_holder) == ("alloc-new", "resumed", "alloc-old")
        last = record.story[-1]
        assert f"{DRAFT}.text" in last["restored"]
        assert f"{DRAFT}.cursor" in last["defaults"]
        assert contract.standing(record, "alloc-old", 1) == (Standing.RESUMED, "")
        assert await platform.held("alloc-old") == set()
        assert await platform.held("alloc-new") == {someone.session}
        await someone.leave()


async def test_typing_through_a_hand_over_loses_nothing(
    valkey: ValkeyProcess, platform: Platform, tmp_path: Path
) -> None:
    """Thirty people type while the platform hands over; everyone resumes at the new allocation with their draft."""
    folder = write_small_app(tmp_path / "app")
    old, new = await allocation(valkey, folder, "alloc-old"), await allocation(valkey, folder, "alloc-new", 2)
    with started(old, new):
        await old.ready()
        await new.ready()
        async with crowd(30, old.address, f"board.localhost:{old.port}") as people:
            leases = {one: (await platform.kept(one)).lease for one in await platform.held("alloc-old")}
            for someone in people:
                someone.type("before")
                someone.address = new.address
            await platform.give_notice("alloc-old", NoticeKind.HANDOVER)
            for turn in range(30):
                for someone in people:
                    someone.type(f"typing {turn}")
                await people[0].until(lambda: people[0].unacknowledged == 0 or people[0].notices)
            for someone in people:
                await someone.welcome_after(1)
                await someone.until(lambda someone=someone: someone.unacknowledged == 0)
            assert {one.welcomes[-1].outcome for one in people} == {"resumed"}
            assert {one.welcomes[-1].allocation for one in people} == {"alloc-new"}
            assert all(one.welcomes[-1].draft_kept for one in people)
            assert sum(one.changes_lost for one in people) == 0
            for someone in people:
                record = await platform.kept(someone.session or "")
                assert record.states[DRAFT]["text"] == "typing 29"
                assert contract.standing(record, "alloc-old", leases[record.id]) == (Standing.RESUMED, "")
            report = json.loads(await platform.admin.get(contract.handover_key("alloc-old")))
            assert (report["stored"], report["unstored"]) == (30, 0)
            late = person(old)
            with pytest.raises(TimeoutError):
                await late.arrive(patience_s=0.5)
            await late.vanish()
            assert {kind for _, kind in late.failed_opens} == {"InvalidStatus"}


async def test_a_notice_that_is_not_announced_is_found(
    valkey: ValkeyProcess, platform: Platform, tmp_path: Path
) -> None:
    """Drain is told to clients and changes nothing else; hand-over follows; both only through the key."""
    app = await allocation(valkey, write_small_app(tmp_path / "app"), "alloc-a")
    with started(app):
        await app.ready()
        someone = person(app)
        await someone.arrive()
        await platform.give_notice("alloc-a", NoticeKind.DRAIN, announce=False)
        await someone.until(lambda: someone.notices)
        assert [kind for _, kind in someone.notices] == ["drain"]
        await someone.type("still here")
        assert (await platform.kept(someone.session or "")).attached
        await platform.give_notice("alloc-a", NoticeKind.HANDOVER, announce=False)
        await someone.until(lambda: any(kind == "reconnect" for _, kind in someone.notices))
        record = await platform.kept(someone.session or "")
        assert (record.attached, record.parted) == (False, Parted.HANDED_OVER)
        assert contract.standing(record, "alloc-a", 1) == (Standing.PARTED, "handed_over")
        await platform.give_notice("alloc-a", NoticeKind.OPEN)  # the platform thought better of it
        welcome = await someone.welcome_after(1)
        assert (welcome.outcome, welcome.draft) == ("resumed", "still here")
        await someone.leave()


async def test_a_frozen_holder_that_wakes_changes_no_record(
    valkey: ValkeyProcess, platform: Platform, tmp_path: Path
) -> None:
    """SIGSTOP while changes are in its socket, takeover elsewhere, SIGCONT: the record does not move."""
    folder = write_small_app(tmp_path / "app")
    old, new = await allocation(valkey, folder, "alloc-old"), await allocation(valkey, folder, "alloc-new", 2)
    with started(old, new):
        await old.ready()
        await new.ready()
        first = person(old)
        await first.arrive()
        await first.type("mine")
        old.signal(signal.SIGSTOP)
        first.type("typed into a frozen process")  # lies in the socket until it wakes
        second = person(new, session=first.session)
        assert (await second.arrive()).draft == "mine"
        await second.type("the new holder's")
        before = await platform.admin.get(contract.session_key(first.session or ""))
        old.signal(signal.SIGCONT)
        await first.until(lambda: first.taken_over)
        assert await platform.admin.get(contract.session_key(first.session or "")) == before
        await second.leave()


async def test_a_duplicated_tab_takes_over_at_the_same_allocation(valkey: ValkeyProcess, tmp_path: Path) -> None:
    """The older tab learns it and does not come back; what it typed last is there."""
    app = await allocation(valkey, write_small_app(tmp_path / "app"), "alloc-a")
    with started(app):
        await app.ready()
        first = person(app)
        await first.arrive()
        await first.type("from the first tab")
        second = person(app, session=first.session)
        assert (await second.arrive()).draft == "from the first tab"
        await first.until(lambda: first.taken_over)
        await second.type("from the second tab")
        await second.leave()


async def test_one_of_two_allocations_ends_up_with_a_session(
    valkey: ValkeyProcess, platform: Platform, tmp_path: Path
) -> None:
    """An idle old holder learns of a takeover elsewhere without writing anything."""
    folder = write_small_app(tmp_path / "app")
    old, new = await allocation(valkey, folder, "alloc-old"), await allocation(valkey, folder, "alloc-new", 2)
    with started(old, new):
        await old.ready()
        await new.ready()
        first = person(old)
        await first.arrive()
        second = person(new, session=first.session)
        await second.arrive()
        await first.until(lambda: first.taken_over)
        assert (await platform.kept(first.session or "")).holder == "alloc-new"
        await second.leave()


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (b"{not json", "corrupt"),
        (b'{"format":1,"id":"other"}', "corrupt"),
        (b"\xff\xfe\x00", "corrupt"),
        (b'{"format":99}', "newer_format"),
    ],
)
async def test_a_bad_record_is_kept_aside(
    valkey: ValkeyProcess, platform: Platform, tmp_path: Path, stored: bytes, reason: str
) -> None:
    """The session starts fresh with the reason; the bad record lies in quarantine; a second one beside it."""
    app = await allocation(valkey, write_small_app(tmp_path / "app"), "alloc-a")
    with started(app):
        await app.ready()
        someone = person(app)
        await someone.arrive()
        await someone.leave()
        session = someone.session or ""
        for turn in (1, 2):
            await platform.admin.set(contract.session_key(session), stored)
            again = person(app, session=session)
            welcome = await again.arrive()
            assert (welcome.outcome, welcome.reason, again.session) == ("fresh", reason, session)
            aside = [key async for key in platform.admin.scan_iter(contract.quarantine_key(session) + "*")]
            assert [await platform.admin.get(key) for key in aside] == [stored] * turn
            assert all([await platform.admin.ttl(key) > 0 for key in aside])
            await again.leave()
        record = await platform.kept(session)
        assert (record.outcome, record.reason, record.born.reason) == (Outcome.FRESH, reason, reason)


async def test_added_fields_are_warm_and_retyped_ones_cold(
    valkey: ValkeyProcess, platform: Platform, tmp_path: Path
) -> None:
    """v1 to v2 (added): resumed. v2 to v3 (retyped): fresh, naming the field. Later resumes do not hide it."""
    one = write_small_app(tmp_path / "v1")
    two = write_small_app(tmp_path / "v2", 'text: str = ""', 'colour: str = "yellow"', "pinned: bool = False")
    three = write_small_app(tmp_path / "v3", 'text: str = ""', "colour: int = 0", "pinned: bool = False")
    apps = [await allocation(valkey, folder, f"alloc-{i}", i) for i, folder in enumerate((one, two, three), start=1)]
    with started(*apps):
        for app in apps:
            await app.ready()
        someone = person(apps[0])
        await someone.arrive()
        await someone.type("kept")
        someone.address = apps[1].address
        await someone.drop()
        welcome = await someone.welcome_after(1)
        assert (welcome.outcome, welcome.draft) == ("resumed", "kept")
        assert someone.states[DRAFT] == {"text": "kept", "colour": "yellow", "pinned": False}
        before = await platform.kept(someone.session or "")
        someone.address = apps[2].address
        await someone.drop()
        welcome = await someone.welcome_after(2)
        assert (welcome.outcome, welcome.reason, welcome.draft) == ("fresh", "schema", "")
        assert welcome.detail == f"{DRAFT}.colour was str and is now int"
        await someone.drop()
        await someone.welcome_after(3)
        record = await platform.kept(someone.session or "")
        assert record.outcome is Outcome.RESUMED
        for lease in (before.lease, None):
            assert contract.standing(record, "alloc-2", lease) == (Standing.FRESH, "schema")
        await someone.leave()
        await platform.parted(someone.session or "", Parted.ENDED)


async def test_ends_are_told_apart(valkey: ValkeyProcess, platform: Platform, tmp_path: Path) -> None:
    """A closed tab has ended; a lost socket was dropped."""
    app = await allocation(valkey, write_small_app(tmp_path / "app"), "alloc-a")
    with started(app):
        await app.ready()
        closing, losing = person(app), person(app)
        await closing.arrive()
        await losing.arrive()
        await closing.leave()
        await losing.vanish()
        await platform.parted(closing.session or "", Parted.ENDED)
        await platform.parted(losing.session or "", Parted.DROPPED)


async def test_sigterm_stores_and_sends_people_on(valkey: ValkeyProcess, platform: Platform, tmp_path: Path) -> None:
    """A plain stop of the process marks its sessions handed over, and the process ends in order."""
    folder = write_small_app(tmp_path / "app")
    old, new = await allocation(valkey, folder, "alloc-old"), await allocation(valkey, folder, "alloc-new", 2)
    with started(old, new):
        await old.ready()
        await new.ready()
        someone = person(old)
        await someone.arrive()
        await someone.type("stored")
        someone.address = new.address
        assert old.stop() in (0, -signal.SIGTERM)
        welcome = await someone.welcome_after(1)
        assert (welcome.outcome, welcome.draft) == ("resumed", "stored")
        events = [event["event"] for event in (await platform.kept(someone.session or "")).story]
        assert events == ["created", "handed_over", "resumed"]
        await someone.leave()


async def test_wrong_values_are_refused_at_once(valkey: ValkeyProcess, tmp_path: Path) -> None:
    """From the client and in the app's own code; the session goes on."""
    app = await allocation(valkey, write_small_app(tmp_path / "app"), "alloc-a")
    with started(app):
        await app.ready()
        someone = person(app)
        await someone.arrive()
        for change, code in (
            (someone.set(DRAFT, "colour", 3), "value-refused"),
            (someone.set(DRAFT, "cursor", 3), "value-refused"),
            (someone.set("board:other:v1", "text", ""), "value-refused"),
            (someone.set(DRAFT, "text", "\ud800"), "value-refused"),
            (someone.send("break_it", 1), "undeclared-field"),
            (someone.send("nothing"), "unknown-action"),
        ):
            with pytest.raises(RefusedByAppError) as refused:
                await change
            assert refused.value.code == code
        await someone.type("goes on")
        await someone.leave()


async def test_a_repeated_action_counts_once(valkey: ValkeyProcess, platform: Platform, tmp_path: Path) -> None:
    """kill -9 between the shared change and its acknowledgement: the client sends it again, the note is there once."""
    folder = write_small_app(tmp_path / "app")
    old, new = await allocation(valkey, folder, "alloc-old"), await allocation(valkey, folder, "alloc-new", 2)
    with started(old, new):
        await old.ready()
        await new.ready()
        someone = person(old)
        await someone.arrive()
        await someone.send("add_note", "first")
        # The note is in the store under its key, the session does not know it yet: what a crash in between leaves.
        record = await platform.kept(someone.session or "")
        shared = json.loads(await platform.admin.get(contract.shared_key("board:notes:v1")))
        key = f"{contract.tag(record.id)}:{record.seq + 1}:1"
        shared = {"revision": 2, "value": {"items": [*shared["value"]["items"], {"text": "second"}]}, "applied": [key]}
        await platform.admin.set(contract.shared_key("board:notes:v1"), json.dumps(shared))
        old.kill()
        sent = someone.send("add_note", "second")
        someone.address = new.address
        await someone.welcome_after(1)
        await sent
        notes = json.loads(await platform.admin.get(contract.shared_key("board:notes:v1")))
        assert [note["text"] for note in notes["value"]["items"]] == ["first", "second"]
        visits = json.loads(await platform.admin.get(contract.shared_key("board:visits:v1")))
        assert visits["value"] == {"count": 2}  # what the app does by itself is never taken for a repetition
        await someone.leave()


async def test_shared_state_converges_without_announcements(
    valkey: ValkeyProcess, platform: Platform, tmp_path: Path
) -> None:
    """An allocation whose user may use no channel at all still sees what another one wrote."""
    folder = write_small_app(tmp_path / "app")
    writer = await allocation(valkey, folder, "alloc-writer")
    deaf = await allocation(valkey, folder, "alloc-deaf", 2)
    deaf.store_url = await valkey.add_user("alloc-deaf", ("~*", "resetchannels", "+@all", "-@dangerous", "-@admin"))
    with started(writer, deaf):
        await writer.ready()
        await deaf.ready()
        one, other = person(writer), person(deaf)
        await one.arrive()
        await other.arrive()
        await one.send("add_note", "hello")
        await other.until(lambda: other.shared["board:notes:v1"]["items"] == [{"text": "hello"}])
        await other.send("add_note", "from the deaf one")  # and it can write
        await one.until(lambda: len(one.shared["board:notes:v1"]["items"]) == 2)
        assert await platform.admin.pubsub_numsub(contract.SHARED_CHANNEL) == [(b"moorage:shared", 1)]
        await one.leave()
        await other.leave()


async def test_people_are_seen_across_allocations(valkey: ValkeyProcess, tmp_path: Path) -> None:
    """Who is attached anywhere is seen everywhere, and gone when they leave."""
    folder = write_small_app(tmp_path / "app")
    a, b = await allocation(valkey, folder, "alloc-a"), await allocation(valkey, folder, "alloc-b")
    with started(a, b):
        await a.ready()
        await b.ready()
        one, other = person(a), person(b)
        await one.arrive()
        await other.arrive()
        await one.until(lambda: one.people["count"] == 2)
        await other.until(lambda: other.people["count"] == 2)
        await other.leave()
        await one.until(lambda: one.people["count"] == 1)
        await one.leave()


async def test_a_fenced_allocation_writes_nothing(valkey: ValkeyProcess, platform: Platform, tmp_path: Path) -> None:
    """Its user is off: the change is not acknowledged; at the next allocation it is sent again."""
    folder = write_small_app(tmp_path / "app")
    old, new = await allocation(valkey, folder, "alloc-old"), await allocation(valkey, folder, "alloc-new", 2)
    with started(old, new):
        await old.ready()
        await new.ready()
        someone = person(old)
        await someone.arrive()
        await someone.type("before the fence")
        await platform.fence("alloc-old")
        late = someone.type("after the fence")
        second = person(old)
        with pytest.raises(TimeoutError):
            await second.arrive(patience_s=1.0)
        await second.vanish()
        record = await platform.kept(someone.session or "")
        assert (record.states[DRAFT]["text"], late.done()) == ("before the fence", False)
        someone.address = new.address
        await someone.drop()
        welcome = await someone.welcome_after(1)
        await late
        assert (welcome.outcome, welcome.draft) == ("resumed", "before the fence")
        assert (await platform.kept(someone.session or "")).states[DRAFT]["text"] == "after the fence"
        await someone.leave()


async def test_an_id_that_nobody_gave_out_starts_fresh(
    valkey: ValkeyProcess, platform: Platform, tmp_path: Path
) -> None:
    """Unknown and expired are told apart; an id that cannot be a key is replaced, traceably."""
    app = await allocation(valkey, write_small_app(tmp_path / "app"), "alloc-a")
    with started(app):
        await app.ready()
        unknown = person(app, session="A" * 32)
        welcome = await unknown.arrive()
        assert (welcome.outcome, welcome.reason, unknown.session) == ("fresh", "unknown_id", "A" * 32)
        await unknown.leave()
        await platform.admin.delete(contract.session_key("A" * 32))
        expired = person(app, session="A" * 32)
        welcome = await expired.arrive()
        assert (welcome.outcome, welcome.reason) == ("fresh", "expired")
        await expired.leave()
        weak = person(app, session="guess")
        welcome = await weak.arrive()
        assert (welcome.outcome, welcome.reason) == ("fresh", "unknown_id")
        record = await platform.kept(weak.session or "")
        assert (record.id != "guess", record.replaces) == (True, contract.tag("guess"))
        await weak.leave()


async def test_the_session_id_is_in_no_log(valkey: ValkeyProcess, platform: Platform, tmp_path: Path) -> None:
    """Whatever happens to a session, its id is written nowhere but in the store."""
    app = await allocation(valkey, write_small_app(tmp_path / "app"), "alloc-a")
    with started(app):
        await app.ready()
        someone = person(app)
        await someone.arrive()
        record = await platform.kept(someone.session or "")
        stolen = replace(record, lease=record.lease + 1, revision=record.revision + 1, holder="alloc-x")
        await platform.admin.set(contract.session_key(record.id), contract.encode_record(stolen))
        someone.type("too late")
        await someone.until(lambda: someone.taken_over)
        await platform.admin.set(contract.session_key(record.id), "{")
        again = person(app, session=record.id)
        await again.arrive()
        await again.leave()
    assert record.id not in app.log_path.read_text()
