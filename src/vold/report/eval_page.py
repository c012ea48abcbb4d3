"""The results of an evaluation on one HTML page that needs nothing else: numbers with their doubts, and the answers.

Nothing here fails on results that are half there or written by an older version: what is missing is a dash. All text
of models and data is escaped by the template, and the page's policy lets no script run but its own.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader

from vold.report.bar_charts import (
    FAILURES,
    OUTCOMES,
    Row,
    accuracy_chart,
    colour,
    interval_strip,
    outcome_chart,
    scale_top,
)
from vold.report.eval_samples import sample_sets
from vold.report.text import at, clean, decimal, link, natural, number, part, several, tidy, words
from vold.run.files import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    Samples = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
    """Stored answers by model and set."""

LISTED = 100
"""Bad rows, and as many bad golds, that are listed of a set; all are counted."""
STRIP = ("difference", "low", "high", "min_detectable")
"""What the drawing of a comparison shows, in the order of `interval_strip`."""
NORMAL_95 = 1.959964
"""Standard errors to each side of a 95% interval, for results that hold no interval."""


def write_page(
    file: Path,
    results: Mapping[str, Any],
    samples: Samples,
    *,
    per_set: int = 60,
) -> Path:
    """Write the page of an evaluation and return its path.

    Args:
        file: the page; an older one is replaced.
        results: what `vold eval` writes: `run`, `sets`, `stages`, `comparisons`. Accuracies and differences are shares
            of 1; published values are in percent, as they are printed.
        samples: model -> set -> stored answers, as in `eval/MODEL/SET.jsonl`. A subset of the questions of each set is
            shown, chosen by `vold.report.eval_samples.choose`.
        per_set: questions shown of each set.
    """
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    html = environment.get_template("eval_page.html.j2").render(context(results, samples, per_set))
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = hashlib.sha256(script.group(1).encode() if script else b"").digest()
    html = html.replace("SCRIPT-HASH", f"'sha256-{base64.b64encode(digest).decode()}'", 1)
    write_text(Path(file), html)
    return Path(file)


def context(results: Mapping[str, Any], samples: Samples, per_set: int) -> dict[str, Any]:
    """Return everything the template shows."""
    known = tidy(results)
    stages = part(known, "stages")
    models = list(dict.fromkeys([*part(known, "run", "models"), *stages, *tidy(list(samples))]))
    names = [*part(known, "sets"), *(s for m in stages for s in part(stages, m))]
    names += [clean(str(s)) for m in samples.values() if isinstance(m, Mapping) for s in m]
    titles = {n: words(at(known, "sets", n, "title") or n) for n in dict.fromkeys(names)}
    shown = sample_sets(samples, models, titles, per_set) if models else []
    seen = {(c["set"], a["model"], a["outcome"]) for s in shown for c in s["cards"] for a in c["answers"]}
    tags = {(c["set"], t) for s in shown for c in s["cards"] for t in c["tags"]}
    sets = [set_of(known, n, titles[n], models, seen) for n in titles]
    measured = [s for s in sets if s["rows"]]
    top = scale_top([v for s in measured for r in s["bars"] for v in (r.value, r.high) if v is not None])
    return {
        "name": at(known, "run", "name"),
        "about": about(known),
        "models": models,
        "colours": {m: colour(i) for i, m in enumerate(models)},
        "sets": sets,
        "measured": measured,
        "charts": [accuracy_chart(s["title"], s["bars"], top) for s in measured],
        "stacks": [outcome_chart(s["title"], s["bars"]) for s in measured if any(r.outcomes for r in s["bars"])],
        "pass_at": sorted({k for s in measured for r in s["rows"] for k in r["pass_at"]}, key=natural),
        "majority": any(number(at(stages, m, n, "maj_at_k")) is not None for m in models for n in titles),
        "derived": any(r["derived"] for s in measured for r in s["rows"]),
        "tags": sorted({t for _, t in tags}, key=natural),
        "comparisons": comparisons(known, models, titles),
        "breakdowns": breakdowns(stages, models, titles, tags),
        "samples": shown,
        "outcomes": OUTCOMES,
        "failures": FAILURES,
        "listed": LISTED,
    }


def about(known: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return label and value of what the evaluation is, for the head of the page."""
    run = part(known, "run")
    pairs = [(k, words(v)) for k, v in run.items() if k not in ("name", "models", "versions")]
    pairs += [(name, words(path)) for name, path in part(run, "models").items()]
    versions = part(run, "versions")
    return [*pairs, ("versions", ", ".join(f"{k} {words(v)}" for k, v in versions.items()))] if versions else pairs


def set_of(
    known: Mapping[str, Any], name: str, title: str, models: Sequence[str], seen: set[tuple[str, str, str]]
) -> dict[str, Any]:
    """Return one set: a row of cells and a figure's row for every model measured on it, its protocol and its faults.

    `seen` holds set, model and outcome of the answers that are on the page, so that a share can lead to them.
    """
    info = part(known, "sets", name)
    found = {m: s for m in models if (s := part(known, "stages", m, name))}
    bars = [bar_of(name, m, s, seen) for m, s in found.items()]
    protocol = part(info, "protocol")
    return {
        "name": name,
        "title": title,
        "benchmark": words(info.get("benchmark")),
        "split": words(info.get("split")),
        "n_items": decimal(info.get("n_items"), 0, 1),
        "rows": [row_of(s, b) for s, b in zip(found.values(), bars, strict=True)],
        "bars": bars,
        "published": [
            {**{k: words(p.get(k)) for k in ("model", "source", "protocol")}, "note": p.get("note") or "",
             "value": decimal(p.get("value"), 1, 1)}
            for p in several(info, "published")
        ],
        "bad_rows": [{k: words(b.get(k)) for k in ("where", "why")} for b in several(info, "bad_rows")],
        "bad_golds": [{k: words(b.get(k)) for k in ("id", "answer", "why")} for b in several(info, "bad_golds")],
        "checked": "bad_rows" in info and "bad_golds" in info,
        "fault_count": len(several(info, "bad_rows")) + len(several(info, "bad_golds")),
        "protocol": [(k.replace("_", " "), words(v)) for k, v in protocol.items()],
        "protocol_name": words(protocol.get("name")),
        "hash": words(protocol.get("hash")),
    }  # fmt: skip


def bar_of(name: str, model: str, s: Mapping[str, Any], seen: set[tuple[str, str, str]]) -> Row:
    """Return what the figures draw of one model on one set; a missing interval is made from the standard error."""
    counts = {o: number(v) or 0.0 for o, v in part(s, "outcomes").items()}
    total = sum(counts.values())
    shares = {o: counts.get(o, 0.0) / total for o in OUTCOMES} if total else {}
    links = {o: link(set=name, model=model, outcome=o) for o in OUTCOMES if (name, model, o) in seen}
    value, stderr, low, high = (number(s.get(k)) for k in ("accuracy", "stderr", "low", "high"))
    if value is not None and stderr is not None and (low is None or high is None):
        low, high = value - NORMAL_95 * stderr, value + NORMAL_95 * stderr
    return Row(model, value, low, high, shares, links)


def row_of(s: Mapping[str, Any], bar: Row) -> dict[str, Any]:
    """Return the cells of one model on one set."""
    k = number(s.get("k"))
    return {
        "model": bar.label,
        "accuracy": decimal(bar.value),
        "interval": "" if bar.low is None else f"{decimal(bar.low)} to {decimal(bar.high)}",
        "stderr": decimal(s.get("stderr")),
        "n": decimal(s.get("n"), 0, 1) + ("" if k in (None, 1) else f" \N{MULTIPLICATION SIGN} {k:.0f}"),
        "tokens": decimal(s.get("mean_tokens"), 0, 1),
        "shares": {o: decimal(bar.outcomes.get(o)) for o in OUTCOMES},
        "links": bar.links,
        "pass_at": {k: decimal(v) for k, v in part(s, "pass_at").items() if k != "1"},
        "maj_at_k": decimal(s.get("maj_at_k")),
        "derived": [
            {"name": k, "n": decimal(at(v, "n"), 0, 1), **{e: decimal(at(v, e)) for e in ("value", "low", "high")}}
            for k, v in part(s, "derived").items()
        ],
    }


def comparisons(known: Mapping[str, Any], models: Sequence[str], titles: Mapping[str, str]) -> dict[str, Any]:
    """Return the paired differences against the first model as `baseline`, all others as `others`, and how many
    intervals there are; sets in the order of `titles`."""
    found = several(known, "comparisons")
    ends = [abs(v) for c in found for k in ("difference", "low", "high") if (v := number(c.get(k))) is not None]
    order = list(titles)
    rows = [
        {
            **{k: words(c.get(k)) for k in ("set", "model", "against")},
            "title": titles.get(words(c.get("set")), words(c.get("set"))),
            "difference": decimal(c.get("difference"), sign=True),
            "interval": f"{decimal(c.get('low'), sign=True)} to {decimal(c.get('high'), sign=True)}",
            "p": p_value(c.get("p_value")),
            "mcnemar": p_value(c.get("mcnemar_p")),
            "unseen": decimal(c.get("min_detectable")),
            "verdict": verdict(number(c.get("low")), number(c.get("high"))),
            "strip": interval_strip(*(number(c.get(k)) for k in STRIP), reach=max(ends, default=0.0)),
        }
        for c in found
    ]
    rows.sort(key=lambda c: order.index(c["set"]) if c["set"] in titles else len(order))
    first = models[0] if models else None
    return {
        "first": first,
        "baseline": [c for c in rows if c["against"] == first],
        "others": [c for c in rows if c["against"] != first],
        "count": len(rows),
        "by_chance": f"{len(rows) / 20:.1f}",
    }


def verdict(low: float | None, high: float | None) -> str:
    """Return what a 95% interval of a difference allows to say.

    Example:
        >>> verdict(0.01, 0.05), verdict(-0.01, 0.05)
        ('better', 'not told apart')
    """
    if low is None or high is None:
        return words(None)
    return "better" if low > 0 else "worse" if high < 0 else "not told apart"


def p_value(value: Any) -> str:
    """Return a p-value as text; a dash for none.

    Example:
        >>> p_value(0.0001), p_value(0.0444)
        ('<0.001', '0.044')
    """
    known = number(value)
    return "<0.001" if known is not None and known < 0.001 else decimal(known, 3, 1)


def breakdowns(
    stages: Mapping[str, Any], models: Sequence[str], titles: Mapping[str, str], tags: set[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Return a table for each set and tag: values down, models across, accuracy and standard error in percent.

    `tags` holds set and "tag: value" of the questions that are on the page, so that a row can lead to them.
    """
    out = []
    for name, title in titles.items():
        here = {m: part(stages, m, name, "by") for m in models}
        here = {m: found for m, found in here.items() if found}
        for tag in dict.fromkeys(t for found in here.values() for t in found):
            values = dict.fromkeys(v for found in here.values() for v in part(found, tag))
            rows = []
            for value in sorted(values, key=natural):
                cells = [part(here[m], tag, value) for m in here]
                count = max((n for c in cells if (n := number(c.get("n"))) is not None), default=None)
                label = " ".join(f"{tag}: {value}".split())
                rows.append(
                    {
                        "value": value,
                        "n": decimal(count, 0, 1),
                        "href": link(set=name, tag=label) if (name, label) in tags else "",
                        "cells": [
                            {
                                "accuracy": decimal(c.get("accuracy")),
                                "stderr": decimal(c.get("stderr")),
                                "bar": f"{100 * min(max(number(c.get('accuracy')) or 0.0, 0.0), 1.0):.1f}",
                            }
                            for c in cells
                        ],
                    }
                )
            if rows:
                out.append({"set": name, "title": title, "tag": tag, "models": list(here), "rows": rows})
    return out
