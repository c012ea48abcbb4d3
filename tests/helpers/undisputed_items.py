r"""Items of the benchmarks, made from rows of their published layouts, with everything that is known of their answers.

`questions(name)` gives the same questions at every call. The truth is in how they are made: an option or a gold comes
with other writings of the same thing (`Value`), and what is wrong is another value.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from answer_pairs import math_pairs
from layouts import struct
from vold.data.benchmarks.item import Item
from vold.data.benchmarks.registry import get_benchmark
from vold.data.files.read import Row

LETTERS = "ABCDEFGHIJ"


class Value(NamedTuple):
    """A text as a benchmark has it, and other writings of the same value that nobody disputes."""

    text: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """An item, its right value and wrong ones. `options` are those that the model sees in words, by letter."""

    item: Item
    right: Value
    wrong: tuple[Value, ...]
    options: tuple[Value, ...] = ()


def _v(text: str, *also: str) -> Value:
    return Value(text, also)


def _number(n: int) -> Value:
    return _v(str(n), f"{n}.0", rf"\text{{{n}}}")


_POOLS: tuple[tuple[Value, ...], ...] = (
    tuple(map(_number, (7, 12, 15, 20, 24, 28, 31, 36, 40, 45))),
    tuple(_v(f"{n} cm", rf"{n}\text{{ cm}}", rf"{n}\,\mathrm{{cm}}", str(n)) for n in (12, 13, 15, 18, 21, 24, 27, 30, 33, 36)),
    tuple(_v(f"${n}$", str(n)) for n in (3, 5, 6, 8, 9, 11, 14, 16, 18, 22)),
    (_v(r"$\frac{3}{4}$", "0.75", "3/4", r"\dfrac{3}{4}"), _v(r"$\frac{1}{2}$", "0.5", "1/2", r"\frac12"), _v(r"$\frac{2}{5}$", "0.4", "2/5"), _v(r"$\frac{1}{8}$", "0.125", "1/8"), _v(r"$\frac{7}{10}$", "0.7"), _v(r"$\frac{9}{20}$", "9/20"), _v(r"$\frac{3}{5}$", "0.6"), _v(r"$\frac{1}{5}$", "0.2"), _v(r"$\frac{1}{4}$", "0.25"), _v(r"$\frac{4}{5}$", "4/5")),
    (_v(r"\frac{5}{3}\pi+2", r"\frac{5\pi}{3}+2", r"2+\frac{5\pi}{3}"), _v(r"2\pi", r"\pi\cdot 2"), _v(r"\frac{3}{2}\pi+2", r"\frac{3\pi}{2}+2"), _v(r"\frac{4}{3}\pi+2", r"2+\frac{4}{3}\pi"), _v(r"\frac{1}{3}\pi", r"\frac{\pi}{3}"), _v(r"\pi+1", r"1+\pi"), _v(r"3\pi-1", r"-1+3\pi"), _v(r"4\pi", r"\pi \cdot 4"), _v(r"5\pi+3", r"3+5\pi"), _v(r"\frac{\pi}{7}", r"\frac{1}{7}\pi")),
    (_v("2002^{2}", "2002^2", "4008004"), _v("2001^{2}", "2001^2"), _v("2003^{2}", "2003^2"), _v(r"2\cdot 2002", "4004"), _v("2002", "2002.0"), _v("2004^{2}", "2004^2"), _v("1999^{2}", "1999^2"), _v("1001", "1001.0"), _v("2005", "2005.0"), _v("3003", "3003.0")),
    (_v(r"3 \cdot 2^5", "96", "3·2^5"), _v(r"3 \cdot 2^4", "48"), _v(r"2^7", "128"), _v(r"5 \cdot 2^3", "40"), _v(r"3^5", "243"), _v(r"7 \cdot 2^2", "28"), _v("2^6", "64"), _v("3^3", "27"), _v("5^3", "125"), _v("11^2", "121")),
    (_v(r"$2\sqrt{3}$", r"2\sqrt3", r"\sqrt{12}", "2√3"), _v(r"$3\sqrt{2}$", r"3\sqrt2", r"\sqrt{18}"), _v(r"$4\sqrt{3}$", r"4\sqrt{3}"), _v(r"$\sqrt{3}$", r"\sqrt3"), _v(r"$\sqrt{2}$", "√2"), _v(r"$5\sqrt{2}$", r"\sqrt{50}"), _v(r"$6$", "6"), _v(r"$\sqrt{7}$", r"\sqrt7"), _v(r"$\sqrt{10}$", "√10"), _v(r"$7\sqrt{2}$", r"7\sqrt2")),
    tuple(_v(t) for t in ("C, A, B, D", "A, C, B, D", "B, D, C, A", "D, C, B, A", "A, B, C, D", "C, D, A, B", "B, A, D, C", "D, A, C, B", "C, B, A, D", "B, C, D, A")),
    tuple(_v(t) for t in ("H", "K", "P", "Q", "R", "S", "T", "U", "W", "X")),
    tuple(_v(f"{n} kN", rf"{n}\text{{ kN}}", rf"{n}\,\mathrm{{kN}}") for n in ("24.3", "21.5", "18.2", "12.7", "30.1", "9.6", "15.4", "27.8", "33.0", "6.1")),
    tuple(_v(t) for t in ("fibularis brevis", "fibularis longus", "tibialis anterior", "soleus", "gastrocnemius", "plantaris", "popliteus", "extensor hallucis longus", "flexor digitorum", "peroneus tertius")),
    tuple(_v(t, t.lower(), t + ".") for t in ("The red car", "A blue truck", "The green bus", "An old bicycle", "The white van", "A yellow taxi", "The black horse", "A small boat", "The train", "An airplane")),
    tuple(_v(t) for t in ("Paris, France", "Rome, Italy", "Vienna, Austria", "Lisbon, Portugal", "Oslo, Norway", "Cairo, Egypt", "Quito, Ecuador", "Delhi, India", "Hanoi, Vietnam", "Lima, Peru")),
    tuple(_v(t) for t in ("I only", "II only", "I and II only", "I, II and III", "None of the above", "III only", "II and III only", "I and III only", "all but III", "IV only")),
    tuple(_v(t, t.replace("degrees", r"^\circ").replace(" ", "")) for t in (f"{n} degrees" for n in (30, 45, 60, 75, 90, 105, 110, 120, 135, 150))),
    tuple(_v(t) for t in (r"F\(2/3\, V\)", r"F\(1/3\, V\)", r"F\(3/4\, V\)", r"F\(1/2\, V\)", r"F\(2/5\, V\)", r"F\(1/6\, V\)", r"F\(5/6\, V\)", r"F\(3/5\, V\)", r"F\(4/5\, V\)", r"F\(1/8\, V\)")),
    tuple(_v(t) for t in ("x > 3", "x < 3", "x > 5", "x < -1", "x > 0", "x < 7", "x > 9", "x < 12", "x > -4", "x < 20")),
    tuple(_v(f"{n}%", rf"{n}\%") for n in (10, 15, 20, 25, 40, 50, 60, 75, 80, 90)),
    tuple(_v(f"${a}:{b}$", f"{a}:{b}") for a, b in ((1, 2), (2, 3), (3, 4), (4, 5), (1, 3), (1, 4), (2, 5), (3, 5), (5, 6), (1, 6))),
    tuple(_v(f"${n}", rf"\${n}", f"{n} dollars") for n in ("1.45", "2.30", "3.15", "4.20", "5.75", "6.10", "7.85", "8.05", "9.95", "0.60")),
)  # fmt: skip
_PICTURE = struct("q")
_NUMBERED: dict[str, Any] = {"image_1": _PICTURE, **{f"image_{n}": None for n in range(2, 10)}}
_ASKS = (
    "How many triangles are there in the figure?",
    "What is the value of x, as shown in the figure?",
    "As shown in the figure, AB is a diameter of circle O. What is the length of BC?",
    "Which of the following is correct?",
    "The graph shows the sales of a shop in a week. On which days were they highest? Choose from the options.",
    "If the pattern goes on, what comes next?",
    "A solid has a base of 4 cm by 6 cm. Which answer is nearest to its volume?",
)


def _item(name: str, values: dict[str, Any], number: int = 1) -> Item:
    return get_benchmark(name).adapt(name, Row(f"rows.parquet: row {number}", values, lambda _: b""))


def _ask(rng: random.Random) -> str:
    return rng.choice(_ASKS)


def _choice(
    name: str,
    rng: random.Random,
    n: int,
    row: Callable[[str, list[str], str], dict[str, Any]],
    sizes: Sequence[int],
    *,
    shown: bool = True,
) -> list[Question]:
    """Questions with options from the pools. `row(id, options, letter)` is the published row."""
    found = []
    for i in range(n):
        pool = _POOLS[i % len(_POOLS)]
        options = tuple(rng.sample(pool, rng.choice(sizes)))
        at = rng.randrange(len(options))
        item = _item(name, row(f"{i}", [o.text for o in options], LETTERS[at]))
        wrong = tuple(o for o in options if o is not options[at])
        found.append(Question(item, options[at], wrong, options if shown else ()))
    return found


def _lettered(options: list[str], template: str, joint: str) -> str:
    return joint.join(template.format(letter, text) for letter, text in zip(LETTERS, options, strict=False))


_MATH_KINDS = (
    "rationals", "unbraced", "surds", "pis", "polynomials", "tuples", "intervals", "inequalities", "matrices",
    "trigonometry", "logarithms", "counting", "ratios", "equations", "sets", "complexes", "large",
)  # fmt: skip


_pairs = functools.cache(math_pairs)


def _maths(name: str, rng: random.Random, n: int, row: Callable[[str, str], dict[str, Any]]) -> list[Question]:
    """Free answers: a reference, other writings of it, and what is another value, all from `answer_pairs`."""
    by_gold: dict[str, tuple[list[str], list[str]]] = {}
    for pair in _pairs():
        plain = "$" not in pair.answer + pair.reference and "%" not in pair.answer and "," not in pair.answer[:-1]
        if pair.kind in _MATH_KINDS and plain and "circ" not in pair.reference and "°" not in pair.reference:
            by_gold.setdefault(pair.reference, ([], []))[not pair.right].append(pair.answer)
    golds = sorted(gold for gold, (right, wrong) in by_gold.items() if right or wrong)
    found = []
    for i, gold in enumerate(rng.sample(golds, n)):
        right, wrong = by_gold[gold]
        item = _item(name, row(f"{i}", gold), i)
        found.append(Question(item, Value(gold, tuple(right)), tuple(map(Value, wrong))))
    return found


def _whole(value: int, *units: str) -> Value:
    also = [f"{value}.0", f"${value}$", f"{value:,}", f"x = {value}", rf"\text{{{value}}}", rf"$x = {value}$"]
    return Value(str(value), tuple(dict.fromkeys([*also, *(f"{value} {u}" for u in units)])))


def _integers(
    name: str, rng: random.Random, n: int, row: Callable[[str, int], dict[str, Any]], *units: str, most: int = 2000
) -> list[Question]:
    found = []
    for i in range(n):
        gold = rng.randint(2, most)
        item = _item(name, row(f"{i}", gold), i)
        found.append(Question(item, _whole(gold, *units), tuple(_whole(gold + d) for d in (1, -1, 10, 3))))
    return found


def _wemath(i: str, options: list[str], letter: str) -> dict[str, Any]:
    return {"ID": f"2steps_{i}", "key": "2steps_1", "question": "What is it, as in the figure?", "option": _lettered(options, "{}. {}", "; "), "answer": letter, "image_path": _PICTURE, "knowledge concept": "Angles"}  # fmt: skip


def _mathverse(question: str, i: str, gold: str, kind: str) -> dict[str, Any]:
    return {"sample_index": i, "problem_index": i, "problem_version": "Text Lite", "question": question, "question_for_eval": question, "image": _PICTURE, "answer": gold, "question_type": kind, "metadata": {}, "query_cot": f"Please first conduct reasoning, and then answer the question.\nQuestion: {question}"}  # fmt: skip


def _mathvista(
    i: str,
    question: str,
    choices: list[str] | None,
    gold: str,
    form: str,
    precision: float | None = None,
    unit: str | None = None,
) -> dict[str, Any]:
    kind = "multi_choice" if choices else "free_form"
    return {"pid": i, "question": question, "decoded_image": _PICTURE, "choices": choices, "unit": unit, "precision": precision, "answer": gold, "question_type": kind, "answer_type": form, "metadata": {}, "query": f"Hint: Please answer the question and provide the final answer at the end.\nQuestion: {question}"}  # fmt: skip


def _mathvista_all(rng: random.Random) -> list[Question]:
    name = "mathvista"
    found = _choice(
        name, rng, 42, lambda i, o, a: _mathvista(f"c{i}", _ask(rng), o, o[LETTERS.index(a)], "text"), (2, 4)
    )
    found += _integers(
        name, rng, 30, lambda i, g: _mathvista(f"i{i}", "How many are there?", None, str(g), "integer"), "apples", "cm"
    )
    for i in range(30):
        places, tenths = rng.choice((1, 2)), rng.randint(11, 9999)
        gold = tenths / 10**places
        row = _mathvista(f"f{i}", "How long is it?", None, f"{gold:.{places}f}", "float", float(places), "cm")
        also = (
            f"{gold:.{places}f} cm",
            f"{gold:.{places}f}0",
            rf"\approx {gold:.{places}f}",
            f"approximately {gold:.{places}f}",
            f"{gold + 0.2 / 10**places:.{places + 1}f}",
        )
        wrong = tuple(_v(f"{gold + d / 10**places:.{places}f}") for d in (1, -1, 20))
        found.append(Question(_item(name, row), _v(f"{gold:.{places}f}", *also), wrong))
    for i in range(15):
        a, b, c = rng.sample(range(1, 60), 3)
        row = _mathvista(f"l{i}", "Which numbers are shown?", None, f"[{a}, {b}]", "list")
        right = _v(f"[{a}, {b}]", f"{a}, {b}", f"({a}, {b})", f"{a} and {b}", rf"\{{{a}, {b}\}}")
        found.append(Question(_item(name, row), right, (_v(f"[{b}, {a}]"), _v(f"[{a}, {c}]"), _v(f"[{a}, {b}, {c}]"))))
    return found


def _words(name: str, row: Callable[[str, str], dict[str, Any]]) -> list[Question]:
    golds = [
        _v("Paris", "paris", r"\text{Paris}"), _v("the Seine", "Seine", "the Seine."), _v("even", "Even"),
        _v("24.25", "24.250", r"\$24.25"), _v("8.4", "8.40", "8.4 V"), _v("increasing", "Increasing"), _v("7", "7.0"),
        _v("mitochondria", "Mitochondria", r"\text{mitochondria}"), _v("isosceles triangle", "an isosceles triangle"),
        _v("0.05", "0.050"), _v("Newton's second law"), _v("red", "Red", r"\textbf{red}"), _v("1,250", "1250"),
    ]  # fmt: skip
    found = []
    for i, gold in enumerate(golds):
        wrong = tuple(
            other for other in golds if other is not gold and other.text[0].isdigit() == gold.text[0].isdigit()
        )
        found.append(Question(_item(name, row(f"{i}", gold.text)), gold, wrong[:4]))
    return found


def _yes_no(name: str, row: Callable[[str, str], dict[str, Any]]) -> list[Question]:
    found = []
    for i in range(40):
        word, other = ("Yes", "No") if i % 2 else ("No", "Yes")
        more = {"Yes": ("yes", "Yes, there is", r"\text{Yes}"), "No": ("no", "No, there is none", r"\text{No}")}
        item = _item(name, row(f"{i}", word))
        found.append(Question(item, Value(word, more[word]), (Value(other, more[other]),)))
    return found


def _logicvista(rng: random.Random) -> list[Question]:
    found = []
    for i in range(60):
        letters = sorted(rng.sample("ABCDE", rng.choice((1, 1, 1, 2, 3))))
        row = {"_key": f"l{i}", "question": "Which of the figures come next? Select from A, B, C, D and E.", "answer": ", ".join(letters), "image": _PICTURE, "skill": "['inductive']"}  # fmt: skip
        wrong = [sorted(rng.sample("ABCDE", k)) for k in (1, 1, 2, 3, 2)]
        found.append(
            Question(_item("logicvista", row), _several(letters), tuple(_several(w) for w in wrong if w != letters))
        )
    return found


def _several(letters: list[str]) -> Value:
    joined = (",".join(letters), "".join(letters), ", ".join(f"({x})" for x in letters))
    both = (" and ".join(letters),) if len(letters) == 2 else ()
    return Value(", ".join(letters), (*joined, *both) if len(letters) > 1 else ())


def _dynamath(i: str, kind: str, gold: str, question: str) -> dict[str, Any]:
    return {"id": i, "question": question, "decoded_image": _PICTURE, "ground_truth": gold, "answer_type": kind, "subject": "algebra"}  # fmt: skip


def _dynamath_all(rng: random.Random) -> list[Question]:
    name = "dynamath"
    found = _choice(
        name,
        rng,
        25,
        lambda i, o, a: _dynamath(
            f"c{i}", "multiple choice", a, f"{_ask(rng)}\nchoices: {_lettered(o, '({}) {}', ' ')}"
        ),
        (4,),
    )
    for i in range(30):
        gold = rng.randint(101, 99999) / 1000
        right = _v(f"{gold:.3f}", f"{gold:.3f} units", f"${gold:.3f}$", f"x = {gold:.3f}")
        wrong = tuple(_v(f"{gold + d:.3f}") for d in (0.01, -0.02, 1))
        found.append(
            Question(_item(name, _dynamath(f"f{i}", "float", f"{gold:.3f}", "What is the length?")), right, wrong)
        )
    return found + _words(name, lambda i, gold: _dynamath(f"t{i}", "text", gold, "Which word fits?"))


def _mmmu(i: str, question: str, options: list[str], gold: str, kind: str) -> dict[str, Any]:
    return {"id": i, "question": f"{question} <image 1>", "options": str(options), "answer": gold, "question_type": kind, **_NUMBERED}  # fmt: skip


def _olympiad(i: str, gold: str) -> dict[str, Any]:
    return {"id": i, "question": "Find the value in <image_1>.", "final_answer": [f"${gold}$"], "is_multiple_answer": False, "unit": None, "answer_type": "Numerical", **_NUMBERED}  # fmt: skip


def _emma(i: str, options: list[str], gold: str) -> dict[str, Any]:
    kind = "Multiple Choice" if options else "Open-ended"
    return {"pid": i, "question": "Which completes <image_1>?", "options": options, "answer": gold, "type": kind, "context": "", "subject": "Math", **_NUMBERED}  # fmt: skip


def _pro(i: str, options: list[str], gold: str) -> dict[str, Any]:
    return {"id": f"test_Physics_{i}", "question": "Which is in <image 1>?", "options": str(options), "answer": gold, "subject": "Physics", "image": _PICTURE, **_NUMBERED}  # fmt: skip


def _star(i: str, options: list[str], gold: str) -> dict[str, Any]:
    return {"index": i, "question": f"Which is it?\nOptions: {_lettered(options, '{}: {}', ', ')}", "image": _PICTURE, "answer": gold, "category": "math", "l2_category": "geometry"}  # fmt: skip


def _vision(i: str, options: list[str], gold: str) -> dict[str, Any]:
    return {"id": i, "question": "How many are there in <image1>?", "options": options, "decoded_image": _PICTURE, "answer": gold, "level": 3, "subject": "algebra"}  # fmt: skip


def _geometry(i: str, gold: str) -> dict[str, Any]:
    return {"id": i, "images": [_PICTURE], "problem": "<image>Find x.", "answer": gold}


_MAKERS: dict[str, Callable[[random.Random], list[Question]]] = {
    "mathvision": lambda r: [
        *_choice("mathvision", r, 63, lambda i, o, a: _vision(f"c{i}", o, a), (5,)),
        *_choice("mathvision", r, 10, lambda i, o, a: _vision(f"p{i}", list(LETTERS[:5]), a), (5,), shown=False),
        *_maths("mathvision", r, 60, lambda i, gold: _vision(f"f{i}", [], gold)),
    ],
    "mathvista": _mathvista_all,
    "mathverse": lambda r: [
        *_choice("mathverse", r, 30, lambda i, o, a: _mathverse(f"{_ask(r)}\nChoices:\n{_lettered(o, '{}:{}', chr(10))}", f"c{i}", a, "multi-choice"), (4,)),
        *_maths("mathverse", r, 60, lambda i, gold: _mathverse("Find the value.", f"f{i}", gold, "free-form")),
    ],
    "logicvista": _logicvista,
    "wemath": lambda r: _choice("wemath", r, 84, _wemath, (4, 5)),
    "dynamath": _dynamath_all,
    "mmmu_pro_standard10": lambda r: _choice("mmmu_pro_standard10", r, 84, _pro, (9, 10)),
    "mmmu_pro_standard4": lambda r: _choice("mmmu_pro_standard4", r, 63, _pro, (4,)),
    "mmmu_pro_vision": lambda r: _choice("mmmu_pro_vision", r, 63, _pro, (10,)),
    "mmmu": lambda r: [
        *_choice("mmmu", r, 63, lambda i, o, a: _mmmu(f"c{i}", "Pick", o, a, "multiple-choice"), (4,)),
        *_words("mmmu", lambda i, gold: _mmmu(f"o{i}", "Name it", [], gold, "open")),
    ],
    "mmstar": lambda r: [q for q in _choice("mmstar", r, 84, _star, (4,)) if ", " not in q.right.text],
    "gsm8k": lambda r: _integers("gsm8k", r, 60, lambda i, g: {"question": "How many?", "answer": f"So.\n#### {g:,}"}, "dollars", "eggs", most=90000),
    "aime2024": lambda r: _integers("aime2024", r, 40, lambda i, g: {"ID": i, "Problem": "Find m + n.", "Answer": f"{g:03}"}, most=900),
    "math500": lambda r: _maths("math500", r, 100, lambda i, gold: {"unique_id": i, "problem": "Find it.", "answer": gold}),
    "geometry3k": lambda r: _maths("geometry3k", r, 80, _geometry),
    "olympiadbench_mm_maths": lambda r: _maths("olympiadbench_mm_maths", r, 80, _olympiad),
    "mme": lambda r: _yes_no("mme", lambda i, w: {"question_id": f"OCR/{i}.png", "question": "Is there a dog in the picture? Please answer yes or no.", "answer": w, "category": "OCR", "image": _PICTURE}),
    "hallusionbench": lambda r: _yes_no("hallusionbench", lambda i, w: {"category": "VS", "subcategory": "chart", "set_id": i, "figure_id": "1", "question_id": "0", "question": "Is the left bar the higher one?", "gt_answer": str(int(w == "Yes")), "image": _PICTURE}),
    "emma_mini": lambda r: [*_choice("emma_mini", r, 63, _emma, (4, 5)), *_words("emma_mini", lambda i, gold: _emma(f"o{i}", [], gold))],
    "visulogic": lambda r: _choice("visulogic", r, 40, lambda i, o, a: {"id": i, "question": "Which comes next?", "label": a, "image": _PICTURE, "tag": "Spatial"}, (4,), shown=False),
}  # fmt: skip


def benchmarks_asked() -> tuple[str, ...]:
    """The benchmarks that there are questions of."""
    return tuple(_MAKERS)


def questions(name: str) -> list[Question]:
    """The questions of a benchmark."""
    return _MAKERS[name](random.Random(name))
