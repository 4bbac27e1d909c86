"""What /proc says, compared with what is known otherwise."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from moorage.system import proc
from tests.support.waiting import wait_until


def started(*argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, start_new_session=True)


def test_this_process() -> None:
    found = proc.process(os.getpid())
    assert found is not None
    assert (found.pid, found.parent, found.session) == (os.getpid(), os.getppid(), os.getsid(0))
    assert proc.is_alive(os.getpid(), found.started_ticks)
    assert not proc.is_alive(os.getpid(), found.started_ticks + 1)
    assert "python" in proc.command_of(os.getpid())


async def test_a_process_that_ended_is_not_alive_even_before_it_is_collected() -> None:
    child = started(sys.executable, "-c", "")
    ticks = proc.started_ticks(child.pid)
    await wait_until(lambda: not proc.is_alive(child.pid, ticks), what="its end")
    assert proc.process(child.pid) is not None  # a zombie
    child.wait()
    assert proc.process(child.pid) is None
    assert proc.command_of(child.pid) == ""
    assert proc.pss_bytes(child.pid) is None


def test_a_process_with_an_odd_name_is_read_right() -> None:
    code = "import ctypes, sys; ctypes.CDLL(None).prctl(15, b'a) R 1 (b', 0, 0, 0); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = proc.process(child.pid)
        assert found is not None
        assert found.parent == os.getpid()
        child.communicate()


async def test_descendants_come_parents_first() -> None:
    with started("sh", "-c", "sh -c 'sleep 1000; true' & wait") as child:
        try:
            await wait_until(lambda: len(proc.descendants(child.pid)) == 2, what="shell and sleep")
            shell, sleep = proc.descendants(child.pid)
            assert (shell.parent, sleep.parent) == (child.pid, shell.pid)
            assert child.pid in {each.pid for each in proc.descendants(os.getpid())}
            own, tree = proc.pss_bytes(child.pid), proc.tree_pss_bytes(child.pid)
            assert own is not None
            assert tree > own > 0
        finally:
            os.killpg(child.pid, signal.SIGKILL)


def test_listeners_are_found_with_their_owner_on_both_families() -> None:
    with socket.socket() as four, socket.socket(socket.AF_INET6) as six:
        four.bind(("127.0.0.1", 0))
        six.bind(("::1", 0))
        for each in (four, six):
            assert proc.listening_pid(each.getsockname()[1]) is None  # bound, not listening
            each.listen()
        (found,) = proc.listeners(four.getsockname()[1])
        assert (found.address, found.pid) == ("127.0.0.1", os.getpid())
        (found,) = proc.listeners(six.getsockname()[1])
        assert (found.address, found.pid) == ("::1", os.getpid())


def test_free_ports_lie_outside_the_range_of_client_sockets() -> None:
    assert all(proc.SERVER_PORT_FIRST <= proc.free_port() <= proc.SERVER_PORT_LAST for _ in range(20))
