"""One platform per data directory, and whom to ask when it is taken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moorage.domain.errors import Refused
from moorage.system.lock import lock_holder, take_lock

_HOLDER = """
import sys
from pathlib import Path
from moorage.system.lock import take_lock
lock = take_lock(Path(sys.argv[1]))
lock.publish("http://127.0.0.1:7400")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process_holding(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    try:
        yield process
    finally:
        process.communicate()


def test_a_second_one_is_refused_with_the_first_ones_pid(tmp_path: Path) -> None:
    path = tmp_path / "moorage.lock"
    with another_process_holding(path) as holder:
        with pytest.raises(Refused) as refused:
            take_lock(path)
        known = lock_holder(path)
    problem = refused.value.problem
    assert (problem.code, problem.facts) == ("already-running", {"pid": holder.pid, "api": "http://127.0.0.1:7400"})
    assert known is not None
    assert (known.pid, known.api) == (holder.pid, "http://127.0.0.1:7400")


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "moorage.lock"
    with another_process_holding(path) as holder:
        holder.kill()
        holder.wait()
        assert path.read_text()  # it still names the dead one, and nobody is misled
        assert lock_holder(path) is None
        with take_lock(path, api="http://x"):
            mine = lock_holder(path)
            assert mine is not None
            assert (mine.pid, mine.api) == (os.getpid(), "http://x")


def test_a_released_lock_is_free_and_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "moorage.lock"
    assert lock_holder(path) is None
    with take_lock(path), pytest.raises(Refused):
        take_lock(path)
    assert lock_holder(path) is None
    take_lock(path).release()


def test_a_child_of_the_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "moorage.lock"
    lock = take_lock(path)
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        lock.release()
        take_lock(path).release()
    finally:
        child.communicate()
