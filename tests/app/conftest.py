"""Fixtures of the SDK's tests: one Valkey for the session, emptied for each test; an administrator's view of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from .servers import Platform, ValkeyProcess


@pytest.fixture(scope="session")
def valkey_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A running Valkey."""
    server = ValkeyProcess(Path(tmp_path_factory.mktemp("valkey")))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest_asyncio.fixture
async def valkey(valkey_process: ValkeyProcess) -> ValkeyProcess:
    """The running Valkey, empty."""
    await valkey_process.ready()
    admin = valkey_process.admin()
    await admin.flushall()
    await admin.aclose()
    return valkey_process


@pytest_asyncio.fixture
async def platform(valkey: ValkeyProcess) -> AsyncIterator[Platform]:
    """What the platform sees and does at the store."""
    admin = valkey.admin()
    yield Platform(admin)
    await admin.aclose()
