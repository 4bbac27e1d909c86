"""Names are DNS labels. A name may not contain `--` (it separates preview numbers) nor name a region or a cell."""

from __future__ import annotations

import re

from moorage.domain.errors import Problem
from moorage.domain.limits import NAME_LENGTH_MAX_CHARS

_LABEL = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
_TOPOLOGY = re.compile(r"(?:^|-)(?:cell|region|zone|dc)(?:[0-9]+[a-z]?)?(?:-|$)")
_CLOUD_REGION = re.compile(
    r"(?:^|-)(?:us|eu|ap|sa|ca|me|af|il|cn)-(?:north|south|east|west|central)(?:east|west)?-?[0-9]?(?:-|$)"
)
RESERVED_NAMES = frozenset({"moorage", "www", "api", "localhost"})


def check_name(name: str, *, what: str = "name", topology: frozenset[str] = frozenset()) -> Problem | None:
    """Whether `name` may become a public name; the problem if not.

    `topology` holds the names of this installation's regions and cells, which may not appear in a public identity.
    Source: DNS labels, RFC 1035 section 2.3.1 (63 octets, letters, digits, hyphen).
    """
    if len(name) > NAME_LENGTH_MAX_CHARS:
        return _invalid(what, name, f"it has {len(name)} characters, {NAME_LENGTH_MAX_CHARS} are allowed")
    if not _LABEL.fullmatch(name):
        return _invalid(what, name, "lower-case letters, digits and hyphens, beginning with a letter")
    if "--" in name:
        return _invalid(what, name, "`--` is reserved for preview host names")
    if name in RESERVED_NAMES:
        return _invalid(what, name, "this name is reserved")
    if _TOPOLOGY.search(name) or _CLOUD_REGION.search(name) or topology & set(name.split("-")):
        return Problem(
            "name-contains-topology",
            f"The {what} {name!r} names a region or a cell",
            "A public name must outlive the place where the app runs.",
            "Choose a name without region, cell, zone or data-centre words.",
            status=422,
            facts={"name": name},
        )
    return None


def _invalid(what: str, name: str, why: str) -> Problem:
    return Problem(
        "name-invalid",
        f"The {what} {name!r} is not a valid name",
        why,
        "Use a DNS label, for example `board` or `team-notes`.",
        status=422,
        facts={"name": name},
    )


def production_key(app: str, base_domain: str) -> str:
    """The route key (host name without port) of an app's production environment."""
    return f"{app}.{base_domain}"


def preview_key(app: str, number: int, base_domain: str) -> str:
    """The route key of the preview of deployment `number`; numbers count per app."""
    return f"{number}--{app}.{base_domain}"
