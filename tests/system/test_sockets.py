"""Ending the input of accepted connections: the app reads an end, and can still write."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from moorage.system.sockets import end_input, step_between

CONNECTIONS_COUNT = 5
PATIENCE_S = 5.0


@pytest.fixture
def accepted() -> Iterator[tuple[int, list[tuple[socket.socket, socket.socket]]]]:
    """A port of this process, and pairs of (client, accepted)."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = int(listener.getsockname()[1])
        pairs = []
        for _ in range(CONNECTIONS_COUNT):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S))
            mine = stack.enter_context(listener.accept()[0])
            mine.settimeout(PATIENCE_S)
            pairs.append((client, mine))
        yield port, pairs


def test_each_reads_an_end_and_can_still_write(
    accepted: tuple[int, list[tuple[socket.socket, socket.socket]]],
) -> None:
    port, pairs = accepted
    assert end_input(os.getpid(), port, per_s=1000, within_s=0.05) == CONNECTIONS_COUNT
    for client, mine in pairs:
        assert mine.recv(1) == b""
        mine.sendall(b"still here")
        assert client.recv(10) == b"still here"


def test_what_had_arrived_is_read_first(accepted: tuple[int, list[tuple[socket.socket, socket.socket]]]) -> None:
    port, pairs = accepted
    pairs[0][0].sendall(b"typed")
    assert pairs[0][1].recv(5, socket.MSG_PEEK) == b"typed"  # it is here
    end_input(os.getpid(), port, per_s=1000, within_s=0.05)
    assert pairs[0][1].recv(5) == b"typed"
    assert pairs[0][1].recv(1) == b""


def test_a_port_without_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert end_input(os.getpid(), listener.getsockname()[1], per_s=1, within_s=60) == 0


@pytest.mark.parametrize(
    ("count", "expected_s"),
    [(1, 0.01), (10, 0.01), (100, 0.01), (200, 0.005), (10_000, 0.0001), (0, 0.01)],
)
def test_the_step_keeps_the_rate_until_all_would_take_too_long(count: int, expected_s: float) -> None:
    assert step_between(count, per_s=100, within_s=1.0) == pytest.approx(expected_s)
