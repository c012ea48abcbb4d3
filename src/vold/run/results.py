"""What `vold eval` stores in eval/results.json. docs/metrics.md is written from the docstrings of the fields.

Accuracies, shares and differences are shares of 1; only published figures are in percent, as they are printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vold.run.comparison import Comparison
from vold.run.metrics import SCORE
from vold.run.records import flat


@dataclass(frozen=True)
class Interval:
    """A score that is no mean over items, over clusters of items (`derived` in results.json)."""

    value: float
    """The score. Unit: 0 to 1 (MME's sums: to 20 and 8, its subtasks: to 2). Made by evals/derived.py:interval."""
    low: float
    """Lower end of its 95% interval. Unit: 0 to 1. Made by evals/derived.py:interval."""
    high: float
    """Upper end. Unit: 0 to 1. Made by evals/derived.py:interval."""
    n: int
    """Clusters it is worked out from. Unit: count. Made by evals/derived.py:interval."""
    stderr: float | None = None
    """Its standard error over the clusters; absent for a single one. Unit: as the value. Made by
    evals/derived.py:interval."""
    most: float = 1.0
    """The best score there can be. Unit: as the value. Made by evals/derived.py:derived."""


@dataclass(frozen=True)
class Breakdown:
    """The items of a set that share a tag's value (`by` in results.json)."""

    accuracy: float
    """Mean score of these items. Unit: 0 to 1. Made by evals/metrics.py:summarise."""
    stderr: float | None
    """Its standard error, clustered; null for a single cluster. Unit: 0 to 1. Made by evals/metrics.py:summarise."""
    n: int
    """Items. Unit: count. Made by evals/metrics.py:summarise."""


@dataclass(frozen=True)
class AsVLMEvalKit:
    """VLMEvalKit's own verdict on the same answers and the same judge's replies (`as_vlmevalkit` in results.json)."""

    accuracy: float
    """Its accuracy: what stands beside a published figure. Unit: 0 to 1. Made by evals/metrics.py:summarise."""
    derived: Mapping[str, float]
    """The benchmark's own scores by name, by its verdicts. Unit: as `derived`. Made by evals/metrics.py:summarise."""
    lenient: int
    """Answers that our marking gives more than VLMEvalKit. Unit: count. Made by evals/metrics.py:summarise."""
    strict: int
    """Answers that our marking gives less. Unit: count. Made by evals/metrics.py:summarise."""


@dataclass(frozen=True)
class Agreement:
    """The judge's marks beside those of a rule alone, which needs no judge (`judge_agreement` in results.json)."""

    share: float | None
    """Of those answers, the ones they agree on; null for none. Unit: 0 to 1. Made by evals/metrics.py:summarise."""
    n: int
    """Answers that both can read. Unit: count. Made by evals/metrics.py:summarise."""
    unread: int
    """Others, that the rule cannot read. Unit: count. Made by evals/metrics.py:summarise."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One model on one set (`stages.MODEL.SET` in results.json)."""

    accuracy: float
    """Mean over items of the mean score of their samples (avg@k). Unit: 0 to 1. Made by evals/metrics.py:summarise."""
    stderr: float
    """Standard error of the accuracy over items, clustered where items share a source. Unit: 0 to 1. Made by
    evals/stats.py:clustered_stderr."""
    low: float
    """Lower end of the accuracy's 95% interval. Unit: 0 to 1. Made by evals/metrics.py:summarise."""
    high: float
    """Upper end. Unit: 0 to 1. Made by evals/metrics.py:summarise."""
    n: int
    """Items. Unit: count. Made by evals/metrics.py:summarise."""
    k: int
    """Samples of an item, the most of any. Unit: count. Made by evals/metrics.py:summarise."""
    clusters: int
    """Sources of items; as many as items where none share one. Unit: count. Made by evals/metrics.py:summarise."""
    outcomes: Mapping[str, int]
    """Answers by outcome: right, wrong, unparsed, truncated, timed_out. Unit: count. Made by
    graders/outcome.py:outcome."""
    judge_failed: int
    """Answers that score 0 because the judge's reply could not be used. Unit: count. Made by
    evals/metrics.py:summarise."""
    mean_tokens: float
    """Mean length of an answer. Unit: tokens. Made by evals/metrics.py:summarise."""
    by: Mapping[str, Mapping[str, Breakdown]]
    """Parts of the set, by tag and its value. Unit: see Breakdown. Made by evals/metrics.py:summarise."""
    derived: Mapping[str, Interval]
    """The benchmark's own scores by name. Unit: see Interval. Made by evals/derived.py:derived."""
    by_kind: Mapping[str, float]
    """Accuracy by the value of the tag `kind`. Unit: 0 to 1. Made by evals/metrics.py:summarise."""
    scores: Mapping[str, float] = field(default_factory=dict, metadata=flat(SCORE))
    """Mean of each score that the marks are made of, by its name; absent where they are one verdict. Unit: 0 to 1. Made
    by evals/metrics.py:summarise."""
    pass_at: Mapping[str, float] | None = None
    """pass@j by j, the powers of 2 up to k and k; absent for one sample. Unit: 0 to 1. Made by
    evals/stats.py:pass_at_k."""
    maj_at_k: float | None = None
    """Accuracy of the answer given most often; absent for one sample. Unit: 0 to 1. Made by
    evals/metrics.py:summarise."""
    judge_agreement: Agreement | None = None
    """How far judge and rule agree; absent where no judge marks. Unit: see Agreement. Made by
    evals/metrics.py:summarise."""
    as_vlmevalkit: AsVLMEvalKit | None = None
    """The same answers by VLMEvalKit's own verdict; absent unless the protocol is `vlmevalkit`. Unit: see
    AsVLMEvalKit. Made by evals/metrics.py:summarise."""
    differs: tuple[str, ...] = ()
    """In what it is of another test than a published figure: what `sets.SET.differs` says, and answers that nobody gave
    or marked. Unit: text. Made by evals/metrics.py:summarise."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be asked or marked. It is counted and listed, never fatal.

    Example:
        >>> BadRow(where="testmini.parquet: row 3 (id 17)", why="the picture cannot be decoded").why
        'the picture cannot be decoded'
    """

    where: str
    """File, row and id. Unit: text. Made by data/benchmarks/registry.py:load."""
    why: str
    """What is wrong with it. Unit: text. Made by data/benchmarks/registry.py:load."""


@dataclass(frozen=True)
class BadGold:
    """An item left out for its gold answer: under `rule` one that does not grade itself as right.

    Example:
        >>> BadGold("17", "118T", "unreadable reference: not LaTeX maths", "left out").answer
        '118T'
    """

    id: str
    """The item. Unit: name. Made by evals/marking/golds.py:handle_golds."""
    answer: str
    """Its gold answer. Unit: text. Made by evals/marking/golds.py:handle_golds."""
    why: str
    """Why that cannot be marked. Unit: text. Made by evals/marking/golds.py:handle_golds."""
    rule: str
    """The rule by which the item was left out. Unit: text. Made by evals/marking/golds.py:handle_golds."""


@dataclass(frozen=True)
class Published:
    """One published figure and where it was read (the benchmark's file in data/benchmarks/)."""

    model: str
    """Whose figure it is. Unit: name. Made by evals/published.py:published."""
    benchmark: str
    """The benchmark. Unit: name. Made by evals/published.py:published."""
    split: str
    """Its split. Unit: name. Made by evals/published.py:published."""
    protocol: str
    """The protocol of ours that the source used; any other word says that it used none of them. Unit: name. Made by
    evals/published.py:published."""
    metric: str
    """`accuracy`, or the name of a derived score. Unit: name. Made by evals/published.py:published."""
    value: float
    """The figure, as it is printed. Unit: percent. Made by evals/published.py:published."""
    source: str
    """Where it was read. Unit: text. Made by evals/published.py:published."""
    note: str = ""
    """What else to know of it. Unit: text. Made by evals/published.py:published."""
    max_new_tokens: int | None = None
    """Longest answer of that measurement; absent where it is unknown. Unit: tokens. Made by
    evals/published.py:published."""


@dataclass(frozen=True, kw_only=True)
class SetInfo:
    """What a set holds and how it was asked (`sets.SET` in results.json)."""

    benchmark: str | None
    """The benchmark; null for a task set. Unit: name. Made by evals/questions.py:open_sets."""
    title: str
    """The set's heading. Unit: text. Made by evals/questions.py:open_sets."""
    split: str | None
    """The benchmark's split; null for a task set. Unit: name. Made by evals/questions.py:open_sets."""
    source: str | None = None
    """Where the benchmark was read; absent for a task set. Unit: text. Made by evals/questions.py:open_sets."""
    limit: int | None = None
    """How many of the benchmark's items were asked for, null for all; absent for a task set. Unit: count. Made by
    evals/questions.py:open_sets."""
    official_n: int | None = None
    """Items of the benchmark's split as published; absent for a task set. Unit: count. Made by
    evals/questions.py:open_sets."""
    n_items: int
    """Items that are asked. Unit: count. Made by evals/questions.py:open_sets."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Why these are fewer: items by reason. Unit: count. Made by evals/published.py:left_out."""
    bad_rows: tuple[BadRow, ...]
    """Rows that cannot be asked or marked. Unit: see BadRow. Made by evals/questions.py:open_sets."""
    bad_golds: tuple[BadGold, ...]
    """Items left out for their gold answer. Unit: see BadGold. Made by evals/questions.py:open_sets."""
    protocol: Mapping[str, object]
    """Everything else that decides a score, and its `hash`. Unit: see Protocol. Made by
    evals/questions.py:open_sets."""
    differs: tuple[str, ...] = ()
    """In what all figures here are of another test than the published ones. Unit: text. Made by
    evals/published.py:differs."""
    published: tuple[Published, ...] = ()
    """Published figures of the same test; none where a model's figure differs. Unit: see Published. Made by
    evals/published.py:beside."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkInfo(SetInfo):
    """As `SetInfo`, of a benchmark: `source`, `limit` and `official_n` are always there."""

    source: str = field()
    limit: int | None = field()
    official_n: int = field()


@dataclass(frozen=True)
class RunInfo:
    """Which run it is (`run` in results.json)."""

    name: str
    """The run directory's own name. Unit: name. Made by evals/evaluate.py:evaluate."""
    models: Mapping[str, str]
    """Where each model was read, in order; `endpoint` for one behind an address. Unit: path. Made by
    model/loading.py:stage_models."""
    versions: Mapping[str, str]
    """Versions of the packages that decide a result. Unit: text. Made by run/directory.py:versions."""


@dataclass(frozen=True)
class Overall:
    """MMMU-Pro's mean of two settings (`mmmu_pro_overall.MODEL` in results.json)."""

    value: float
    """Mean of the accuracies of the 10-option and the vision setting. Unit: 0 to 1. Made by
    evals/derived.py:mmmu_pro_overall."""
    stderr: float
    """Its standard error, the two taken as fully correlated. Unit: 0 to 1. Made by
    evals/derived.py:mmmu_pro_overall."""
    low: float
    """Lower end of its 95% interval. Unit: 0 to 1. Made by evals/derived.py:mmmu_pro_overall."""
    high: float
    """Upper end. Unit: 0 to 1. Made by evals/derived.py:mmmu_pro_overall."""
    differs: tuple[str, ...] = ()
    """In what either setting is of another test than the published one. Unit: text. Made by
    evals/derived.py:mmmu_pro_overall."""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A score that the field calls the benchmark's own, of one model (`headlines` in results.json)."""

    set: str
    """The set, or `mmmu_pro` for the mean of two. Unit: name. Made by evals/derived.py:headlines."""
    model: str
    """The model. Unit: name. Made by evals/derived.py:headlines."""
    score: str
    """`accuracy`, the name of a derived score, or `overall`. Unit: name. Made by evals/derived.py:headlines."""
    value: float
    """The score. Unit: 0 to 1 (MME's sums: to 20 and 8). Made by evals/derived.py:headlines."""
    low: float
    """Lower end of its 95% interval. Unit: as the value. Made by evals/derived.py:headlines."""
    high: float
    """Upper end. Unit: as the value. Made by evals/derived.py:headlines."""
    differs: tuple[str, ...] = ()
    """In what it is of another test than a published score. Unit: text. Made by evals/derived.py:headlines."""


@dataclass(frozen=True)
class Results:
    """eval/results.json."""

    run: RunInfo
    """The run. Unit: see RunInfo. Made by evals/evaluate.py:evaluate."""
    sets: Mapping[str, BenchmarkInfo | SetInfo]
    """Task sets and benchmarks by name. Unit: see SetInfo. Made by evals/questions.py:open_sets."""
    stages: Mapping[str, Mapping[str, Figures]]
    """Figures by model, then by set. Unit: see Figures. Made by evals/metrics.py:summarise."""
    comparisons: tuple[Comparison, ...]
    """Every model against every earlier one, on every set. Unit: see Comparison. Made by
    evals/compare.py:compare_answers."""
    headlines: tuple[Headline, ...] = ()
    """What is to be read first, sets in order. Unit: see Headline. Made by evals/derived.py:headlines."""
    mmmu_pro_overall: Mapping[str, Overall] | None = None
    """MMMU-Pro as it is published, by model; absent where a run lacks one of its two settings. Unit: see Overall. Made
    by evals/derived.py:mmmu_pro_overall."""
