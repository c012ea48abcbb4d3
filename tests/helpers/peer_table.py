"""Where other scorers and ours disagree on undisputed answers, and who is right: `python tests/helpers/peer_table.py`
writes benchmarks/results/peers.json, of which docs/bridges.md has a table. What is true follows from how an answer was
written (`undisputed.py`); no scorer takes part in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import peers
from undisputed import Case, Oracle, cases, mark
from undisputed_items import benchmarks_asked
from vold.evals.marking.llm_judge import judge_prompt, prediction

TABLE = Path(__file__).parents[2] / "benchmarks" / "results" / "peers.json"
EVERY = 7
"""Every so manyth of the undisputed answers is given to both; MATH-Vision's scorers start a process for each."""

SCORED = {
    "MATH-V": "mathvision",
    "MMMU-Pro": "mmmu_pro_standard10",
    "MathVista": "mathvista",
    "lm-eval gsm8k": "gsm8k",
    "lm-eval hendrycks_math": "math500",
    "Math-Verify": "math500",
    "lmms-eval mmstar": "mmstar",
    "lmms-eval mmmu_pro": "mmmu_pro_standard10",
}
"""What each scorer marks; VLMEvalKit has its own list, `peers.DATASETS`."""

TAKES, REFUSES = "theirs takes what is wrong", "theirs refuses what is right"
OURS_TAKES, OURS_REFUSES = "ours takes what is wrong", "ours refuses what is right"

WHY = {
    (TAKES, "open thinking block"): "the answer was never finished; it reads what stands in the open block",
    (TAKES, "only in the thinking block"): "nothing is answered behind the thinking; it reads the thinking",
    (TAKES, "taken back"): "the answer is withdrawn in the next sentence",
    (TAKES, "contradicted"): "two answers stand side by side, and it takes one",
    (TAKES, "hedge"): "the answer is left open, asked or denied",
    (TAKES, "another option's text"): "the letter is that of one option, the text that of another",
    (TAKES, "a word that is a letter"): 'the article in "A triangle" is no option',
    (TAKES, "a letter beyond"): "there is no such option; the nearest one is taken",
    (TAKES, "echo of the prompt"): "the prompt is repeated and nothing answered",
    (TAKES, "refusal"): "the model says that it does not know",
    (TAKES, "corrected"): "the last answer is another than the first, which it reads",
    (TAKES, "unreadable box"): "it reads a letter in the box or before it, and not the answer line",
    (TAKES, "letter"): "it misses the letter (a full-width one, one in LaTeX) and reads another that stands before it",
    (TAKES, "letter with its text"): "it reads a letter that stands in the reasoning or in an option's text",
    (TAKES, "option's text"): "it reads a letter that stands in the reasoning",
    (TAKES, "equal to an option"): "it reads a letter that stands in the reasoning",
    (TAKES, "value"): "it compares a part of the answer: one side of an equation, a letter of a word",
    (REFUSES, "letter"): "a letter in LaTeX, in small or in full width, or within a sentence, is not read",
    (REFUSES, "letter with its text"): "the option's text beside its letter has other letters in it",
    (REFUSES, "option's text"): "the text of an option is not matched, or only as a part of a longer text",
    (REFUSES, "equal to an option"): "the option's value is compared as text",
    (
        REFUSES,
        "value",
    ): 'units, "x = 5", "14.0", lists, words and reordered terms are compared as text or by Python\'s int',
    (REFUSES, "corrected"): "it reads the first of two answers, or both at once",
    (REFUSES, "unreadable box"): "it stops at a box that holds no answer, before the answer line",
    (OURS_REFUSES, "value"): "a writing that our grader does not read; not read is not guessed",
    (OURS_REFUSES, "letter"): "a place that we do not look in; not read is not guessed",
    (OURS_REFUSES, "letter with its text"): "a place that we do not look in; not read is not guessed",
    (OURS_REFUSES, "option's text"): "a place that we do not look in; not read is not guessed",
    (OURS_REFUSES, "equal to an option"): "two forms that our grader does not find equal; not read is not guessed",
    (OURS_REFUSES, "corrected"): "a correction in words that we do not know",
    (OURS_REFUSES, "unreadable box"): "a line that we do not read behind the box",
    (OURS_TAKES, "taken back"): "a withdrawal in words that we do not know",
    (OURS_TAKES, "contradicted"): "we take the last of two answers",
    (OURS_TAKES, "hedge"): "a doubt in words that we do not know",
    (OURS_TAKES, "another option's text"): "we take the letter",
}
"""Why one of the two is wrong, by what it does and the class of the answer. A class that is not here fails the test."""


class Marked(NamedTuple):
    """An answer with both marks."""

    peer: str
    case: Case
    ours: bool
    theirs: bool

    @property
    def what(self) -> str:
        """The disagreement in words; "" for none. What is right follows from how the answer was written."""
        if self.ours == self.theirs:
            return ""
        if self.ours == self.case.right:
            return REFUSES if self.case.right else TAKES
        return OURS_REFUSES if self.case.right else OURS_TAKES

    @property
    def group(self) -> str:
        """The class of the answer without the place that it stands in."""
        return self.case.kind.partition(",")[0]


def chosen(name: str) -> list[Case]:
    return [c for c in cases(name) if c.finish == "stop"][:: EVERY * (4 if name == "mathvision" else 1)]


def oracle(case: Case, prompt: str) -> str:
    """A judge that reads every answer as it was written."""
    said = Oracle(case).ask(prompt)
    return said.replace(", ", "") if case.item.benchmark == "logicvista" else said


def verdicts(name: str, made: Iterable[Case]) -> list[Any]:
    """VLMEvalKit's verdicts, and what its judge was asked."""
    calls = []
    for case in made:
        text = prediction(case.text)
        judge = {"extract": oracle(case, judge_prompt(case.item, text)), "agree": str(int(case.right))}
        calls.append({"what": "mark", "dataset": peers.DATASETS[name], "line": peers.line(case.item, text), **judge})
    return peers.call("peer_vlmevalkit.py", "VLMEvalKit", calls)


def of_vlmevalkit(name: str) -> Iterator[Marked]:
    made = chosen(name)
    for case, found in zip(made, verdicts(name, made), strict=True):
        yield Marked("VLMEvalKit", case, mark(case, "vlmevalkit") == 1.0, found["verdict"] >= 0.5)


def of_scorer(scorer: str, name: str) -> Iterator[Marked]:
    made = chosen(name)
    calls = [
        {
            "scorer": scorer,
            "gold": case.item.answer,
            "options": list(case.item.options),
            "choice": case.item.form == "choice",
            "form": case.item.form,
            "precision": case.item.precision or 0,
            "text": case.text,
            "says": case.says,
        }
        for case in made
    ]
    for case, theirs in zip(made, peers.call("peer_scorers.py", "", calls), strict=True):
        yield Marked(scorer, case, mark(case, "rule") == 1.0, theirs)


def table() -> dict[str, Any]:
    """Every peer: answers given, those marked the same and rightly, and disagreements by class, with an example."""
    marked = [m for name in sorted(peers.DATASETS.keys() & set(benchmarks_asked())) for m in of_vlmevalkit(name)]
    marked += [m for scorer, name in SCORED.items() for m in of_scorer(scorer, name)]
    found: dict[str, Any] = {}
    for m in marked:
        row = found.setdefault(m.peer, {"answers": 0, "same": 0, "right_here": 0, "right_there": 0, "differ": {}})
        row["answers"] += 1
        row["same"] += not m.what
        row["right_here"] += m.ours == m.case.right
        row["right_there"] += m.theirs == m.case.right
        if m.what:
            why = WHY.get((m.what, m.group), "")
            first = {"answers": 0, "gold": m.case.item.answer, "example": m.case.text[-80:], "why": why}
            row["differ"].setdefault(m.what, {}).setdefault(m.group, first)["answers"] += 1
    return found


if __name__ == "__main__":
    TABLE.write_text(json.dumps(table(), indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
