"""Diagrams of the state machines, drawn from the tables: `python -m tests.tidy.diagrams` writes docs/diagrams anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from moorage.domain import allocation
from moorage.domain.allocation import Posture
from moorage.domain.operation import MACHINES, SUCCESS, Kind

FOLDER = Path(__file__).parents[2] / "docs" / "diagrams"
TITLES = {
    "allocation": "What the process of an allocation is",
    "posture": "What everyone must do with an allocation: it tightens, and loosens only before the cut",
    "deploy": "Deploy",
    "promotion": "Promotion and rollback",
    "handover": "Hand-over of live sessions: after `storing` there is only forward",
    "drain": "Drain in place",
    "replacement": "Replacement of an allocation, after a crash or on request",
    "destroy": "Destroy",
}


def draw(title: str, first: str, table: Mapping[str, Iterable[str]], good: frozenset[str] = frozenset()) -> str:
    """A Mermaid state diagram as a Markdown page; states that end well are marked."""
    lines = [f"# {title}", "", "Drawn from the table in the code by `python -m tests.tidy.diagrams`.", "", "```mermaid"]
    lines += ["stateDiagram-v2", f"    [*] --> {first}"]
    for state, following in table.items():
        lines += [f"    {state} --> {after}" for after in following]
        lines += [] if following else [f"    {state} --> [*]"]
    ends_well = [state for state in table if state in good]
    if ends_well:
        lines += ["    classDef good stroke-width:3px", f"    class {','.join(ends_well)} good"]
    return "\n".join([*lines, "```", ""])


def diagrams() -> dict[str, str]:
    """Every page by its file name."""
    order = {state: rank for rank, state in enumerate(allocation.State)}
    states = {s: sorted(after, key=order.__getitem__) for s, after in allocation.TRANSITIONS.items()}
    postures = {p: [q for q in Posture if q is not p and _is_shown(p, q)] for p in Posture}
    pages = {
        "allocation": draw(TITLES["allocation"], "planned", states),
        "posture": draw(TITLES["posture"], "open", postures),
    }
    for kind in Kind:
        if kind is not Kind.ROLLBACK:
            table = MACHINES[kind]
            pages[str(kind)] = draw(TITLES[str(kind)], next(iter(table)), table, SUCCESS)
    return {f"{name}.md": text for name, text in pages.items()}


def _is_shown(current: Posture, wanted: Posture) -> bool:
    """The next tighter one and every looser one: tightening by several steps at once would hide the order."""
    order = list(Posture)
    step = order.index(wanted) - order.index(current)
    return allocation.may_move(current, wanted) and step <= 1


def main() -> None:
    """Write them all; remove what no table draws any more."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    pages = diagrams()
    for stale in {path.name for path in FOLDER.glob("*.md")} - pages.keys():
        (FOLDER / stale).unlink()
    for name, text in pages.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
