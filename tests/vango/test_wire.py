"""The live protocol: what is written is read back, known bytes are what a real app sends, broken bytes are refused."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.vango import wire
from moorage.vango.wire import (
    Banner,
    ClientHello,
    Control,
    ControlKind,
    Event,
    EventKind,
    Frame,
    FrameKind,
    Recovery,
    SchemaReason,
    ServerHello,
    Status,
    WireError,
)

U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
TEXTS = st.text(max_size=80)
BANNERS = st.builds(Banner, TEXTS, TEXTS, U16, TEXTS)
CLIENT_HELLOS = st.builds(
    ClientHello,
    csrf=TEXTS,
    client_hash=TEXTS,
    session_id=TEXTS,
    last_seq=U32,
    width=U16,
    height=U16,
    offset_min=st.integers(-(2**15), 2**15 - 1),
    version=st.tuples(st.integers(0, 255), st.integers(0, 255)),
)
EVENTS = st.one_of(
    st.builds(Event, U64, st.just(EventKind.CLICK), TEXTS),
    st.builds(Event, U64, st.sampled_from([EventKind.INPUT, EventKind.CHANGE]), TEXTS, TEXTS),
)
CONTROLS = st.one_of(
    st.builds(Control, st.sampled_from([ControlKind.PING, ControlKind.PONG]), stamp_ms=U64),
    st.builds(Control, st.just(ControlKind.RESYNC_REQUEST), seq=U64),
    st.builds(Control, st.just(ControlKind.RESYNC_FULL), text=TEXTS),
    st.builds(Control, st.just(ControlKind.CLOSE), text=TEXTS, reason=st.integers(0, 4)),
    st.builds(Control, st.just(ControlKind.SESSION_REFRESH), text=TEXTS, reason=st.integers(0, 5)),
)


@st.composite
def server_hellos(draw: st.DrawFn) -> ServerHello:
    """Hellos as a server may send them: what belongs to another status is absent."""
    status = draw(st.sampled_from(Status))
    refused = status is not Status.OK
    schema = draw(st.sampled_from(SchemaReason)) if status is Status.SCHEMA_MISMATCH else None
    return ServerHello(
        status,
        draw(TEXTS),
        draw(U32),
        draw(U64),
        draw(U16),
        auth_reason=draw(st.integers(0, 255)) if status is Status.NOT_AUTHORIZED else None,
        schema_reason=schema,
        banner=draw(BANNERS) if schema is not None else None,
        recovery=draw(st.sampled_from(Recovery)) if refused else None,
        forget=draw(st.booleans()) if refused else False,
    )


@given(CLIENT_HELLOS)
def test_a_client_hello_is_read_as_it_was_written(hello: ClientHello) -> None:
    assert wire.decode_client_hello(wire.encode_client_hello(hello)) == hello


@given(server_hellos())
def test_a_server_hello_is_read_as_it_was_written(hello: ServerHello) -> None:
    assert wire.decode_server_hello(wire.encode_server_hello(hello)) == hello


@given(EVENTS)
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    assert wire.decode_event(wire.encode_event(event)) == event


@given(CONTROLS)
def test_a_control_is_read_as_it_was_written(control: Control) -> None:
    assert wire.decode_control(wire.encode_control(control)) == control


@given(U64, U64)
def test_an_acknowledgement_is_read_as_it_was_written(seq: int, window: int) -> None:
    assert wire.decode_ack(wire.encode_ack(seq, window)) == (seq, window)


@given(st.sampled_from(FrameKind), st.binary(max_size=300), st.integers(0, 255))
def test_a_frame_is_read_as_it_was_written(kind: FrameKind, payload: bytes, flags: int) -> None:
    frame = Frame(kind, payload, flags)
    assert wire.decode_frame(wire.encode_frame(frame)) == frame


@given(U64)
def test_a_number_is_read_as_it_was_written(number: int) -> None:
    read = wire.Reader(wire.uvarint(number))
    assert (read.uvarint(), read.left) == (number, 0)


@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_number_out_of_range_is_not_written(number: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        wire.uvarint(number)


DECODERS: list[Callable[[bytes], object]] = [
    wire.decode_client_hello,
    wire.decode_server_hello,
    wire.decode_event,
    wire.decode_control,
    wire.decode_ack,
    wire.decode_patches_head,
    wire.decode_error,
    wire.decode_frame,
]


@given(st.sampled_from(DECODERS), st.binary(max_size=120))
def test_any_bytes_are_read_or_refused(decode: Callable[[bytes], object], data: bytes) -> None:
    wrong = refusal(decode, data)
    assert wrong is None or (0 <= wrong.at <= len(data) and wrong.what in str(wrong))


def refusal(decode: Callable[[bytes], object], data: bytes) -> WireError | None:
    try:
        decode(data)
    except WireError as wrong:
        return wrong
    return None


@given(CLIENT_HELLOS, st.data())
def test_a_truncated_client_hello_is_refused(hello: ClientHello, data: st.DataObject) -> None:
    whole = wire.encode_client_hello(hello)
    ends = len(whole) - len(wire.text(hello.client_hash))  # an old client's hello ends here, and may
    cut = data.draw(st.integers(0, len(whole) - 1).filter(lambda at: at != ends))
    with pytest.raises(WireError):
        wire.decode_client_hello(whole[:cut])


@given(server_hellos(), st.data())
def test_a_server_hello_without_its_fixed_part_is_refused(hello: ServerHello, data: st.DataObject) -> None:
    fixed = 1 + len(wire.text(hello.session_id)) + 14
    with pytest.raises(WireError):
        wire.decode_server_hello(wire.encode_server_hello(hello)[: data.draw(st.integers(0, fixed - 1))])


def test_a_frame_of_another_length_than_it_says_is_refused() -> None:
    whole = wire.encode_frame(Frame(FrameKind.ACK, b"\x01\x02"))
    for wrong in (whole[:-1], whole + b"\x00", whole[:5]):
        with pytest.raises(WireError):
            wire.decode_frame(wrong)


def test_a_text_message_is_no_frame() -> None:
    with pytest.raises(WireError, match="text message"):
        wire.decode_frame("hello")


def test_a_frame_over_the_limit_is_refused_by_its_header() -> None:
    with pytest.raises(WireError, match="over the limit"):
        wire.decode_frame(b"\x03\x00" + (wire.PAYLOAD_MAX_BYTES + 1).to_bytes(4, "big"))


@pytest.mark.parametrize("broken", [b"\xff" * 11, b"\xff" * 9 + b"\x02", b"\x80"])
def test_a_number_that_is_none_is_refused(broken: bytes) -> None:
    with pytest.raises(WireError):
        wire.Reader(broken).uvarint()


def test_a_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(WireError, match="UTF-8"):
        wire.Reader(b"\x02\xc3\x28").text()


def test_kinds_that_the_protocol_does_not_have_are_refused() -> None:
    for decode, payload in [
        (wire.decode_server_hello, b"\x0b" + bytes(16)),
        (wire.decode_control, b"\x77"),
        (wire.decode_event, b"\x01\x03\x02h1"),
        (wire.decode_frame, b"\x06\x00\x00\x00\x00\x00"),
    ]:
        with pytest.raises(WireError, match="unknown"):
            decode(payload)


def test_a_control_without_fields_here_is_not_written() -> None:
    with pytest.raises(ValueError, match="HOOK_REVERT"):
        wire.encode_control(Control(ControlKind.HOOK_REVERT))
    assert wire.decode_control(b"\x30\x02h1") == Control(ControlKind.HOOK_REVERT)


class TestBytesOfARealApp:
    """Answers of an app of version 0.2.4, byte for byte."""

    def test_a_welcome(self) -> None:
        payload = bytes.fromhex("00" + "20" + b"992eb4678821363b51e23155b87bf460".hex())
        payload += bytes.fromhex("00000000" + "000001a21065eeba" + "0000")
        hello = wire.decode_server_hello(payload)
        assert hello.ok
        assert (hello.session_id, hello.server_ms) == ("992eb4678821363b51e23155b87bf460", 1795571445434)

    def test_a_schema_mismatch_tells_the_client_to_reload_once_and_forget(self) -> None:
        words = b"Session refreshed due to app update"
        payload = b"\x0a" + bytes(15) + b"\x02" + bytes([len(words)]) + words + b"\x00" + b"\x0f\xa0" + b"\x00\x02\x01"
        assert wire.decode_server_hello(payload) == ServerHello(
            Status.SCHEMA_MISMATCH,
            schema_reason=SchemaReason.ID_TYPE_CHANGED,
            banner=Banner(words.decode(), dismiss_ms=4000),
            recovery=Recovery.RELOAD_ONCE,
            forget=True,
        )

    def test_a_session_that_cannot_be_mounted(self) -> None:
        hello = wire.decode_server_hello(b"\x08" + bytes(15) + b"\x02\x01")
        assert (hello.status, hello.recovery, hello.forget) == (Status.INTERNAL_ERROR, Recovery.RELOAD_ONCE, True)

    def test_recoveries_and_reasons_of_later_versions_are_unknown(self) -> None:
        hello = wire.decode_server_hello(b"\x0a" + bytes(15) + b"\x63")
        assert (hello.schema_reason, hello.banner, hello.recovery) == (SchemaReason.UNKNOWN, None, None)
        assert wire.decode_server_hello(b"\x04" + bytes(15) + b"\x63\x00").recovery is Recovery.UNKNOWN


@given(st.text(st.characters(codec="utf-8"), max_size=40).map(lambda text: f"/{text}"))
def test_the_path_of_a_page_travels_whole(path: str) -> None:
    address = urlsplit(wire.live_target(path))
    assert address.path == wire.LIVE_PATH
    assert parse_qs(address.query, keep_blank_values=True) == {"path": [path]}


@pytest.mark.parametrize(
    ("path", "sent"),
    [("/", "%2F%3Fresumed%3D1"), ("/a?b=1", "%2Fa%3Fb%3D1%26resumed%3D1")],
)
def test_the_extra_query_is_part_of_the_page_path(path: str, sent: str) -> None:
    assert wire.live_target(path, live_path="/_vango/ws", extra_query="resumed=1") == f"/_vango/ws?path={sent}"
