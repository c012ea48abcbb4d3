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
- Nothing that a model wrote is evaluated. MATH-Vision's numbers are read by `_number`, and OlympiadBench's mathematics
  by the `math` grader: see the list of differences in docs/bridges.md.
"""

from __future__ import annotations

import ast
import json
import math
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vold.evals.marking.llm_judge import agreement_prompt, judge_prompt, judging_of, option_texts, prediction
from vold.evals.marking.rules import grade_answer
from vold.graders.choice import LETTERS
from vold.graders.extract import after_thinking, balanced

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vold.data.benchmarks.benchmark import VerdictName
    from vold.data.benchmarks.item import Item
    from vold.types import Grade

_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_ANSWER_IS = re.compile(r"(?:correct\s+)?answer\s+is\s+\**([ABCD])\**", re.IGNORECASE)
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_VISULOGIC_MARKERS = (
    "answer:",
    "the final answer is:",
    "the answer is option:",
    "the answer is:",
    "the correct answer is option:",
    "the correct answer is:",
    "the answer should be:",
    "the final answer is",
    "the answer is option",
    "the answer is",
    "the correct answer is option",
    "the correct answer is",
    "the answer should be",
)
_FOUR = list(LETTERS[:4])
_CLOSE = 1e-6
_MOST = 10**9
_ARITHMETIC = re.compile(r"[\d.+\-*/%()_ej ]{1,200}")


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
        named = infer_letter(self.text, choices)
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


def infer_letter(text: str, choices: Mapping[str, str]) -> str | None:
    """The option that VLMEvalKit reads out of a text: one letter near the end, a sentence that names one, or the one
    option whose text it holds; "Z" for none of them, None where it cannot tell."""
    if any(refusal in text for refusal in _REFUSALS):
        return "Z"
    words = text.translate(_SEPARATORS).split()
    named = [letter for letter in choices if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - 5:
        return named[0]
    if not named and "Z" in words:
        return "Z"
    sentence = _ANSWER_IS.search(text)
    if sentence is not None and sentence[1].upper() in choices:
        return sentence[1].upper()
    if len(text) > 2 * sum(map(len, choices.values())):
        return None
    held = [letter for letter, option in choices.items() if option.lower() in text.lower()]
    return held[0] if len(held) == 1 else None


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
    said = _yes_or_no(case.text) or (case.extracted if case.reply is None else _yes_or_no(case.reply))
    return said in (case.gold, {"A": "yes", "B": "no"}[case.gold])


def _yes_or_no(text: str) -> str | None:
    text = text.lower()
    grouped = re.search(r"\d,\d", text) is not None
    words = text
    for mark in _PUNCTUATION:
        words = words.replace(mark, "" if grouped or f"{mark} " in text or f" {mark}" in text else " ")
    # As many full stops as the flag it passes for a count.
    said = {"yes", "no"} & set(re.sub(r"(?<!\d)\.(?!\d)", "", words, count=int(re.UNICODE)).split())
    return said.pop() if len(said) == 1 else None


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
    return any(_same(words, case.gold) for words in (case.text, case.extracted))


def _same(words: str, gold: str) -> bool:
    words, gold = words.lower().strip(), gold.lower().strip()
    if words == gold:
        return True
    for read in (_number, lambda text: _number(_from_latex(text))):
        found, wanted = read(words), read(gold)
        if found is not None and wanted is not None and abs(found - wanted) < _CLOSE:
            return True
    return False


def _number(text: str) -> complex | None:
    """The value of sums, products and powers of numbers, as Python writes them; None for anything else."""
    if not _ARITHMETIC.fullmatch(text):
        return None
    try:
        return complex(_value(ast.parse(text, mode="eval").body))
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError):
        return None


_OPERATIONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def _value(node: ast.AST) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, complex)):
        return node.value
    if isinstance(node, ast.UnaryOp):
        return _OPERATIONS[type(node.op)](_value(node.operand))
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow) and (abs(left) > _MOST or abs(right) > 64):
            raise ValueError("not worked out for its size")
        return _OPERATIONS[type(node.op)](left, right)
    raise ValueError("no arithmetic")


def _from_latex(text: str) -> str:
    r"""`\frac{1}{2}`, `\cdot`, `\times`, `^{2}` as Python writes them; the rest as it is."""
    text = text.strip("$").replace("\\left", "").replace("\\right", "")
    text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", text)
    text = re.sub(r"\\(?:cdot|times)(?![a-z])", "*", text).replace("^", "**")
    return text.replace("{", "(").replace("}", ")")


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
        found = _short_answer(json.loads(text, strict=False)["short answer"], case.item.form)
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    if found is None:
        found = _short_answer(text, case.item.form)
    if found is None:
        found = _short_answer(case.extracted, case.item.form)
    if case.item.form == "float":
        return isinstance(found, float) and abs(found - float(case.gold)) <= 0.001
    if case.item.form == "choice":
        return found == case.gold if found is not None else case.gold in text[:3].upper()
    return isinstance(found, str) and found.lower() in case.gold.lower()


def _short_answer(answer: object, form: str) -> str | float | None:
    if not isinstance(answer, str):
        return None
    if form == "float":
        number, pi, _ = answer.partition(" ")[0].partition("\u03c0")
        try:
            return float(number) * (math.pi if pi else 1.0)
        except ValueError:
            return None
    if form == "choice":
        letters = [a for a in LETTERS[:5] if a in answer.upper()]
        return answer.upper() if len(answer) == 1 else letters[0] if len(letters) == 1 else None
    return answer


def _visulogic(case: _Case) -> bool:
    """No judge: the last box, else one of the places where an answer is announced."""
    boxes = re.findall(r"\\boxed\{((?:\\\}|[^}])+)\}", case.text)
    boxed: str = boxes[-1] if boxes else case.text
    for wrapper in ("\\text{", "\\rm{", "\\mathbf{", "$") if boxes else ():
        boxed = boxed.replace(wrapper, "")
    return (boxed.strip() if boxed.strip() in _FOUR else _announced(case.text)) == case.gold


def _announced(text: str) -> str:
    for letter in _FOUR:
        starts = (f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")
        if text.endswith((f" {letter}.", f" ({letter}).")) or text.startswith(starts):
            return letter
    lower = text.lower()
    for marker in _VISULOGIC_MARKERS:
        if marker in lower:
            lower = lower.rpartition(marker)[2].strip().partition("\n")[0].partition(".")[0]
            if lower.upper() in _FOUR:
                return lower.upper()
    return text


def _olympiadbench(case: _Case) -> bool:
    """No judge: the boxes of the last "So the final answer is", or of the answer; else what its last line has in $."""
    ends = re.findall(r"So the final answer is (.*)", case.text)
    text = ends[-1].strip() if ends else case.text
    found = [part for part in (_braced(text[m.end() :]) for m in re.finditer(r"\\boxed{", text)) if part is not None]
    found = found or re.findall(r"\$(.*?)\$", text.strip().split("\n")[-1]) or [text]
    return grade_answer(case.item, ",".join(found)).score == 1.0


def _braced(text: str) -> str | None:
    """What stands before the brace that closes one already open."""
    return next((text[: m.start()] for m in re.finditer(r"\}", text) if balanced(text[: m.start()])), None)


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
}
