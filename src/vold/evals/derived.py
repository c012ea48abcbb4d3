"""Scores that are not a mean over items: We-Math's four dimensions, DynaMath's worst case, MMMU-Pro's overall.

Each is a mean, or a ratio of two sums, over clusters (composite problems, seed questions), and comes with a 95%
percentile interval from a bootstrap over them with a fixed seed (Efron 1979). Where an item was answered k times, a
score is worked out for the first samples, the second and so on, and averaged: it is the expected score of one answer.
"""

from __future__ import annotations

import math
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING

from vold.run.results import Interval, Overall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.run.answers import Answer
    from vold.run.results import Figures

    Items = Mapping[str, Sequence[Answer]]
    """Answers by item id, samples in order."""

DRAWS = 2000
SEED = 20251023

VISION_ONLY = "Vision Only"


def derived(benchmark: str, items: Items) -> dict[str, Interval]:
    """The derived scores of a benchmark by name: `value`, `low`, `high` as shares of 1, `n` clusters. Often none."""
    scores = {name: interval(list(by.values())) for name, by in cluster_scores(benchmark, items).items()}
    if benchmark == "wemath" and scores:
        scores |= _wemath_rates(items)
    if benchmark == "dynamath":
        scores = {"average": _dynamath_average(items), **scores}
    return scores


def cluster_scores(benchmark: str, items: Items) -> dict[str, dict[str, float]]:
    """The derived scores that are means over clusters, cluster by cluster, so that two models can be paired."""
    found = {"wemath": _wemath, "dynamath": _dynamath, "mathverse": _mathverse}.get(benchmark)
    scores = found(items) if found else {}
    return {name: by for name, by in scores.items() if by}


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


def _wemath(items: Items) -> dict[str, dict[str, float]]:
    """Strict and loose score and the four dimensions over composite problems of which every step was asked.

    With the problem right and all steps right a model has mastered it; right with a step wrong it has learnt by rote
    (loosely: with every step wrong, and one right step makes it mastery); wrong with all steps right it generalises
    badly (half a point); else it lacks knowledge. Score = (mastered + generalises badly / 2) / problems, which is
    (N - IG/2 - RM - IK) / N of the paper (arXiv 2407.01284).
    """
    out: dict[str, dict[str, float]] = {}
    for name, (whole, parts) in _composites(items).items():
        drawn = [
            (w.score >= 1.0, [s.score >= 1.0 for s in steps])
            for w, *steps in zip(whole, *parts, strict=False)
        ]  # fmt: skip
        dimensions: dict[str, list[float | bool]] = {
            "score_strict": [0.5 * (not w and all(p)) + (w and all(p)) for w, p in drawn],
            "score_loose": [0.5 * (not w and all(p)) + (w and any(p)) for w, p in drawn],
            "insufficient_knowledge": [not w and not all(p) for w, p in drawn],
            "inadequate_generalisation": [not w and all(p) for w, p in drawn],
            "complete_mastery_strict": [w and all(p) for w, p in drawn],
            "complete_mastery_loose": [w and any(p) for w, p in drawn],
            "rote_memorisation_strict": [w and not all(p) for w, p in drawn],
            "rote_memorisation_loose": [w and not any(p) for w, p in drawn],
            f"{('two', 'three')[len(parts) - 2]}_step": [w for w, _ in drawn],
        }
        for metric, values in dimensions.items():
            out.setdefault(metric, {})[name] = fmean([float(v) for v in values])
    return out


def _wemath_rates(items: Items) -> dict[str, Interval]:
    """Figures of We-Math's table that are ratios: accuracy over single steps, and rote among problems got right."""
    composites, scores = _composites(items), _wemath(items)
    steps = [[fmean([r.score for r in step]) for step in parts] for _, parts in composites.values()]
    out = {"one_step": interval([math.fsum(s) for s in steps], [float(len(s)) for s in steps])}
    for kind in ("strict", "loose"):
        rote, mastered = scores[f"rote_memorisation_{kind}"], scores[f"complete_mastery_{kind}"]
        right = [rote[c] + mastered[c] for c in composites]
        if any(right):
            out[f"rote_rate_{kind}"] = interval([rote[c] for c in composites], right)
    return out


def _composites(items: Items) -> dict[str, tuple[Sequence[Answer], list[Sequence[Answer]]]]:
    """Answers to the composite problem and to each of its steps, where all of them were asked."""
    found: dict[str, dict[str, Sequence[Answer]]] = {}
    for answers in items.values():
        tags = answers[0].tags
        if "composite" in tags and "key" in tags:
            found.setdefault(tags["composite"], {})[tags["key"]] = answers
    out = {}
    for name, by_key in found.items():
        for steps in (2, 3):
            keys = [f"{steps}steps_{part}" for part in ("multi", *range(1, steps + 1))]
            if all(key in by_key for key in keys):
                out[name] = (by_key[keys[0]], [by_key[key] for key in keys[1:]])
    return out


def _dynamath(items: Items) -> dict[str, dict[str, float]]:
    """Worst case: a seed question counts if every one of its variants is right.

    Seeds with fewer variants than others (a limit, a gold left out) would be easier and are left out.
    """
    seeds = _seeds(items)
    most = max(map(len, seeds.values()), default=0)
    if most < 2:
        return {}
    return {
        "worst_case": {
            seed: fmean([float(all(r.score >= 1.0 for r in draw)) for draw in zip(*variants, strict=False)])
            for seed, variants in seeds.items()
            if len(variants) == most
        }
    }


def _dynamath_average(items: Items) -> Interval:
    """Accuracy over all variants, as DynaMath calls it."""
    scores = [[fmean([r.score for r in answers]) for answers in variants] for variants in _seeds(items).values()]
    return interval([math.fsum(s) for s in scores], [float(len(s)) for s in scores])


def _seeds(items: Items) -> dict[str, list[Sequence[Answer]]]:
    seeds: dict[str, list[Sequence[Answer]]] = {}
    for answers in items.values():
        seeds.setdefault(answers[0].source, []).append(answers)
    return seeds


def _mathverse(items: Items) -> dict[str, dict[str, float]]:
    """The vision-only version by itself: what most papers call MathVerse."""
    return {
        "vision_only": {
            answers[0].source: fmean([r.score for r in answers])
            for answers in items.values()
            if answers[0].tags.get("version") == VISION_ONLY
        }
    }


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
