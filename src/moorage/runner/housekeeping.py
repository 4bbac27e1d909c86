"""What a runner removes from its host: folders of allocations and stores that nothing desires any more.

Rules: what is desired, alive, or not understood is never touched. The app's private files go as soon as the
allocation is forgotten; logs and records stay for the last few allocations, a store's data for a day.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from moorage.runner.record import Place, read_record
from moorage.system.files import write_private

UNWANTED_NAME = "unwanted-since"  # a file of its own: the store's record has one writer, its run
LOGS_KEPT_COUNT = 10
LOGS_KEPT_S = 24 * 3600
STORE_KEPT_S = 24 * 3600  # a person who destroyed the wrong environment has a day to notice


@dataclass(frozen=True, slots=True)
class Ended:
    """The folder of an allocation that ended and is no longer desired."""

    folder: Path
    ended_ms: int


def folders_to_remove(ended: Iterable[Ended], now_ms: int) -> tuple[Path, ...]:
    """All but the LOGS_KEPT_COUNT last, and of those the ones older than LOGS_KEPT_S."""
    newest_first = sorted(ended, key=lambda each: each.ended_ms, reverse=True)
    return tuple(
        each.folder
        for rank, each in enumerate(newest_first)
        if rank >= LOGS_KEPT_COUNT or now_ms - each.ended_ms > LOGS_KEPT_S * 1000
    )


def sweep_allocations(root: Path, known: Collection[str], now_ms: int) -> tuple[str, ...]:
    """Remove folders of allocations that ended and are not `known`; the names of those removed. Blocks."""
    ended = []
    for folder in _folders(root):
        record = read_record(Place(folder))
        if folder.name not in known and record is not None and record.is_over:
            shutil.rmtree(Place(folder).private, ignore_errors=True)
            ended.append(Ended(folder, record.ended_ms or 0))
    gone = folders_to_remove(ended, now_ms)
    for folder in gone:
        shutil.rmtree(folder, ignore_errors=True)
    return tuple(folder.name for folder in gone)


def sweep_stores(root: Path, known: Collection[str], now_ms: int) -> tuple[str, ...]:
    """Remove the data of stores that were not `known` for STORE_KEPT_S; the environments of those removed. Blocks.

    Raises OSError when the time since which a store is unwanted cannot be written.
    """
    gone = []
    for folder in _folders(root):
        mark = folder / UNWANTED_NAME
        if folder.name in known:
            mark.unlink(missing_ok=True)
        elif not mark.exists():
            write_private(mark, str(now_ms).encode())
        elif now_ms - _milliseconds(mark, otherwise=now_ms) > STORE_KEPT_S * 1000:
            shutil.rmtree(folder, ignore_errors=True)
            gone.append(folder.name)
    return tuple(gone)


def _milliseconds(mark: Path, *, otherwise: int) -> int:
    try:
        return int(mark.read_text())
    except (OSError, ValueError):
        mark.unlink(missing_ok=True)  # unreadable: the time begins anew
        return otherwise


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(found for found in root.iterdir() if found.is_dir() and not found.is_symlink())
    except OSError:
        return []
