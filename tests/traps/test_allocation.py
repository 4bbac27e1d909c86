"""Allocation: taken for the deployment, or for route truth. A healthy process that owns nothing gets no visitor."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import httpx
import pytest

from moorage.store.allocations import Allocation
from moorage.wire.api import AllocationView
from moorage.wire.runner import DesiredAllocation
from tests.support.asking import ask_many, attached, who
from tests.support.deeds import deploy, serve
from tests.support.platform import Platform
from tests.support.tiny_app import tiny_app
from tests.support.truth import rows

pytestmark = pytest.mark.servers

REQUESTS = 1000
OF_A_ROUTE = ("route", "epoch", "owner", "weight", "url", "held")


async def test_allocation_that_is_healthy_gets_nothing_unless_its_deployment_owns_the_route(
    platform: Platform, tmp_path: Path
) -> None:
    """Beside the owner's there are: one of an earlier owner in the same environment, kept by an attached session; a
    preview's of a newer deployment; another app's."""
    source = tiny_app(tmp_path / "shop", "shop", text="first")
    await serve(platform, source)
    old = await platform.allocation("shop")
    await serve(platform, tiny_app(tmp_path / "other", "other"))
    async with attached(platform, "shop.localhost"):
        tiny_app(source, "shop", text="second")
        await serve(platform, source, mode="drain")
        tiny_app(source, "shop", text="third")
        await deploy(platform, source)
        owner = await platform.allocation("shop")
        async with platform.api() as api:
            everyone = {a.number: a for a in await api.allocations()}
        assert {a.state for a in everyone.values()} == {"ready"}
        assert (everyone[old.number].posture, everyone[old.number].attached_sockets) == ("no_picks", 1)
        assert sorted((a.app, a.environment, a.deployment) for a in everyone.values()) == [
            ("other", "preview 1", 1),
            ("other", "production", 1),
            ("shop", "preview 1", 1),
            ("shop", "preview 2", 2),
            ("shop", "preview 3", 3),
            ("shop", "production", 1),
            ("shop", "production", 2),
        ]
        others = [a for a in everyone.values() if a.number != owner.number]
        before = [asked_of(a) for a in others]
        answers = await ask_many(platform, "shop.localhost", REQUESTS)
        after = [asked_of(a) for a in others]
    assert {who(answer)["allocation"] for answer in answers} == {owner.id}
    assert len(answers) == REQUESTS
    assert after == [count + 1 for count in before], "nobody but this test asked them anything"


def asked_of(allocation: AllocationView) -> int:
    """How often an allocation was asked, as it says itself when it is asked directly (which counts)."""
    return int(httpx.get(f"http://{allocation.address}/", trust_env=False).json()["asked"])


def test_allocation_records_have_no_field_of_a_route(platform: Platform) -> None:
    """Neither the table nor what runners and people are shown of it."""
    columns = {row["name"] for row in rows(platform, "select name from pragma_table_info('allocations')")}
    shown = {field.name for field in dataclasses.fields(Allocation)}
    told = AllocationView.model_fields.keys() | DesiredAllocation.model_fields.keys()
    assert len(columns) > 10
    assert [name for name in sorted(columns | shown | told) if any(word in name for word in OF_A_ROUTE)] == []
