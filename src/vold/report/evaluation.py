"""The results of an evaluation, made ready to be shown on a page or in the terminal, and the page that shows them.

Nothing here fails on results that are half there or written by an older version: what is missing becomes a dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vold.errors import clean
from vold.report.answers import Samples, Shown, sample_sets
from vold.report.charts import OUTCOMES, Bar, colour, interval_strip, scale_top
from vold.report.readings import Readings, readings
from vold.report.text import DASH, Json, at, decimal, link, listed, natural, number, part, percent, several, words
from vold.report.write import write_page
from vold.run.records import to_json

if TYPE_CHECKING:
    from vold.run.results import Results

LISTED = 100
"""Bad rows, and as many bad golds, that are listed of a set; all are counted."""
TITLES = {"mmmu_pro": "MMMU-Pro, 10 options and vision"}
"""Of what is a mean of sets and none itself."""
LEVEL = 0.05
"""Corrected p above which a difference is not told apart from 0."""
NORMAL_95 = 1.959964
"""Standard errors to each side of a 95% interval, for results that hold no interval."""


@dataclass(frozen=True)
class Measured(Bar):
    """A score of one model on one set, with the figures stored of them; `peer` is the score by VLMEvalKit's verdict."""

    k: float = 1.0
    figures: Json = field(default_factory=dict)
    stderr: float | None = None
    peer: float | None = None


@dataclass(frozen=True)
class Score:
    """A score to be read first, `most` at best: every model's, and published figures of this score alone by source."""

    name: str
    most: float
    rows: list[Measured]
    published: list[tuple[str, list[Json]]] = field(default_factory=list)


@dataclass(frozen=True)
class MeasuredSet:
    """One set: its scores, every model's accuracy, what the results say of the set and the faults found in its data.

    `others` are further scores by model and name. `remarks` say how a model's judge did, and `marks` in what the set's
    scores are of another test than published ones: all of them, or those of a model.
    """

    name: str
    title: str
    scores: list[Score]
    rows: list[Measured]
    others: list[tuple[str, str, Json]]
    remarks: list[str]
    marks: list[str]
    about: Json
    protocol: Json
    bad_rows: list[Json]
    bad_golds: list[Json]


@dataclass(frozen=True)
class Difference:
    """A paired difference of a score between two models on one set, its drawing, and what its interval says."""

    set: str
    title: str
    score: str
    model: str
    against: str
    most: float
    figures: Json
    strip: str
    verdict: str


@dataclass(frozen=True)
class Breakdown:
    """Every model's figures on one set by the values of one tag, and links to the answers that have such a value."""

    title: str
    tag: str
    rows: Mapping[str, Mapping[str, Json]]
    links: Mapping[str, str]


@dataclass(frozen=True)
class Evaluation:
    """All that is shown of an evaluation; models in order with their colours, the first one being the baseline.

    `top` is the share at the end of every axis of shares. `tags` and `samples` are of the answers on the page.
    """

    models: Mapping[str, int]
    sets: Mapping[str, MeasuredSet]
    top: float
    differences: list[Difference]
    breakdowns: list[Breakdown]
    tags: list[str]
    samples: list[Shown]
    readings: Mapping[str, Mapping[str, Readings]]


def write_results(file: Path, results: Results | Json, samples: Samples, *, per_set: int = 60) -> Path:
    """Write the page of an evaluation in the place of an older one and return its path.

    `per_set` questions of each set are shown with their stored answers, chosen by `vold.run.answers.choose`.
    """
    return write_page(Path(file), "eval_page.html.j2", content(results, samples, per_set))


def content(results: Results | Json, samples: Samples, per_set: int) -> Json:
    """Everything the template shows."""
    run = part(to_json(results), "run")
    about = {k: v for k, v in run.items() if k not in ("name", "models", "versions")}
    about |= part(run, "models")
    if versions := part(run, "versions"):
        about["versions"] = ", ".join(f"{k} {words(v)}" for k, v in versions.items())
    return {
        "name": words(run.get("name") or "Evaluation"),
        "about": about,
        "evaluation": evaluation(results, samples, per_set),
        "listed": LISTED,
        "totals": TITLES,
    }


def evaluation(results: Results | Json, samples: Samples, per_set: int) -> Evaluation:
    """Return what is shown of results as `vold eval` writes them, and of up to `per_set` stored answers of each set.

    Accuracies and differences are shares of 1; published values are in percent, as they are printed.
    """
    known = part(to_json(results))
    stages = part(known, "stages")
    models = list(dict.fromkeys([*part(known, "run", "models"), *stages, *samples]))
    names = [*(words(h.get("set")) for h in several(known, "headlines")), *part(known, "sets")]
    names += [s for found in (stages, samples) for m in found.values() for s in part(m)]
    titles = {n: words(at(known, "sets", n, "title") or TITLES.get(n) or n) for n in dict.fromkeys(names)}
    shown = sample_sets(samples, models, titles, per_set)
    seen = {(s.set, a.model, a.outcome) for s in shown for c in s.cards for a in c.answers}
    tags = {(s.set, t) for s in shown for c in s.cards for t in c.tags}
    sets = {n: _set(n, title, known, models, seen) for n, title in titles.items()}
    shares = [r for s in sets.values() for score in s.scores if score.most == 1 for r in score.rows]
    return Evaluation(
        models={m: colour(i) for i, m in enumerate(models)},
        sets=sets,
        top=scale_top([v for r in shares for v in (r.value, r.high) if v is not None]),
        differences=_differences(known, sets),
        breakdowns=[b for n, title in titles.items() for b in _breakdowns(stages, models, n, title, tags)],
        tags=sorted({t for _, t in tags}, key=natural),
        samples=shown,
        readings=readings(samples),
    )


def _set(name: str, title: str, known: Json, models: Sequence[str], seen: set[tuple[str, str, str]]) -> MeasuredSet:
    """One set. `seen`: set, model and outcome of the answers on the page, so that a share can lead to them."""
    about = part(known, "sets", name)
    stored = {model: part(known, "stages", model, name) for model in models}
    rows = [_measured(name, m, i, stored[m], seen) for i, m in enumerate(models) if stored[m]]
    heads = [h for h in several(known, "headlines") if h.get("set") == name]
    published = several(about, "published")
    scores = _scores(models, rows, heads, published)
    first = {s.name for s in scores}
    return MeasuredSet(
        name=name,
        title=title,
        scores=scores,
        rows=rows,
        others=[(r.label, k, v) for r in rows for k, v in _others(r.figures).items() if k not in first],
        remarks=[f"{r.label}: {_agreement(both)}" for r in rows if (both := part(r.figures, "judge_agreement"))],
        marks=_marks(models, heads, stored),
        about=about,
        protocol=part(about, "protocol"),
        bad_rows=several(about, "bad_rows"),
        bad_golds=several(about, "bad_golds"),
    )


def _agreement(both: Json) -> str:
    agree = f"judge and rule agree on {percent(both.get('share'))}% of {decimal(both.get('n'), 0)} answers"
    return f"{agree}, and a rule alone cannot read {decimal(both.get('unread'), 0)} others"


def _marks(models: Sequence[str], heads: Sequence[Json], stored: Mapping[str, Json]) -> list[str]:
    """In what the scores of a set are of another test than published ones; with the model's name where not all are."""
    of: dict[str, dict[str, None]] = {}
    for model, found in [*((words(h.get("model")), h) for h in heads), *stored.items()]:
        for mark in listed(found.get("differs")):
            of.setdefault(words(mark), {})[model] = None
    all_of_them = [m for m in models if stored[m]] or models
    return [mark if {*of[mark]} >= {*all_of_them} else f"{', '.join(of[mark])}: {mark}" for mark in of]


def _measured(name: str, model: str, place: int, figures: Json, seen: set[tuple[str, str, str]]) -> Measured:
    """The accuracy of one model on one set; a missing interval is made from the standard error."""
    counts = {o: number(v) or 0.0 for o, v in part(figures, "outcomes").items()}
    total = sum(counts.values())
    shares = {o: counts.get(o, 0.0) / total for o in OUTCOMES} if total else {}
    links = {o: link(set=name, model=model, outcome=o) for o in OUTCOMES if (name, model, o) in seen}
    value, stderr, low, high = (number(figures.get(k)) for k in ("accuracy", "stderr", "low", "high"))
    if value is not None and stderr is not None and (low is None or high is None):
        low, high = max(0.0, value - NORMAL_95 * stderr), min(1.0, value + NORMAL_95 * stderr)
    k, peer = number(figures.get("k")) or 1.0, number(at(figures, "as_vlmevalkit", "accuracy"))
    return Measured(model, value, low, high, shares, links, colour(place), k, figures, stderr, peer)


def _scores(
    models: Sequence[str], rows: Sequence[Measured], heads: Sequence[Json], published: Sequence[Json]
) -> list[Score]:
    """The headline scores of a set, or its accuracy, and those of which a published figure is shown."""
    of = {r.label: r for r in rows}
    by_score: dict[str, list[Json]] = {}
    for h in heads:
        by_score.setdefault(words(h.get("score")), []).append(h)
    if not by_score and rows:
        by_score["accuracy"] = []
    metrics: dict[str, dict[str, list[Json]]] = {}
    for p in published:
        said = "; ".join(words(p[k]) for k in ("source", "note") if p.get(k))
        metrics.setdefault(words(p.get("metric") or "accuracy"), {}).setdefault(said, []).append(p)
    out = []
    for name in dict.fromkeys([*by_score, *metrics]):
        found = {words(h.get("model")): h for h in by_score.get(name, ())}
        if not found and name != "accuracy":
            found = {r.label: d for r in rows if (d := part(r.figures, "derived", name))}
        most = max((number(at(r.figures, "derived", name, "most")) or 1.0 for r in rows), default=1.0)
        bars = [_head(name, m, i, of.get(m), found[m]) for i, m in enumerate(models) if m in found] or list(rows)
        out.append(Score(name, most, bars, list(metrics.get(name, {}).items())))
    return out


def _head(name: str, model: str, place: int, row: Measured | None, found: Json) -> Measured:
    """The bar of a headline score; what answers came to nothing is that of the model's accuracy."""
    bar = row or Measured(model, colour=colour(place))
    value, low, high = (number(found.get(k)) for k in ("value", "low", "high"))
    if name == "accuracy":
        return replace(bar, value=value, low=low, high=high)
    stderr, peer = (
        number(at(bar.figures, *k)) for k in (("derived", name, "stderr"), ("as_vlmevalkit", "derived", name))
    )
    return replace(bar, value=value, low=low, high=high, stderr=stderr, peer=peer)


def _others(figures: Json) -> dict[str, Json]:
    """Scores of a model besides its accuracy, by name."""
    more = {
        f"pass@{k}": v for k, v in sorted(part(figures, "pass_at").items(), key=lambda x: natural(x[0])) if k != "1"
    }
    more |= {"maj@k": figures["maj_at_k"]} if "maj_at_k" in figures else {}
    counted = {k: {"value": v, "n": figures.get("n")} for k, v in more.items() if number(v) is not None}
    return {**{k: part(v) for k, v in part(figures, "derived").items()}, **counted}


def _differences(known: Json, sets: Mapping[str, MeasuredSet]) -> list[Difference]:
    """Paired differences of what is read first, sets in their order."""
    found: list[tuple[str, Score | None, Json, Json]] = []
    for c in several(known, "comparisons"):
        name, derived = words(c.get("set")), part(c, "derived")
        heads = {s.name: s for s in sets[name].scores} if name in sets else {}
        for score in listed(c.get("headline")) or ("accuracy",):
            found.append((name, heads.get(words(score)), c, c if score == "accuracy" else part(derived, words(score))))
    reach = max(
        (
            abs(number(f.get(k)) or 0.0) / (s.most if s else 1.0)
            for _, s, _, f in found
            for k in ("difference", "low", "high")
        ),
        default=0.0,
    )
    out = []
    for name, score, c, f in found:
        most = score.most if score else 1.0
        numbers = [number(f.get(k)) for k in ("difference", "low", "high", "min_detectable")]
        verdict = reads_as(numbers[1], numbers[2], number(f.get("corrected_p")))
        strip = interval_strip(*(None if v is None else v / most for v in numbers), reach=reach)
        title = sets[name].title if name in sets else name
        model, against = (words(c.get(k)) for k in ("model", "against"))
        label = score.name if score else "accuracy"
        out.append(Difference(name, title, label, model, against, most, f, strip, verdict))
    order = list(sets)
    return sorted(out, key=lambda d: order.index(d.set) if d.set in order else len(order))


def reads_as(low: float | None, high: float | None, corrected: float | None) -> str:
    """What the interval of a difference says; one that its corrected p does not bear out is not told apart from 0.

    Example:
        >>> reads_as(0.1, 0.2, 0.05), reads_as(-0.2, -0.1, None), reads_as(-0.2, -0.1, 0.132)
        ('better', 'worse', 'not told apart')
    """
    if low is None or high is None:
        return DASH
    if corrected is not None and corrected > LEVEL:
        return "not told apart"
    return "better" if low > 0 else "worse" if high < 0 else "not told apart"


def _breakdowns(
    stages: Json, models: Sequence[str], name: str, title: str, tags: set[tuple[str, str]]
) -> list[Breakdown]:
    """A table for each tag of a set. `tags`: set and "tag: value" of the questions on the page, to link to."""
    here = {m: found for m in models if (found := part(stages, m, name, "by"))}
    out = []
    for tag in dict.fromkeys(t for found in here.values() for t in found):
        values = sorted({v for found in here.values() for v in part(found, tag)}, key=natural)
        labels = {v: " ".join(clean(f"{tag}: {v}").split()) for v in values}
        links = {v: link(set=name, tag=label) for v, label in labels.items() if (name, label) in tags}
        rows = {v: {m: part(here[m], tag, v) for m in here} for v in values}
        out.append(Breakdown(title, tag, rows, links))
    return [b for b in out if b.rows]
