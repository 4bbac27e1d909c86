"""What is said of the secrets and services that the platform binds to an app. No message holds a value of a secret."""

from __future__ import annotations

from moorage.wire.message import Message


class RotationRequest(Message):
    """New secrets of the app's production environment. Without `csrf` no open page is affected."""

    csrf: bool = False


class RotatedSecret(Message):
    """A secret that has a new value; `version` counts its values."""

    name: str
    version: int
    updated_ms: int


class RotationView(Message):
    """What was rotated. `running` are allocations by number: they go on with the values so far until a restart.

    `dropped`: nobody reads the value before the last rotation any more; `signed_anew` records still bore it and were
    signed with the one after it, None when the store is the user's own and nobody could look.
    """

    app: str
    rotated: tuple[RotatedSecret, ...]
    running: tuple[int, ...]
    dropped: bool = False
    signed_anew: int | None = 0


class BindingView(Message):
    """A service as an environment's next allocation is given it. `source` is `managed` or `own` (the user's), `state`
    `declared`, `active` (it was seen to work at the preview) or `failed`; `why` says what was seen."""

    service_class: str
    provider: str
    source: str
    variable: str
    state: str
    why: str = ""
