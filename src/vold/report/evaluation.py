"""The results of an evaluation, made ready to be shown on a page or in the terminal, and the page that shows them.

Nothing here fails on results that are half there or written by an older version: what is missing becomes a dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vold.errors import clean
from vold.report.answers import Samples, Shown, sample_sets
from vold.report.charts import OUTCOMES, Bar, colour, interval_strip, scale_top
from vold.report.text import DASH, Json, at, link, natural, number, part, several, words
from vold.report.write import write_page
from vold.run.records import to_json

if TYPE_CHECKING:
    from vold.run.results import Results

LISTED = 100
"""Bad rows, and as many bad golds, that are listed of a set; all are counted."""
NORMAL_95 = 1.959964
"""Standard errors to each side of a 95% interval, for results that hold no interval."""


@dataclass(frozen=True)
class Measured(Bar):
    """A bar with the stored figures behind it; `derived` has other scores by name, with their intervals."""

    k: float = 1.0
    figures: Json = field(default_factory=dict)
    derived: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class MeasuredSet:
    """One set: the models measured on it, what the results say about the set, and the faults found in its data."""

    name: str
    title: str
    rows: list[Measured]
    about: Json
    protocol: Json
    published: list[Json]
    bad_rows: list[Json]
    bad_golds: list[Json]


@dataclass(frozen=True)
class Difference:
    """A paired difference between two models on one set (shares of 1), its drawing, and what its interval says."""

    set: str
    model: str
    against: str
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

    `top` is the share at the end of every axis; `ks` are those of pass@k but 1, which is the accuracy. `tags` and
    `samples` are of the answers on the page. `headlines` are the scores to be read first.
    """

    models: Mapping[str, int]
    sets: Mapping[str, MeasuredSet]
    top: float
    ks: list[str]
    headlines: list[Json]
    differences: list[Difference]
    breakdowns: list[Breakdown]
    tags: list[str]
    samples: list[Shown]


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
    }


def evaluation(results: Results | Json, samples: Samples, per_set: int) -> Evaluation:
    """Return what is shown of results as `vold eval` writes them, and of up to `per_set` stored answers of each set.

    Accuracies and differences are shares of 1; published values are in percent, as they are printed.
    """
    known = part(to_json(results))
    stages = part(known, "stages")
    models = list(dict.fromkeys([*part(known, "run", "models"), *stages, *samples]))
    names = [*part(known, "sets"), *(s for m in stages for s in part(stages, m))]
    names += [s for m in samples.values() for s in part(m)]
    titles = {n: words(at(known, "sets", n, "title") or n) for n in dict.fromkeys(names)}
    shown = sample_sets(samples, models, titles, per_set)
    seen = {(s.set, a.model, a.outcome) for s in shown for c in s.cards for a in c.answers}
    tags = {(s.set, t) for s in shown for c in s.cards for t in c.tags}
    sets = {n: _set(n, title, known, models, seen) for n, title in titles.items()}
    rows = [r for s in sets.values() for r in s.rows]
    return Evaluation(
        models={m: colour(i) for i, m in enumerate(models)},
        sets=sets,
        top=scale_top([v for r in rows for v in (r.value, r.high) if v is not None]),
        ks=sorted({k for r in rows for k in part(r.figures, "pass_at")} - {"1"}, key=natural),
        headlines=[
            {**h, "title": titles.get(str(h.get("set"))) or words(h.get("set"))} for h in several(known, "headlines")
        ],
        differences=_differences(known, list(titles)),
        breakdowns=[b for n, title in titles.items() for b in _breakdowns(stages, models, n, title, tags)],
        tags=sorted({t for _, t in tags}, key=natural),
        samples=shown,
    )


def _set(name: str, title: str, known: Json, models: Sequence[str], seen: set[tuple[str, str, str]]) -> MeasuredSet:
    """One set. `seen`: set, model and outcome of the answers on the page, so that a share can lead to them."""
    about = part(known, "sets", name)
    stored = [(model, part(known, "stages", model, name)) for model in models]
    rows = [_measured(name, model, figures, seen) for model, figures in stored if figures]
    faults = (several(about, k) for k in ("published", "bad_rows", "bad_golds"))
    return MeasuredSet(name, title, rows, about, part(about, "protocol"), *faults)


def _measured(name: str, model: str, figures: Json, seen: set[tuple[str, str, str]]) -> Measured:
    """One model on one set; a missing interval is made from the standard error."""
    counts = {o: number(v) or 0.0 for o, v in part(figures, "outcomes").items()}
    total = sum(counts.values())
    shares = {o: counts.get(o, 0.0) / total for o in OUTCOMES} if total else {}
    links = {o: link(set=name, model=model, outcome=o) for o in OUTCOMES if (name, model, o) in seen}
    value, stderr, low, high = (number(figures.get(k)) for k in ("accuracy", "stderr", "low", "high"))
    if value is not None and stderr is not None and (low is None or high is None):
        low, high = max(0.0, value - NORMAL_95 * stderr), min(1.0, value + NORMAL_95 * stderr)
    derived = {k.replace("_", " "): part(v) for k, v in part(figures, "derived").items()}
    return Measured(model, value, low, high, shares, links, number(figures.get("k")) or 1.0, figures, derived)


def _differences(known: Json, order: Sequence[str]) -> list[Difference]:
    """Paired differences, sets in the given order."""
    found = several(known, "comparisons")
    reach = max((abs(number(c.get(k)) or 0.0) for c in found for k in ("difference", "low", "high")), default=0.0)
    out = []
    for c in found:
        value, low, high, unseen = (number(c.get(k)) for k in ("difference", "low", "high", "min_detectable"))
        verdict = "better" if (low or 0.0) > 0 else "worse" if (high or 0.0) < 0 else "not told apart"
        verdict = DASH if low is None or high is None else verdict
        strip = interval_strip(value, low, high, unseen, reach=reach)
        name, model, against = (words(c.get(k)) for k in ("set", "model", "against"))
        out.append(Difference(name, model, against, c, strip, verdict))
    return sorted(out, key=lambda d: order.index(d.set) if d.set in order else len(order))


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
