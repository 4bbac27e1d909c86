"""The crowd tells the truth: what people on a real board write down of each way in which a session goes on or ends."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from moorage.domain.allocation import Posture
from moorage.vango.wire import WireError, text, uvarint
from tests.support.vango.client import Ack, NotLetInError, Person, Welcome
from tests.support.vango.crowd import (
    Fate,
    Tally,
    all_back,
    crowd,
    differences,
    fate_of,
    marks,
    source_of,
    tally,
    typing,
)
from tests.support.vango.ground import Ground, needs_go, running_ground
from tests.support.vango.patches import Appeared, Value, Words, read_batch
from tests.support.vango.screen import Kept, Screen
from tests.support.waiting import wait_until

PEOPLE_COUNT = 8


# ---- patches and screen -----------------------------------------------------------------------------------------
def batch(*patches: bytes, seq: int = 7) -> bytes:
    return uvarint(seq) + uvarint(len(patches)) + b"".join(patches)


def element(tag: str, hid: str, attributes: dict[str, str], *children: bytes) -> bytes:
    words = b"".join(text(name) + text(value) for name, value in attributes.items())
    head = b"\x01" + text(tag) + text(hid) + uvarint(len(attributes)) + words
    return head + uvarint(len(children)) + b"".join(children)


def test_texts_values_and_new_elements_are_read() -> None:
    note = element(
        "li",
        "h31",
        {"class": "note", "id": "n1"},
        element("p", "h32", {}, b"\x02" + text("hello ")),
        b"\x02" + text("you"),
    )
    found = read_batch(
        batch(
            b"\x01" + text("h13") + text("4"),
            b"\x16" + text("") + text("h19") + uvarint(0) + text("draft"),
            b"\x08" + text("h18") + text("typed"),
            b"\x02" + text("h18") + text("value") + text("typed too"),
            b"\x04" + text("h31") + text("h30") + uvarint(0) + note,
            b"\x03" + text("h1") + text("hidden"),
            b"\x01" + text("h14") + text("5"),
        )
    )
    assert found.seq == 7
    assert found.changes == (
        Words("h13", "4"),
        Words("h19", "draft"),
        Value("h18", "typed"),
        Value("h18", "typed too"),
        Appeared("n1", "h31", "hello you"),
        Words("h14", "5"),
    )


@pytest.mark.parametrize(
    "payload", [batch(b"\x21" + text("h1")), batch(b"\x01" + text("h1")), batch(b"\x07" + text("h1") + b"\x09")]
)
def test_what_is_no_batch_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError):
        read_batch(payload)


def test_a_screen_shows_patches_and_remembers_how_it_began() -> None:
    screen = Screen(
        '<span class="n" id="count" data-hid="h13">3</span><span data-hid="h19" id="draft-echo">a &amp; b</span>'
    )
    assert screen.kept_at_first() == screen.kept() == Kept(3, "a & b")
    screen.show(
        read_batch(batch(b"\x01" + text("h13") + text("4"), b"\x16" + text("") + text("h19") + b"\x00" + text("c")))
    )
    assert (screen.kept(), screen.kept_at_first()) == (Kept(4, "c"), Kept(3, "a & b"))
    with pytest.raises(LookupError):
        screen.hid("nobody")


# ---- fates ------------------------------------------------------------------------------------------------------
def welcome(outcome: str = "created", *, lost_since_s: float | None = None, pause_s: float | None = 1.0) -> Welcome:
    return Welcome(100.0, outcome, "", "aa", "aa", pause_s, pause_s, None, None, lost_since_s)


def person(*welcomes: Welcome, gone: str = "", here: bool = True, acks: int = 1) -> Person:
    found = Person(("127.0.0.1", 1), "board.localhost", name="p", gone=gone)
    found.welcomes.extend(welcomes)
    found.acks.extend([Ack(1.0, 1, 1)] * acks)
    found._live_now = here
    return found


def test_a_fate_is_that_of_the_first_welcome_after_the_move() -> None:
    first = welcome()
    assert fate_of(person(first), 1).seen == "attached"
    assert fate_of(person(first, here=False), 1).seen == "not back"
    assert fate_of(person(first, gone="closed 1000", here=False), 1).seen == "closed"
    moved = fate_of(person(first, welcome("resumed", lost_since_s=90.0), welcome("fresh")), 1)
    assert (moved.seen, moved.state_lost, moved.loss_age_s) == ("resumed", True, 9.0)  # lost the socket at 99


def test_who_is_not_back_has_lost_what_was_acknowledged() -> None:
    assert fate_of(person(welcome(), here=False), 1).state_lost
    assert not fate_of(person(welcome(), here=False, acks=0), 1).state_lost
    assert not fate_of(person(welcome()), 1).state_lost


def fate(label: str, seen: str, *, lost: bool = False) -> Fate:
    return Fate("p", label, seen, "", lost, 1.0, 1.2, None)


def test_a_tally_counts_what_was_moved() -> None:
    counted = Tally((fate("a", "resumed"), fate("b", "fresh", lost=True), fate("c", "attached")), 10)
    assert counted.seen == {"resumed": 1, "fresh": 1, "attached": 1}
    assert (counted.resumed_share, counted.acknowledged_state_lost) == (0.5, 1)
    assert Tally((fate("c", "attached"),), 1).resumed_share == 1.0


def test_an_account_differs_by_line() -> None:
    fates = [fate("a", "resumed"), fate("b", "fresh"), fate("c", "closed"), fate("d", "resumed"), fate("e", "resumed")]
    said = {"a": "resumed", "b": "resumed", "c": "lost", "d": "unknown", "f": "ended"}
    assert differences(said, fates) == [
        "b: said resumed, seen fresh",
        "e: said nothing, seen resumed",
        "f: said ended, seen by nobody",
    ]


def test_a_crowd_stays_below_the_limits_of_an_address() -> None:
    sources = [source_of(index) for index in range(200)]
    assert max(sources.count(source) for source in sources) <= 50
    assert sources[0] != "127.0.0.1"  # that is the edge's own, and trusted


# ---- on a real board --------------------------------------------------------------------------------------------
@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with running_ground(tmp_path) as running:
        await running.start(1)
        await running.own(1)
        yield running


async def moved(ground: Ground, version: str, end: Callable[[], Awaitable[None]]) -> tuple[Tally, list[Person]]:
    """People who have changed something and are quiet, then a move: ready, held, the old one ended, released."""
    async with crowd(PEOPLE_COUNT, ground.address, ground.host) as people:
        await changed(people)
        before = marks(people)
        await ground.start(2, version)
        await ground.own(2)
        await ground.hold(True)
        await end()
        await ground.posture(1, Posture.GONE)
        await ground.hold(False)
        await all_back(people, before, 30.0)
        return tally(people, before), people


async def changed(people: list[Person]) -> None:
    """Everybody changes something, and is shown that it is kept."""
    for one in people:
        one.change()
    for one in people:
        await one.until(lambda one=one: one.unacknowledged == 0 and one.acks[-1].count == 1)  # type: ignore[misc]


def detached(ground: Ground, number: int) -> int:
    return ground.boards[number].log.read_text().count("session detached")


@pytest.mark.servers
@needs_go
async def test_a_hand_over_is_a_resume(ground: Ground) -> None:
    async def cut_and_stop() -> None:
        await ground.posture(1, Posture.CUT)
        await wait_until(lambda: detached(ground, 1) == PEOPLE_COUNT, what="the old board stored every session")
        await ground.boards[1].kill()

    found, people = await moved(ground, "v2", cut_and_stop)
    assert found.seen == {"resumed": PEOPLE_COUNT}
    assert (found.resumed_share, found.acknowledged_state_lost, found.loss_ages_s) == (1.0, 0, [])
    assert all(1.0 <= pause_s < 20.0 for pause_s in found.pauses_s)  # the script's own first retry comes after 1 s
    for one in people:
        assert one.welcomes[-1].after == one.welcomes[-1].before == Kept(1, f"{one.name} is typing, turn 1")
        assert one.welcomes[-1].label == one.welcomes[0].label


@pytest.mark.servers
@needs_go
async def test_a_cold_version_is_a_fresh_start_after_a_reload(ground: Ground) -> None:
    async def cut_and_stop() -> None:
        await ground.posture(1, Posture.CUT)
        await wait_until(lambda: detached(ground, 1) == PEOPLE_COUNT, what="the old board stored every session")
        await ground.boards[1].kill()

    found, people = await moved(ground, "v3", cut_and_stop)
    assert found.seen == {"fresh schema_mismatch-id_type_changed": PEOPLE_COUNT}
    assert (found.resumed_share, found.acknowledged_state_lost) == (0.0, PEOPLE_COUNT)
    for one in people:
        assert one.welcomes[-1].previous == one.welcomes[0].label != one.welcomes[-1].label
        assert one.screen.kept() == Kept(0, "")  # the page was loaded anew


@pytest.mark.servers
@needs_go
async def test_a_polite_end_is_the_end_for_a_browser(ground: Ground) -> None:
    async def terminate() -> None:
        ground.boards[1].signal(signal.SIGTERM)
        await ground.boards[1].process.wait()

    found, people = await moved(ground, "v1", terminate)
    assert found.seen == {"closed 1000": PEOPLE_COUNT}
    assert found.acknowledged_state_lost == PEOPLE_COUNT
    assert all(one.gone == "closed 1000" for one in people)


@pytest.mark.servers
@needs_go
async def test_a_crash_loses_what_was_changed_since_the_last_record(ground: Ground) -> None:
    async with crowd(PEOPLE_COUNT, ground.address, ground.host) as people:
        await changed(people)
        for one in people:  # everybody loses the connection once: that is when a session is stored
            await one.drop()
            await one.welcome_after(1)
        await changed(people)
        before = marks(people)
        await ground.start(2)
        await ground.own(2)
        await ground.boards[1].kill()
        await ground.posture(1, Posture.GONE)
        await all_back(people, before, 30.0)
        found = tally(people, before)
        assert found.seen == {"resumed": PEOPLE_COUNT}
        assert found.acknowledged_state_lost == len(found.loss_ages_s) == PEOPLE_COUNT
        assert all(0.0 <= age_s < 30.0 for age_s in found.loss_ages_s)
        for one in people:
            assert (one.welcomes[-1].before, one.welcomes[-1].after) == (
                Kept(1, f"{one.name} is typing, turn 2"),
                Kept(1, f"{one.name} is typing, turn 1"),
            )


@pytest.mark.servers
@needs_go
async def test_a_silent_fresh_start_is_seen_though_the_page_shows_old_values(ground: Ground) -> None:
    assert ground.store is not None
    async with crowd(PEOPLE_COUNT, ground.address, ground.host) as people:
        await changed(people)
        before = marks(people)
        await ground.start(2)
        await ground.own(2)
        await ground.boards[1].kill()  # nothing was stored yet
        await ground.posture(1, Posture.GONE)
        await all_back(people, before, 30.0)
        found = tally(people, before)
        assert found.seen == {"fresh silent": PEOPLE_COUNT}
        assert found.acknowledged_state_lost == PEOPLE_COUNT
        one = people[0]
        assert one.screen.kept() == Kept(1, f"{one.name} is typing, turn 1")  # what is gone still stands there
        one.change()
        await one.until(lambda: one.passed_over_count > 0)  # and the page passes over the new session's first patches


@pytest.mark.servers
@needs_go
async def test_people_type_on_while_they_are_away(ground: Ground) -> None:
    async with crowd(3, ground.address, ground.host) as people:
        async with typing(people, 0.1):
            await people[0].until(lambda: people[0].acks[-1].turn >= 3 if people[0].acks else False)
            await people[0].drop()
            came_back = await people[0].welcome_after(1)
            typed = people[0].typed_count
            await people[0].until(lambda: people[0].acks[-1].turn >= typed)
        assert (came_back.outcome, came_back.state_lost) == ("resumed", False)
        last = people[0].acknowledged_before(came_back.at_s)
        assert last is None  # the diary is of the time since the last welcome
        assert len(people[1].welcomes) == 1


@pytest.mark.servers
@needs_go
async def test_nobody_is_let_in_where_there_is_no_page(ground: Ground) -> None:
    stranger = Person(ground.address, f"nobody.localhost:{ground.address[1]}", name="stranger")
    with pytest.raises(NotLetInError, match="page 404"):
        await stranger.arrive()
    await stranger.vanish()
