"""A follower leaves when it is asked to, whatever it is doing."""

from __future__ import annotations

import asyncio

import pytest

from moorage.cli import follow as following
from moorage.cli.call import Call, Flags
from moorage.cli.screen import Screen
from moorage.wire.api import OperationView
from tests.cli.views import PROMOTION_ID, operation

PATIENCE_S = 10.0


async def test_a_cancellation_that_came_with_an_answer_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    view, asked = operation(PROMOTION_ID, "promotion", "requested", "baking"), asyncio.Event()

    async def answer(*_: object, after: int, wait_s: float) -> OperationView:
        if wait_s:
            asked.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                assert after >= 0
        return view

    monkeypatch.setattr(following, "_operation", answer)
    task = asyncio.create_task(following.follow(Call(Flags(), Screen(for_programs=True)), PROMOTION_ID))
    async with asyncio.timeout(PATIENCE_S):
        await asked.wait()
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
