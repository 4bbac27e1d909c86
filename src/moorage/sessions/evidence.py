"""Evidence for apps built with the SDK: what the environment's store says about an allocation's sessions.

Session ids open sessions, so they never leave this module: callers see labels, and a label is found again by going
through the keys of the store. Every answer is a look at the store now; nothing is remembered but which id a label is.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from moorage.domain.session import Account, Before, SessionView, open_account
from moorage.sessions.account import Phase, fates_of, view_of
from moorage.sessions.admin import StoreAdmin
from moorage_app import contract
from moorage_app.contract import BadRecord, Notice, NoticeKind, Parted, Record

_PAGE_COUNT = 200  # records per request: at most 256 KiB each, so one answer stays below 50 MiB
_SCAN_COUNT = 1000


@dataclass(frozen=True, slots=True)
class StoredSince:
    """How far an allocation has let go of the sessions it held.

    `stored`: labels whose record it no longer keeps open (stored and parted, ended, or taken by another allocation).
    `waiting`: labels still open under it. `missing`: labels without a readable record. `finished`: it wrote its last
    word, with the counts that it gave itself (shown, never believed).
    """

    stored: tuple[str, ...]
    waiting: tuple[str, ...]
    missing: tuple[str, ...]
    finished: bool
    said: Mapping[str, int]


class SessionEvidence:
    """Sessions of one environment's store, read as the admin."""

    def __init__(self, admin: StoreAdmin) -> None:
        self._admin = admin
        self._ids: dict[str, str] = {}  # label to session id

    async def is_sdk(self, allocation: str) -> bool:
        """Whether the allocation announced itself as built with the SDK."""
        return bool(await self._admin.command("EXISTS", contract.allocation_key(allocation)))

    async def held(self, allocation: str) -> tuple[SessionView, ...]:
        """The sessions whose lease this allocation holds and which are attached to it, sorted by label."""
        ids = await self._admin.command("SMEMBERS", contract.held_key(allocation))
        records = await self._records({contract.tag(text): text for text in ids if contract.is_session_id(text)})
        views = [view_of(record) for record in records.values() if isinstance(record, Record)]
        held = [view for view in views if view.holder == allocation and view.attached]
        return tuple(sorted(held, key=lambda view: view.label))

    async def baseline(self, allocation: str) -> tuple[Before, ...]:
        """What an account of a hand-over is opened with: read it before the cut and keep it."""
        return tuple(Before(view.label, view.lease, view.revision) for view in await self.held(allocation))

    async def baseline_of_ended(self, allocation: str, since_ms: int) -> tuple[Before, ...]:
        """The sessions of an allocation whose process has ended: attached when it died, or let go while it stopped
        (since `since_ms`, Unix milliseconds). One that its person closed is not among them."""
        ids = await self._admin.command("SMEMBERS", contract.held_key(allocation))
        records = await self._records({contract.tag(text): text for text in ids if contract.is_session_id(text)})
        found = [view_of(record) for record in records.values() if isinstance(record, Record)]
        return tuple(
            Before(view.label, view.lease, view.revision)
            for view in sorted(found, key=lambda view: view.label)
            if view.holder == allocation and (view.attached or _let_go_since(view, since_ms))
        )

    async def stored_since(self, allocation: str, baseline: Sequence[Before]) -> StoredSince:
        """How far the allocation has let go of the sessions of the baseline."""
        records = await self._labelled(before.label for before in baseline)
        waiting, missing = [], []
        for label, record in records.items():
            if not isinstance(record, Record):
                missing.append(label)
            elif record.holder == allocation and record.attached:
                waiting.append(label)
        stored = tuple(sorted(records.keys() - set(waiting) - set(missing)))
        said = await self._said(allocation)
        return StoredSince(stored, tuple(sorted(waiting)), tuple(sorted(missing)), said is not None, said or {})

    async def notify(self, allocation: str, notice: NoticeKind, deadline_ms: int = 0) -> None:
        """Tell an allocation of a drain or a hand-over (`open` takes it back): key first, announcement second.

        `deadline_ms` is Unix milliseconds, 0 for none. A missed announcement costs the app at most a second.
        """
        text = contract.encode_notice(Notice(notice, deadline_ms))
        await self._admin.command("SET", contract.notice_key(allocation), text)
        await self._admin.command("PUBLISH", contract.NOTICES_CHANNEL, allocation)

    async def record(self, label: str) -> SessionView | None:
        """One session by its label; None when the store has no readable record of it."""
        found = (await self._labelled([label]))[label]
        return view_of(found) if isinstance(found, Record) else None

    async def sessions(self) -> tuple[SessionView, ...]:
        """Every session of the environment with a readable record, sorted by label."""
        await self._learn_ids()
        records = await self._records(self._ids)
        views = [view_of(record) for record in records.values() if isinstance(record, Record)]
        return tuple(sorted(views, key=lambda view: view.label))

    async def account(
        self,
        allocation: str,
        baseline: Sequence[Before],
        phase: Phase,
        *,
        successors: Collection[str] | None = None,
        attached_sockets: int | None = None,
    ) -> Account:
        """What became of each session of the baseline, as the store shows it now (see `moorage.sessions.account`).

        `attached_sockets` is the edge's count when the baseline was read; what it has beyond the baseline is counted
        as unknown.
        """
        records = await self._labelled(before.label for before in baseline)
        fates = fates_of(baseline, records, old=allocation, phase=phase, successors=successors)
        return open_account(fates, attached_sockets=attached_sockets)

    async def forget(self, allocation: str) -> None:
        """Remove what only a living allocation needs: its notice. Records and their story stay."""
        await self._admin.command("DEL", contract.notice_key(allocation))

    async def _said(self, allocation: str) -> Mapping[str, int] | None:
        text = await self._admin.command("GET", contract.handover_key(allocation))
        return None if text is None else _counts(text)

    async def _labelled(self, labels: Iterable[str]) -> dict[str, Record | BadRecord | None]:
        wanted = dict.fromkeys(labels)
        if not wanted.keys() <= self._ids.keys():
            await self._learn_ids()
        found = await self._records({label: self._ids[label] for label in wanted if label in self._ids})
        return {label: found.get(label) for label in wanted}

    async def _records(self, ids: Mapping[str, str]) -> dict[str, Record | BadRecord | None]:
        """Records by label, read in pages. Remembers the labels."""
        self._ids.update(ids)
        labels, found = list(ids), {}
        for start in range(0, len(labels), _PAGE_COUNT):
            page = labels[start : start + _PAGE_COUNT]
            texts = await self._admin.command("MGET", *(contract.session_key(ids[label]) for label in page))
            for label, text in zip(page, texts, strict=True):
                found[label] = None if text is None else contract.decode_record(text)
        return found

    async def _learn_ids(self) -> None:
        ids, cursor = {}, 0
        while True:
            pattern = f"{contract.SESSION_PREFIX}*"
            cursor, keys = await self._admin.command("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)
            for key in keys:
                text = str(key).removeprefix(contract.SESSION_PREFIX)
                ids[contract.tag(text)] = text
            if int(cursor) == 0:
                break
        self._ids = ids  # what expired is forgotten


def _let_go_since(view: SessionView, since_ms: int) -> bool:
    return view.parted in (Parted.HANDED_OVER, Parted.DROPPED) and view.updated_ms >= since_ms


def _counts(text: str) -> Mapping[str, int]:
    """The whole numbers of an allocation's last word; what cannot be read counts nothing."""
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(document, dict):
        return {}
    return {name: number for name, number in document.items() if type(number) is int}
