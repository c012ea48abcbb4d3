"""Wrong answers to pictures, split by what went wrong first: the reading, or the reasoning after it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vold.report.text import part, several
from vold.run.answers import outcome_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.report.text import Json

READ_WRONG, REASONED_WRONG, LUCKY = "read wrong", "read right, reasoned wrong", "read wrong, right all the same"


@dataclass(frozen=True)
class Readings:
    """Of one model's answers to the pictures of a set that are not right: how many say that they have read something
    else than is there, how many have read it right, and how many do not say. `lucky` ones are right, and read wrong."""

    misread: int
    misreasoned: int
    unsaid: int
    lucky: int

    @property
    def wrong(self) -> int:
        """All that are not right."""
        return self.misread + self.misreasoned + self.unsaid


def reading_of(row: Json) -> str:
    """What a stored answer's reading says about it; empty where nobody knows or nothing went wrong.

    Example:
        >>> reading_of({"read": True, "outcome": "wrong"}), reading_of({"read": True, "outcome": "right"})
        ('read right, reasoned wrong', '')
    """
    right = outcome_of(row) == "right"
    if row.get("read") is True:
        return "" if right else REASONED_WRONG
    if row.get("read") is False:
        return LUCKY if right else READ_WRONG
    return ""


def readings(samples: Mapping[str, Mapping[str, Sequence[Json]]]) -> Mapping[str, Mapping[str, Readings]]:
    """By set and model, of sets in which any answer is known to have read its pictures right or wrong."""
    out: dict[str, dict[str, Readings]] = {}
    for model in samples:
        for name in part(samples, model):
            rows = several(samples, model, name)
            if not any(isinstance(row.get("read"), bool) for row in rows):
                continue
            said = Counter(reading_of(row) or ("" if outcome_of(row) == "right" else "unsaid") for row in rows)
            found = Readings(said[READ_WRONG], said[REASONED_WRONG], said["unsaid"], said[LUCKY])
            out.setdefault(name, {})[model] = found
    return out
