"""Words for people: times, sizes, digests, counts. Pure; the clock is an argument."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

_DIGEST_SHOWN_CHARS = 12
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_STEPS = ((60_000, 1_000, "s"), (3_600_000, 60_000, "min"), (172_800_000, 3_600_000, "h"))
_DAY_MS = 86_400_000


def ago(at_ms: int | None, now_ms: int) -> str:
    """How long ago a moment was: `now`, `12 s ago`, `3 min ago`, `5 h ago`, `9 d ago`; `-` for no moment."""
    if at_ms is None:
        return "-"
    passed = now_ms - at_ms
    if passed < 1_000:  # clocks of two machines differ: nothing is ever shown as in the future
        return "now"
    for below, unit, name in _STEPS:
        if passed < below:
            return f"{passed // unit} {name} ago"
    return f"{passed // _DAY_MS} d ago"


def lasted(passed_ms: float) -> str:
    """A duration: `0.4 s`, `12 s`, `1 min 05 s`, `2 h 07 min`."""
    seconds = max(passed_ms, 0) / 1_000
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(count_bytes: int) -> str:
    """A size in decimal units: `312 B`, `4.2 kB`, `18 MB`."""
    amount = float(count_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 9.95 else f"{amount:.1f} {unit}"
        amount /= 1_000
    return f"{amount:.1f} TB"


def short_digest(digest: str | None) -> str:
    """A digest cut to its first twelve hexadecimal digits: `sha256:0123456789ab`; `-` for none."""
    if not digest:
        return "-"
    kind, colon, tail = digest.partition(":")
    return f"{kind}:{tail[:_DIGEST_SHOWN_CHARS]}" if colon else digest[:_DIGEST_SHOWN_CHARS]


def plain(text: object) -> str:
    """Text of others for a terminal: no escape sequences, no control characters but newline and tab."""
    return _CONTROL.sub("", str(text)).encode("utf-8", "backslashreplace").decode()


def count_of(number: int, one: str, many: str = "") -> str:
    """A number with its noun: `1 file`, `2 files`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def spaced(name: str) -> str:
    """A machine-readable name as words: `settled_with_losses` becomes `settled with losses`."""
    return name.replace("_", " ")


def command(*parts: object) -> str:
    """A command line that can be pasted into a shell."""
    return shlex.join(str(part) for part in parts)


def listed(parts: Iterable[str], *, none: str = "-") -> str:
    """Parts with commas between them, or the word for none."""
    return ", ".join(parts) or none
