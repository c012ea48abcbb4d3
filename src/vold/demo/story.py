"""What the figures of a demo say, in sentences: what the cold start costs, what distillation gives back, and what GRPO
does without a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.report.text import percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vold.report.readings import Readings
    from vold.run.comparison import Comparison
    from vold.run.results import Results

NAMES = {"base": "the base", "sft": "the cold start", "grpo": "GRPO", "vold": "VOLD"}
"""Models as the sentences call them."""
FORMS = {"image": "images", "text": "text"}
"""Task sets of the demo as the sentences call them."""


def story(
    results: Results, read: Mapping[str, Mapping[str, Readings]], doubt: str | None, *, taught: bool = True
) -> list[str]:
    """Up to four sentences. Sets, models and comparisons that are not there are left out.

    Args:
        results: of the demo's evaluation.
        read: how wrong answers to pictures split, by set and model (`vold.report.readings.readings`).
        doubt: what speaks against its stage 2.
        taught: whether its stage 2 has a teacher.
    """
    paired = {(c.model, c.against, c.set): c for c in results.comparisons}
    ready = "ready for stage 2" if doubt is None else "not ready for stage 2, so this run is no good example"
    told = [_cold_start(results, paired, read.get("image", {}), f" It was found {ready}." if taught else "")]
    told.append(_stage_2(results, paired, read.get("image", {}), taught=taught))
    told.append(_beside(results, paired))
    return [sentence for sentence in told if sentence]


def _cold_start(
    results: Results,
    paired: Mapping[tuple[str, str, str], Comparison],
    read: Mapping[str, Readings],
    found: str,
) -> str:
    if not (went := _went(results, "base", "sft")):
        return ""
    said = f"The cold start teaches the teacher's way of writing, on text alone: {went}.{found}"
    image, split = paired.get(("sft", "base", "image")), read.get("sft")
    if image is None or split is None or image.high >= 0:
        return said
    why = "Why images fall: it now copies the digits out and works from the copy, as only text has taught it to"
    return f"{said} {why}; {_copied(split)} of its {results.stages['sft']['image'].n:,} answers copy other digits."


def _stage_2(
    results: Results,
    paired: Mapping[tuple[str, str, str], Comparison],
    read: Mapping[str, Readings],
    *,
    taught: bool,
) -> str:
    if not (went := _went(results, "sft", "vold")):
        return ""
    found = [paired.get(("vold", other, "image")) for other in ("sft", "base")]
    gains = " and ".join(_points(c) for c in found if c is not None)
    how = "with the teacher's word on failed rollouts" if taught else "without the teacher"
    said = f"Stage 2, on text again, {how}: {went}."
    said += f" On images it {gains}." if gains else ""
    if "sft" not in read or "vold" not in read:
        return said
    first, last = read["sft"], read["vold"]
    copied, reasoned = (_copied(first), _copied(last)), (first.misreasoned, last.misreasoned)
    split = "Answers that copy other digits: {}, then {}; that copy them right and reason wrong: {}, then {}."
    return f"{said} {split.format(*copied, *reasoned)}"


def _copied(split: Readings) -> int:
    """Answers with another copy of the digits than the picture shows, right ones among them."""
    return split.misread + split.lucky


def _beside(results: Results, paired: Mapping[tuple[str, str, str], Comparison]) -> str:
    """What GRPO came to from the same start."""
    if not (went := _went(results, "sft", "grpo")):
        return ""
    found = {form: paired.get(("vold", "grpo", name)) for name, form in FORMS.items()}
    told = " and ".join(f"{_points(c)} on {form}" for form, c in found.items() if c is not None)
    said = f"GRPO from the same cold start, with the verifier alone: {went}."
    return f"{said} VOLD {told}. This is one seed; the study has ten (docs/study.md)." if told else said


def _went(results: Results, first: str, last: str) -> str:
    """Accuracy of two models on every set that both answered."""
    a, b = (results.stages.get(model, {}) for model in (first, last))
    return ", ".join(
        f"{FORMS.get(name, name)} {percent(a[name].accuracy)}% to {percent(b[name].accuracy)}%"
        for name in a
        if name in b
    )


def _points(c: Comparison) -> str:
    """A paired difference in words, with its 95% interval."""
    other = NAMES.get(c.against, c.against)
    span = f"95% interval {percent(c.low, sign=True)} to {percent(c.high, sign=True)}"
    if c.low <= 0 <= c.high:
        return f"cannot be told from {other} ({percent(c.difference, sign=True)} points, {span})"
    gained = f"{'gains' if c.difference > 0 else 'loses'} {percent(abs(c.difference))} points"
    return f"{gained} {'over' if c.difference > 0 else 'against'} {other} ({span})"
