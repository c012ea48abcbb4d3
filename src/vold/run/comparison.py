"""What `vold compare` finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vold.run.results import PairedDifference


@dataclass(frozen=True, kw_only=True)
class SetComparison:
    """Two evaluations on one set, a minus b, as `vold compare` prints them. Accuracies are shares of 1.

    `corrected_p` is `p_value` corrected for the number of sets that are compared (Holm). `mcnemar_p` is None where
    answers are not 0/1, not one an item, or not independent. `detectable` is at 80% power,
    two-sided 5%. `only_a` and `only_b` count items that only one of them has. `derived` has the differences in scores
    such as We-Math's strict one, over composite problems. `forced` says in what the protocols differ, `official_n` how
    many items the benchmark's split has (None for a task set), and `differs` in what either figure differs from a
    published one.
    """

    name: str
    accuracy_a: float
    accuracy_b: float
    difference: float
    stderr: float
    low: float
    high: float
    p_value: float
    corrected_p: float | None = None
    mcnemar_p: float | None
    detectable: float
    n: int
    only_a: int
    only_b: int
    clustered: bool
    forced: tuple[str, ...] = ()
    derived: Mapping[str, PairedDifference] = field(default_factory=dict)
    official_n: int | None = None
    differs: tuple[str, ...] = ()
