"""Whatever a failed test left running is ended: it is recognised by its HOME below the test's folder."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.system import proc


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    mark = f"HOME={tmp_path}/".encode()
    for each in proc.processes():
        with contextlib.suppress(OSError):
            if any(line.startswith(mark) for line in Path(f"/proc/{each.pid}/environ").read_bytes().split(b"\0")):
                os.kill(each.pid, signal.SIGKILL)
