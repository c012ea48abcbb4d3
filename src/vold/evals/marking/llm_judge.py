"""The `vlmevalkit` protocol's marking: a judge model extracts the answer, rules compare it with the gold.

The judge gets VLMEvalKit's own words. What a plain rule can read is not sent to it: a box, an answer line, the JSON of
DynaMath, or one option letter near the end. Where VLMEvalKit is random or wrong, this is not:

- a reply that names no option is replaced there by a random letter; here the answer scores 0 as `JUDGE_FAILED`;
- the option "15" is read there out of "The total is 150"; here an option's text counts as whole words only, and "A
  triangle" and "I am unsure" name no option;
- MathVista's lists are never right there, "14.0" is no integer and floats are not rounded; here they are compared as
  under `rule`, and so are MATH-Vision's answers, which are evaluated as Python there. No text of a model ever is here;
- DynaMath's text is right there when it is part of the gold, such as a single letter; here it must equal it;
- an answer that is cut off is extracted there all the same; here it is truncated and scores 0.

Of a judge's reply the first line counts where it is an answer and nothing else ("B", with an explanation below),
otherwise the last; a reply with two such lines that differ cannot be used.

MMMU's open questions are put to the judge as VLMEvalKit does: is it A, the gold, or B, "Other Answers"? And for
MathVerse, whose golds are prose, the judge also says whether extracted answer and gold agree, where the rule does not;
for EMMA's open questions it says whether the answer is right.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vold.data.benchmarks.registry import benchmarks
from vold.data.benchmarks.wording import MCQ
from vold.evals.marking.finding import MAX_ANSWER_CHARS, taken_back
from vold.evals.marking.judge import Judge as Judge
from vold.evals.marking.judge import Unusable
from vold.evals.marking.numbers import read_quantity
from vold.evals.marking.options import is_bare_choice, is_yes_no, read_letters
from vold.evals.marking.rules import find_answer, grade_answer, read
from vold.evals.marking.words import plain_words
from vold.evals.prompting import build_messages
from vold.graders.choice import LETTERS
from vold.graders.extract import after_thinking
from vold.graders.outcome import DIFFERENT, EQUAL, JUDGE_FAILED, TRUNCATED, UNCLOSED, UNREADABLE, verdict
from vold.types import IMAGE_MARKER, Grade

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vold.data.benchmarks.benchmark import Judging
    from vold.data.benchmarks.item import Item
    from vold.types import Finish

NO_ANSWER = f"{UNREADABLE}: the judge finds no answer"

MAX_REPLY_CHARS = 2000

_IN_PICTURE = "ABCDE"
"""Options that stand in a picture or in the question's text: as many as any of these benchmarks has."""

_JUDGEMENT = re.compile(r"judg?e?ment\W*(?:is\W*)?([01])\b", re.IGNORECASE)
_LABEL = re.compile(
    r"(?:(?:the\s+)?(?:extracted\s+|final\s+|correct\s+)?(?:answer|letter|option|choice)s?|your\s+output)"
    r"\s*(?::|(?:is|are)\b)\s*",
    re.IGNORECASE,
)
_NOT_A_NAME = re.compile(r"\b(?:option|choice|answer|and)s?\b|[^a-z]", re.IGNORECASE)
_CORRECT = re.compile(r"\[Begin Correctness\](.*?)\[End Correctness\]", re.DOTALL)
_LEFT_OPEN = re.compile(
    r"\b(?:not|never|neither|nor|cannot|no|except|but|or|if|unless|either|might|may|could|maybe|perhaps|possibly|probably)\b"
    r"|\b(?:wrong|incorrect|false|point|line|angle|circle|side|vertex|segment|triangle|centre|center|vitamin)\b"
    r"|n't\b|\?|\b[A-L]\s*[=^_+*/'<>]",
    re.IGNORECASE,
)
"""What may take an option back, leave it open or make another thing of its letter: then the judge is asked."""
_HOLE = re.compile(r"\{(question|options|response|answer|extracted|instruction)\}")


def score_vlmevalkit(item: Item, response: str, judge: Judge, *, finish: Finish = "stop") -> Grade:
    """Mark a response: read it by rule where that is plain, else let the judge extract the answer, then compare.

    An answer that neither a rule nor the judge can read scores 0, with a note that begins with `JUDGE_FAILED` where
    the judge's reply was the trouble.

    Raises:
        SamplerError: the judge cannot be reached; see `Judge.ask`.
    """
    if finish == "length" or after_thinking(response) is None:
        return Grade(0.0, None, TRUNCATED if finish == "length" else UNCLOSED)
    text = prediction(response)
    if not text.strip():
        return Grade(0.0, None, f"{UNREADABLE}: empty")
    plain = read_plainly(item, text)
    if plain is not None:
        return plain
    try:
        mark = _by_judges_verdict if judging_of(item).correctness else _by_judge
        return mark(item, text, judge)
    except Unusable as why:
        return Grade(0.0, None, f"{JUDGE_FAILED}: {why}")


def prediction(response: str) -> str:
    """What VLMEvalKit takes for the answer: with `SPLIT_THINK` what follows the thinking, without blanks around it."""
    text = after_thinking(response)
    return response if text is None or text == response else text.strip()


def read_plainly(item: Item, text: str) -> Grade | None:
    """Mark what needs no judge; None where one has to be asked. `text` is the response after its thinking."""
    answer = None if taken_back(text) else judging_of(item).answer(text)
    grade = None if answer is None else grade_answer(item, answer)
    if grade is None or grade.note.startswith(UNREADABLE):
        grade = read(item, text)
    if grade is not None and not grade.note.startswith(UNREADABLE):
        final = item.form != "text" and not (judging_of(item).agreement and item.form == "math")
        return grade if final or grade.score == 1.0 else None
    open_choice = grade is None and item.form == "choice" and not is_yes_no(item)
    if not open_choice or "\n" in text.strip() or taken_back(text) or _LEFT_OPEN.search(text):
        return None
    letter = infer_option(text, option_texts(item))
    return None if letter is None else verdict(letter == item.answer, letter)


def infer_option(text: str, options: Mapping[str, str]) -> str | None:
    """The option a short text names: one letter, once among the others and near the end, or one option's whole text.

    `options` maps letters to texts; a text may be empty (it stands in the picture).

    Example:
        >>> infer_option("So it must be (B).", {"A": "12", "B": "15"}), infer_option("150", {"A": "12", "B": "15"})
        ('B', None)
    """
    tokens = text.translate({ord(c): " " for c in ".()[]{}<>,:;!*#$\"'"}).split()
    named = set(tokens) & set(options)
    if len(named) == 1:
        letter = next(iter(named))
        place = tokens.index(letter)
        if place > len(tokens) - 5 and not _is_word(tokens, place):
            return letter
    if len(text) > 2 * sum(map(len, options.values())):
        return None
    whole = [a for a, t in options.items() if t and re.search(rf"(?<!\w){re.escape(t)}(?!\w)", text, re.IGNORECASE)]
    return whole[0] if len(whole) == 1 else None


def judge_prompt(item: Item, text: str) -> str:
    """What the judge is asked first about a response to this item."""
    judging = judging_of(item)
    options = "There are several options: \n" + "".join(f"{a}. {t}\n" for a, t in option_texts(item).items() if t)
    if judging.question == "asked":
        question = build_messages(item, "vlmevalkit")[0].text.replace(IMAGE_MARKER, "")
    else:
        question = item.question if judging.question == "own" else judging.question(item)
    instruction = judging.instruction.get(item.form, "")
    response = judging.response(text)
    parts = {"question": question, "options": options, "response": response, "instruction": instruction}
    return _fill(judging.prompt, **parts, answer=item.answer)


def _by_judge(item: Item, text: str, judge: Judge) -> Grade:
    judging = judging_of(item)
    stated = find_answer(text)
    if judging.agreement and item.form == "math" and stated is not None:
        return _agree(item, stated.readings[0], judge)
    said = judge.ask(judge_prompt(item, text), judging.system)
    reply = _cleaned(said) if judging.agreement else _answer_line(item, said)
    if not reply:
        raise Unusable("an empty reply")
    if _finds_none(item, reply):
        return Grade(0.0, None, NO_ANSWER)
    if item.form == "choice" or judging.one_option:
        options = option_texts(item)
        letters = read_letters(reply.splitlines()[0])
        letter = infer_option(reply, options) if letters is None else "".join(sorted(letters))
        if letter not in options:
            raise Unusable(f"no option in {reply[:80]!r}")
        return verdict(letter == ("A" if item.form == "text" else item.answer), letter)
    if item.form == "letters":
        found = read_letters(reply) or set(re.sub(r"[\s,;]+", "", reply).upper())
        if not found or not found <= set(LETTERS):
            raise Unusable(f"no option letters in {reply[:80]!r}")
        return grade_answer(item, ", ".join(sorted(found)))
    grade = grade_answer(item, reply)
    if judging.agreement and grade.score < 1.0:
        return _agree(item, reply, judge)
    if grade.note.startswith(UNREADABLE):
        raise Unusable(f"cannot read {reply[:80]!r}")
    return grade


def _by_judges_verdict(item: Item, text: str, judge: Judge) -> Grade:
    """EMMA's open questions: the judge says whether the response is right."""
    reply = judge.ask(judge_prompt(item, text))
    right = is_correct(after_thinking(reply) or "")
    if right is None:
        raise Unusable(f"no verdict in {reply[:80]!r}")
    stated = find_answer(text)
    extracted = stated.readings[0] if stated is not None else text[-MAX_ANSWER_CHARS:]
    return Grade(float(right), extracted, f"{EQUAL if right else DIFFERENT}: says the judge")


def _agree(item: Item, extracted: str, judge: Judge) -> Grade:
    """MathVerse's second step: the judge compares the extracted answer with the gold."""
    reply = _cleaned(judge.ask(agreement_prompt(item, extracted)))
    verdicts = [reply] if reply in ("0", "1") else _JUDGEMENT.findall(reply)
    if not verdicts:
        raise Unusable(f"no judgement in {reply[:80]!r}")
    return Grade(float(verdicts[-1]), extracted, f"{EQUAL if verdicts[-1] == '1' else DIFFERENT}: says the judge")


def agreement_prompt(item: Item, extracted: str) -> str:
    """What the judge is asked about an extracted answer and the gold; "" for a benchmark where it is not."""
    question = item.for_judge or item.question
    return _fill(judging_of(item).agreement, question=question, answer=item.answer, extracted=extracted)


def is_correct(reply: str) -> bool | None:
    """Whether a judge found a response correct; None where it says both, or neither."""
    said = _CORRECT.search(reply)
    words = said[1].lower() if said is not None else ""
    return "yes" in words if ("yes" in words) != ("no" in words) else None


def judging_of(item: Item) -> Judging:
    """What a judge is asked about the items of a benchmark."""
    benchmark = benchmarks().get(item.benchmark)
    found = (benchmark.judging if benchmark is not None else None) or MCQ
    return found.open if item.form == "text" and found.open is not None else found


def option_texts(item: Item) -> dict[str, str]:
    """Option letters and texts; texts are empty where the options stand in the picture or in running text."""
    if item.form == "text":  # VLMEvalKit's form of MMMU's open questions
        return {"A": " or ".join(item.answer.split("\n")), "B": "Other Answers"}
    return dict(zip(LETTERS, item.options, strict=False)) if item.options else dict.fromkeys(_IN_PICTURE, "")


def _is_word(tokens: list[str], i: int) -> bool:
    """Whether "A" or "I" is an article or a pronoun here: a word in lower case follows."""
    return tokens[i] in ("A", "I") and i + 1 < len(tokens) and tokens[i + 1][0].islower()


def _cleaned(text: str) -> str:
    """A reply without its thinking, a label or quotes."""
    text = (after_thinking(text) or "").strip()[:MAX_REPLY_CHARS]
    return _LABEL.sub("", text, count=1).strip("\"'` ") if _LABEL.match(text) else text.strip("\"'` ")


def _answer_line(item: Item, text: str) -> str:
    """The line of a reply that is the answer: the first, if that is an answer and nothing else, else the last.

    Raises:
        Unusable: another line is another answer and nothing else.
    """
    lines = [
        _cleaned(line) for line in (after_thinking(text) or "").strip()[:MAX_REPLY_CHARS].splitlines() if line.strip()
    ]
    said = [_bare_answer(item, line) for line in lines]
    if not lines or said[0] is None:
        return lines[-1] if lines else ""
    if set(said) - {said[0], None}:
        raise Unusable(f"two answers in {text[-80:]!r}")
    return lines[0]


def _bare_answer(item: Item, line: str) -> object:
    """The letters, the word or the number that a line is, and nothing else; None if it is another text."""
    if _finds_none(item, line):
        return NO_ANSWER
    if is_yes_no(item):
        return plain_words(line) if is_bare_choice(item, line) else None
    if item.form in ("choice", "letters") or judging_of(item).one_option:
        letters = read_letters(line)
        return letters if letters is not None and len(_NOT_A_NAME.sub("", line)) == len(letters) else None
    number = read_quantity(line)
    return None if number is None else number.value


def _finds_none(item: Item, reply: str) -> bool:
    """Whether a reply is a word for no answer; "Z" is one only where letters are asked for."""
    chooses = item.form in ("choice", "letters") or judging_of(item).no_option
    return reply.lower().strip(".") in (("null", "none", "n/a", "z", "zzzzz") if chooses else ("null", "none", "n/a"))


def _fill(template: str, **parts: str) -> str:
    """Fill a prompt in one pass: a response that holds "{question}" stays as it is."""
    return _HOLE.sub(lambda m: parts[m[1]], template)
