"""Figures of one model on one set, from its stored answers: accuracy with its error, shares, parts and derived scores.

Of n items with k samples each.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from vold.evals.derived import derived
from vold.evals.shares import share_interval
from vold.evals.stats import clustered_stderr, pass_at_k
from vold.graders.extract import squeeze
from vold.graders.outcome import JUDGE_FAILED, NOT_ANSWERED, mean_scores
from vold.run.answers import Answer
from vold.run.results import Agreement, AsVLMEvalKit, Breakdown, Figures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

READ = ("right", "wrong")
"""Outcomes of an answer that could be read."""
MOST_VALUES = 60
"""A tag with more values than this names items and does not group them."""


def summarise(rows: Sequence[Answer], *, benchmark: str, differs: tuple[str, ...] = ()) -> Figures:
    """Accuracy (avg@k) with standard error and 95% interval, pass@k, maj@k, outcomes, parts by tag, derived scores.

    All are shares of 1. The standard error is over items, clustered where items share a source. The interval is
    `vold.evals.shares.share_interval`, Wilson's for the effective number of items. `differs` is in what every figure on
    the set is of another test than the published ones.

    Raises:
        DataError: fewer than two clusters.
    """
    items = by_item(rows)
    means = [_score(answers) for answers in items.values()]
    clusters = [answers[0].source for answers in items.values()]
    k = max((len(a) for a in items.values()), default=0)
    stderr = clustered_stderr(means, clusters)
    low, high = share_interval(means, clusters)
    by = _by_tag(items)
    several = k > 1
    return Figures(
        accuracy=fmean(means),
        stderr=stderr,
        low=low,
        high=high,
        n=len(items),
        k=k,
        clusters=len(set(clusters)),
        outcomes=dict(Counter(r.outcome for r in rows)),
        judge_failed=sum(r.note.startswith(JUDGE_FAILED) for r in rows),
        mean_tokens=fmean([r.tokens for r in rows]),
        by=by,
        derived=derived(benchmark, items),
        by_kind={value: part.accuracy for value, part in by.get("kind", {}).items()},
        scores=mean_scores([r.scores for r in rows]),
        pass_at=_pass_at(items) if several else None,
        maj_at_k=fmean([_majority(answers) for answers in items.values()]) if several else None,
        judge_agreement=_agreement(rows),
        as_vlmevalkit=_as_vlmevalkit(rows, benchmark),
        differs=(*differs, *without_mark(rows)),
    )


def _agreement(rows: Sequence[Answer]) -> Agreement | None:
    """How far a judge and a rule agree; None where no judge has marked."""
    judged = [r for r in rows if r.by_rule is not None]
    if not judged:
        return None
    both = [r for r in judged if r.by_rule in READ and r.outcome in READ]
    same = sum(r.by_rule == r.outcome for r in both)
    unread = sum(r.by_rule in ("unparsed", "timed_out") for r in judged)
    return Agreement(same / len(both) if both else None, len(both), unread)


def _as_vlmevalkit(rows: Sequence[Answer], benchmark: str) -> AsVLMEvalKit | None:
    """The figures by VLMEvalKit's own verdicts, where every answer has one."""
    theirs = [replace(r, score=r.as_vlmevalkit) for r in rows if r.as_vlmevalkit is not None]
    if len(theirs) < len(rows):
        return None
    items = by_item(theirs)
    gaps = [ours.score - other.score for ours, other in zip(rows, theirs, strict=True)]
    return AsVLMEvalKit(
        accuracy=fmean([_score(answers) for answers in items.values()]),
        derived={name: score.value for name, score in derived(benchmark, items).items()},
        lenient=sum(gap > 0 for gap in gaps),
        strict=sum(gap < 0 for gap in gaps),
    )


def without_mark(rows: Sequence[Answer]) -> tuple[str, ...]:
    """Answers that score 0 and that nobody gave or marked, in words."""
    faults = {NOT_ANSWERED: "the server gave no answer", JUDGE_FAILED: "the judge's reply could not be used"}
    counts = {words: sum(r.note.startswith(note) for r in rows) for note, words in faults.items()}
    return tuple(
        f"{n:,} of {len(rows):,} answers score{'s' * (n == 1)} 0 because {words}" for words, n in counts.items() if n
    )


def by_item(rows: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Rows by item id, samples in order."""
    items: dict[str, list[Answer]] = {}
    for row in rows:
        items.setdefault(row.id, []).append(row)
    return {name: sorted(answers, key=lambda r: r.sample) for name, answers in items.items()}


def _by_tag(items: Mapping[str, Sequence[Answer]]) -> dict[str, dict[str, Breakdown]]:
    groups: dict[str, dict[str, list[tuple[float, str]]]] = {}
    for answers in items.values():
        for tag, value in answers[0].tags.items():
            groups.setdefault(tag, {}).setdefault(value, []).append((_score(answers), answers[0].source))
    out: dict[str, dict[str, Breakdown]] = {}
    for tag, values in groups.items():
        if len(values) <= min(MOST_VALUES, max(1, len(items) - 1)):
            out[tag] = {value: _part(members) for value, members in sorted(values.items())}
    return out


def _part(members: Sequence[tuple[float, str]]) -> Breakdown:
    scores, clusters = [s for s, _ in members], [c for _, c in members]
    stderr = clustered_stderr(scores, clusters) if len(set(clusters)) > 1 else None
    return Breakdown(fmean(scores), stderr, len(scores))


def _pass_at(items: Mapping[str, Sequence[Answer]]) -> dict[str, float]:
    """pass@j by j, as far as every item has samples."""
    right = [(len(a), sum(r.score >= 1.0 for r in a)) for a in items.values()]
    return {str(j): fmean([pass_at_k(n, c, j) for n, c in right]) for j in _powers(min(n for n, _ in right))}


def _majority(answers: Sequence[Answer]) -> float:
    """Score of the answer given most often; the earliest of equals; what could not be read has no vote."""
    # Votes go by the text of an answer: that "1/2" and "0.5" are one is for a grader to say, and it needs the gold.
    voters = [(squeeze(r.extracted), r.score) for r in answers if r.extracted is not None and r.outcome != "unparsed"]
    if not voters:
        return 0.0
    votes = Counter(said for said, _ in voters)
    winner = max(votes, key=lambda v: votes[v])  # the first inserted wins a tie: samples are in order
    return float(next(score for said, score in voters if said == winner))


def _powers(k: int) -> list[int]:
    return sorted({2**i for i in range(k.bit_length()) if 2**i <= k} | {k})


def _score(answers: Sequence[Answer]) -> float:
    return fmean([r.score for r in answers])
