"""Stored records: keys that are of sessions, headers of good and of broken records, times."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.vango import records
from moorage.vango.records import HEADER_BYTES, Bad, BadRecord, RecordHeader, Times, read_header, read_times
from moorage_app.contract import tag

SESSION = "992eb4678821363b51e23155b87bf460"
KEY = f"vango:session:{SESSION}"
GLOBAL_KEY = "vango:session:vango:global:{global}:4f834913"
HASH = "c8b0dbd838431db041ee911fdaacc07de3b689e102ae87a24ea633b9644625c3"
# the first entries as a real app wrote them: id, created, active, route
PAYLOAD = b"\xa8\x01x 992eb4678821363b51e23155b87bf460\x03t2026-11-25T01:50:45Z\x04t2026-11-25T01:50:48Z\x05a/"


def record(payload: bytes = PAYLOAD, *, stored_format: int = 1, written_ms: int = 1795571448001) -> bytes:
    """A record whose signature nobody checks here."""
    head = struct.pack(">4sBH32sQI", b"VNGO", stored_format, 1, bytes.fromhex(HASH), written_ms, len(payload))
    return head + payload + bytes(32)


def test_a_header_says_when_it_was_written_and_for_which_schema() -> None:
    whole = record()
    header = read_header(whole[:HEADER_BYTES], len(whole))
    assert header == RecordHeader(1795571448001, HASH, len(PAYLOAD), 1)
    assert header.schema_hash == f"sha256:{HASH}"


def test_more_than_the_header_does_no_harm() -> None:
    whole = record()
    assert read_header(whole, len(whole)) == read_header(whole[:HEADER_BYTES], len(whole))


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (b"", Bad.TRUNCATED),
        (b"VNG", Bad.TRUNCATED),
        (record()[:HEADER_BYTES], Bad.TRUNCATED),
        (record()[:-1], Bad.TRUNCATED),
        (record()[: HEADER_BYTES - 1], Bad.TRUNCATED),
        (record() + b"\x00", Bad.OVERLONG),
        (b'{"id":"a","version":1}', Bad.FOREIGN),
        (b"VGGS" + record()[4:], Bad.FOREIGN),
        (record(stored_format=2), Bad.UNKNOWN_FORMAT),
    ],
)
def test_what_the_framework_refuses_is_refused_with_its_reason(stored: bytes, reason: Bad) -> None:
    assert read_header(stored[:HEADER_BYTES], len(stored)) == BadRecord(reason)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_any_bytes_give_a_header_or_a_reason(stored: bytes, length: int) -> None:
    assert isinstance(read_header(stored, length), RecordHeader | BadRecord)
    assert isinstance(read_times(stored), Times | BadRecord)


def test_times_are_read_from_the_first_entries() -> None:
    assert read_times(record()) == Times(created_ms=1795571445000, active_ms=1795571448000)


def test_times_come_with_any_zone_and_after_a_user() -> None:
    payload = b"\xa9\x01x\x02ab\x02cbob\x03x\x192026-11-25T03:50:45+02:00\x04t2026-11-25T01:50:48Z\x05a/"
    assert read_times(record(payload)) == Times(created_ms=1795571445000, active_ms=1795571448000)


@pytest.mark.parametrize(
    "payload",
    [
        PAYLOAD[:60],  # ends within the first time
        b"\x83\x01\x02\x03",  # a list
        b"\xa2\x01a1\x0aa2",  # no times
        b"\xa3\x01a1\x03dlate\x04dlast",  # times that are none
        b"\xa3\x01a1\x03s2026-11-25T01:50:45\x04s2026-11-25T01:50:48",  # of no zone
        b"\xa3\x01a1\x03\x1a\x00\x00\x00\x00\x04\x1a\x00\x00\x00\x00",  # numbers
    ],
)
def test_entries_of_another_form_have_no_times(payload: bytes) -> None:
    assert read_times(record(payload)) == BadRecord(Bad.UNREADABLE)


@pytest.mark.parametrize("key", [GLOBAL_KEY, "vango:session:", f"{KEY}0", KEY.upper(), f"other:{SESSION}", SESSION])
def test_other_keys_are_of_no_session(key: str) -> None:
    assert not records.is_session_key(key)
    assert records.session_id_of(key) == records.label_of_key(key) == ""


def test_a_key_names_its_session() -> None:
    assert records.is_session_key(KEY)
    assert records.session_id_of(KEY) == SESSION
    assert records.key_of(SESSION) == KEY
    assert records.label_of_key(KEY) == records.label_of(SESSION)


def test_a_label_is_short_and_does_not_hold_the_id() -> None:
    label = records.label_of(SESSION)
    assert label == tag(SESSION)  # the same rule for every kind of app
    assert len(label) == 12
    assert label not in SESSION


def test_shared_state_has_its_own_keys_and_channels() -> None:
    assert records.is_global_key(GLOBAL_KEY)
    assert not records.is_global_key(KEY)
    assert records.channel_of(GLOBAL_KEY) == "vango:global:{global}:4f834913"
    assert records.channel_of(GLOBAL_KEY).startswith(records.CHANNEL_PREFIX)
    assert records.channel_of(KEY) == ""
