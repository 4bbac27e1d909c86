"""Signatures of stored records, on a record that Vango 0.2.4 itself has written."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from moorage.vango.signatures import signed_anew

FIRST, SECOND, THIRD = "11" * 32, "22" * 32, "33" * 32
# Shared state with one note in it, stored by an app whose persistence secret was FIRST.
WRITTEN = bytes.fromhex(
    "564747530002000001a2107aef0f205b72f22f39d19d5bca509aed682ba6c54a86f3779561d38c8b208e4c825a5814444770b55f258a49ad"
    "f266159bac169fdafb2027886411b809ac806deb1f1e0000004481a4624944781a4649563346345032355a573252564e3233544c46334e58"
    "4552586441744d731b000001a2107aef0e6454657874626e3165436f6c6f726679656c6c6f7706f4867b1303537ca3f954c4e9007b86d22a"
    "dd6de1068f902417baaf28e75abd"
)


def session_record(secret: str, payload: bytes = b"\xa1\x01\x60") -> bytes:
    head = b"VNGO\x01\x00\x01" + bytes(32) + bytes(8) + len(payload).to_bytes(4, "big")
    return head + payload + hmac.digest(bytes.fromhex(secret), head + payload, hashlib.sha256)


def test_a_record_of_the_framework_bears_its_secret() -> None:
    anew = signed_anew(WRITTEN, SECOND, FIRST)
    assert anew is not None
    assert (anew[:-32], len(anew)) == (WRITTEN[:-32], len(WRITTEN)), "content and time stay as they are"
    assert anew[-32:] == hmac.digest(bytes.fromhex(SECOND), WRITTEN[:-32], hashlib.sha256)
    assert signed_anew(anew, FIRST, SECOND) == WRITTEN


def test_a_session_is_signed_as_shared_state_is() -> None:
    assert signed_anew(session_record(FIRST), SECOND, FIRST) == session_record(SECOND)


@pytest.mark.parametrize(
    "record",
    [
        session_record(SECOND),
        session_record(THIRD),
        WRITTEN[:-1],
        WRITTEN[:-1] + bytes([WRITTEN[-1] ^ 1]),
        WRITTEN + b"\0",
        bytes([0]) + WRITTEN[1:],
        b"VGGS" + bytes(32),
        b"VNGO",
        b"",
        hmac.digest(bytes.fromhex(FIRST), b"", hashlib.sha256),
    ],
    ids=["present", "strange", "cut", "altered", "longer", "other kind", "zeros", "short", "empty", "only a signature"],
)
def test_anything_else_is_left_alone(record: bytes) -> None:
    assert signed_anew(record, SECOND, FIRST) is None
