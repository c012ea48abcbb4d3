"""How VLMEvalKit reads an option, yes or no, a number or a short answer in a text, without evaluating any of it."""

from __future__ import annotations

import ast
import math
import operator
import re
from typing import TYPE_CHECKING, Any

from vold.graders.choice import LETTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
FOUR = list(LETTERS[:4])
_CLOSE = 1e-6
_MOST = 10**9
_ARITHMETIC = re.compile(r"[\d.+\-*/%()_ej ]{1,200}")


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


def yes_or_no(text: str) -> str | None:
    """The one of "yes" and "no" that is a word of a text; None where both or neither are."""
    text = text.lower()
    grouped = re.search(r"\d,\d", text) is not None
    words = text
    for mark in _PUNCTUATION:
        words = words.replace(mark, "" if grouped or f"{mark} " in text or f" {mark}" in text else " ")
    # As many full stops as the flag it passes for a count.
    said = {"yes", "no"} & set(re.sub(r"(?<!\d)\.(?!\d)", "", words, count=int(re.UNICODE)).split())
    return said.pop() if len(said) == 1 else None


def same(words: str, gold: str) -> bool:
    """Whether two answers are one text in any case, or numbers less than a millionth apart."""
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


def short_answer(answer: object, form: str) -> str | float | None:
    """DynaMath's answer in a short text: a number, up to the first blank; a letter from A to E; the text. Else None."""
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


def announced(text: str) -> str:
    """VisuLogic's letter where a text ends or begins with it, or behind words that announce it; else the text."""
    for letter in FOUR:
        starts = (f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")
        if text.endswith((f" {letter}.", f" ({letter}).")) or text.startswith(starts):
            return letter
    lower = text.lower()
    for marker in _VISULOGIC_MARKERS:
        if marker in lower:
            lower = lower.rpartition(marker)[2].strip().partition("\n")[0].partition(".")[0]
            if lower.upper() in FOUR:
                return lower.upper()
    return text
