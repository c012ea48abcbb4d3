r"""VLMEvalKit's own verdict on an answer that `vold.evals.marking.llm_judge` has marked, from the same judge's replies.

Our marking takes answers that VLMEvalKit does not ("x = 5", "14.0", a list, DynaMath's text outside JSON), and refuses
some that it takes. What a published figure would have been on the same answers is this verdict. It is written anew
after VLMEvalKit e8e78f05; `make test-peers` holds the two against each other.

- An answer is what follows its thinking (`SPLIT_THINK` there), or all of it where the thinking never ends. One that was
  cut off is read all the same.
- No judge is asked here. Where VLMEvalKit would ask it, its reply to us counts; where a rule spared us the question,
  the judge is taken to say what the rule read, and where a judge says whether two answers agree, to find what we found.
- Where VLMEvalKit draws an option at random, the verdict is the chance to draw the right one. What it asks again at a
  higher temperature is asked once.
- Nothing that a model wrote is evaluated: MATH-Vision's numbers are read by `readings_there.same`, OlympiadBench's
  mathematics by the `math` grader. docs/bridges.md lists where that makes a difference.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vold.evals.marking.llm_judge import (
    agreement_prompt,
    is_correct,
    judge_prompt,
    judging_of,
    option_texts,
    prediction,
)
from vold.evals.marking.readings_there import FOUR, announced, infer_letter, same, short_answer, yes_or_no
from vold.evals.marking.rules import grade_answer
from vold.graders.extract import after_thinking, boxes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vold.data.benchmarks.benchmark import VerdictName
    from vold.data.benchmarks.item import Item
    from vold.types import Grade

_DECORATION = "\n$,.:;^_=+`!@#%&*~"


@dataclass(frozen=True)
class _Case:
    """An answer to an item: its text as VLMEvalKit reads it, what we made of it, and what the judge said to us."""

    item: Item
    text: str
    grade: Grade
    said: Callable[[str, str], str | None]

    @property
    def gold(self) -> str:
        return self.item.answer

    @property
    def reply(self) -> str | None:
        """The judge's words about the answer; None where a rule spared us the question."""
        words = self.said(judge_prompt(self.item, self.text), judging_of(self.item).system)
        return None if words is None else _plain(words)

    @property
    def extracted(self) -> str:
        """The judge's words; what a rule read where it was not asked, "Z" where that is nothing."""
        reply = self.reply
        return reply if reply is not None else self.grade.extracted or "Z"

    def letter(self, choices: Mapping[str, str]) -> str | None:
        """The option that VLMEvalKit infers from the answer, else from the judge's reply; None where it draws one."""
        named = infer_letter(judging_of(self.item).response(self.text), choices)
        if named is not None:
            return named
        return self.grade.extracted or "Z" if self.reply is None else infer_letter(self.reply, choices)


def as_vlmevalkit(item: Item, response: str, grade: Grade, said: Callable[[str, str], str | None]) -> float:
    """What VLMEvalKit would give for a response that we gave `grade`; see the head of this module.

    Args:
        item: the question.
        response: all that the model wrote.
        grade: our mark.
        said: the judge's reply to a prompt with a system's turn, None where it was not asked.

    Example:
        >>> from vold.types import Grade
        >>> from vold.data.benchmarks.item import Item
        >>> five = Item("mathvista", "1", "How many?", (), (), "5", "integer", cluster="1")
        >>> as_vlmevalkit(five, r"So \boxed{x = 5}", Grade(1.0, "x = 5", "equal"), lambda prompt, system: None)
        0.0
    """
    return float(_VERDICTS[judging_of(item).verdict](_Case(item, prediction(response), grade, said)))


def _options(case: _Case) -> float:
    """An option; where none can be inferred, one is drawn from all of them and "Z". MMMU's open questions have two."""
    choices = option_texts(case.item)
    if case.item.form == "text" and case.reply is None:
        return case.grade.score
    letter = case.letter(choices)
    if letter is None:
        return 1 / (len(choices) + 1)
    return letter == ("A" if case.item.form == "text" else case.gold)


def _yes_no(case: _Case) -> bool:
    """The one of the two words that the answer has, else the judge's reply."""
    said = yes_or_no(case.text)
    if said is None and case.reply is None:
        return case.grade.score == 1.0
    return (said or yes_or_no(case.extracted)) == {"A": "yes", "B": "no"}[case.gold]


def _mathvista(case: _Case) -> bool:
    """A choice is inferred, a number must read as Python's; nothing else is ever right."""
    if case.item.form == "choice":
        return case.letter(option_texts(case.item)) == case.gold
    if case.item.form not in ("integer", "float"):
        return False
    read: Callable[[str], float] = int if case.item.form == "integer" else float
    for words in (case.text, case.extracted):
        try:
            if read(words) == read(case.gold):
                return True
        except ValueError:
            continue
    return False


def _mathvision(case: _Case) -> bool:
    """A choice is inferred; anything else is the gold, in any case, or equal as a number."""
    if case.item.form == "choice":
        return case.letter({a: t or a for a, t in option_texts(case.item).items()}) == case.gold
    return any(same(words, case.gold) for words in (case.text, case.extracted))


def _mathverse(case: _Case) -> bool:
    """The judge extracts; the very gold is right, of anything else the judge says so."""
    if case.extracted == case.gold.strip():
        return True
    judged = case.said(agreement_prompt(case.item, case.grade.extracted or ""), "")
    return case.grade.score == 1.0 if judged is None else _plain(judged) == "1"


def _logicvista(case: _Case) -> bool:
    """The judge's reply must be capital letters and nothing else: those of the gold, in any order."""
    reply = case.reply
    if reply is None:
        reply = "".join(re.findall(r"[A-Z]", case.extracted))
    return reply.isupper() and reply.isalpha() and sorted(reply) == sorted(case.gold.upper().split(", "))


def _dynamath(case: _Case) -> bool:
    """The JSON's short answer, else the whole answer, else the judge's reply; a text need only be part of the gold."""
    text = judging_of(case.item).response(case.text)
    try:
        found = short_answer(json.loads(text, strict=False)["short answer"], case.item.form)
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    if found is None:
        found = short_answer(text, case.item.form)
    if found is None:
        found = short_answer(case.extracted, case.item.form)
    if case.item.form == "float":
        return isinstance(found, float) and abs(found - float(case.gold)) <= 0.001
    if case.item.form == "choice":
        return found == case.gold if found is not None else case.gold in text[:3].upper()
    return isinstance(found, str) and found.lower() in case.gold.lower()


def _visulogic(case: _Case) -> bool:
    """No judge: the last box, else one of the places where an answer is announced."""
    boxed, begun = case.text, list[int]()
    for token in re.finditer(r"\\boxed\{|[^\\]\}", case.text):
        if token[0][-1] == "{":
            begun.append(token.end())
        elif begun:
            start = begun.pop()
            boxed = boxed if begun else re.sub(r"\\(?:text|rm|mathbf)\{|[$}]", "", case.text[start : token.end() - 1])
    return (boxed.strip() if boxed.strip() in FOUR else announced(case.text)) == case.gold


def _olympiadbench(case: _Case) -> bool:
    """No judge: the boxes of the last "So the final answer is", or of the answer; else what its last line has in $."""
    ends = re.findall(r"So the final answer is (.*)", case.text)
    text = ends[-1].strip() if ends else case.text
    found = [text[box.inner_start : box.inner_end] for box in boxes(text)]
    found = found or re.findall(r"\$(.*?)\$", text.strip().split("\n")[-1]) or [text]
    answer = ",".join(found).strip(_DECORATION)
    return answer == case.gold.strip(_DECORATION) or grade_answer(case.item, answer).score == 1.0


def _short(case: _Case) -> float:
    """The judge says whether the answer is right."""
    return case.grade.score if case.reply is None else is_correct(case.reply) is True


def _plain(words: str) -> str:
    """A judge's reply without its thinking."""
    return (after_thinking(words) or "").strip()


_VERDICTS: Mapping[VerdictName, Callable[[_Case], float]] = {
    "options": _options,
    "yes_no": _yes_no,
    "mathvista": _mathvista,
    "mathvision": _mathvision,
    "mathverse": _mathverse,
    "logicvista": _logicvista,
    "dynamath": _dynamath,
    "visulogic": _visulogic,
    "olympiadbench": _olympiadbench,
    "short": _short,
}
