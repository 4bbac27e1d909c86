"""What the edge believes of its proxy is what the proxy has: the model of every command against the real HAProxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from moorage.edge.proxy.actual import ActualProxy
from moorage.edge.proxy.commands import (
    AddServer,
    ClearNumber,
    ClearRoute,
    ClearSlot,
    Command,
    DeleteServer,
    MoveServer,
    SetMark,
    SetNumber,
    SetPinKey,
    SetRoute,
    SetSlot,
    ShutdownSessions,
    StartServer,
    StopServer,
)
from moorage.edge.proxy.haproxy import HAProxy
from moorage.edge.proxy.hot import HotEntry
from moorage.edge.proxy.launch import ProxyConfigurationInvalid, check_configuration, write_configuration
from moorage.edge.proxy.runtime import ProxyRefused, ProxyUnreachable
from moorage.system.binaries import find_haproxy
from tests.edge.kit import running_edge

pytestmark = pytest.mark.servers

ROUTE = HotEntry(5, 2, held=True, closed=False, environment=4_000_000_000)


@pytest.fixture
async def proxy() -> AsyncIterator[HAProxy]:
    with TemporaryDirectory(prefix="moorage-edge-") as folder:
        async with running_edge(Path(folder)) as edge:
            await edge.kill_agent()
            proxy = edge.proxy()
            yield proxy
            await proxy.close()


def believed(actual: ActualProxy) -> ActualProxy:
    """Without what a look back cannot tell: where the search for slots goes on."""
    return replace(actual, next_slot=0)


STEPS: tuple[Command, ...] = (
    SetPinKey("a2V5"),
    AddServer(12, "127.0.0.1", 20012),
    StartServer(12),
    AddServer(13, "::1", 20013),
    StartServer(13),
    SetNumber(12, True),
    SetNumber(13, False),
    SetNumber(12, False),
    SetSlot(5, 12),
    SetSlot(6, 13),
    SetRoute("a.localhost", ROUTE),
    SetMark("inc_abc:17"),
    SetRoute("a.localhost", HotEntry(0, 0, held=False, closed=True, environment=1)),
    SetRoute("x" * 254, ROUTE),
    MoveServer(12, "127.0.0.1", 20099),
    MoveServer(12, "127.0.0.1", 20099),
    ClearNumber(12),
    ClearSlot(5),
    ClearRoute("a.localhost"),
    ClearRoute("never.was"),
    StopServer(12),
    ShutdownSessions(12),
    DeleteServer(12),
    SetMark("inc_abc:18"),
)


async def test_after_every_command_the_model_and_the_proxy_agree(proxy: HAProxy) -> None:
    model = await proxy.observe()
    for step in STEPS:
        await proxy.apply([step])
        model.take([step])
        assert believed(await proxy.observe()) == believed(model), step


async def test_all_at_once_is_the_same_as_one_by_one(proxy: HAProxy) -> None:
    model = await proxy.observe()
    await proxy.apply(STEPS)
    model.take(STEPS)
    assert believed(await proxy.observe()) == believed(model)


@pytest.mark.parametrize(
    "step",
    [StartServer(99), StopServer(99), DeleteServer(99), MoveServer(99, "127.0.0.1", 1), ShutdownSessions(99)],
)
async def test_what_the_proxy_refuses_is_an_error(proxy: HAProxy, step: Command) -> None:
    with pytest.raises(ProxyRefused) as refused:
        await proxy.apply([step])
    assert refused.value.problem.code == "proxy-refused-command"
    assert refused.value.retryable


async def test_a_refused_server_stops_the_plan_before_its_route(proxy: HAProxy) -> None:
    await proxy.apply([AddServer(1, "127.0.0.1", 1)])
    with pytest.raises(ProxyRefused):
        await proxy.apply(
            [AddServer(1, "127.0.0.1", 1), SetSlot(1, 1), SetRoute("a.localhost", HotEntry(1, 1, False, False, 1))]
        )
    assert (await proxy.observe()).routes == {}


async def test_an_error_does_not_show_the_pin_key(proxy: HAProxy) -> None:
    with pytest.raises(ProxyRefused) as refused:
        await proxy.apply([SetPinKey("c2VjcmV0) junk(")])
    assert "c2VjcmV0" not in str(refused.value)


async def test_a_proxy_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    proxy = HAProxy(tmp_path / "none.sock")
    with pytest.raises(ProxyUnreachable) as lost:
        await proxy.observe()
    assert lost.value.problem.code == "proxy-unreachable"
    await proxy.watch()


async def test_the_proxy_reads_every_configuration_that_settings_can_give(tmp_path: Path) -> None:
    with TemporaryDirectory(prefix="moorage edge's ") as folder:
        async with running_edge(Path(folder)) as edge:
            base = edge.settings
        for more in (
            {"trusted_proxies": ("10.0.0.0/8", "2001:db8::/32")},
            {"bind_host": "::1"},
            {"bind_host": "0.0.0.0", "threads": None},
            {"access_log": "sampled"},
        ):
            await check_configuration(find_haproxy().path, write_configuration(replace(base, **more)))
        wrong = write_configuration(replace(base, trusted_proxies=("not-a-network/99",)))
        with pytest.raises(ProxyConfigurationInvalid) as invalid:
            await check_configuration(find_haproxy().path, wrong)
        assert invalid.value.problem.code == "proxy-configuration-invalid"
        with pytest.raises(ProxyConfigurationInvalid):
            write_configuration(replace(base, runtime_socket=Path("/" + "x" * 120)))
