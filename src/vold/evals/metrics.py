"""Figures of one model on one set, from its stored answers: accuracy with its error, shares, parts and derived scores.

Rows are dictionaries as `vold.evals.answering` stores them; n items with k samples each.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from vold.evals.derived import derived
from vold.stats import clustered_stderr, mean_stderr, pass_at_k, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SMALL = 100
"""Below so many items the interval of a proportion is Wilson's."""

MOST_VALUES = 60
"""A tag with more values than this names items and does not group them."""

Row = dict[str, Any]


def summarise(rows: Sequence[Row], *, benchmark: str) -> dict[str, Any]:
    """Accuracy (avg@k) with standard error and 95% interval, pass@k, maj@k, outcomes, parts by tag, derived scores.

    The standard error is over items, clustered where items share a source; the interval is Wilson's for fewer than
    `SMALL` independent items answered once, else normal.

    Raises:
        DataError: fewer than two clusters.
    """
    items = by_item(rows)
    means = [_mean([r["score"] for r in answers]) for answers in items.values()]
    clusters = [answers[0].get("cluster", name) for name, answers in items.items()]
    k = max(len(a) for a in items.values())
    shared = len(set(clusters)) < len(clusters)
    accuracy, stderr = mean_stderr(means)
    if shared:
        stderr = clustered_stderr(means, clusters)
    if k == 1 and not shared and len(items) < SMALL:
        low, high = wilson_interval(round(sum(means)), len(items))
    else:
        z = NormalDist().inv_cdf(0.975)
        low, high = max(0.0, accuracy - z * stderr), min(1.0, accuracy + z * stderr)
    out: dict[str, Any] = {
        "accuracy": accuracy,
        "stderr": stderr,
        "low": low,
        "high": high,
        "n": len(items),
        "k": k,
        "clusters": len(set(clusters)),
        "outcomes": dict(Counter(r["outcome"] for r in rows)),
        "mean_tokens": _mean([r["tokens"] for r in rows]),
        "by": _by_tag(items),
        "derived": derived(benchmark, items),
    }
    out["by_kind"] = {value: part["accuracy"] for value, part in out["by"].get("kind", {}).items()}
    if k > 1:
        out["pass_at"] = {str(j): _pass_at(items, j) for j in _powers(min(len(a) for a in items.values()))}
        out["maj_at_k"] = _mean([_majority(answers) for answers in items.values()])
    return out


def by_item(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by item id, samples in order."""
    items: dict[str, list[Row]] = {}
    for row in rows:
        items.setdefault(row["id"], []).append(row)
    return {name: sorted(answers, key=lambda r: r.get("sample", 0)) for name, answers in items.items()}


def _by_tag(items: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Any]]:
    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for answers in items.values():
        for tag, value in answers[0].get("tags", {}).items():
            groups[tag][value].append(_mean([r["score"] for r in answers]))
    out: dict[str, dict[str, Any]] = {}
    for tag, values in groups.items():
        if len(values) <= min(MOST_VALUES, max(1, len(items) - 1)):
            out[tag] = {}
            for value, scores in sorted(values.items()):
                mean, stderr = mean_stderr(scores)
                out[tag][value] = {
                    "accuracy": mean,
                    "stderr": None if math.isnan(stderr) else stderr,
                    "n": len(scores),
                }
    return out


def _pass_at(items: Mapping[str, Sequence[Row]], k: int) -> float:
    return _mean([pass_at_k(len(a), sum(r["score"] >= 1.0 for r in a), k) for a in items.values()])


def _majority(answers: Sequence[Row]) -> float:
    """Score of the answer given most often; the earliest of equals; what could not be read has no vote."""
    votes = Counter(str(r["extracted"]) for r in answers if r["extracted"] is not None and r["outcome"] != "unparsed")
    if not votes:
        return 0.0
    winner = max(votes, key=lambda v: votes[v])  # the first inserted wins a tie: samples are in order
    return float(next(r["score"] for r in answers if str(r["extracted"]) == winner))


def _powers(k: int) -> list[int]:
    return sorted({2**i for i in range(k.bit_length()) if 2**i <= k} | {k})


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
