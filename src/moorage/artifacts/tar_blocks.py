"""The tar format as artifact archives use it: regular files only, written by us byte for byte.

Rules: the same name, size and mode give the same bytes on every machine and with every version of Python, so a reader
need not interpret a header that may be hostile: it knows which bytes must come and compares. Any `tar` can list and
unpack the result (POSIX.1-2001: ustar blocks, and an extended header in front of a name that ustar cannot hold).
"""

from __future__ import annotations

import tarfile

BLOCK_BYTES = 512
END = bytes(2 * BLOCK_BYTES)  # how every tar ends
FILE_MAX_BYTES = 8**11 - 1  # eleven octal digits
_NAME_MAX_BYTES = 100
_EXTENDED_NAME = "././@PaxHeader"
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
    tarfile.CONTTYPE: "a contiguous file",
}


def member_header(name: str, size: int, mode: int) -> bytes:
    """The blocks in front of a file's content: one, or three and more for a long name or one beyond ASCII."""
    assert 0 <= size <= FILE_MAX_BYTES
    assert 0 <= mode <= 0o777
    encoded = name.encode()
    if len(encoded) <= _NAME_MAX_BYTES and name.isascii():
        return _block(encoded, size, mode, tarfile.REGTYPE)
    record = _record("path", encoded)
    extended = _block(_EXTENDED_NAME.encode(), len(record), 0, tarfile.XHDTYPE) + record + padding(len(record))
    short = name.encode("ascii", "replace")[:_NAME_MAX_BYTES]
    return extended + _block(short, size, mode, tarfile.REGTYPE)


def padding(size: int) -> bytes:
    """The zeros behind a content of this many bytes."""
    return bytes(-size % BLOCK_BYTES)


def member_size(name: str, size: int) -> int:
    """How many bytes of the tar a file of this name and size takes."""
    return len(member_header(name, 0, 0)) + size + len(padding(size))


def first_member(block: bytes) -> tuple[str, int] | None:
    """Name and size of the file that a block announces; None when it announces no plain file."""
    try:
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return (member.name, member.size) if member.isreg() else None


def odd_kind(block: bytes) -> tuple[str, str] | None:
    """(name, what it is) of a member that is no regular file; None for a file or a block that cannot be read."""
    try:
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    kind = _KINDS.get(member.type)
    return (member.name, kind) if kind else None


def _block(name: bytes, size: int, mode: int, kind: bytes) -> bytes:
    """One ustar header: nobody's file, of the beginning of time."""
    fields = (
        name.ljust(_NAME_MAX_BYTES, b"\0"),
        b"%07o\0" % mode,
        b"%07o\0" % 0,  # user
        b"%07o\0" % 0,  # group
        b"%011o\0" % size,
        b"%011o\0" % 0,  # time
        b" " * 8,  # its own sum counts as spaces
        kind,
        bytes(_NAME_MAX_BYTES),  # target of a link
        b"ustar\x0000",
        bytes(32 + 32),  # names of user and group
        b"%07o\0%07o\0" % (0, 0),  # device
        bytes(155 + 12),
    )
    block = b"".join(fields)
    assert len(block) == BLOCK_BYTES
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _record(key: str, value: bytes) -> bytes:
    """A record of an extended header; its first word is its own length, that word included."""
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = len(rest)
    while len(rest) + len(str(length)) != length:
        length = len(rest) + len(str(length))
    return str(length).encode() + rest
