"""We-Math: composite problems and their steps."""

from __future__ import annotations

import math
import re
from statistics import fmean
from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Benchmark, PromptForm, ScoreFile
from vold.data.benchmarks.columns import column_options, letter_answer, pictures, tags, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.sources import OPEN_COMPASS, VOLD_TABLE_1
from vold.data.benchmarks.wording import ALONE_THEN_BOX, QUESTION_THEN_BOX
from vold.errors import DataError
from vold.graders.choice import LETTERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.data.benchmarks.benchmark import Items
    from vold.data.files.read import Row
    from vold.run.answers import Answer

_MARK = "[.:)\uff0e\uff1a]"
_SEMICOLON = re.compile(rf"[;\uff1b](?=\s*[A-L]\s*{_MARK})")
_LABEL = re.compile(rf"\s*([A-L])\s*{_MARK}\s*")
# The official prompt asks for a brief thought and an answer between << and >>; a box is one form for all benchmarks.
_RULE = PromptForm(option="{letter}. {text}", with_options=QUESTION_THEN_BOX, without_options=ALONE_THEN_BOX)
# WeMath_COT, which VLMEvalKit has judged with its general words, not with those that it has for `WeMath`.
_VLMEVALKIT = PromptForm(
    option="{letter}. {text}",
    with_options=(
        "Hint: Now, we require you to solve a multiple-choice math question. Please briefly describe your thought "
        "process and provide the final answer(option).\n"
        "Question: {question}\n"
        "Options:\n"
        "{options}\n"
        "\n"
        "Regarding the format, please answer following the template below, and be sure to include two <> symbols:\n"
        "<Thought process>: <<your thought process>> <Answer>: <<your option>>"
    ),
    differs="hint and requirement are columns of VLMEvalKit's own table, which could not be read; the words are "
    "We-Math's, those of the requirement also stand in VLMEvalKit's code",
)
# The base model's row of the VOLD paper is OpenCompass's, whose We-Math is the strict score.
_PUBLISHED = (
    *VOLD_TABLE_1.figures(
        "wemath",
        "testmini",
        {
            "Qwen2.5-VL-3B-Instruct": 22.9,
            "X-Reasoner-3B (their reproduction)": 30.6,
            "VLM-R1-3B-Math": 30.0,
            "VLAA-Thinker-3B": 31.5,
            "VOLD": 31.8,
        },
        metric="score_strict",
    ),
    *OPEN_COMPASS.figures(
        "wemath", "testmini", {"Qwen2.5-VL-7B-Instruct": 35.2, "Qwen2.5-VL-3B-Instruct": 22.9}, metric="score_strict"
    ),
)


def wemath(name: str, row: Row) -> Item:
    """We-Math: the steps of a composite problem and the problem itself, which share the column `ID`. Tags `key`
    ("2steps_1", "3steps_multi") and `composite` (that ID) are what the four-dimension score needs."""
    key, composite = text_cell(row, "key"), text_cell(row, "ID", "_key")
    options = column_options(row)
    if options is None:
        options = semicolon_options(text_cell(row, "option"))
    found = tags(row, concept="knowledge concept")
    return Item(
        name,
        f"{composite}/{key}",
        text_cell(row, "question"),
        options,
        pictures(row, "image_path" if "option" in row.values else "image"),
        letter_answer(row, options, "answer"),
        "choice",
        cluster=composite,
        tags={"key": key, "composite": composite, **found},
    )


def semicolon_options(text: str) -> tuple[str, ...]:
    """The texts of options "A. ..;B. ..", in which the data has three faults.

    A semicolon stands inside a text that ends in a letter and a stop ("A. angle ∠AB;E.;B. .."): a label with no text
    goes to the option before it. A semicolon is missing where labels count on behind a blank ("A. 4 B. 3;C. 2"). And a
    last label can be too late ("C. No.;F. No correct answer"): it is asked under the letter that comes next.

    Raises:
        DataError: other labels that are not in the order of letters, or no text behind the last.

    Example:
        >>> semicolon_options("A. angle ∠AB;E.; B. get shape ;C.; C. 5 D. 6")
        ('angle ∠ABE', 'get shape C', '5', '6')
    """
    found: list[str] = []
    pieces = [piece for piece in _SEMICOLON.split(text.strip().strip(";\uff1b")) if piece.strip()]
    for left, piece in zip(range(len(pieces) - 1, -1, -1), pieces, strict=True):
        label = _LABEL.match(piece)
        if label is None:
            raise DataError("an option without a label", got=piece[:60])
        said = piece[label.end() :]
        if found and left and not said:
            found[-1] += label[1]
            continue
        _split_up_to(label[1], found)
        due = LETTERS[len(found) : len(found) + 1]
        if not due or label[1] < due or (left and label[1] > due) or (found and not said):
            raise DataError("labels of options that are not in order, or one without a text", got=piece[:60])
        found.append(said)
    return tuple(option.strip() for option in found)


def _split_up_to(letter: str, found: list[str]) -> None:
    """Split the labels that are due before this letter off the last text, at the blanks before them."""
    for due in LETTERS[len(found) : LETTERS.index(letter)] if found else "":
        missing = re.search(rf"\s{due}\s*{_MARK}\s*", found[-1])
        if missing is None:
            break
        found[-1:] = [found[-1][: missing.start()], found[-1][missing.end() :]]


def _dimensions(items: Items) -> dict[str, dict[str, float]]:
    """Strict and loose score and the four dimensions over composite problems of which every step was asked.

    With the problem right and all steps right a model has mastered it; right with a step wrong it has learnt by rote
    (loosely: with every step wrong, and one right step makes it mastery); wrong with all steps right it generalises
    badly (half a point); else it lacks knowledge. Score = (mastered + generalises badly / 2) / problems, which is
    (N - IG/2 - RM - IK) / N of the paper (arXiv 2407.01284).
    """
    out: dict[str, dict[str, float]] = {}
    for name, (whole, parts) in _composites(items).items():
        drawn = [
            (w.score >= 1.0, [s.score >= 1.0 for s in steps])
            for w, *steps in zip(whole, *parts, strict=False)
        ]  # fmt: skip
        dimensions: dict[str, list[float | bool]] = {
            "score_strict": [0.5 * (not w and all(p)) + (w and all(p)) for w, p in drawn],
            "score_loose": [0.5 * (not w and all(p)) + (w and any(p)) for w, p in drawn],
            "insufficient_knowledge": [not w and not all(p) for w, p in drawn],
            "inadequate_generalisation": [not w and all(p) for w, p in drawn],
            "complete_mastery_strict": [w and all(p) for w, p in drawn],
            "complete_mastery_loose": [w and any(p) for w, p in drawn],
            "rote_memorisation_strict": [w and not all(p) for w, p in drawn],
            "rote_memorisation_loose": [w and not any(p) for w, p in drawn],
            f"{('two', 'three')[len(parts) - 2]}_step": [w for w, _ in drawn],
        }
        for metric, values in dimensions.items():
            out.setdefault(metric, {})[name] = fmean([float(v) for v in values])
    return out


def _rates(items: Items) -> dict[str, tuple[list[float], list[float]]]:
    """Figures of We-Math's table that are ratios: accuracy over single steps, and rote among problems got right."""
    composites, scores = _composites(items), _dimensions(items)
    if not composites:
        return {}
    steps = [[fmean([r.score for r in step]) for step in parts] for _, parts in composites.values()]
    out = {"one_step": ([math.fsum(s) for s in steps], [float(len(s)) for s in steps])}
    for kind in ("strict", "loose"):
        rote, mastered = scores[f"rote_memorisation_{kind}"], scores[f"complete_mastery_{kind}"]
        right = [rote[c] + mastered[c] for c in composites]
        if any(right):
            out[f"rote_rate_{kind}"] = ([rote[c] for c in composites], right)
    return out


def _composites(items: Items) -> dict[str, tuple[Sequence[Answer], list[Sequence[Answer]]]]:
    """Answers to the composite problem and to each of its steps, where all of them were asked."""
    found: dict[str, dict[str, Sequence[Answer]]] = {}
    for answers in items.values():
        tags = answers[0].tags
        if "composite" in tags and "key" in tags:
            found.setdefault(tags["composite"], {})[tags["key"]] = answers
    out = {}
    for name, by_key in found.items():
        for steps in (2, 3):
            keys = [f"{steps}steps_{part}" for part in ("multi", *range(1, steps + 1))]
            if all(key in by_key for key in keys):
                out[name] = (by_key[keys[0]], [by_key[key] for key in keys[1:]])
    return out


BENCHMARKS = (
    Benchmark(
        "wemath",
        "We-Math",
        "We-Math/We-Math",
        {"testmini": [("data/testmini-*.parquet",)]},
        {"testmini": 1740},
        wemath,
        {"rule": _RULE, "vlmevalkit": _VLMEVALKIT},
        published=_PUBLISHED,
        cluster_scores=_dimensions,
        ratios=_rates,
        headline=("score_strict",),
        score_file=ScoreFile({"testmini": "WeMath_COT"}, "dimensions", judged=True),
    ),
)
