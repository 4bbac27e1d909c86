"""In a real terminal (a pseudo-terminal of 80 columns): colours, a moving stage, questions, Ctrl-C.

Each starts an interpreter; of those that look at the same code only one is among the fast tests.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest

from moorage.cli.call import Exit
from moorage.cli.words import plain
from moorage.system.clock import monotonic_s, now_ms
from moorage.wire.api import SecretView
from tests.cli.control import TOKEN, Control
from tests.cli.views import PROMOTION_ID, app_view, deployment_view, operation, ref
from tests.support.waiting import wait_until

ALSO = pytest.mark.servers
PROGRAM = "from moorage.cli.app import build_app; build_app()()"
TIMEOUT_S = 20.0


def _heed_ctrl_c() -> None:
    """As a terminal's shell starts a command; tests in the background of a shell have inherited to ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A command in a terminal, and everything that it has written there."""

    def __init__(self, control: Control, home: Path, *words: str, **environ: str) -> None:
        self._master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
        own = {"MOORAGE_API": control.url, "MOORAGE_TOKEN": TOKEN, "MOORAGE_HOME": str(home), "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={"PATH": "/usr/bin:/bin", **own, **environ},
            start_new_session=True,
            preexec_fn=_heed_ctrl_c,
        )
        os.close(slave)
        self.raw = ""

    def until(self, text: str) -> None:
        """Read until this text is there."""
        deadline = monotonic_s() + TIMEOUT_S
        while text not in plain(self.raw):
            assert monotonic_s() < deadline, f"no {text!r} in {self.raw!r}"
            assert self._read(), f"it ended without {text!r}: {self.raw!r}"

    async def until_unseen(self) -> None:
        """Wait until the terminal shows no longer what is typed; what was typed before is thrown away."""
        await wait_until(lambda: not termios.tcgetattr(self._master)[3] & termios.ECHO, what="no echo")

    def type(self, text: str) -> None:
        """Type on the keyboard."""
        os.write(self._master, text.encode())

    def end(self) -> int:
        """Read to the end; the exit code."""
        deadline = monotonic_s() + TIMEOUT_S
        while self._read():
            assert monotonic_s() < deadline, f"it does not end: {self.raw!r}"
        return self.process.wait(TIMEOUT_S)

    def close(self) -> None:
        """Let it go."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], TIMEOUT_S)
        assert ready, f"nothing more came after {self.raw!r}"
        try:
            data = os.read(self._master, 65_536)
        except OSError:  # how Linux says that the other side has closed
            return False
        self.raw += data.decode(errors="replace")
        return bool(data)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def test_tables_fit_and_have_colours(control: Control, terminals: list[Terminal], tmp_path: Path) -> None:
    control.on(
        "GET", "/v1/apps/board/deployments", (deployment_view(5), deployment_view(4, "failed", preview_url=None))
    )
    terminals.append(Terminal(control, tmp_path, "deployments", "board"))
    assert terminals[0].end() == Exit.OK
    lines = plain(terminals[0].raw).splitlines()
    assert max(map(len, lines)) <= 80
    assert "      http://5--board.localhost:7080/" in lines
    assert "\x1b[31mfailed" in terminals[0].raw


@ALSO
def test_no_color_is_honoured(control: Control, terminals: list[Terminal], tmp_path: Path) -> None:
    control.on("GET", "/v1/apps/board/deployments", (deployment_view(4, "failed"),))
    terminals.append(Terminal(control, tmp_path, "deployments", "board", NO_COLOR="1"))
    assert terminals[0].end() == Exit.OK
    assert "\x1b[31m" not in terminals[0].raw


@ALSO
def test_json_in_a_terminal_is_for_eyes_too(control: Control, terminals: list[Terminal], tmp_path: Path) -> None:
    control.on("GET", "/v1/apps", (app_view(),))
    terminals.append(Terminal(control, tmp_path, "apps", "--json"))
    assert terminals[0].end() == Exit.OK
    assert '\n  "items": [' in terminals[0].raw.replace("\r", "")
    assert "\x1b" not in terminals[0].raw


def test_a_stage_moves_and_ctrl_c_leaves_the_operation_alone(
    control: Control, terminals: list[Terminal], tmp_path: Path
) -> None:
    control.on("GET", f"/v1/operations/{PROMOTION_ID}", operation(PROMOTION_ID, "promotion", "requested", "baking"))
    terminals.append(Terminal(control, tmp_path, "ops", PROMOTION_ID, "--follow"))
    terminals[0].until("✓ requested")
    terminals[0].until("baking")
    os.killpg(terminals[0].process.pid, signal.SIGINT)
    assert terminals[0].end() == Exit.INTERRUPTED
    assert f"moorage ops {PROMOTION_ID} --follow" in plain(terminals[0].raw)
    assert not control.changes()


@ALSO
def test_the_end_is_marked_and_told_whole(control: Control, terminals: list[Terminal], tmp_path: Path) -> None:
    done = operation(PROMOTION_ID, "promotion", "requested", "rolled_back", succeeded=False)
    control.on("GET", f"/v1/operations/{PROMOTION_ID}", operation(PROMOTION_ID, "promotion", "requested"), done)
    terminals.append(Terminal(control, tmp_path, "ops", PROMOTION_ID, "--follow"))
    assert terminals[0].end() == Exit.ENDED
    assert "✗ rolled back" in plain(terminals[0].raw)


@pytest.mark.parametrize(
    ("answer", "code", "sent"),
    [
        pytest.param("y\n", Exit.OK, 1, marks=ALSO),
        pytest.param("n\n", Exit.REFUSED, 0, marks=ALSO),
        ("\n", Exit.REFUSED, 0),
    ],
)
def test_destroy_asks(
    control: Control, terminals: list[Terminal], tmp_path: Path, answer: str, code: Exit, sent: int
) -> None:
    control.on("GET", "/v1/apps", (app_view(),))
    control.on("DELETE", "/v1/apps/board", ref(PROMOTION_ID))
    destroyed = operation(PROMOTION_ID, "destroy", "requested", "removing", "destroyed", succeeded=True)
    control.on("GET", f"/v1/operations/{PROMOTION_ID}", destroyed)
    terminals.append(Terminal(control, tmp_path, "destroy", "board"))
    terminals[0].until("with 12 attached sockets")
    terminals[0].until("Destroy board?")
    terminals[0].type(answer)
    assert terminals[0].end() == code
    assert len(control.changes()) == sent


async def test_a_secret_is_typed_unseen(control: Control, terminals: list[Terminal], tmp_path: Path) -> None:
    view = SecretView(name="API_KEY", scope="runtime", version=1, updated_ms=now_ms())
    control.on("PUT", "/v1/apps/board/secrets/API_KEY", view)
    terminals.append(Terminal(control, tmp_path, "secret", "set", "board", "API_KEY"))
    terminals[0].until("Value of API_KEY")
    await terminals[0].until_unseen()
    terminals[0].type("s3cret\n")
    assert terminals[0].end() == Exit.OK
    assert control.changes()[0].json["value"] == "s3cret"
    assert "s3cret" not in terminals[0].raw
