"""Pages of the report as a test sees them, and an evaluation worked out by hand.

The made-up evaluation: `angles` has four questions and `words` two.

    angles      a0      a1      a2         a3              words   w0      w1
    base        right   wrong   unparsed   truncated               right   wrong
    vold        right   right   right      timed out               wrong   right

So on `angles` base has 1 of 4 and vold 3 of 4; the sample variance of either is 4/3 * 1/4 * 3/4 = 1/4, the standard
error sqrt(1/4 / 4) = 0.25. The differences 0, 1, 1, 0 have the mean 0.5 and the variance 4/3 * 1/4 = 1/3, so the error
is sqrt(1/12) = 0.2887; with t(3) = 3.1824 the interval is 0.5 -+ 0.9187, and t = 1.732 has p = 0.1817. McNemar: two
wins, no loss, p = 2 * (1/2)^2 = 0.5. Detectable: (1.9600 + 0.8416) * 0.2887 = 0.8087.
"""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from typing import Any

from PIL import Image

HOSTILE = (
    """</pre></script><script>window.pwned=1</script><img src=x onerror="window.pwned=1"> ' " & \u202egnorw\u202c"""
    " \ud83d \x1b[31m \x00 \u2067" + "w" * 400
)
"""Markup, bidirectional controls, half a surrogate pair, an escape code, a control character and a very long word."""
DISPLAYED = (
    "[document.querySelectorAll('.answer:not([hidden])').length, "
    "document.querySelectorAll('.sample:not([hidden])').length]"
)
"""JavaScript: answers and questions that can be seen."""
OUTCOMES = {
    "angles": {"base": "right wrong unparsed truncated", "vold": "right right right timed_out"},
    "words": {"base": "right wrong", "vold": "wrong right"},
}


def uri(image: Image.Image, form: str = "PNG") -> str:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def made_results() -> dict[str, Any]:
    def stage(right: int, n: int, stderr: float, **outcomes: int) -> dict[str, Any]:
        rest = {o: outcomes.get(o, 0) for o in ("wrong", "unparsed", "truncated", "timed_out")}
        return {"accuracy": right / n, "stderr": stderr, "n": n, "k": 1, "outcomes": {"right": right, **rest}}

    base = stage(1, 4, 0.25, wrong=1, unparsed=1, truncated=1)
    vold = stage(3, 4, 0.25, timed_out=1)
    levels = {"1": {"accuracy": 1.0, "stderr": 0.0, "n": 1}, "10": {"accuracy": 0.5, "stderr": 0.354, "n": 2}}
    base |= {"low": 0.046, "high": 0.699, "mean_tokens": 120.4, "by": {"level": {**levels, "2": {"accuracy": 0.0}}}}
    vold |= {"low": 0.301, "high": 0.954, "derived": {"worst_case": {"value": 0.125, "low": 0.01, "high": 0.3, "n": 8}}}
    difference = {"difference": 0.5, "stderr": 0.2887, "low": -0.6351, "high": 1.0, "p_value": 0.3534}
    difference |= {"corrected_p": 0.7068}
    return {
        "run": {"name": "by hand", "models": {"base": "org/base", "vold": "runs/v"}, "versions": {"vold": "0.3.0"}},
        "sets": {
            "angles": {
                "benchmark": "mathvision",
                "title": "Angles",
                "split": "test",
                "n_items": 4,
                "protocol": {"name": "rule", "hash": "ab12cd", "pixels": [3136, 12544], "max_new_tokens": 8192},
                "bad_rows": [{"where": "angles.parquet: row 3", "why": "no picture"}],
                "bad_golds": [{"id": "a9", "answer": "C", "why": "no such option"}],
                "published": [{"model": "Other-3B", "value": 27.1, "source": "arXiv 2510.23497", "protocol": "judge"}],
            },
            "words": {"title": "Words", "n_items": 2},
        },
        "stages": {
            "base": {"angles": base, "words": stage(1, 2, 0.5, wrong=1)},
            "vold": {"angles": vold, "words": stage(1, 2, 0.5, wrong=1)},
        },
        "comparisons": [
            {"set": "angles", "model": "vold", "against": "base", "mcnemar_p": 0.5, "min_detectable": 0.8087}
            | difference,
        ],
    }


def made_samples() -> dict[str, dict[str, list[dict[str, Any]]]]:
    out: dict[str, dict[str, list[dict[str, Any]]]] = {"base": {}, "vold": {}}
    for name, by_model in OUTCOMES.items():
        for model, listed in by_model.items():
            rows = []
            for i, outcome in enumerate(listed.split()):
                here = "hidden Needle" if (name, model, i) == ("angles", "vold", 2) else "thoughts"
                rows.append(
                    {
                        "id": f"{name[0]}{i}",
                        "sample": 0,
                        "images": [uri(Image.new("RGB", (24, 8), (i, 0, 0)))] if name == "angles" else [],
                        "prompt": f"What is {i}?",
                        "response": f"<think>{here}</think>It is \\boxed{{{i}}}.",
                        "extracted": str(i) if outcome in ("right", "wrong") else None,
                        "reference": str(i),
                        "score": float(outcome == "right"),
                        "note": "equal" if outcome == "right" else "different",
                        "outcome": outcome,
                        "tokens": 5,
                        "tags": {"level": str(1 + i % 2)},
                    }
                )
            out[model][name] = rows
    return out


class Page(HTMLParser):
    """Tags with their attributes, and the rows of all tables as text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            self.rows[-1][-1] += data.strip()

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag]
