"""Requests per second through the edge, as a ratio to a plain HAProxy with the same header work.

Both proxies have one thread and the same static backend (a HAProxy that answers by itself), and are measured in turns
by wrk, so that whatever else the machine does falls on both. The edge routes among many routes and checks the session's
pin; the peer does nothing but the header work. `fresh` is the same without a pin: every answer then sets one.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import statistics
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from moorage.edge.proxy.actual import ActualProxy
from moorage.edge.proxy.commands import (
    AddServer,
    Command,
    SetMark,
    SetNumber,
    SetPinKey,
    SetRoute,
    SetSlot,
    StartServer,
)
from moorage.edge.proxy.haproxy import HAProxy
from moorage.edge.proxy.hot import HotEntry
from moorage.edge.proxy.launch import connections_max_count, proxy_command, write_configuration
from moorage.edge.proxy.render import ProxySettings
from moorage.edge.proxy.rules import HOST_RULE, PIN_COOKIE, header_rules
from moorage.edge.proxy.runtime import ProxyUnreachable
from moorage.system.binaries import find_haproxy
from moorage.system.clock import monotonic_s, wait_until
from moorage.system.proc import free_port

HOST = "bench.localhost"
ROUTES_COUNT = 10_000
CONNECTIONS_COUNT = 32
START_TIMEOUT_S = 10.0
_RATE = re.compile(r"Requests/sec:\s*([0-9.]+)")
_FAILED = re.compile(r"Non-2xx or 3xx responses: (\d+)")

_PLAIN = """
global
    maxconn 2000
    noreuseport
    nbthread 1
    tune.bufsize 32768
    tune.maxrewrite 2048
defaults
    mode http
    timeout connect 3s
    timeout client 60s
    timeout server 60s
    http-reuse safe
"""
_STATIC = """
frontend static
    bind 127.0.0.1:{port}
    http-request return status 200 content-type text/plain string hello
"""
_PEER = """
    retries 1
    retry-on conn-failure
    option http-restrict-req-hdr-names delete
frontend peer
    bind 127.0.0.1:{port}
    unique-id-format %[uuid()]
    {rules}
    default_backend app
backend app
    server app 127.0.0.1:{target}
"""


def _peer_rules() -> str:
    """The very lines of the edge that prepare the headers."""
    return "\n".join((HOST_RULE, *header_rules((), is_six=False)))


@asynccontextmanager
async def _running(config: Path) -> AsyncIterator[int]:
    """A proxy with this configuration; its pid."""
    process = await asyncio.create_subprocess_exec(
        *proxy_command(find_haproxy().path, config),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


async def _answers(port: int) -> None:
    async def connects() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    assert await wait_until(connects, timeout_s=START_TIMEOUT_S), f"nothing listens on port {port}"


def _commands(target: int) -> Sequence[Command]:
    """One route to the static backend among many others."""
    server = (AddServer(1, "127.0.0.1", target), StartServer(1), SetNumber(1, False))
    slots = [SetSlot(slot, 1) for slot in range(ROUTES_COUNT)]
    entries = [HotEntry(slot, 1, False, False, 1) for slot in range(ROUTES_COUNT)]
    routes = [SetRoute(f"r{slot}.localhost" if slot else HOST, entry) for slot, entry in enumerate(entries)]
    return (SetPinKey("YmVuY2g="), *server, *slots, *routes, SetMark("bench:1"))


async def _fill(socket: Path, target: int) -> float:
    """Fill the edge's proxy; seconds it took."""
    proxy = HAProxy(socket)
    seen: list[ActualProxy] = []

    async def observed() -> bool:
        try:
            seen.append(await proxy.observe())
        except ProxyUnreachable:
            return False
        return True

    assert await wait_until(observed, timeout_s=START_TIMEOUT_S)
    start = monotonic_s()
    await proxy.apply(_commands(target))
    took = monotonic_s() - start
    await proxy.close()
    return took


async def _pin(port: int) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{port}/", headers={"Host": HOST})
    assert answer.status_code == 200
    return answer.cookies[PIN_COOKIE]


async def _wrk(port: int, seconds: int, cookie: str | None) -> float:
    headers = ["-H", f"Host: {HOST}"]
    if cookie:
        headers += ["-H", f"Cookie: {PIN_COOKIE}={cookie}"]
    words = ["wrk", "-t1", f"-c{CONNECTIONS_COUNT}", f"-d{seconds}s", *headers, f"http://127.0.0.1:{port}/"]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    text = output.decode()
    failed = _FAILED.search(text)
    assert not failed, f"{failed and failed.group(1)} answers were not 200"
    rate = _RATE.search(text)
    assert rate, text
    return float(rate.group(1))


async def _measure(rounds: int, seconds: int) -> dict[str, object]:
    static, peer, edge = free_port(), free_port(), free_port()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moorage-bench-")))
        settings = ProxySettings(folder, folder / "edge.sock", "127.0.0.1", edge, connections_max_count(), threads=1)
        (folder / "static.cfg").write_text(_PLAIN + _STATIC.format(port=static))
        (folder / "peer.cfg").write_text(_PLAIN + _PEER.format(port=peer, target=static, rules=_peer_rules()))
        pids = [
            await stack.enter_async_context(_running(config))
            for config in (folder / "static.cfg", folder / "peer.cfg", write_configuration(settings))
        ]
        for port in (static, peer, edge):
            await _answers(port)
        fill_s = await _fill(settings.runtime_socket, static)
        pin = await _pin(edge)
        runs = {"peer": (peer, pids[1], pin), "pinned": (edge, pids[2], pin), "fresh": (edge, pids[2], None)}
        taken = [{name: await _run(*run, seconds) for name, run in runs.items()} for _ in range(rounds)]
        return {"fill_s": round(fill_s, 3), "routes": ROUTES_COUNT, "rounds": rounds} | _figures(taken)


@dataclass(frozen=True)
class Run:
    """One turn: requests per second, and microseconds of the proxy's own processor time per request."""

    rate_per_s: float
    cpu_us: float


async def _run(port: int, pid: int, pin: str | None, seconds: int) -> Run:
    before_s = _cpu_s(pid)
    rate = await _wrk(port, seconds, pin)
    return Run(rate, (_cpu_s(pid) - before_s) / (rate * seconds) * 1e6)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _figures(taken: Sequence[Mapping[str, Run]]) -> dict[str, object]:
    """Medians over the rounds; a ratio compares the two runs of one round."""

    def rate(name: str) -> float:
        return round(statistics.median(turn[name].rate_per_s / turn["peer"].rate_per_s for turn in taken), 3)

    def cpu(name: str) -> float:
        return round(statistics.median(turn["peer"].cpu_us / turn[name].cpu_us for turn in taken), 3)

    return {
        "throughput_vs_haproxy": rate("pinned"),
        "throughput_fresh_vs_haproxy": rate("fresh"),
        "cpu_vs_haproxy": cpu("pinned"),
        "cpu_fresh_vs_haproxy": cpu("fresh"),
        "requests_per_s": {
            name: round(statistics.median(turn[name].rate_per_s for turn in taken)) for name in taken[0]
        },
        "cpu_us_per_request": {
            name: round(statistics.median(turn[name].cpu_us for turn in taken), 1) for name in taken[0]
        },
    }


def measure(*, rounds: int = 9, seconds: int = 2) -> dict[str, object]:
    """The figures as JSON-able values; needs wrk on PATH.

    `throughput_vs_haproxy` is the median over the rounds of edge / peer, each pair measured back to back;
    `cpu_vs_haproxy` is the same in processor time per request, which a busy machine disturbs less.
    """
    if shutil.which("wrk") is None:
        raise RuntimeError("wrk is not installed: apt-get install wrk")
    return asyncio.run(_measure(rounds, seconds))


if __name__ == "__main__":
    print("RESULT", json.dumps(measure()))
