"""Scores that are not a mean over items: We-Math's four dimensions, DynaMath's worst case, MMMU-Pro's overall.

Each comes with a 95% interval from a bootstrap over clusters (composite problems, seed questions) with a fixed seed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DRAWS = 2000
SEED = 20251023

Items = "Mapping[str, Sequence[dict[str, Any]]]"


def derived(benchmark: str, items: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The derived scores of a benchmark by name; empty for most. Items are rows by item id."""
    if benchmark == "wemath":
        return _wemath(items)
    if benchmark == "dynamath":
        return _dynamath(items)
    return {}


def mmmu_pro_overall(stages: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, float]:
    """MMMU-Pro as published: the mean of the 10-option and the vision setting, by model, where a run has both.

    `names` maps a set's name to its benchmark.
    """
    sets = {benchmark: name for name, benchmark in names.items()}
    ten, vision = sets.get("mmmu_pro_standard10"), sets.get("mmmu_pro_vision")
    if ten is None or vision is None:
        return {}
    return {model: (s[ten]["accuracy"] + s[vision]["accuracy"]) / 2 for model, s in stages.items()}


def _wemath(items: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Strict and loose score over composite problems of which every step was asked.

    With the composite problem right and all steps right a model has mastered it; right with a step wrong it has learnt
    by rote (loosely: with every step wrong); wrong with all steps right it generalises badly (half a point); else it
    lacks knowledge. Score = (mastered + generalises badly / 2) / composite problems.
    """
    composites: dict[str, dict[str, float]] = defaultdict(dict)
    for answers in items.values():
        tags = answers[0]["tags"]
        composites[tags["composite"]][tags["key"]] = _mean([r["score"] for r in answers])
    verdicts = []
    for steps in composites.values():
        whole = next((v for k, v in steps.items() if k.endswith("_multi")), None)
        parts = [v for k, v in steps.items() if not k.endswith("_multi")]
        count = {k[0] for k in steps}
        if whole is not None and len(count) == 1 and len(parts) == int(next(iter(count))):
            verdicts.append((whole >= 0.5, [p >= 0.5 for p in parts]))
    if not verdicts:
        return {}

    def dimension(test: Callable[[bool, list[bool]], bool]) -> list[float]:
        return [float(test(w, p)) for w, p in verdicts]

    def score(rote: Callable[[list[bool]], bool]) -> list[float]:
        return [0.5 * (not w and all(p)) + float(w and not rote(p)) for w, p in verdicts]

    return {
        "score_strict": _interval(score(lambda p: not all(p))),
        "score_loose": _interval(score(lambda p: not any(p))),
        "complete_mastery_strict": _interval(dimension(lambda w, p: w and all(p))),
        "inadequate_generalisation": _interval(dimension(lambda w, p: not w and all(p))),
        "insufficient_knowledge": _interval(dimension(lambda w, p: not w and not all(p))),
        "rote_memorisation_strict": _interval(dimension(lambda w, p: w and not all(p))),
        "rote_memorisation_loose": _interval(dimension(lambda w, p: w and not any(p))),
    }


def _dynamath(items: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Worst case: a seed question counts if every one of its variants is right."""
    seeds: dict[str, list[float]] = defaultdict(list)
    for answers in items.values():
        seeds[answers[0]["cluster"]].append(_mean([r["score"] for r in answers]))
    return {
        "average": _interval([_mean(v) for v in seeds.values()]),
        "worst_case": _interval([float(min(v) >= 1.0) for v in seeds.values()]),
    }


def _interval(values: Sequence[float]) -> dict[str, Any]:
    import numpy as np

    array = np.asarray(values)
    draws = np.random.default_rng(SEED).integers(0, len(array), (DRAWS, len(array)))
    low, high = np.quantile(array[draws].mean(axis=1), [0.025, 0.975])
    return {"value": _mean(values), "low": float(low), "high": float(high), "n": len(values)}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
