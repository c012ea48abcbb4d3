"""Compare two stored evaluations item by item, and refuse to where they asked or marked differently."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

from rich.text import Text

from vold.data.benchmarks.registry import benchmarks, get_benchmark
from vold.errors import ConfigError, DataError
from vold.evals.derived import MMMU_PRO, cluster_scores
from vold.evals.metrics import by_item, without_mark
from vold.evals.protocol import differences
from vold.evals.published import differs, official_n
from vold.evals.stats import holm, mcnemar_exact, min_detectable_difference, paired_t, share_difference
from vold.report.run_page import COMPARED
from vold.report.side_by_side import write_side_by_side
from vold.report.tables import print_comparison
from vold.run.answers import PROTOCOL, Answer, ModelStamp, Stamp, model_folders, refuse_doubled
from vold.run.comparison import Comparison, ScoreDifference, SetComparison
from vold.run.console import console
from vold.run.files import lists_in, read_json, read_records
from vold.run.folders import weights_digest
from vold.run.recipe import load_recipe
from vold.run.state import is_run
from vold.types.named import is_named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vold.run.comparison import PairedDifference

    AnyComparison = TypeVar("AnyComparison", Comparison, SetComparison)

STAGES = ("vold", "sft", "base")
"""Of a run with several models, the one that is meant: the last stage it has."""

AGAIN = "put it back from a copy, or delete its folder and repeat `vold eval`"


def compare_answers(
    name: str,
    a: Sequence[Answer],
    b: Sequence[Answer],
    forced: tuple[str, ...] = (),
    *,
    benchmark: str = "",
) -> SetComparison:
    """Compare stored answers of two models to the same items.

    Per item the scores of all samples are averaged. Interval and p-value are those of
    `vold.evals.stats.share_difference`, with the clustered standard error where items share a source. McNemar's exact
    test is given for one 0/1 answer to each of independent items.
    `benchmark` names the derived scores to compare.

    Raises:
        DataError: fewer than two items, or than two sources of items, in common.
    """
    first, second = by_item(a), by_item(b)
    common = [i for i in first if i in second]
    if len(common) < 2:
        raise DataError("these evaluations have fewer than two items in common", where=name, got=str(len(common)))
    x = [fmean(r.score for r in first[i]) for i in common]
    y = [fmean(r.score for r in second[i]) for i in common]
    clusters = [first[i][0].source for i in common]
    shared = len(set(clusters)) < len(clusters)
    paired = share_difference(x, y, clusters=clusters if shared else None)
    derived = _derived(benchmark, {i: first[i] for i in common}, {i: second[i] for i in common})
    known = benchmarks().get(benchmark)
    heads = [s for s in (known.headline if known is not None else ()) if s == "accuracy" or s in derived]
    single = all(len(first[i]) == len(second[i]) == 1 for i in common) and {*x, *y} <= {0.0, 1.0}
    return SetComparison(
        name=name,
        accuracy_a=math.fsum(x) / len(x),
        accuracy_b=math.fsum(y) / len(y),
        difference=paired.difference,
        stderr=paired.stderr,
        low=paired.low,
        high=paired.high,
        p_value=paired.p_value,
        mcnemar_p=mcnemar_exact(x, y) if single and not shared else None,
        detectable=_detectable(paired, len(set(clusters))),
        n=len(common),
        only_a=len(first) - len(common),
        only_b=len(second) - len(common),
        clustered=shared,
        forced=forced,
        derived=derived,
        headline=tuple(heads) or ("accuracy",),
    )


def _detectable(paired: PairedDifference, groups: int) -> float:
    """The true difference that so many items show. Where no pair differs from another, one more won by each says how
    far apart they could be."""
    if paired.stderr == 0.0:
        return min(1.0, min_detectable_difference(groups, math.sqrt(2 / (groups + 2))))
    return min(1.0, min_detectable_difference(paired.n, paired.stderr * math.sqrt(paired.n)))


def _derived(
    benchmark: str, a: Mapping[str, Sequence[Answer]], b: Mapping[str, Sequence[Answer]]
) -> dict[str, ScoreDifference]:
    """Differences of the benchmark's own scores, cluster by cluster, the two models having answered the same items.

    A ratio is compared where its clusters have the same sizes for both: what a cluster adds to it are two numbers.
    """
    first, second = cluster_scores(benchmark, a), cluster_scores(benchmark, b)
    pairs = {}
    for name, by in first.items():
        common = [c for c in by if c in second.get(name, {})]
        pairs[name] = [by[c] for c in common], [second[name][c] for c in common]
    known = benchmarks().get(benchmark)
    ours, others = (known.ratios(items) if known is not None else {} for items in (a, b))
    for name, (tops, sizes) in ours.items():
        if name in others and list(others[name][1]) == list(sizes) and math.fsum(sizes) > 0:
            share = len(sizes) / math.fsum(sizes)
            pairs[name] = [t * share for t in tops], [t * share for t in others[name][0]]
    most = known.scale if known is not None else {}
    return {name: _difference(x, y, most.get(name, 1.0)) for name, (x, y) in pairs.items() if len(x) > 1}


def _difference(x: Sequence[float], y: Sequence[float], most: float) -> ScoreDifference:
    """The difference of two means, of scores that are `most` at best."""
    paired = (share_difference if max(*x, *y) <= 1.0 else paired_t)(x, y)
    low, high = max(-1.0, paired.low), min(1.0, paired.high)
    numbers = (paired.difference, paired.stderr, low, high, fmean(x), fmean(y))
    difference, stderr, low, high, mean_x, mean_y = (most * v for v in numbers)
    return ScoreDifference(
        difference=difference, stderr=stderr, low=low, high=high, p_value=paired.p_value, n=paired.n, a=mean_x, b=mean_y
    )


def mmmu_pro(rows: Mapping[str, Sequence[Answer]]) -> list[Answer]:
    """MMMU-Pro as published, of the answers by benchmark: those of its two settings as one set, clustered by question.
    None without both, or where one has more questions than the other: their mean is then another figure."""
    parts = [rows.get(name, ()) for name in MMMU_PRO]
    if len({len(by_item(part)) for part in parts}) > 1:
        return []
    return [replace(r, id=f"{name}/{r.id}", cluster=r.id) for name in MMMU_PRO for r in rows.get(name, ())]


def compare_runs(a: Path, b: Path, *, force: bool = False) -> list[SetComparison]:
    """Compare two runs, or two models given as `RUN/eval/MODEL`, on every set that both have.

    Of a run with several models the last stage is taken (`vold`, else `sft`, else `base`). The p-values are corrected
    for the number of sets as well.

    Raises:
        ConfigError: a protocol differs and `force` is not set; the error names every field.
        DataError: no evaluation there, several models of which none is a stage, or no set in common.
        CheckpointError: the answers or what is known of them are damaged.
    """
    first, second = model_folder(a), model_folder(b)
    names = sorted(_sets(first) & _sets(second))
    if not names:
        raise DataError("these evaluations have no set in common", where=f"{first} and {second}")
    out, answers = [], dict[str, tuple[list[Answer], list[Answer]]]()
    for name in names:
        left, right = (read_json(folder / f"{name}{PROTOCOL}", Stamp, fix=AGAIN) for folder in (first, second))
        changed = tuple(differences(left.protocol, right.protocol))
        if left.hash != right.hash and not changed:
            # The same fields, hashed by versions of vold that give them another meaning.
            changed = (f"hash: {left.hash} and {right.hash}",)
        if changed and not force:
            raise ConfigError(
                f"the evaluations on {name!r} are not comparable: their protocols differ",
                where=f"{first} ({left.hash}) and {second} ({right.hash})",
                got="; ".join(changed),
                fix="evaluate both in the same way, or add force=true and say so beside the figure",
            )
        x, y = (_answers(folder / f"{name}.jsonl") for folder in (first, second))
        benchmark = str(left.protocol.get("benchmark", ""))
        answers[benchmark] = x, y
        if is_named(benchmark) and benchmark not in benchmarks():
            said = f"{name}: accuracy alone is compared; for other scores of {benchmark} give its recipe: --recipe FILE"
            console.print(Text(said))
        found = compare_answers(name, x, y, changed, benchmark=benchmark)
        words = [(*differs(s.protocol, len(by_item(rows))), *without_mark(rows)) for s, rows in ((left, x), (right, y))]
        out.append(replace(found, official_n=official_n(left.protocol), differs=_of_both(*words)))
    x, y = (mmmu_pro({benchmark: pair[i] for benchmark, pair in answers.items()}) for i in (0, 1))
    if x and y and "mmmu_pro" not in names:
        out.insert(0, compare_answers("mmmu_pro", x, y))
    return corrected(out)


def compare_all(first: str, others: Sequence[str], *, force: bool = False, recipe: str | None = None) -> Path | None:
    """Compare the first with each of the others, as `compare_runs` does, and print what is found. Of several runs their
    page is written too, into the first: its path is returned. Runs that are not evaluated have their place on it.

    Stored results name no code that is run. Benchmarks of the user's own are those that `recipe` names.

    Raises:
        ConfigError, DataError, CheckpointError: as `compare_runs`; runs that are not evaluated only where one of those
            that are compared is no run.
    """
    if recipe is not None and (section := load_recipe(recipe).eval) is not None:
        for name, wanted in section.benchmarks.items():
            get_benchmark(wanted.name or name)
    places = {name: Path(name) for name in (first, *others)}
    runs = all(map(is_run, places.values()))
    tests: dict[str, Sequence[SetComparison] | str] = {}
    for other in others:
        lacking = [name for name in (first, other) if runs and not _models_of(places[name])]
        if lacking:
            tests[other] = f"Not evaluated: {' and '.join(lacking)}."
            console.print(Text(f"{first} and {other}: {tests[other]}"))
        else:
            tests[other] = found = compare_runs(places[first], places[other], force=force)
            print_comparison(first, other, found)
    page = places[first] / COMPARED
    return write_side_by_side(page, places, tests) if runs and len(places) > 1 else None


def corrected(found: Sequence[AnyComparison]) -> list[AnyComparison]:
    """The comparisons with p-values that allow for their number, of all scores that are read first."""
    heads = [(i, s) for i, c in enumerate(found) for s in c.headline]
    values = [found[i].p_value if s == "accuracy" else found[i].derived[s].p_value for i, s in heads]
    of = dict(zip(heads, holm(values), strict=True))
    out = []
    for i, c in enumerate(found):
        derived = {s: replace(d, corrected_p=of.get((i, s))) for s, d in c.derived.items()}
        out.append(replace(c, derived=derived, corrected_p=of.get((i, "accuracy"))))
    return out


def _of_both(a: Sequence[str], b: Sequence[str]) -> tuple[str, ...]:
    """What is said of both figures, then what is said of one, with its letter."""
    both = [words for words in a if words in b]
    return (*both, *(f"{name}: {w}" for name, own in (("A", a), ("B", b)) for w in own if w not in both))


def model_folder(path: Path) -> Path:
    """The folder that holds one model's answers.

    Raises:
        DataError: there is none, or there are several and none is a stage of ours.
    """
    if list(path.glob(f"*{PROTOCOL}")):
        return path
    models = _models_of(path)
    for name in STAGES:
        if name in models:
            return models[name]
    if len(models) == 1:
        return next(iter(models.values()))
    if models:
        raise DataError(
            "there are several models here, and none of them is a stage of ours",
            where=str(path),
            got=", ".join(sorted(models)),
            fix=f"name one: {path / 'eval' / min(models)}",
        )
    raise DataError(
        "there is no evaluation here",
        where=str(path),
        got=f"no SET{PROTOCOL}",
        fix="give a run directory in which `vold eval` has run, or its RUN/eval/MODEL",
    )


def _models_of(run: Path) -> dict[str, Path]:
    """Folders of a run's answers by model. Of a run within another that its model was evaluated in, as the demo does
    with GRPO's: the folder there."""
    found = model_folders(run)
    beside, final = run.parent / "eval" / run.name, run / "distill" / "final"
    if not found and (beside / "model.json").is_file() and final.is_dir():
        same = read_json(beside / "model.json", ModelStamp, fix=AGAIN).weights == weights_digest(final)
        return {run.name: beside} if same else {}
    return found


def _sets(folder: Path) -> set[str]:
    """Sets of which a folder holds answers, or says how they were made: one without the other is damage."""
    stamped = {f.name.removesuffix(PROTOCOL) for f in folder.glob(f"*{PROTOCOL}")}
    return stamped | {f.stem for f in lists_in(folder)}


def _answers(file: Path) -> list[Answer]:
    found = read_records(file, Answer, whole=True)
    refuse_doubled(found, file)
    return found
