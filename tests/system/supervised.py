"""A supervisor in a process of its own, as tests start it: `python -m tests.system.supervised SPEC.json`.

The specification lists children; the process prints one JSON line when all are ready and one when it has stopped.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from moorage.system import proc
from moorage.system.children import Child, HttpReady, PlatformState, ProcessState, TcpReady, UnixReady, read_state
from moorage.system.supervise import Supervisor

_READY = {"tcp": TcpReady, "http": HttpReady, "unix": lambda path: UnixReady(Path(path))}


def child_of(raw: dict[str, Any]) -> Child:
    """A child from its JSON form."""
    ready = raw.pop("ready", None)
    return Child(
        name=raw.pop("name"),
        argv=tuple(raw.pop("argv")),
        environ=raw.pop("environ"),
        log_path=Path(raw.pop("log_path")),
        ready=_READY[ready[0]](*ready[1:]) if ready else None,
        depends_on=tuple(raw.pop("depends_on", ())),
        parent_death_signal=signal.Signals(raw.pop("parent_death_signal", signal.SIGTERM)),
        **raw,
    )


def main(path: Path) -> int:
    """Supervise what the specification says."""
    spec = json.loads(path.read_text())
    supervisor = Supervisor([child_of(each) for each in spec["children"]], state_path=Path(spec["state_path"]))
    failure = asyncio.run(supervisor.run(on_ready=lambda: print(json.dumps({"ready": os.getpid()}), flush=True)))
    said = (
        {"failed": failure.child, "exit": failure.exit_code, "tail": failure.log_tail} if failure else {"stopped": True}
    )
    print(json.dumps(said), flush=True)
    return 1 if failure else 0


@dataclass
class Platform:
    """A running supervisor and how a test looks at it."""

    process: subprocess.Popen[bytes]
    state_path: Path
    out: BinaryIO
    seen: list[dict[str, Any]] = field(default_factory=list)

    def line(self) -> dict[str, Any]:
        """The next line it prints (blocks; the test's own timeout is the limit)."""
        said: dict[str, Any] = json.loads(self.out.readline())
        self.seen.append(said)
        return said

    def state(self) -> PlatformState:
        """The state file now."""
        state = read_state(self.state_path)
        assert state is not None
        return state

    def child(self, name: str) -> ProcessState:
        """One child in the state file."""
        return next(each for each in self.state().processes if each.name == name)

    def tell(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 20.0) -> int:
        """Its exit code."""
        return self.process.wait(timeout_s)

    def end(self) -> None:
        """Whatever the test did: nothing of it stays."""
        below = [each.pid for each in proc.descendants(self.process.pid)]
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        known = [each.pid for each in self.state().processes if each.pid] if self.state_path.exists() else []
        for pid in {*below, *known}:
            if proc.is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.out.close()


def start(folder: Path, children: Sequence[Mapping[str, Any]]) -> Platform:
    """Start a supervisor over these children in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    spec, state_path = folder / "spec.json", folder / "run" / "processes.json"
    filled = [{"environ": dict(os.environ), "log_path": str(folder / f"{c['name']}.log"), **c} for c in children]
    spec.write_text(json.dumps({"children": filled, "state_path": str(state_path)}))
    with open(folder / "supervisor.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.supervised", str(spec)],
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
    assert process.stdout is not None
    return Platform(process, state_path, process.stdout)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
