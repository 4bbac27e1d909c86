"""What is collected, and what never is."""

from __future__ import annotations

from pathlib import Path

from moorage.domain.allocation import State
from moorage.runner.housekeeping import (
    LOGS_KEPT_COUNT,
    LOGS_KEPT_S,
    STORE_KEPT_S,
    Ended,
    folders_to_remove,
    sweep_allocations,
    sweep_stores,
)
from moorage.runner.record import Place, Record, write_record
from tests.runner.kit import wish

NOW = 10_000_000_000


def ended(root: Path, name: str, ended_ms: int | None, state: State = State.STOPPED) -> Place:
    place = Place(root / name)
    (place.private / "tmp").mkdir(parents=True)
    place.log.write_text("a line\n")
    write_record(place, Record(desired=wish("sha256:0", name, port=1), state=state, ended_ms=ended_ms))
    return place


def test_the_last_ones_are_kept_for_a_day() -> None:
    folders = [Ended(Path(f"alc_{n}"), NOW - n) for n in range(15)]
    assert folders_to_remove(folders, NOW) == tuple(Path(f"alc_{n}") for n in range(LOGS_KEPT_COUNT, 15))
    assert folders_to_remove([Ended(Path("old"), NOW - LOGS_KEPT_S * 1000 - 1)], NOW) == (Path("old"),)


def test_private_files_go_at_once_and_logs_later(tmp_path: Path) -> None:
    place = ended(tmp_path, "alc_1", NOW)
    assert sweep_allocations(tmp_path, set(), NOW) == ()
    assert not place.private.exists()
    assert place.log.exists()
    assert sweep_allocations(tmp_path, set(), NOW + LOGS_KEPT_S * 1000 + 1) == ("alc_1",)
    assert not place.folder.exists()


def test_known_living_and_unreadable_folders_are_not_touched(tmp_path: Path) -> None:
    known = ended(tmp_path, "alc_known", 0)
    living = ended(tmp_path, "alc_living", None, State.READY)
    unreadable = ended(tmp_path, "alc_unreadable", 0)
    unreadable.record.write_text("{")
    assert sweep_allocations(tmp_path, {"alc_known"}, NOW) == ()
    assert all(place.private.exists() for place in (known, living, unreadable))
    assert sweep_allocations(tmp_path / "nowhere", set(), NOW) == ()


def test_data_of_a_store_stays_for_a_day_without_anybody_wanting_it(tmp_path: Path) -> None:
    (tmp_path / "env_1" / "appendonlydir").mkdir(parents=True)
    day = STORE_KEPT_S * 1000
    assert sweep_stores(tmp_path, set(), NOW) == ()
    assert sweep_stores(tmp_path, set(), NOW + day) == ()
    assert sweep_stores(tmp_path, {"env_1"}, NOW + day + 1) == ()  # wanted again: the day begins anew
    assert sweep_stores(tmp_path, set(), NOW + day + 2) == ()
    assert (tmp_path / "env_1").is_dir()
    assert sweep_stores(tmp_path, set(), NOW + 2 * day + 3) == ("env_1",)
    assert not (tmp_path / "env_1").exists()


def test_mark_that_cannot_be_read_begins_the_day_anew(tmp_path: Path) -> None:
    (tmp_path / "env_1").mkdir()
    (tmp_path / "env_1/unwanted-since").write_text("long ago")
    assert sweep_stores(tmp_path, set(), NOW) == ()
    assert sweep_stores(tmp_path, set(), NOW) == ()
    assert (tmp_path / "env_1/unwanted-since").read_text() == str(NOW)
