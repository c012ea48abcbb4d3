"""Words that several benchmarks are asked and judged with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vold.data.benchmarks.benchmark import Judging, PromptForm
from vold.data.benchmarks.columns import text_cell
from vold.errors import DataError

if TYPE_CHECKING:
    from vold.data.files.read import Row

BOX = (
    'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple '
    'choice question, only one letter is allowed in the "\\boxed{}".'
)
"""MATH-Vision's words."""
QUERY_THEN_BOX = "{query}\n" + BOX
"""A row's own prompt, and a box asked for."""
QUESTION_THEN_BOX = "{question}\n{options}\n" + BOX
ALONE_THEN_BOX = "{question}\n" + BOX
STEP_BY_STEP = "{question}\nPlease reason step by step, and put your final answer within \\boxed{}."
WRITTEN = PromptForm(without_options=STEP_BY_STEP)
"""Text benchmarks have no prompt of their own; these are the words that Qwen's models are evaluated with."""
MCQ_QUESTION = "Question: {question}\nOptions:\n{options}\nPlease select the correct answer from the options above. \n"
"""VLMEvalKit's multiple-choice question."""

MCQ = Judging(
    name="mcq",
    one_option=True,
    no_option=True,
    prompt=(
        "You are an AI assistant who will help me to match an answer with several options of a single-choice "
        "question. You are provided with a question, several options, and an answer, and you need to find "
        "which option is most similar to the answer. If the meaning of all options are significantly different "
        "from the answer, output Z. Your should output a single uppercase character in A, B, C, D (if they are "
        "valid options), and Z. \n"
        "Example 1: \n"
        "Question: What is the main object in image?\n"
        "Options: A. teddy bear B. rabbit C. cat D. dog\n"
        "Answer: a cute teddy bear\n"
        "Your output: A\n"
        "Example 2: \n"
        "Question: What is the main object in image?\n"
        "Options: A. teddy bear B. rabbit C. cat D. dog\n"
        "Answer: Spider\n"
        "Your output: Z\n"
        "Example 3: \n"
        "Question: {question}?\n"
        "Options: {options}\n"
        "Answer: {response}\n"
        "Your output: "
    ),
)
"""VLMEvalKit's matching of an answer with the options, byte for byte (Apache-2.0; utils/multiple_choice.py)."""

_EXTRACTION = (
    "\n"
    "Please read the following example.\n"
    "Then extract the answer from the model response and type it at the end of the prompt.\n"
    "\n"
    "\n"
    "<hint>\n"
    "\n"
    "Question: Which number is missing?\n"
    "\n"
    "Model response: The number missing in the sequence is 14.\n"
    "\n"
    "Extracted answer: 14\n"
    "\n"
    "\n"
    "<hint>\n"
    "\n"
    "Question: What is the fraction of females facing the camera?\n"
    "\n"
    "Model response: The fraction of females facing the camera is 0.6,\n"
    "which means that six out of ten females in the group are facing the camera.\n"
    "\n"
    "Extracted answer: 0.6\n"
    "\n"
    "\n"
    "<hint>\n"
    "\n"
    "Question: How much money does Luca need to buy a sour apple candy and a butter-scotch candy? (Unit: $)\n"
    "\n"
    "Model response: Luca needs $1.45 to buy a sour apple candy and a butterscotch candy.\n"
    "\n"
    "Extracted answer: 1.45\n"
    "\n"
    "\n"
    "<hint>\n"
    "\n"
    "Question: Between which two years does the line graph saw its maximum peak?\n"
    "\n"
    "Model response: The line graph saw its maximum peak between 2007 and 2008.\n"
    "\n"
    "Extracted answer: [2007, 2008]\n"
    "\n"
    "\n"
    "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.\n"
    "\n"
    "Question: What fraction of the shape is blue?\n"
    "\n"
    "Choices: (A) 3/11 (B) 8/11 (C) 6/11 (D) 3/5\n"
    "\n"
    "Model response: The correct answer is (B) 8/11.\n"
    "\n"
    "Extracted answer: B\n"
    "\n"
    "{question}\n"
    "Model respone: {response}Extracted answer:"
)


def extraction(*hints: str) -> str:
    """VLMEvalKit's extraction of an answer by five examples, four of which begin with a hint (utils/mathvista.py,
    mathv.py)."""
    first, *rest = _EXTRACTION.split("<hint>")
    return first + "".join(hint + text for hint, text in zip(hints, rest, strict=True))


MATHVISION = extraction(*["Hint: Please answer the question and provide the final answer at the end."] * 4)
"""VLMEvalKit's extraction for MATH-Vision (utils/mathv.py)."""

YES_OR_NO = ("Yes", "No")
"""The options of a yes/no question, which stand in no prompt: the answer is a word, A and B are its letters here."""
YES_NO_BOX = '{question}\nPlease solve the problem step by step and put your answer, "Yes" or "No", in one "\\boxed{}".'
_YES_NO_WORD = re.compile(r"(?<![\w'])(?:yes|no)(?![\w'])", re.IGNORECASE)
_YES_NO_SAID = re.compile(
    r"\A\W*(?:\\\w+\s*\{)?\W*(?:yes|no)(?=\s*(?:[^\w\s?]|\Z))"
    r"|\b(?:so|therefore|thus|hence)\W{1,3}(?:the\s+answer\s+is\W{1,3})?(?:yes|no)\W*\Z",
    re.IGNORECASE,
)


def yes_no_letter(row: Row, *names: str) -> str:
    """A gold "Yes" or "1", "No" or "0" as the letter of its option.

    Raises:
        DataError: it is something else.
    """
    gold = text_cell(row, *names).strip().strip(".").lower()
    if gold not in ("yes", "no", "1", "0"):
        raise DataError("the gold answer is neither yes nor no", got=gold[:40])
    return "A" if gold in ("yes", "1") else "B"


def yes_or_no(text: str) -> str | None:
    """The one of the two words that a text begins with or concludes in ("so yes"); None where it has both or neither.

    Example:
        >>> yes_or_no("No, there is no cat."), yes_or_no("Yes or no?"), yes_or_no("I have no idea.")
        ('No', None, None)
    """
    said = {word.capitalize() for word in _YES_NO_WORD.findall(text)}
    return said.pop() if len(said) == 1 and _YES_NO_SAID.search(text) else None


YES_NO = Judging(
    name="yes_no",
    verdict="yes_no",
    one_option=True,
    answer=yes_or_no,
    prompt=(
        "You are an AI assistant who will help me to match an answer with two options of a question. The options are "
        "only Yes / No. You are provided with a question and an answer, and you need to find which option (Yes / No) "
        "is most similar to the answer. If the meaning of all options are significantly different from the answer, "
        "output Unknown. Your should output a single word among the following 3 choices: Yes, No, Unknown.\n"
        "Example 1: \n"
        "Question: Is the word in this image 'Hello'?\n"
        "Answer: The word in this image is 'Hello'.\n"
        "Your output: Yes\n"
        "Example 2: \n"
        "Question: Is the word in this image 'Hello'?\n"
        "Answer: The word in this image is not 'Hello'.\n"
        "Your output: No\n"
        "Example 3: \n"
        "Question: {question}?\n"
        "Answer: {response}\n"
        "Your output: "
    ),
)
"""VLMEvalKit's matching of an answer with Yes and No, byte for byte (Apache-2.0; utils/yorn.py)."""
