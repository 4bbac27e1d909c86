"""What starts a proxy: the configuration on disk, its check, the command line."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

from moorage.domain.errors import MoorageError, Problem
from moorage.edge.proxy.render import CONFIG_NAME, SOCKET_PATH_MAX_BYTES, ProxySettings, connections_for, render
from moorage.system.files import write_private

_CHECK_TIMEOUT_S = 10.0
_OUTPUT_MAX_CHARS = 2000


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
