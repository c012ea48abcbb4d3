r"""Answers that nobody disputes, written by rules, with their verdicts, and the marks that both protocols give them.

A verdict follows from how an answer is written: from the value that is written down, and from whether it is stated and
stands. No grader takes part. `python tests/helpers/undisputed.py` writes them all, marks them and prints a table.

An answer is a final form (a letter, a letter with its option's text, that text, a number, an expression, each in several
writings) in a place (a box, answer tags, an answer line, JSON, alone) behind some reasoning, with or without a thinking
block, and with something behind it. What is no answer: hedges, a letter with another option's text, what is taken back
or contradicted, refusals, echoes of the prompt, an open thinking block.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from undisputed_items import LETTERS, Question, Value, benchmarks_asked, questions
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.registry import get_benchmark
from vold.evals.marking.llm_judge import Judge, score_vlmevalkit
from vold.evals.marking.rules import score
from vold.evals.prompting import build_messages
from vold.types import Finish


class Case(NamedTuple):
    """An answer, whether it is right, and what a reader says that the answer is ("": none)."""

    kind: str
    item: Item
    text: str
    right: bool
    says: str
    finish: Finish = "stop"


# -- pieces of a text ------------------------------------------------------------------------------------------------

_REASONING = (
    "", "", "Let me look at the picture.\n", "A triangle has three sides, and I see 4 of them, so we count.\n\n",
    "Step 1: The base is 4 and the height is 6.\nStep 2: We compare with the options.\n\n",
    "First, $4 \\times 6 = 24$. Then we take half of it: 12.\n\n", "## Solution\n\n- The line is straight.\n- It meets B at 90°.\n\n",
    "We are given AB = 5 and BC = 7. By the theorem, \\(AC^2 = 25 + 49\\).\n\n",
    "It could be 3, but that does not fit. Let me check again: 2 + 2 = 4. Good.\n\n",
    "Option A looks likely at first. Wait, let me compare all of them.\nNo, it is too small.\n\n",
    "To find the answer, we go step by step.\n1. Read the figure.\n2. Compute.\n\n", "解:我们先看图。\n",
    "I need to be careful here because the scale is not the same.\n\n", "**Given:** a circle with centre O.\n**Find:** the value asked for.\n\n",
)  # fmt: skip
_TAILS = (
    "", "", "", "\n", "\n\nI hope this helps!", "\n\nLet me know if you have any questions.", " This follows from the figure.",
    "\n\nThis is what the question asks for.", "\n\n**Explanation:** the other values are too large.",
    "\n\nTo check: 4 + 4 = 8, as it should be.", "\n\nNote that the picture is not drawn to scale.",
)  # fmt: skip
_THINKING = (
    "", "", "", "<think>\nWe look at it.\n</think>\n\n", "<think></think>\n", "It is a long story.\n</think>\n\n",
    "<think>Maybe \\boxed{{{decoy}}}? Or is the answer {decoy}? Wait.</think>", "<think>\nAnswer: {decoy}\nNo.\n</think>\n",
)  # fmt: skip
_BOXES = (
    r"\boxed{{{}}}", r"So it is \boxed{{{}}}.", r"$\boxed{{{}}}$", r"\[\boxed{{{}}}\]", r"**\boxed{{{}}}**", r"$$\boxed{{{}}}$$",
    r"Therefore, the answer is $\boxed{{{}}}$.", r"Answer: \boxed{{{}}}", r"**Final Answer**" "\n\n" r"\[ \boxed{{{}}} \]",
    r"\fbox{{{}}}", r"The final answer is: $\boxed{{{}}}$", r"Thus, \(\boxed{{{}}}\).",
)  # fmt: skip
_TAGGED = (
    "<answer>{}</answer>", "<answer> {} </answer>", "<answer>\n{}\n</answer>", "<answer>\\boxed{{{}}}</answer>",
    "<answer>The answer is {}</answer>", "<answer>$\\boxed{{{}}}$</answer>", "<answer>{}", "<|begin_of_box|>{}<|end_of_box|>",
    "<answer>Final answer: {}</answer>", "<answer>**{}**</answer>",
)  # fmt: skip
_LINES = (
    "Answer: {}", "**Answer:** {}", "**Answer: {}**", "Answer: **{}**", "The answer is {}.", "The answer is: {}", "the final answer is **{}**.",
    "Final answer: {}", "### Answer: {}", "**Final Answer**\n\n{}", "The answer should be {}.", "Therefore, the correct answer is {}.",
    "Answer:\n{}", "Answer:\n\n**{}**", "Final answer \u2014 {}", "Final Answer - {}", "My answer is {}", "**Final Answer: {}**", "### Final Answer\n{}",
    "ANSWER: {}", "Answer\uff1a{}", "So the answer must be {}.", "- Answer: {}", "> **Answer**: {}", "The answer to this question is {}.",
    "\u7b54\u6848\uff1a{}", "\u7b54\u6848\u662f {}", "R\u00e9ponse : {}", "Respuesta: {}", "Antwort: {}", "Hence the answer would be {}.", "The answer is therefore:\n\n**Answer:** {}",
)  # fmt: skip
_LETTER_LINES = (
    "The correct option is {}.", "The correct choice is **{}**", "Option {} is correct.", "Choice: {}", "Option: {}", "So {} is the correct answer.",
    "I choose {}.", "Correct option: {}", "Therefore, option {} is the correct answer.", "Therefore, {}.", "So it must be {}.", "\u6545\u9009 {}",
)  # fmt: skip
_JSON = (
    '{{"answer": "{}"}}',
    '```json\n{{"reasoning": "so", "answer": "{}"}}\n```',
    '{{"solution": "We add.", "short answer": "{}"}}',
)
_BARE = ("{}", "{}.", "**{}**", "  {}\n", "**{}.**", "`{}`")
_LETTERS_ALONE = (
    "{}", "({})", "{}.", "{})", "[{}]", "**{}**", "Option {}", "option ({})", r"\text{{{}}}", r"\textbf{{{}}}", r"\mathbf{{{}}}", r"\mathrm{{{}}}",
    r"\text{{({})}}", r"\mathbf{{({})}}", "${}$", r"$\text{{{}}}$", r"\({}\)", r"$\mathbf{{{}}}$", '"{}"', r"\textbf{{{}.}}",
)  # fmt: skip
_WITH_TEXT = (
    "{0}. {1}", "({0}) {1}", "{0}: {1}", "{0}) {1}", "{0} ({1})", "{0} - {1}", r"\text{{{0}. }} {1}", r"\( \text{{{0}}} \) {1}", "**{0}** ({1})",
    "**{0}.** {1}", "Option {0}: {1}", "[{0}] {1}", r"\text{{({0})}} {1}", "{0} \u2014 {1}",
)  # fmt: skip
_REFUSALS = (
    "I cannot answer this question.", "I'm sorry, but I can't see the image.", r"\boxed{\text{N/A}}", "N/A", "Answer: N/A", "Unable to determine.",
    "<answer>I do not know</answer>", "I have no idea.", "There is not enough information to decide.", r"\boxed{}", "Answer:", "", "The answer is unknown.",
    r"\boxed{?}", "None", "The picture shows many things. It is hard to tell.", "<answer></answer>", r"\boxed{\text{cannot be determined from the picture}}",
)  # fmt: skip
_TAKEN_BACK = (
    "{0} Wait, that is wrong.", "{0}\n\nActually, it is {1}.", "{0} No, it should be {1}.", "{0}\n\nHmm, I made a mistake.", "{0}\nOn second thought, {1}.",
    "{0} Sorry, I meant {1}.", "{0}\n\nHold on, this is incorrect.", "{0} Or maybe {1}.", "{0}\n\nCorrection: {1}", "{0} But I am not sure, it could also be {1}.",
    "{0}\nThat is not correct. Let me redo it.", "{0} I take that back.",
)  # fmt: skip
_CONTRADICTED = (
    r"\boxed{{{0}}}" "\n\nThe final answer is {1}.", r"So \boxed{{{0}}}. Therefore, the answer is {1}.", r"\boxed{{{0}}} or \boxed{{{1}}}", r"\boxed{{{1}}} or \boxed{{{0}}}",
    r"$\boxed{{{0}}}$, $\boxed{{{1}}}$", r"\boxed{{{0}}}/\boxed{{{1}}}", "Answer: {0}\nAnswer: {1}", "<answer>{0}</answer>\nAnswer: {1}", r"Answer: {0}" "\n" r"\boxed{{{1}}}",
    "The answer is {0}. The answer is {1}.", r"\boxed{{{0}}} or maybe \boxed{{{1}}}",
)  # fmt: skip
_HEDGES = (
    r"\boxed{{{0} or {1}}}", "Answer: {0} or {1}", "The answer is either {0} or {1}.", "{0} or {1}", "It is {0}, or maybe {1}.", "Answer: {0}/{1}", "Answer: maybe {0}",
    "<answer>{0} or {1}</answer>", r"\boxed{{\text{{{0} or {1}}}}}", "The answer is not {0}.", "I think it might be {0} or {1}.", "It is not {0}.", "Answer: {0}?",
    "The answer could be {0}.", "Answer: {0} or {1}, but I am not sure",
)  # fmt: skip


# -- answers ---------------------------------------------------------------------------------------------------------


def _letter_of(question: Question, value: Value) -> str:
    return LETTERS[question.options.index(value)]


def _is_lettered(question: Question) -> bool:
    return question.item.form == "choice" and question.item.options != ("Yes", "No")


def _final(question: Question, value: Value, rng: random.Random) -> tuple[str, str, str]:
    """A final form of a value: its class, its words, and what a judge would extract."""
    item = question.item
    if not _is_lettered(question):
        writings = (value.text, value.text, *value.also)
        return "value", rng.choice(writings), value.text
    if not question.options:
        letter = item.answer if value is question.right else rng.choice([x for x in "ABCDE" if x != item.answer])
        return "letter", rng.choice(_LETTERS_ALONE).format(letter), letter
    letter = _letter_of(question, value)
    roll = rng.random()
    if roll < 0.5:
        return (
            "letter",
            rng.choice(_LETTERS_ALONE).format(rng.choice((letter,) * 6 + (letter.lower(), chr(ord(letter) + 0xFEE0)))),
            letter,
        )
    if roll < 0.8:
        return "letter with its text", rng.choice(_WITH_TEXT).format(letter, value.text), letter
    if len(value.text) == 1 or item.benchmark in ("mmmu_pro_vision", "visulogic"):
        return "letter", f"({letter})", letter
    return ("option's text" if roll < 0.9 else "equal to an option"), rng.choice((value.text, *value.also)), letter


def _placed(kind: str, words: str, rng: random.Random, item: Item) -> tuple[str, str]:
    """A final form in a place: the place's class, and the text."""
    if "\n" in words:
        return "box", rng.choice(_BOXES).format(words)
    places = (
        ["box"] * 4 + ["tags"] * 3 + ["line"] * 4 + ["alone"] * 2 + ["JSON"] * ("\\" not in words and '"' not in words)
    )
    if kind == "letter" and words[:1] not in '*\\$`["Oo' and words[-1] not in ".)" and words == words.upper():
        places += ["letter line"] * 2
    place = rng.choice(places)
    if place == "alone":
        return place, rng.choice(_BARE).format(words) if words[-1:] not in ".)*`" and words[:1] != "*" else words
    templates = {"box": _BOXES, "tags": _TAGGED, "line": _LINES, "JSON": _JSON, "letter line": _LETTER_LINES}[place]
    if item.form == "integer" and place == "line" and rng.random() < 0.2:
        return "####", f"#### {words}"
    return place, rng.choice(templates).format(words)


def _stated(question: Question, rng: random.Random) -> Case:
    """An answer that stands, right or wrong."""
    right = not question.wrong or rng.random() < 0.7
    value = question.right if right else rng.choice(question.wrong)
    kind, words, says = _final(question, value, rng)
    place, text = _placed(kind, words, rng, question.item)
    reasoning, tail = rng.choice(_REASONING), rng.choice(_TAILS)
    if place == "alone":
        reasoning, tail = ("", "") if kind != "letter" or rng.random() < 0.6 else (reasoning, "")
    open_tag = text.startswith("<answer>") and not text.endswith("</answer>")
    same_line = place in ("line", "letter line") and tail[:1] == " " and text[-1:] != "."
    if place in ("JSON", "####") or open_tag or same_line:
        tail = ""
    decoy = rng.choice("ABC") if question.item.form in ("choice", "letters") else "3"
    thinking = rng.choice(_THINKING).format(decoy=decoy)
    return Case(f"{kind}, {place}", question.item, thinking + reasoning + text + tail, right, says)


def _corrected(question: Question, rng: random.Random) -> Case:
    """A first answer, then another that is final; or a box that cannot be read, then an answer line."""
    if not question.wrong:
        return _stated(question, rng)
    right = rng.random() < 0.6
    value, other = question.right, rng.choice(question.wrong)
    first, last = (other, value) if right else (value, other)
    (_, early, _), (_, words, says) = _final(question, first, rng), _final(question, last, rng)
    if _is_lettered(question) and rng.random() < 0.4:
        junk = rng.choice((r"\boxed{99999}", r"\boxed{x^7 + 1}", r"\boxed{\text{the left part}}", r"$\boxed{}$"))
        line = rng.choice(("Therefore, the answer is {}.", "Answer: {}", "**Answer:** {}")).format(words)
        return Case("unreadable box, then a line", question.item, f"This gives {junk}.\n\n{line}", right, says)
    text = rng.choice(
        (
            "At first I had \\boxed{{{}}}. But the base is 5, so we get ",
            "Answer: {}\n\nNo, that is wrong: the base is 5.\n\n",
        )
    ).format(early)
    return Case("corrected", question.item, text + rf"\boxed{{{words}}}.", right, says)


def _none(question: Question, rng: random.Random) -> Iterator[Case]:
    """What is no answer, or none that a careful reader takes for the gold."""
    item, gold = question.item, question.right
    others = question.wrong or (Value("12345"),)
    other = rng.choice(others)
    if item.form == "choice" and not question.options and _is_lettered(question):
        a, b = item.answer, rng.choice([x for x in "ABCDE" if x != item.answer])
    elif _is_lettered(question):
        a, b = _letter_of(question, gold), _letter_of(question, other)
    else:
        a, b = gold.text, other.text
    if item.form != "letters" and not (item.form in ("list", "math") or "," in a):
        yield Case("hedge", item, rng.choice(_REASONING) + rng.choice(_HEDGES).format(a, b), False, "")
        yield Case("contradicted", item, rng.choice(_CONTRADICTED).format(a, b), False, b)
    stated = rng.choice((r"\boxed{{{}}}.", "The answer is {}.", "Answer: {}.", "<answer>{}</answer>")).format(a)
    yield Case("taken back", item, rng.choice(_TAKEN_BACK).format(stated, b), False, "")
    yield Case("refusal", item, rng.choice(_REASONING[2:4]) + rng.choice(_REFUSALS), False, "")
    unclosed = rng.choice(
        (r"<think>So it is \boxed{{{}}}.", "<think>\nThe answer is {}.", "<think>a</think><think>Answer: {}")
    ).format(a)
    yield Case("open thinking block", item, unclosed, False, "")
    yield Case("cut off", item, rf"So \boxed{{{a}}}", False, "", "length")
    yield Case(
        "only in the thinking block",
        item,
        rf"<think>It is \boxed{{{a}}}. Answer: {a}</think>" + rng.choice(("", "\n\nWell.")),
        False,
        "",
    )
    if "rule" in get_benchmark(item.benchmark).prompts:
        yield Case("echo of the prompt", item, build_messages(item, "rule")[0].text, False, "")
    if _is_lettered(question):
        yield Case("a letter beyond", item, rng.choice(_BOXES).format(rng.choice("MNZ")), False, "")
        words = {"A": "A triangle has three sides.", "I": "I see a red car, and I count its wheels."}
        if a in words:
            yield Case("a word that is a letter", item, words[a], False, "")
        if question.options and len(other.text) > 1:
            text = rng.choice(("({0}) {1}", "{0}. {1}", "{0}: {1}")).format(a, other.text)
            wrapped = rng.choice((r"\boxed{{{}}}", "Answer: {}", "{}", "<answer>{}</answer>")).format(text)
            yield Case("another option's text", item, wrapped, False, "")


def cases(name: str, stated: int = 10) -> list[Case]:
    """The answers to a benchmark's questions, without repetitions: the same at every call."""
    rng = random.Random(f"answers to {name}")
    found: dict[tuple[str, str, str], Case] = {}
    asked = questions(name)
    for _ in range(max(1, 110 // len(asked))):
        for question in asked:
            made = [_stated(question, rng) for _ in range(stated)] + [_corrected(question, rng), *_none(question, rng)]
            for case in made:
                found.setdefault((case.item.id, case.text, case.finish), case)
    return list(found.values())


# -- marks -----------------------------------------------------------------------------------------------------------


class Oracle(Judge):
    """A judge that reads every answer as it was written."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def ask(self, prompt: str, system: str = "") -> str:
        case = self.case
        if "[Model_answer]" in prompt:
            return str(int(case.right))
        if "[Begin Correctness]" in prompt:
            return f"[Begin Correctness]{'Yes' if case.right else 'No'}[End Correctness]"
        if case.item.form == "text" and "B. Other Answers" in prompt:
            return "A" if case.right else "B"
        return case.says or "Z"


def mark(case: Case, protocol: str) -> float:
    """The mark of an answer under a protocol."""
    if protocol == "rule":
        return score(case.item, case.text, finish=case.finish).score
    return score_vlmevalkit(case.item, case.text, Oracle(case), finish=case.finish).score


def protocols(name: str) -> list[str]:
    """The protocols that ask this benchmark."""
    return sorted(get_benchmark(name).prompts)


def main() -> None:
    """Print what both protocols make of all answers."""
    print(f"{'benchmark':24}{'protocol':12}{'undisputed':>11}{'right':>8}{'share':>9}{'false accepts':>15}")
    totals: Counter[tuple[str, str]] = Counter()
    for name in benchmarks_asked():
        made = cases(name)
        for protocol in protocols(name):
            marks = [mark(case, protocol) for case in made]
            right = sum(m == case.right for m, case in zip(marks, made, strict=True))
            accepted = sum(m > case.right for m, case in zip(marks, made, strict=True))
            totals.update({(protocol, "n"): len(made), (protocol, "right"): right, (protocol, "accepted"): accepted})
            print(f"{name:24}{protocol:12}{len(made):>11,}{right:>8,}{right / len(made):>9.2%}{accepted:>15}")
    for protocol in ("rule", "vlmevalkit"):
        n, right, accepted = (totals[protocol, k] for k in ("n", "right", "accepted"))
        print(f"{'all':24}{protocol:12}{n:>11,}{right:>8,}{right / n:>9.2%}{accepted:>15}")


if __name__ == "__main__":
    main()
