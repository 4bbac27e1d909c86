"""Before a rotation drops a persistence secret, what the managed store still holds under it is signed anew.

Rules: only while every running allocation knows the present secret, which `rotate` requires too. A record that an app
writes meanwhile bears the present secret already, so each is replaced only while it is what was read. A store of the
user's own is out of reach: `None` says that nobody has looked.
"""

from __future__ import annotations

from typing import Any, cast

from moorage.control import bindings
from moorage.control.context import Control
from moorage.control.operations.sessions import store_of
from moorage.sessions.admin import StoreAdmin
from moorage.store import apps
from moorage.store.apps import Environment
from moorage.store.database import Tx
from moorage.vango.records import SESSION_PREFIX
from moorage.vango.signatures import signed_anew
from moorage.vango.variables import Secrets

PAGE_COUNT = 100  # records held in memory at once; one has at most 512 KiB


async def sign_anew(control: Control, app: str) -> int | None:
    """Sign what bears the app's previous secret with the present one; how many records, None when nobody could look.

    Does nothing when a rotation would be refused, or drops no value. Raises StoreDown, StoreRefused.
    """
    found = await control.db.read(lambda tx: _to_sign(control, tx, app))
    if found is None:
        return 0
    environment, secrets = found
    if not await control.db.read(lambda tx: bindings.binding_in_force(control, tx, app).can_be_fenced):
        return None
    async with store_of(environment) as admin:
        return None if admin is None else await _sign_all(admin, secrets)


def _to_sign(control: Control, tx: Tx, app: str) -> tuple[Environment, Secrets] | None:
    environment = bindings.production(tx, app)
    secrets = bindings.secrets_of(control, tx, environment.id) if environment else None
    if environment is None or secrets is None or secrets.persistence_previous is None:
        return None
    kept = apps.environment_secrets(tx, environment.id)
    return None if bindings.behind(tx, environment, kept) else (environment, secrets)


async def _sign_all(admin: StoreAdmin, secrets: Secrets) -> int:
    count, cursor = 0, 0
    while True:
        answer = await admin.command(
            "SCAN", cursor, "MATCH", f"{SESSION_PREFIX}*", "COUNT", PAGE_COUNT, "TYPE", "string"
        )
        cursor = int(answer[0])
        count += await _sign_page(admin, [str(key) for key in answer[1]], secrets)
        if cursor == 0:
            return count


async def _sign_page(admin: StoreAdmin, keys: list[str], secrets: Secrets) -> int:
    """Replace what bears the previous secret, each record only while it is still the one that was read."""
    commands: list[tuple[Any, ...]] = []
    records = await admin.raw([("GET", key) for key in keys]) if keys else []
    for key, record in zip(keys, records, strict=True):
        anew = signed_anew(bytes(record or b""), secrets.persistence, secrets.persistence_previous or "")
        if anew is not None:
            commands.append(("SET", key, anew, "IFEQ", record, "KEEPTTL"))
    answers = await admin.raw(cast(Any, commands)) if commands else []
    return sum(answer is not None for answer in answers)
