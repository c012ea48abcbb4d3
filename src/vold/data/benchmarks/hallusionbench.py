"""HallusionBench: 951 yes/no questions about figures, some of which were changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Benchmark, PromptForm, ScoreFile, all_right
from vold.data.benchmarks.columns import pictures, tags, text_cell
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.sources import VOLD_TABLE_6
from vold.data.benchmarks.wording import YES_NO, YES_NO_BOX, YES_OR_NO, yes_no_letter
from vold.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.data.benchmarks.benchmark import Items
    from vold.data.files.read import Row
    from vold.run.answers import Answer

_RULE = PromptForm(with_options=YES_NO_BOX)
# Nothing is added.
_VLMEVALKIT = PromptForm(
    with_options="{question}", differs="the questions of VLMEvalKit's own table could not be compared with the hub's"
)
_PUBLISHED = VOLD_TABLE_6.figures(
    "hallusionbench", "image", {"Qwen2.5-VL-3B-Instruct": 46.3, "VOLD": 49.8}, metric="overall"
)


def hallusionbench(name: str, row: Row) -> Item:
    """HallusionBench: set, figure and question are columns on the hub, the end of `index` in VLMEvalKit's table."""
    category = text_cell(row, "subcategory", "l2-category")
    if "set_id" in row.values:
        place = [text_cell(row, column) for column in ("set_id", "figure_id", "question_id")]
    else:
        place = text_cell(row, "index").split("_")[-3:]
    if len(place) != 3 or not all(place):
        raise DataError("set, figure and question are not named", got="_".join(place))
    kind = text_cell(row, "category")
    group, figure, question = f"{kind}_{category}_{place[0]}", place[1], place[2]
    return Item(
        name,
        f"{group}_{figure}_{question}",
        text_cell(row, "question"),
        YES_OR_NO,
        pictures(row, "image"),
        yes_no_letter(row, "gt_answer", "answer"),
        "choice",
        cluster=group,
        tags={"subset": category, "figure": figure, "question": question} | tags(row, category="category"),
    )


def _accuracies(items: Items) -> dict[str, tuple[list[float], list[float]]]:
    """Accuracy over questions (aAcc), over figures with all of their questions right (fAcc), over questions right on
    all of their figures (qAcc), and the mean of the three, which is VLMEvalKit's figure. Clusters are sets.

    As in VLMEvalKit, a figure or question is named by subset (`illusion`, `chart` ..) and set.
    """
    sets: dict[str, dict[str, dict[str, list[Sequence[Answer]]]]] = {}
    for answers in items.values():
        tags = answers[0].tags
        by = sets.setdefault(f"{tags['subset']}_{answers[0].source.rpartition('_')[2]}", {})
        for metric, part in (("a_acc", answers[0].id), ("f_acc", tags["figure"]), ("q_acc", tags["question"])):
            by.setdefault(metric, {}).setdefault(part, []).append(answers)
    out = {}
    for metric in ("a_acc", "f_acc", "q_acc"):
        parts = [by[metric].values() for by in sets.values()]
        out[metric] = [sum(map(all_right, p)) for p in parts], [float(len(p)) for p in parts]
    totals = {metric: sum(sizes) for metric, (_, sizes) in out.items()}
    means = [
        [sum(out[m][side][i] / totals[m] for m in totals) / len(totals) for i in range(len(sets))] for side in (0, 1)
    ]
    return out | {"overall": (means[0], means[1])}


BENCHMARKS = (
    Benchmark(
        "hallusionbench",
        "HallusionBench",
        "lmms-lab/HallusionBench",
        {"image": [("data/image-*.parquet",)]},
        {"image": 951},
        hallusionbench,
        {"rule": _RULE, "vlmevalkit": _VLMEVALKIT},
        judging=YES_NO,
        published=_PUBLISHED,
        ratios=_accuracies,
        headline=("overall", "a_acc", "f_acc", "q_acc"),
        score_file=ScoreFile({"image": "HallusionBench"}, "figures", ("category", "subset")),
    ),
)
