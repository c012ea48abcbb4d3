"""`kind: mixture`: several task sets of the recipe as one, in given shares."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from vold.data.sources import MOST, Source, Tasks
from vold.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vold.types import Task, TaskSource


class Spec(Source):
    """Several sets at once."""

    sources: dict[str, str] = Field(min_length=1)
    """Names of task sets that are no mixtures, each under the value that the tag `set` of its problems gets."""
    weights: dict[str, float] | None = None
    """Share of each source, under the same keys, in any unit; if absent, every problem of every set once."""
    size: int | None = Field(None, gt=0, le=MOST)
    """How many problems; smaller sets are then repeated, in a new order each time. If absent, as many as there can be
    without repeating one."""
    seed: int = 0
    """Which problems, where not all of a set are taken."""

    @property
    def parts(self) -> Mapping[str, str]:
        """Names of the task sets that this one is made of."""
        return self.sources

    @model_validator(mode="after")
    def _every_set_has_a_weight(self) -> Spec:
        if self.weights is None and self.size is not None:
            raise ConfigError("`size` needs `weights`", fix="add `weights: {NAME: 1, ...}`, or leave out `size`")
        if self.weights is not None:
            if self.weights.keys() != self.sources.keys():
                got, fix = ", ".join(self.weights), f"give weights of {', '.join(self.sources)}"
                raise ConfigError("`weights` must name every source, and no other", got=got, fix=fix)
            if min(self.weights.values()) <= 0:
                got, fix = f"{min(self.weights.values()):g}", "leave out sets that are not wanted"
                raise ConfigError("every weight must be above 0", got=got, fix=fix)
        return self

    def open(self, parts: Mapping[str, Tasks], *, references: bool) -> Tasks:
        """The problems of all parts."""
        cards = {label: card for label, part in parts.items() for card in part.cards.values()}
        mixed = Mixture({label: part.source for label, part in parts.items()}, self.weights, self.size, self.seed)
        return Tasks(mixed, "mixture", cards, graded=True)


def shares(lengths: Mapping[str, int], weights: Mapping[str, float], size: int | None) -> dict[str, int]:
    """How many tasks of each set; they add up to `size`, by largest remainders.

    Without a size it is the largest that needs no set twice: the least of length · total weight / weight.

    Example:
        >>> shares({"a": 100, "b": 30}, {"a": 3, "b": 1}, None)
        {'a': 90, 'b': 30}
        >>> shares({"a": 100, "b": 30}, {"a": 2, "b": 1}, 8)
        {'a': 5, 'b': 3}
    """
    whole = sum(weights.values())
    if size is None:
        size = int(min(lengths[name] * whole / weights[name] for name in weights) + 1e-9)
    exact = {name: size * weight / whole for name, weight in weights.items()}
    counts = {name: int(value + 1e-9) for name, value in exact.items()}
    for name in sorted(exact, key=lambda n: counts[n] - exact[n])[: size - sum(counts.values())]:
        counts[name] += 1
    return counts


class Mixture:
    """Tasks of several sets, one set after the other. Where a set is repeated, ids get `#2`, `#3` and so on.

    Args:
        sources: sets by name.
        weights: share of each; None takes every task once.
        size: how many tasks; None: as many as there can be without repeats.
        seed: which tasks of a set, and in which order.

    Raises:
        ConfigError: the shares leave nothing of a set.
    """

    def __init__(
        self, sources: Mapping[str, TaskSource], weights: Mapping[str, float] | None, size: int | None, seed: int
    ) -> None:
        self.sources = dict(sources)
        lengths = {name: len(source) for name, source in sources.items()}
        counts = lengths if weights is None else shares(lengths, weights, size)
        self.places: list[tuple[str, int, int]] = []
        for name, count in counts.items():
            if count == 0:
                raise ConfigError("nothing is left of this set", where=f"sources.{name}", fix="raise its weight")
            for turn in range(-(-count // lengths[name])):
                order = list(range(lengths[name]))
                if weights is not None:
                    random.Random(f"mixture/{seed}/{name}/{turn}").shuffle(order)
                self.places += [(name, i, turn + 1) for i in order[: count - turn * lengths[name]]]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Task:
        name, place, turn = self.places[index]
        task = self.sources[name][place]
        again = f"#{turn}" if turn > 1 else ""
        return dataclasses.replace(task, id=f"{name}/{task.id}{again}", tags={**task.tags, "set": name})
