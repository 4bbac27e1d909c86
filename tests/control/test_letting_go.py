"""Which sessions a hand-over still waits for, read from a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moorage.control.operations.handover import still_open
from moorage.domain.session import Before
from moorage.sessions.admin import StoreAdmin
from moorage.sessions.evidence import SessionEvidence
from moorage_app.contract import tag
from tests.sessions.kit import Store, keep, parted, record, resumed, running_store, session_id

pytestmark = pytest.mark.servers


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with running_store(tmp_path) as running:
        yield running


def before(number: int) -> Before:
    """A session as it was when the baseline was read."""
    return Before(tag(session_id(number)), 3, 7)


async def test_only_what_the_old_allocation_has_not_let_go_is_waited_for(store: Store) -> None:
    """Handed over, taken by the successor, or gone: none of these is open under the old one."""
    async with store.admin() as admin, store.client() as app:
        await keep(app, parted(1), record(2), resumed(3), record(4))
        evidence = SessionEvidence(admin)
        left = await still_open(evidence, "alc_old", [before(number) for number in range(1, 6)])
        assert left == (before(2), before(4))
        await keep(app, parted(2))
        assert await still_open(evidence, "alc_old", left) == (before(4),)


async def test_nothing_is_asked_about_nobody() -> None:
    """No store answers on this port: asking it would raise."""
    admin = StoreAdmin(9, "no password")
    assert await still_open(SessionEvidence(admin), "alc_old", ()) == ()
    await admin.close()
