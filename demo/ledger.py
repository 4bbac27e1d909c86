"""The ledger: the platform's account of every session, held against what the people themselves saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from demo.people import Person
from demo.stage import expect, say


def marks(people: Sequence[Person]) -> dict[str, int]:
    """How many welcomes each person has had so far: a move is judged by the welcomes after it."""
    return {person.name: len(person.welcomes) for person in people}


def outcome_of(person: Person, mark: int) -> str:
    """What became of a person's session since then, as that person saw it: the first welcome after the move."""
    later = person.welcomes[mark:]
    return later[0].outcome if later else "attached"


def tag_of(person: Person, mark: int) -> str:
    """The public label of the session that a person had before the move."""
    return person.welcomes[mark - 1].session_tag


def compare(account: Mapping[str, Any], people: Sequence[Person], before: Mapping[str, int], *, expected: str) -> None:
    """Fail the demo unless platform and people say the same of every single session."""
    said = {row["label"]: row["outcome"] for row in account["rows"]}
    seen = {
        person.welcomes[before[person.name] - 1].session_tag: outcome_of(person, before[person.name])
        for person in people
    }
    say(f"   the platform says: {_counts(said)}")
    say(f"   the people saw:    {_counts(seen)}")
    expect(said == seen, f"platform and people agree on each of {len(people)} sessions")
    expect(set(seen.values()) == {expected}, f"every session was {expected}")


def check_kept(people: Sequence[Person], before: Mapping[str, int]) -> None:
    """After a move that promised to keep state: every draft came back as typed, no acknowledged change is gone."""
    first = [person.welcomes[before[person.name]] for person in people]
    expect(all(welcome.draft_kept for welcome in first), "every draft came back exactly as it was typed")
    expect(sum(welcome.changes_lost for welcome in first) == 0, "no acknowledged change was lost")
    pauses = sorted(welcome.pause_s or 0.0 for welcome in first)
    median, longest = pauses[len(pauses) // 2] * 1000, pauses[-1] * 1000
    say(f"   from a lost socket to the next welcome: median {median:.0f} ms, longest {longest:.0f} ms")


def _counts(outcomes: Mapping[str, str]) -> str:
    counted = Counter(outcomes.values())
    return ", ".join(f"{number} {outcome}" for outcome, number in sorted(counted.items()))
