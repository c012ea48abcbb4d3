"""The results of an evaluation, made ready to be shown on a page or in the terminal.

Nothing here fails on results that are half there or written by an older version: what is missing becomes a dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vold.report.answers import Samples, Shown, sample_sets
from vold.report.charts import OUTCOMES, Bar, accuracy_chart, colour, interval_strip, outcome_chart, scale_top
from vold.report.text import DASH, Json, at, clean, link, natural, number, part, several, tidy, words
from vold.run.records import to_json

if TYPE_CHECKING:
    from markupsafe import Markup

    from vold.run.results import Results

NORMAL_95 = 1.959964
"""Standard errors to each side of a 95% interval, for results that hold no interval."""


@dataclass(frozen=True)
class Measured:
    """One model on one set: what the figures draw, and the stored figures themselves.

    Example:
        >>> Measured(Bar("base", 0.5), {"n": 40}).n
        40.0
    """

    bar: Bar
    figures: Json

    @property
    def n(self) -> float | None:
        """Questions."""
        return number(self.figures.get("n"))

    @property
    def k(self) -> float:
        """Samples a question."""
        return number(self.figures.get("k")) or 1.0

    @property
    def pass_at(self) -> Json:
        """pass@k by k, but for k = 1, which is the accuracy."""
        return {k: v for k, v in part(self.figures, "pass_at").items() if k != "1"}

    @property
    def derived(self) -> Mapping[str, Json]:
        """Derived scores by name, with the ends of their intervals."""
        return {k.replace("_", " "): part(v) for k, v in part(self.figures, "derived").items()}


@dataclass(frozen=True)
class MeasuredSet:
    """One set: the models measured on it, and what the results say about the set itself.

    Example:
        >>> MeasuredSet("s", "S", (), {"bad_rows": [{"where": "row 3"}]}).bad_rows
        [{'where': 'row 3'}]
    """

    name: str
    title: str
    rows: tuple[Measured, ...]
    about: Json

    @property
    def published(self) -> list[Json]:
        """Other people's figures."""
        return several(self.about, "published")

    @property
    def bad_rows(self) -> list[Json]:
        """Rows that cannot be asked."""
        return several(self.about, "bad_rows")

    @property
    def bad_golds(self) -> list[Json]:
        """Reference answers that cannot be marked."""
        return several(self.about, "bad_golds")

    @property
    def checked(self) -> bool:
        """Whether the results say anything about bad rows and reference answers."""
        return "bad_rows" in self.about and "bad_golds" in self.about

    @property
    def protocol(self) -> Json:
        """How the set was asked and marked."""
        return part(self.about, "protocol")


@dataclass(frozen=True)
class Difference:
    """A paired difference between two models on one set; shares of 1.

    Example:
        >>> Difference("s", "S", "sft", "base", {"low": -0.01, "high": 0.05}, "").verdict
        'not told apart'
    """

    set: str
    title: str
    model: str
    against: str
    figures: Json
    strip: str

    @property
    def verdict(self) -> str:
        """What the 95% interval allows to say."""
        low, high = number(self.figures.get("low")), number(self.figures.get("high"))
        if low is None or high is None:
            return DASH
        return "better" if low > 0 else "worse" if high < 0 else "not told apart"


@dataclass(frozen=True)
class Group:
    """A row of a breakdown: a value of a tag, the questions that carry it, the figures of every model, a link.

    Example:
        >>> Group("easy", 12.0, (), "").value
        'easy'
    """

    value: str
    n: float | None
    cells: tuple[Json, ...]
    href: str


@dataclass(frozen=True)
class Breakdown:
    """Accuracies of the models on one set by the values of one tag.

    Example:
        >>> Breakdown("S", "level", ("base",), ()).tag
        'level'
    """

    title: str
    tag: str
    models: tuple[str, ...]
    rows: tuple[Group, ...]


@dataclass(frozen=True)
class Evaluation:
    """All that is shown of an evaluation; models in order, the first one being the baseline.

    Example:
        >>> evaluation({}, {}, 60).models
        ()
    """

    models: tuple[str, ...]
    sets: tuple[MeasuredSet, ...]
    differences: tuple[Difference, ...]
    breakdowns: tuple[Breakdown, ...]
    samples: tuple[Shown, ...]

    @property
    def colours(self) -> dict[str, int]:
        """Colour number by model."""
        return {m: colour(i) for i, m in enumerate(self.models)}

    @property
    def measured(self) -> list[MeasuredSet]:
        """Sets on which a model was measured."""
        return [s for s in self.sets if s.rows]

    @property
    def charts(self) -> list[Markup]:
        """Accuracies of every set, on one scale."""
        ends = [v for s in self.measured for r in s.rows for v in (r.bar.value, r.bar.high) if v is not None]
        return [accuracy_chart(s.title, [r.bar for r in s.rows], scale_top(ends)) for s in self.measured]

    @property
    def stacks(self) -> list[Markup]:
        """Outcomes of every set."""
        bars = {s.title: [r.bar for r in s.rows] for s in self.measured}
        return [outcome_chart(title, b) for title, b in bars.items() if any(x.outcomes for x in b)]

    @property
    def pass_at(self) -> list[str]:
        """Every k of pass@k."""
        return sorted({k for s in self.sets for r in s.rows for k in r.pass_at}, key=natural)

    @property
    def majority(self) -> bool:
        """Whether any model has a majority vote."""
        return any(number(r.figures.get("maj_at_k")) is not None for s in self.sets for r in s.rows)

    @property
    def tags(self) -> list[str]:
        """Tags of the questions that are shown."""
        return sorted({t for s in self.samples for c in s.cards for t in c.tags}, key=natural)


def evaluation(results: Results | Json, samples: Samples, per_set: int) -> Evaluation:
    """Return what is shown of results as `vold eval` writes them, and of up to `per_set` stored answers of each set.

    Accuracies and differences are shares of 1; published values are in percent, as they are printed.
    """
    known = part(tidy(to_json(results)))
    stages = part(known, "stages")
    stored = {clean(m): s for m, s in samples.items()}
    models = tuple(dict.fromkeys([*part(known, "run", "models"), *stages, *stored]))
    names = [*part(known, "sets"), *(s for m in stages for s in part(stages, m))]
    names += [clean(s) for m in samples.values() for s in part(m)]
    titles = {n: words(at(known, "sets", n, "title") or n) for n in dict.fromkeys(names)}
    shown = tuple(sample_sets(samples, models, titles, per_set))
    seen = {(c.set, a.model, a.outcome) for s in shown for c in s.cards for a in c.answers}
    sets = []
    for n, title in titles.items():
        found = {m: s for m in models if (s := part(stages, m, n))}
        rows = tuple(Measured(_bar(n, m, s, seen), s) for m, s in found.items())
        sets.append(MeasuredSet(n, title, rows, part(known, "sets", n)))
    tags = {(c.set, t) for s in shown for c in s.cards for t in c.tags}
    groups = [b for n, title in titles.items() for b in _breakdowns(stages, models, n, title, tags)]
    return Evaluation(models, tuple(sets), tuple(_differences(known, titles)), tuple(groups), shown)


def _bar(name: str, model: str, figures: Json, seen: set[tuple[str, str, str]]) -> Bar:
    """What is drawn of one model; a missing interval is made from the standard error. `seen`: answers on the page."""
    counts = {o: number(v) or 0.0 for o, v in part(figures, "outcomes").items()}
    total = sum(counts.values())
    shares = {o: counts.get(o, 0.0) / total for o in OUTCOMES} if total else {}
    links = {o: link(set=name, model=model, outcome=o) for o in OUTCOMES if (name, model, o) in seen}
    value, stderr, low, high = (number(figures.get(k)) for k in ("accuracy", "stderr", "low", "high"))
    if value is not None and stderr is not None and (low is None or high is None):
        low, high = value - NORMAL_95 * stderr, value + NORMAL_95 * stderr
    return Bar(model, value, low, high, shares, links)


def _differences(known: Json, titles: Mapping[str, str]) -> list[Difference]:
    """Paired differences, sets in the order of `titles`."""
    found = several(known, "comparisons")
    ends = [abs(v) for c in found for k in ("difference", "low", "high") if (v := number(c.get(k))) is not None]
    out = []
    for c in found:
        name, model, against = (words(c.get(k)) for k in ("set", "model", "against"))
        drawn = (number(c.get(k)) for k in ("difference", "low", "high", "min_detectable"))
        strip = interval_strip(*drawn, reach=max(ends, default=0.0))
        out.append(Difference(name, titles.get(name, name), model, against, c, strip))
    order = list(titles)
    return sorted(out, key=lambda d: order.index(d.set) if d.set in titles else len(order))


def _breakdowns(
    stages: Json, models: Sequence[str], name: str, title: str, tags: set[tuple[str, str]]
) -> list[Breakdown]:
    """A table for each tag of a set. `tags`: set and "tag: value" of the questions on the page, to link to."""
    here = {m: found for m in models if (found := part(stages, m, name, "by"))}
    out = []
    for tag in dict.fromkeys(t for found in here.values() for t in found):
        rows = []
        for value in sorted({v for found in here.values() for v in part(found, tag)}, key=natural):
            cells = tuple(part(here[m], tag, value) for m in here)
            counts = [n for c in cells if (n := number(c.get("n"))) is not None]
            label = " ".join(f"{tag}: {value}".split())
            href = link(set=name, tag=label) if (name, label) in tags else ""
            rows.append(Group(value, max(counts, default=None), cells, href))
        if rows:
            out.append(Breakdown(title, tag, tuple(here), tuple(rows)))
    return out


def about(results: Results | Json) -> list[tuple[str, str]]:
    """Label and value of what the evaluation is: its models and versions."""
    run = part(tidy(to_json(results)), "run")
    pairs = [(k, words(v)) for k, v in run.items() if k not in ("name", "models", "versions")]
    pairs += [(name, words(path)) for name, path in part(run, "models").items()]
    versions = ", ".join(f"{k} {words(v)}" for k, v in part(run, "versions").items())
    return [*pairs, ("versions", versions)] if versions else pairs
