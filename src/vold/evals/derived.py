"""Scores that are not a mean over items: those that a benchmark's file defines, and MMMU-Pro's overall.

Each is a mean, or a ratio of two sums, over clusters (composite problems, seed questions), and has a 95% interval over
them (`vold.evals.shares.ratio_interval`). Where an item was answered k times, a score is worked out for the first
samples, the second and so on, and averaged: it is the expected score of one answer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vold.data.benchmarks.registry import benchmarks
from vold.evals.shares import ratio_interval
from vold.run.results import Headline, Interval, Overall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.data.benchmarks.benchmark import Items
    from vold.run.results import Figures


MMMU_PRO = ("mmmu_pro_standard10", "mmmu_pro_vision")
"""The settings whose mean is MMMU-Pro's published score."""


def derived(benchmark: str, items: Items) -> dict[str, Interval]:
    """The derived scores of a benchmark by name: `value`, `low`, `high` as shares of 1 (or of the
    benchmark's `scale`), `n` clusters. Often none."""
    scores = {name: interval(list(by.values())) for name, by in cluster_scores(benchmark, items).items()}
    known = benchmarks().get(benchmark)
    if known is None:
        return scores
    scores |= {name: interval(top, bottom) for name, (top, bottom) in known.ratios(items).items()}
    return {name: _scaled(score, known.scale.get(name, 1.0)) for name, score in scores.items()}


def _scaled(score: Interval, most: float) -> Interval:
    error = None if score.stderr is None else score.stderr * most
    return Interval(score.value * most, score.low * most, score.high * most, score.n, error, most)


def cluster_scores(benchmark: str, items: Items) -> dict[str, Mapping[str, float]]:
    """The derived scores that are means over clusters, cluster by cluster, so that two models can be paired."""
    known = benchmarks().get(benchmark)
    return {name: by for name, by in known.cluster_scores(items).items() if by} if known is not None else {}


def mmmu_pro_overall(
    stages: Mapping[str, Mapping[str, Figures]], names: Mapping[str, str]
) -> dict[str, Overall] | None:
    """MMMU-Pro as published: the mean of the 10-option and the vision setting, by model; None without both.

    `names` maps a set's name to its benchmark. The settings ask the same questions, so their errors go together; the
    error and the 95% interval take them as fully correlated, which is never too narrow: both ends are means as well.
    """
    sets = {benchmark: name for name, benchmark in names.items()}
    ten, vision = map(sets.get, MMMU_PRO)
    if ten is None or vision is None:
        return None
    out = {}
    for model, by_set in stages.items():
        parts = by_set[ten], by_set[vision]
        value, stderr, low, high = (
            sum(getattr(p, k) for p in parts) / 2 for k in ("accuracy", "stderr", "low", "high")
        )
        words = (f"{name}: {said}" for name in (ten, vision) for said in by_set[name].differs)
        out[model] = Overall(value, stderr, low, high, tuple(words))
    return out


def headlines(
    stages: Mapping[str, Mapping[str, Figures]], names: Mapping[str, str], overall: Mapping[str, Overall] | None
) -> tuple[Headline, ...]:
    """The scores to be read first, sets in order: accuracy, or what the benchmark's file names, where it was formed.

    `names` maps a set's name to its benchmark. MMMU-Pro's overall goes before the settings that it is the mean of.
    """
    out: list[Headline] = []
    for name, benchmark in names.items():
        if benchmark.startswith("mmmu_pro") and overall and not any(h.set == "mmmu_pro" for h in out):
            out += [_headline("mmmu_pro", model, "overall", found, found.differs) for model, found in overall.items()]
        known = benchmarks().get(benchmark)
        for score in known.headline if known is not None else ("accuracy",):
            for model, by_set in stages.items():
                figures = by_set[name]
                if score == "accuracy":
                    whole = Interval(figures.accuracy, figures.low, figures.high, figures.clusters)
                    out.append(_headline(name, model, score, whole, figures.differs))
                elif score in figures.derived:
                    out.append(_headline(name, model, score, figures.derived[score], figures.differs))
    return tuple(out)


def _headline(name: str, model: str, score: str, found: Interval | Overall, differs: tuple[str, ...]) -> Headline:
    ends = {"low": found.low, "high": found.high}
    return Headline(set=name, model=model, score=score, value=found.value, differs=differs, **ends)


def interval(values: Sequence[float], weights: Sequence[float] | None = None) -> Interval:
    """The mean of `values`, or their sum over that of `weights`, with its 95% interval; one value a cluster. Clusters
    without any weight do not count."""
    sizes = [1.0] * len(values) if weights is None else weights
    weighed = [(v, w) for v, w in zip(values, sizes, strict=True) if w > 0]
    tops, bottoms = ([pair[i] for pair in weighed] for i in (0, 1))
    value, groups = math.fsum(tops) / math.fsum(bottoms), len(weighed)
    spread = math.fsum((top - value * bottom) ** 2 for top, bottom in weighed)
    error = math.sqrt(groups / (groups - 1) * spread) / math.fsum(bottoms) if groups > 1 else None
    return Interval(value, *ratio_interval(tops, bottoms), groups, error)
