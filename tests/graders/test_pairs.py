r"""More than 11,000 answers with known truth, made by rules: see `answer_pairs`.

For the `math` grader, with the number of pairs of each class: rationals (560), unbraced fractions (240), repeating
decimals (280), large numbers and money (240), scientific notation (160), percents (200), units (420), remarks that are
no units (420), equations (660), lines and circles (400), bases (420), surds (380), complex numbers (420), multiples of
pi (220), polynomials and their quotients (440), tuples and vectors (360), sets and lists (420), intervals and unions
(320), inequalities (340), matrices (380), trigonometry (300), logarithms and powers (340), factorials, binomials,
remainders, floors and sums (500), ratios (160), words (300), several values where one was asked (240).

For the `choice` grader: letters, letters with their text, several letters, hedges, corrections, denials (2,400).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from answer_pairs import Pair, choice_pairs, math_pairs
from vold.graders import check_reference, get_grader

MOST_REFUSALS = 0.005
"""The share of right answers that may be refused. No wrong answer may be accepted."""


@pytest.mark.parametrize(
    ("name", "make", "least"), [("math", math_pairs, 8000), ("choice", choice_pairs, 2000)], ids=["math", "choice"]
)
def test_verdicts(name: str, make: Callable[[], list[Pair]], least: int) -> None:
    pairs, grader = make(), get_grader(name)
    assert len({(pair.reference, pair.answer) for pair in pairs}) == len(pairs) >= least
    begun = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        scores = list(threads.map(lambda p: grader(rf"So it is \boxed{{{p.answer}}}.", p.reference).score, pairs))
    print(f"{name}: {len(pairs)} pairs, {len(pairs) / (time.perf_counter() - begun):.0f} a second")
    accepted = [pair for pair, score in zip(pairs, scores, strict=True) if score and not pair.right]
    refused = [pair for pair, score in zip(pairs, scores, strict=True) if pair.right and not score]
    assert accepted == []
    assert len(refused) <= MOST_REFUSALS * sum(pair.right for pair in pairs), refused


@pytest.mark.parametrize("make", [math_pairs, choice_pairs])
def test_the_pairs_are_no_padding(make: Callable[[], list[Pair]]) -> None:
    pairs = make()
    assert pairs == make()
    assert sum(pair.reference == pair.answer for pair in pairs) < len(pairs) / 20
    assert 0.3 < sum(pair.right for pair in pairs) / len(pairs) < 0.7
    assert min(Counter(pair.kind for pair in pairs).values()) >= 100


def test_every_reference_grades_itself() -> None:
    for pair in math_pairs()[::3]:
        check_reference("math", pair.reference)
