"""Records of sessions that a framework keeps in the environment's store, read as the admin.

Session ids open sessions, so they never leave this module: callers see labels. Every answer is a look at the store
now; nothing is remembered but which key a label is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from moorage.sessions.admin import StoreAdmin
from moorage.sessions.stored_account import Stored
from moorage.vango.records import HEADER_BYTES, SESSION_PREFIX, BadRecord, is_session_key, label_of_key, read_header

_SCAN_COUNT = 1000
_PAGE_COUNT = 500


class StoredRecords:
    """The framework's session records in one environment's store."""

    def __init__(self, admin: StoreAdmin) -> None:
        self._admin = admin
        self._keys: dict[str, str] = {}  # label to key

    async def all(self) -> Mapping[str, Stored]:
        """Every session record there is, by label."""
        await self._learn_keys()
        return await self.of(self._keys)

    async def of(self, labels: Iterable[str]) -> Mapping[str, Stored]:
        """The records of these sessions; one that is not there is left out."""
        wanted = list(dict.fromkeys(labels))
        if any(label not in self._keys for label in wanted):
            await self._learn_keys()
        known = [label for label in wanted if label in self._keys]
        found: dict[str, Stored] = {}
        for start in range(0, len(known), _PAGE_COUNT):
            page = known[start : start + _PAGE_COUNT]
            found |= await self._page(page)
        return found

    async def _page(self, labels: list[str]) -> dict[str, Stored]:
        commands: list[tuple[str | int, ...]] = []
        for label in labels:
            key = self._keys[label]
            commands += [("GETRANGE", key, 0, HEADER_BYTES - 1), ("STRLEN", key), ("PEXPIRETIME", key)]
        answers = await self._admin.raw(commands)
        found = {}
        for label, (head, length, expires_ms) in zip(labels, zip(*[iter(answers)] * 3, strict=True), strict=True):
            if int(expires_ms) != -2:  # the key is there
                header = read_header(bytes(head), int(length))
                written_ms = 0 if isinstance(header, BadRecord) else header.written_ms
                found[label] = Stored(written_ms, max(int(expires_ms), 0))
        return found

    async def _learn_keys(self) -> None:
        keys: dict[str, str] = {}
        cursor = 0
        while True:
            answer = await self._admin.command("SCAN", cursor, "MATCH", f"{SESSION_PREFIX}*", "COUNT", _SCAN_COUNT)
            cursor = int(answer[0])
            keys |= {label_of_key(key): key for key in map(str, answer[1]) if is_session_key(key)}
            if cursor == 0:
                break
        self._keys = keys  # what expired is forgotten
