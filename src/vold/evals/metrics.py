"""Figures of one model on one set, from its stored answers: accuracy with its error, shares, parts and derived scores.

Rows are dictionaries as `vold.evals.answering` stores them; n items with k samples each.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from vold.evals.derived import derived
from vold.evals.stats import clustered_stderr, pass_at_k, t_interval, wilson_interval
from vold.graders.extract import squeeze
from vold.graders.outcome import JUDGE_FAILED

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

SMALL = 100
"""Below so many items the interval of a proportion is Wilson's."""

MOST_VALUES = 60
"""A tag with more values than this names items and does not group them."""

Row = dict[str, Any]


def summarise(rows: Sequence[Row], *, benchmark: str) -> dict[str, Any]:
    """Accuracy (avg@k) with standard error and 95% interval, pass@k, maj@k, outcomes, parts by tag, derived scores.

    All are shares of 1. The standard error is over items, clustered where items share a source. The interval is
    Wilson's for fewer than `SMALL` independent items answered once, else Student's t with one degree of freedom less
    than there are clusters, cut at 0 and 1.

    Raises:
        DataError: fewer than two clusters.
    """
    items = by_item(rows)
    means = [_mean([r["score"] for r in answers]) for answers in items.values()]
    clusters = [_cluster(name, answers) for name, answers in items.items()]
    k = max((len(a) for a in items.values()), default=0)
    stderr = clustered_stderr(means, clusters)
    independent = len(set(clusters)) == len(clusters)
    if k == 1 and independent and len(items) < SMALL and {*means} <= {0.0, 1.0}:
        low, high = wilson_interval(round(sum(means)), len(items))
    else:
        low, high = t_interval(means, clusters=clusters)
    out: dict[str, Any] = {
        "accuracy": _mean(means),
        "stderr": stderr,
        "low": max(0.0, low),
        "high": min(1.0, high),
        "n": len(items),
        "k": k,
        "clusters": len(set(clusters)),
        "outcomes": dict(Counter(r["outcome"] for r in rows)),
        "judge_failed": sum(r["note"].startswith(JUDGE_FAILED) for r in rows),
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


def _cluster(name: str, answers: Sequence[Row]) -> Hashable:
    found: Hashable = answers[0].get("cluster", name)
    return found


def _by_tag(items: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Any]]:
    groups: dict[str, dict[str, list[tuple[float, Hashable]]]] = {}
    for name, answers in items.items():
        for tag, value in answers[0].get("tags", {}).items():
            score = _mean([r["score"] for r in answers])
            groups.setdefault(tag, {}).setdefault(value, []).append((score, _cluster(name, answers)))
    out: dict[str, dict[str, Any]] = {}
    for tag, values in groups.items():
        if len(values) <= min(MOST_VALUES, max(1, len(items) - 1)):
            out[tag] = {value: _part(members) for value, members in sorted(values.items())}
    return out


def _part(members: Sequence[tuple[float, Hashable]]) -> dict[str, Any]:
    scores, clusters = [s for s, _ in members], [c for _, c in members]
    stderr = clustered_stderr(scores, clusters) if len(set(clusters)) > 1 else None
    return {"accuracy": _mean(scores), "stderr": stderr, "n": len(scores)}


def _pass_at(items: Mapping[str, Sequence[Row]], k: int) -> float:
    return _mean([pass_at_k(len(a), sum(r["score"] >= 1.0 for r in a), k) for a in items.values()])


def _majority(answers: Sequence[Row]) -> float:
    """Score of the answer given most often; the earliest of equals; what could not be read has no vote."""
    voters = [r for r in answers if r["extracted"] is not None and r["outcome"] != "unparsed"]
    if not voters:
        return 0.0
    # Votes go by the text of an answer: that "1/2" and "0.5" are one is for a grader to say, and it needs the gold.
    votes = Counter(squeeze(r["extracted"]) for r in voters)
    winner = max(votes, key=lambda v: votes[v])  # the first inserted wins a tie: samples are in order
    return float(next(r["score"] for r in voters if squeeze(r["extracted"]) == winner))


def _powers(k: int) -> list[int]:
    return sorted({2**i for i in range(k.bit_length()) if 2**i <= k} | {k})


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
