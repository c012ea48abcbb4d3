"""Scores that are not a mean over items: those that a benchmark's file defines, and MMMU-Pro's overall.

Each is a mean, or a ratio of two sums, over clusters (composite problems, seed questions), and comes with a 95%
percentile interval from a bootstrap over them with a fixed seed (Efron 1979). Where an item was answered k times, a
score is worked out for the first samples, the second and so on, and averaged: it is the expected score of one answer.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

from vold.data.benchmarks.registry import benchmarks
from vold.run.results import Interval, Overall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.data.benchmarks.benchmark import Items
    from vold.run.results import Figures

DRAWS = 2000
SEED = 20251023


def derived(benchmark: str, items: Items) -> dict[str, Interval]:
    """The derived scores of a benchmark by name: `value`, `low`, `high` as shares of 1, `n` clusters. Often none."""
    scores = {name: interval(list(by.values())) for name, by in cluster_scores(benchmark, items).items()}
    known = benchmarks().get(benchmark)
    ratios = known.ratios(items) if known is not None else {}
    return scores | {name: interval(top, bottom) for name, (top, bottom) in ratios.items()}


def cluster_scores(benchmark: str, items: Items) -> dict[str, Mapping[str, float]]:
    """The derived scores that are means over clusters, cluster by cluster, so that two models can be paired."""
    known = benchmarks().get(benchmark)
    return {name: by for name, by in known.cluster_scores(items).items() if by} if known is not None else {}


def mmmu_pro_overall(
    stages: Mapping[str, Mapping[str, Figures]], names: Mapping[str, str]
) -> dict[str, Overall] | None:
    """MMMU-Pro as published: the mean of the 10-option and the vision setting, by model; None without both.

    `names` maps a set's name to its benchmark. The settings ask the same questions, so their errors go together; the
    95% interval takes them as fully correlated, which is never too narrow.
    """
    sets = {benchmark: name for name, benchmark in names.items()}
    ten, vision = sets.get("mmmu_pro_standard10"), sets.get("mmmu_pro_vision")
    if ten is None or vision is None:
        return None
    z = NormalDist().inv_cdf(0.975)
    out = {}
    for model, by_set in stages.items():
        parts = by_set[ten], by_set[vision]
        value, stderr = sum(p.accuracy for p in parts) / 2, sum(p.stderr for p in parts) / 2
        low, high = max(0.0, value - z * stderr), min(1.0, value + z * stderr)
        out[model] = Overall(value, stderr, low, high)
    return out


def interval(values: Sequence[float], weights: Sequence[float] | None = None) -> Interval:
    """The mean of `values`, or their sum over that of `weights`, with its bootstrap interval; one value a cluster."""
    import numpy as np

    top = np.asarray(values, dtype=np.float64)
    bottom = np.ones_like(top) if weights is None else np.asarray(weights, dtype=np.float64)
    draws = np.random.default_rng(SEED).integers(0, len(top), (DRAWS, len(top)))
    over, under = top[draws].sum(axis=1), bottom[draws].sum(axis=1)
    # A draw without any weight has no ratio.
    low, high = np.quantile(over[under > 0] / under[under > 0], [0.025, 0.975])
    value = math.fsum(values) / math.fsum(bottom.tolist())
    return Interval(value, float(low), float(high), int((bottom > 0).sum()))
