"""Evidence from a real store, of records as the SDK writes them."""

from __future__ import annotations

import json

import pytest

from moorage.domain.session import Outcome
from moorage.sessions.account import Phase
from moorage.sessions.evidence import SessionEvidence
from moorage_app import contract
from moorage_app.contract import NoticeKind, Parted, decode_notice, tag
from tests.sessions.kit import Store, fresh, keep, parted, record, resumed, session_id

pytestmark = pytest.mark.servers


async def test_held_are_the_attached_sessions_of_this_allocation(store: Store) -> None:
    async with store.admin() as admin, store.client() as app:
        await keep(app, record(1), record(2), parted(3), resumed(4))
        await app.sadd(contract.held_key("alc_old"), "no id", session_id(5))  # not an id; an expired record
        evidence = SessionEvidence(admin)
        held = await evidence.held("alc_old")
        assert {view.label for view in held} == {tag(session_id(1)), tag(session_id(2))}
        assert all((view.lease, view.revision, view.holder) == (3, 7, "alc_old") for view in held)
        assert session_id(1) not in repr(held)
        assert await evidence.held("alc_unknown") == ()


async def test_notice_is_a_key_and_an_announcement(store: Store) -> None:
    async with store.admin() as admin, store.client() as app:
        listener = app.pubsub()
        await listener.subscribe(contract.NOTICES_CHANNEL)
        await listener.get_message(timeout=5)
        await SessionEvidence(admin).notify("alc_old", NoticeKind.HANDOVER, 123)
        message = await listener.get_message(timeout=5)
        assert message["data"] == "alc_old"
        await listener.aclose()
    async with store.client() as app:
        notice = decode_notice(await app.get(contract.notice_key("alc_old")))
        assert notice == contract.Notice(NoticeKind.HANDOVER, 123)


async def test_stored_since_follows_the_hand_over(store: Store) -> None:
    async with store.admin() as admin, store.client() as app:
        evidence = SessionEvidence(admin)
        await keep(app, *(record(n) for n in range(6)))
        baseline = await evidence.baseline("alc_old")
        seen = await evidence.stored_since("alc_old", baseline)
        assert (len(seen.stored), len(seen.waiting), seen.finished) == (0, 6, False)
        await keep(app, parted(0), parted(1, Parted.DROPPED), parted(2, Parted.ENDED), resumed(3))
        await app.delete(contract.session_key(session_id(4)))
        last_word = {"at_ms": 1, "stored": 4, "unstored": 1}
        await app.set(contract.handover_key("alc_old"), json.dumps(last_word))
        seen = await evidence.stored_since("alc_old", baseline)
        assert set(seen.stored) == {tag(session_id(n)) for n in range(4)}
        assert seen.missing == (tag(session_id(4)),)
        assert seen.waiting == (tag(session_id(5)),)
        assert (seen.finished, seen.said) == (True, last_word)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stored": "many"}'])
async def test_last_word_that_cannot_be_read_counts_nothing(store: Store, text: str) -> None:
    async with store.admin() as admin, store.client() as app:
        await app.set(contract.handover_key("alc_old"), text)
        seen = await SessionEvidence(admin).stored_since("alc_old", ())
        assert (seen.finished, seen.said) == (True, {})


async def test_account_from_the_store_alone_also_by_another_process(store: Store) -> None:
    async with store.admin() as admin, store.client() as app:
        await keep(app, *(record(n) for n in range(7)))
        baseline = await SessionEvidence(admin).baseline("alc_old")
        evidence = SessionEvidence(admin)  # knows no session id yet, as after a restart
        account = await evidence.account("alc_old", baseline, Phase.SERVING, attached_sockets=9)
        assert (account.counts[Outcome.ATTACHED], account.counts[Outcome.UNKNOWN], account.total) == (7, 2, 9)
        await keep(app, resumed(0), resumed(1), fresh(2), parted(3), parted(4, Parted.ENDED))
        await app.set(contract.session_key(session_id(5)), b"\xff\xfe not a record")
        account = await evidence.account("alc_old", baseline, Phase.CUT, successors={"alc_new"}, attached_sockets=7)
        assert account.total == 7
        assert dict(account.reasons) == {
            (Outcome.ENDED, ""): 1,
            (Outcome.FRESH, "schema"): 1,
            (Outcome.RESUMED, ""): 2,
            (Outcome.UNKNOWN, "not-let-go"): 1,
            (Outcome.UNKNOWN, "not-taken-yet"): 1,
            (Outcome.UNKNOWN, "record-unreadable"): 1,
        }
        assert not account.is_settled
        settled = await evidence.account("alc_old", baseline, Phase.SETTLED)
        assert settled.is_settled
        assert settled.counts[Outcome.LOST] == 3


async def test_many_sessions_are_read_in_pages(store: Store) -> None:
    async with store.admin() as admin, store.client() as app:
        await keep(app, *(record(n) for n in range(450)))
        evidence = SessionEvidence(admin)
        assert len(await evidence.held("alc_old")) == 450
        assert len(await SessionEvidence(admin).sessions()) == 450


async def test_one_session_by_its_label(store: Store) -> None:
    async with store.admin() as admin, store.client() as app:
        await keep(app, resumed(1))
        evidence = SessionEvidence(admin)
        found = await evidence.record(tag(session_id(1)))
        assert found is not None
        assert (found.holder, found.outcome, found.lease) == ("alc_new", "resumed", 4)
        assert await evidence.record("unknown") is None


async def test_depth_of_an_app(store: Store) -> None:
    async with store.admin() as admin, store.client() as app:
        evidence = SessionEvidence(admin)
        assert not await evidence.is_sdk("alc_old")
        await app.set(contract.allocation_key("alc_old"), "{}")
        assert await evidence.is_sdk("alc_old")
