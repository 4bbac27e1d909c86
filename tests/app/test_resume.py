"""The decision how a connection enters, and the record it reads and writes: pure, so every case is here."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage_app import SessionState, contract, unpersisted
from moorage_app.contract import BadRecord, FreshReason, NoticeKind, Outcome, Parted, Record, Standing
from moorage_app.live.messages import NotUnderstood, SetField, read_message
from moorage_app.live.people import merge_people
from moorage_app.live.shared import announced_state
from moorage_app.place import read_place
from moorage_app.resume import Arrival, House, decide_entry, house_of

NEW_ID = "n" * 32
ID = "i" * 32
NOW = 1_700_000_000_000


class One(SessionState, id="resume:one:v1"):
    text: str = ""
    count: int = 0
    cursor: int = unpersisted(0)


class Retyped(SessionState, id="resume:retyped:v1"):
    text: str = ""


def house(allocation: str = "alloc-a", *states: Any) -> House:
    """An allocation that declares these states."""
    place = read_place({contract.ENV_ALLOCATION: allocation, contract.ENV_DEPLOYMENT: "3"})
    return house_of(states or (One,), place)


def record(**changes: Any) -> Record:
    """A record alloc-old left."""
    entry = decide_entry(Arrival(None), house("alloc-old"), NOW, ID)
    return replace(entry.record, **{"states": {"resume:one:v1": {"text": "kept", "count": 4}}, **changes})


def stored(value: Record | dict[str, Any] | str) -> Arrival:
    """A client that presents ID, and what lies under it."""
    text = contract.encode_record(value) if isinstance(value, Record) else value
    text = json.dumps(text) if isinstance(text, dict) else text
    return Arrival(ID, text.encode(), True)


def test_nothing_presented_is_created() -> None:
    """All at defaults, lease and revision 1."""
    entry = decide_entry(Arrival(None), house(), NOW, NEW_ID)
    made = entry.record
    assert (made.outcome, made.id, made.lease, made.revision, made.holder) == ("created", NEW_ID, 1, 1, "alloc-a")
    assert entry.defaults == ("resume:one:v1.text", "resume:one:v1.count", "resume:one:v1.cursor")
    assert (entry.restored, entry.quarantine, entry.previous_holder) == ((), False, None)


def test_a_stored_session_resumes() -> None:
    """Lease and revision go up, the holder changes, the undeclared is named as being at its default."""
    entry = decide_entry(stored(record(lease=7, revision=30, seq=12, parted=Parted.DROPPED)), house(), NOW, NEW_ID)
    made = entry.record
    assert (made.outcome, made.id, made.lease, made.revision) == ("resumed", ID, 8, 31)
    assert (made.holder, made.previous_holder, made.attached, made.parted) == ("alloc-a", "alloc-old", True, None)
    assert (made.seq, made.states["resume:one:v1"]) == (12, {"text": "kept", "count": 4})
    assert (entry.restored, entry.defaults) == (
        ("resume:one:v1.text", "resume:one:v1.count"),
        ("resume:one:v1.cursor",),
    )
    assert made.story[-1]["defaults"] == ["resume:one:v1.cursor"]
    assert contract.standing(made, "alloc-old", 7) == (Standing.RESUMED, "")


@pytest.mark.parametrize(
    ("arrival", "reason", "detail", "quarantine"),
    [
        (Arrival(ID, None, False), "unknown_id", "", False),
        (Arrival(ID, None, True), "expired", "", False),
        (stored("{"), "corrupt", "not JSON: JSONDecodeError", True),
        (stored("[" * 100_000), "corrupt", "not JSON: RecursionError", True),
        (stored({"format": 2}), "newer_format", "format 2, this SDK reads up to 1", True),
        (stored(record(id="x" * 32)), "corrupt", "it carries another session's id", True),
        (
            stored(replace(record(), states={"resume:one:v1": {"text": 3}})),
            "corrupt",
            "resume:one:v1.text holds a int instead of str",
            True,
        ),
    ],
)
def test_what_cannot_go_on_starts_fresh(arrival: Arrival, reason: str, detail: str, quarantine: bool) -> None:
    """With the presented id, a lease above any the old holder can have, and its reason."""
    entry = decide_entry(arrival, house(), NOW, NEW_ID)
    made = entry.record
    assert (made.outcome, made.reason, made.detail, made.id) == ("fresh", reason, detail, ID)
    assert (entry.quarantine, made.lease, made.born.reason) == (quarantine, NOW, reason)
    assert made.states == {"resume:one:v1": {"text": "", "count": 0}}


def test_an_incompatible_schema_starts_fresh_naming_the_field() -> None:
    """The lease goes on counting, so the old holder is shut out."""
    entry = decide_entry(stored(record(lease=7)), house("alloc-a", Retyped), NOW, NEW_ID)
    made = entry.record
    assert (made.outcome, made.reason, made.lease, made.id) == ("fresh", "schema", 8, ID)
    assert made.detail == "resume:one:v1 is no longer declared"
    assert (made.previous_holder, entry.quarantine) == ("alloc-old", False)
    assert contract.standing(made, "alloc-old", 7) == (Standing.FRESH, "schema")


@pytest.mark.parametrize("presented", ["", "short", "x" * 65, "a/b" * 12, "../" * 12, "\n" * 30])
def test_an_id_that_cannot_be_a_key_is_replaced(presented: str) -> None:
    """The new record can be traced to it without holding it."""
    made = decide_entry(Arrival(presented), house(), NOW, NEW_ID).record
    assert (made.id, made.reason, made.replaces) == (NEW_ID, "unknown_id", contract.tag(presented))


def test_where_a_session_is_now() -> None:
    """The table of standings."""
    at_old = record(lease=3)
    assert contract.standing(None, "alloc-old") == (Standing.MISSING, "")
    assert contract.standing(BadRecord(FreshReason.CORRUPT, ""), "alloc-old") == (Standing.UNREADABLE, "corrupt")
    assert contract.standing(at_old, "alloc-old") == (Standing.ATTACHED, "")
    gone = replace(at_old, attached=False, parted=Parted.ENDED)
    assert contract.standing(gone, "alloc-old") == (Standing.ENDED, "")
    dropped = replace(at_old, attached=False, parted=Parted.DROPPED)
    assert contract.standing(dropped, "alloc-old") == (Standing.PARTED, "dropped")
    resumed = decide_entry(stored(at_old), house(), NOW, NEW_ID).record
    fresh = decide_entry(stored(at_old), house("alloc-a", Retyped), NOW, NEW_ID).record
    again = decide_entry(stored(fresh), house("alloc-b", Retyped), NOW, NEW_ID).record
    for lease in (3, None):
        assert contract.standing(resumed, "alloc-old", lease) == (Standing.RESUMED, "")
        assert contract.standing(fresh, "alloc-old", lease) == (Standing.FRESH, "schema")
        assert (again.outcome, contract.standing(again, "alloc-old", lease)) == ("resumed", (Standing.FRESH, "schema"))
    forgetful = replace(again, story=())
    assert contract.standing(forgetful, "alloc-old", 3) == (Standing.FRESH, "schema")


def test_a_record_reads_back_as_it_was_written() -> None:
    """All of it."""
    one = record(seq=3, deployment=4, parted=Parted.HANDED_OVER, attached=False, replaces="t", detail="d")
    assert contract.decode_record(contract.encode_record(one)) == one


def test_a_record_has_a_size_limit() -> None:
    """Above it no change is written; a full record can still be entered and left; a larger one is not read."""
    full = record(states={"resume:one:v1": {"text": "x" * (contract.RECORD_BYTES - 1200)}})
    text = contract.encode_record(full)
    entry = decide_entry(stored(text), house(), NOW, NEW_ID)
    assert entry.record.outcome is Outcome.RESUMED
    entered = contract.with_event(entry.record, {"event": "x" * 1200})
    with pytest.raises(ValueError, match="exceeds"):
        contract.encode_record(entered)
    assert isinstance(contract.decode_record(contract.encode_record(entered, spare=True)), Record)
    large = text.replace("xx", "x" * 40_000, 1)
    assert contract.decode_record(large) == BadRecord(FreshReason.CORRUPT, "larger than a record may be")


def test_the_story_is_bounded() -> None:
    """And only its newest event carries names."""
    one = record()
    for turn in range(50):
        one = contract.with_event(one, {"event": "resumed", "at_ms": turn, "restored": ["x"] * 10})
    assert len(one.story) == contract.STORY_EVENTS_COUNT
    assert [bool(event.get("restored")) for event in one.story] == [False] * 19 + [True]


VALID = json.loads(contract.encode_record(record()))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.binary(max_size=400))
def test_reading_any_bytes_never_raises(data: bytes) -> None:
    """It says why they are no record."""
    assert isinstance(contract.decode_record(data), BadRecord)


@settings(max_examples=300)
@given(st.sampled_from(sorted(VALID)), JSON)
def test_reading_a_record_with_one_part_replaced_never_raises(part: str, value: Any) -> None:
    """Neither does entering with it; what is read can be written and read again."""
    document = {**VALID, part: value}
    read = contract.decode_record(json.dumps(document))
    entry = decide_entry(stored(document), house(), NOW, NEW_ID)
    assert isinstance(contract.decode_record(contract.encode_record(entry.record)), Record)
    assert entry.record.outcome in (Outcome.RESUMED, Outcome.FRESH)
    if isinstance(read, Record):
        contract.standing(read, "alloc-old", 1)
        contract.standing(read, "alloc-old")
    else:
        assert entry.quarantine


@given(st.text() | st.none(), JSON)
def test_other_readers_never_raise(text: str | None, value: Any) -> None:
    """Client messages, notices, announcements and people's lists."""
    for one in (text, json.dumps(value)):
        read_message(one)
        contract.decode_notice(one)
        if one is not None:
            announced_state(one)
            merge_people([one.encode(errors="surrogatepass")])


def test_messages_are_read_strictly() -> None:
    """Right ones are read, wrong ones say why."""
    assert read_message('{"type":"set","seq":1,"state":"a","field":"b","value":null}') == SetField(1, "a", "b", None)
    for wrong in (
        '{"type":"set","seq":0,"state":"a","field":"b","value":1}',
        '{"type":"set","seq":true,"state":"a","field":"b","value":1}',
        '{"type":"set","seq":1,"state":"a","field":"b"}',
        '{"type":"hello","protocol":2,"session":null}',
        '{"type":"hello","protocol":1,"session":3}',
        '{"type":"send","seq":1,"name":""}',
        '{"type":["set"]}',
        "x" * 70_000,
        None,
    ):
        assert isinstance(read_message(wrong), NotUnderstood), wrong


def test_notices() -> None:
    """Read back as written; what is not understood changes nothing."""
    notice = contract.Notice(NoticeKind.DRAIN, 5)
    assert contract.decode_notice(contract.encode_notice(notice)) == notice
    for bad in (None, "", "{", "[]", '{"notice":"dance"}', '{"notice":["drain"]}'):
        assert contract.decode_notice(bad) is None


def test_people_seen_twice_are_one_person() -> None:
    """During a hand-over both allocations may name them."""
    old = json.dumps({"count": 3, "people": [{"tag": "a"}, {"tag": "b"}]}).encode()
    new = json.dumps({"count": 1, "people": [{"tag": "a", "name": "A"}]}).encode()
    merged = merge_people([old, b"nonsense", new])
    assert merged == {"count": 3, "people": [{"tag": "a", "name": "A"}, {"tag": "b"}]}


def test_the_place_hides_its_password() -> None:
    """And reads numbers leniently."""
    place = read_place({contract.ENV_STORE_URL: "redis://u:secret@h:1/0", contract.ENV_DEPLOYMENT: "x"})
    assert "secret" not in repr(place)
    assert (place.deployment, place.allocation_number, place.environment) == (0, 0, "local")
    assert place.allocation.startswith("local-")
