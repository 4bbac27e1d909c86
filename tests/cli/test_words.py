"""Words for people: every step of times and sizes, and text that tries to steer a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.cli.words import ago, command, count_of, lasted, plain, short_digest, size, spaced

NOW = 1_000_000_000_000


@pytest.mark.parametrize(
    ("passed_ms", "said"),
    [
        (-5_000, "now"),
        (0, "now"),
        (999, "now"),
        (1_000, "1 s ago"),
        (59_999, "59 s ago"),
        (60_000, "1 min ago"),
        (3_599_999, "59 min ago"),
        (3_600_000, "1 h ago"),
        (172_799_999, "47 h ago"),
        (172_800_000, "2 d ago"),
        (8_640_000_000, "100 d ago"),
    ],
)
def test_ago_has_one_unit(passed_ms: int, said: str) -> None:
    assert ago(NOW - passed_ms, NOW) == said


def test_no_moment_is_a_dash() -> None:
    assert ago(None, NOW) == "-"


@pytest.mark.parametrize(
    ("passed_ms", "said"),
    [
        (-1, "0.0 s"),
        (0, "0.0 s"),
        (449, "0.4 s"),
        (9_940, "9.9 s"),
        (12_345, "12 s"),
        (65_000, "1 min 05 s"),
        (3_599_900, "1 h 00 min"),
        (7_620_000, "2 h 07 min"),
    ],
)
def test_durations_grow_coarser(passed_ms: int, said: str) -> None:
    assert lasted(passed_ms) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (9_960, "10 kB"), (999_600, "1.0 MB"), (18_400_000, "18 MB")],
)
def test_sizes_are_decimal(count: int, said: str) -> None:
    assert size(count) == said


def test_digests_are_short() -> None:
    assert short_digest("sha256:" + "ab" * 32) == "sha256:abababababab"
    assert short_digest("ab" * 32) == "abababababab"
    assert short_digest(None) == short_digest("") == "-"


@given(st.text())
def test_foreign_text_never_steers_a_terminal(text: str) -> None:
    shown = plain(text)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in shown)
    assert not any(0x7F <= ord(c) < 0xA0 for c in shown)


def test_colours_of_others_are_taken_out_whole() -> None:
    assert plain("\x1b[31mred\x1b[0m \x1b]0;title\x07") == "red ]0;title"


def test_commands_can_be_pasted() -> None:
    assert command("moorage", "promote", "board", "--deployment", 5) == "moorage promote board --deployment 5"
    assert command("moorage", "deploy", "my app") == "moorage deploy 'my app'"


def test_names_and_counts() -> None:
    assert spaced("settled_with_losses") == "settled with losses"
    assert (count_of(1, "file"), count_of(0, "file"), count_of(2, "match", "matches")) == (
        "1 file",
        "0 files",
        "2 matches",
    )
