"""Logs: bounded, readable from the end, emptied under a writer that appends."""

from __future__ import annotations

from pathlib import Path

from moorage.runner.logs import LINE_MAX_CHARS, is_too_long, keep_short, tail_lines


def test_tail_is_the_last_whole_lines(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("".join(f"line {n} {'x' * 50}\n" for n in range(5000)) + "\n  \nlast\n")
    tail = tail_lines(log)
    assert len(tail) == 20
    assert tail[-1] == "last"
    assert tail[0].startswith("line 4981 ")


def test_tail_of_strange_logs(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    assert tail_lines(log) == ()
    log.write_bytes(b"")
    assert tail_lines(log) == ()
    log.write_bytes(b"\xff\xfe no text")
    assert tail_lines(log) == ("\ufffd\ufffd no text",)
    log.write_text("y" * 200_000)
    assert tail_lines(log) == ("y" * LINE_MAX_CHARS,)


def test_long_log_is_emptied_and_its_end_kept_beside_it(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    with open(log, "ab", buffering=0) as writer:
        writer.write(b"".join(b"%07d\n" % n for n in range(1000)))
        assert is_too_long(log, 4000)
        assert keep_short(log, 4000)
        writer.write(b"after\n")
    assert log.read_text() == "after\n"
    older = log.with_name("app.log.1").read_text().splitlines()
    assert older[-1] == "0000999"
    assert all(len(line) == 7 for line in older)
    assert len(older) * 8 <= 2000
    assert not keep_short(log, 4000)


def test_log_that_cannot_be_kept_is_emptied_all_the_same(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("x" * 5000)
    log.with_name("app.log.1").symlink_to(tmp_path / "nowhere" / "file")
    assert keep_short(log, 4000)
    assert log.read_text() == ""


def test_no_log_is_not_too_long(tmp_path: Path) -> None:
    assert not is_too_long(tmp_path / "app.log", 1)
    assert not keep_short(tmp_path / "app.log", 1)
