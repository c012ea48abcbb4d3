"""Claims about measures that are no shares: in their own unit, with intervals that nothing cuts.

t(0.975, 2) = 4.302653.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studies import results
from vold.demo.study_page import write_study_page
from vold.evals.claims import Claim, decide
from vold.evals.study_results import ArmResult, Measure, StudyResults, UnitResult
from vold.evals.study_tables import table
from vold.report.text import MINUS


def arm(values: list[float], **more: Any) -> ArmResult:
    """A run for each seed 1, 2, ..., which took so many thousand tokens."""
    rows = [UnitResult(seed=i, rate=0.1, measures={"tokens": Measure(value=v)}, seconds=1.0) for i, v in
            enumerate(values, 1)]  # fmt: skip
    return ArmResult(0.1, {}, tuple(rows), **more)


def claim(rule: str, **more: Any) -> Claim:
    whole = {"claim": "x", "better": "a", "measure": "tokens", "rule": rule}
    return Claim.model_validate(whole | ({} if rule == "at least" else {"worse": "b"}) | more)


def shown(one: Claim, arms: dict[str, ArmResult]) -> StudyResults:
    return replace(results(arms, {"tokens": "tokens"}), claims={"c": decide(one, arms, [1, 2, 3])})


LONG = {"a": arm([41.0, 42.0, 43.9]), "b": arm([37.0, 38.0, 39.09])}
"""Differences 4.00, 4.00 and 4.81: mean 4.27, error 0.27, interval 4.27 +- 1.1617. Of `a` alone: mean 42.3, deviation
1.473, error 0.8505, interval 42.3 +- 3.6593."""


def test_a_difference_stands_in_its_own_unit() -> None:
    found = shown(claim("gain", margin=0.5), LONG)
    assert "| x | value: +4.27 [+3.108, +5.432] | 0.004 |" in table(found)
    assert found.claims["c"].rule.endswith("does not hold if it lies below 0 or within +-0.5, else undecided")


def test_a_mean_stands_in_its_own_unit() -> None:
    found = shown(claim("at least", value=40), LONG)
    assert "| x | value: 42.3 [38.64, 45.96] |" in table(found)
    assert found.claims["c"].rule.startswith("a on tokens: holds if the 95% interval lies above 40, does not hold")


def test_the_page_says_the_same(tmp_path: Path) -> None:
    page = write_study_page(tmp_path, shown(claim("gain"), LONG), []).read_text()
    assert "value: +4.270" in page and "+3.108 to +5.432" in page and "427.0" not in page


@pytest.mark.parametrize("rule", ["gain", "at least"])
def test_the_interval_of_small_numbers_is_not_cut_where_that_of_shares_is(rule: str) -> None:
    """KLs of 0.5, 0.7 and 0.9 nats: mean 0.7, error 0.11547, interval 0.7 +- 0.4968; against 0 nats the same."""
    arms = {"a": arm([0.5, 0.7, 0.9]), "b": arm([0.0, 0.0, 0.0])}
    figures = decide(claim(rule, value=0.1 if rule == "at least" else None), arms, [1, 2, 3]).figures
    assert (figures.low, figures.high) == pytest.approx((0.203172, 1.196828), abs=1e-5)
    assert figures.share is False


def test_cells_of_small_numbers_are_not_cut() -> None:
    assert "| a | 0.1 | 0.7 [0.2, 1.2] |" in table(results({"a": arm([0.5, 0.7, 0.9])}, {"tokens": "tokens"}))


def test_a_map_stands_in_its_own_unit(tmp_path: Path) -> None:
    """LONG at a point of the axis, with the sides turned round."""
    arms = {n: replace(one, family=n, cell={"steps": "0"}) for n, one in LONG.items()}
    found = replace(results(arms), axes={"steps": ("0",)})
    page = write_study_page(tmp_path, found, [("b", "a", "tokens")]).read_text()
    assert f"{MINUS}4.270<small>{MINUS}5.432 to {MINUS}3.108</small>" in page and "tokens, points" not in page


def test_a_side_of_the_map_with_one_result_counts_for_every_seed(tmp_path: Path) -> None:
    """1 against 0, 0.1 and 0.2 thousand tokens: mean 0.9, error 0.057735, interval 0.9 +- 0.248414."""
    sides = {"a": arm([1.0]), "b": arm([0.0, 0.1, 0.2])}
    arms = {n: replace(one, family=n, cell={"steps": "0"}) for n, one in sides.items()}
    found = replace(results(arms), axes={"steps": ("0",)})
    page = write_study_page(tmp_path, found, [("a", "b", "tokens")]).read_text()
    assert "+0.900<small>+0.652 to +1.148</small>" in page


def test_two_sides_with_one_result_each_are_no_point_of_the_map(tmp_path: Path) -> None:
    arms = {n: replace(arm([1.0]), family=n, cell={"steps": "0"}) for n in ("a", "b")}
    found = replace(results(arms), axes={"steps": ("0",)})
    assert 'id="map"' not in write_study_page(tmp_path, found, [("a", "b", "tokens")]).read_text()
