"""Figures of stored answers, all worked out by hand.

Student's t with 1, 2 and 3 degrees of freedom is 12.7062, 4.3027 and 3.1824 at 97.5 %.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, astuple, replace
from pathlib import Path

import pytest

import layouts
from answers import composite, row
from vold.data.benchmarks.registry import benchmarks, load
from vold.errors import DataError
from vold.evals.derived import cluster_scores, headlines, interval, mmmu_pro_overall
from vold.evals.metrics import by_item, summarise
from vold.run.answers import Answer
from vold.run.records import from_json, to_json
from vold.run.results import Figures


def test_accuracy_error_and_wilson_interval() -> None:
    """2 of 4: s^2 = 4/3 * 1/4, so the error is sqrt(1/12). Wilson with z^2 = 3.8415: the centre is 1/2, half the width
    1.96 * sqrt(1/16 + 3.8415/64) / (1 + 3.8415/4) = 0.35."""
    out = summarise([row("a", 1), row("b", 0), row("c", 0), row("d", 1)], benchmark="x")
    assert (out.accuracy, out.n, out.k, out.clusters) == (0.5, 4, 1, 4)
    assert out.stderr == pytest.approx(math.sqrt(1 / 12))
    assert (out.low, out.high) == pytest.approx((0.15, 0.85), abs=1e-4)
    assert out.pass_at is None and out.maj_at_k is None


def test_many_items_have_wilsons_interval_too() -> None:
    """50 of 100: half the width is 1.96 / (2 sqrt(100 + 3.8415)) = 0.096168. All of 500: 500 / 503.8415 to 1."""
    out = summarise([row(str(i), i % 2) for i in range(100)], benchmark="x")
    assert (out.low, out.high) == pytest.approx((0.5 - 0.096168, 0.5 + 0.096168), abs=1e-6)
    out = summarise([row(str(i), 1) for i in range(500)], benchmark="x")
    assert (out.stderr, out.high) == (0.0, 1.0) and out.low == pytest.approx(500 / 503.841459, abs=1e-8)


def test_vlmevalkits_verdicts_have_figures_of_their_own() -> None:
    """Of three answers it takes one, and one by the chance of a third. A step that it takes beside ours turns rote into
    mastery, and a problem bad generalisation into mastery: strict scores of 1/4 and 1."""
    rows = [row("a", 1, as_vlmevalkit=1.0), row("b", 1, as_vlmevalkit=0.0), row("c", 0, as_vlmevalkit=1 / 3)]
    found = summarise(rows, benchmark="x").as_vlmevalkit
    assert found is not None
    assert found.accuracy == pytest.approx(4 / 9)
    assert (found.lenient, found.strict) == (1, 1)
    whole = [replace(r, as_vlmevalkit=1.0) for r in composite("s", "11", 0)] + composite("t", "10", 1)
    assert summarise(whole, benchmark="wemath").as_vlmevalkit is None  # some have no verdict
    both = [replace(r, as_vlmevalkit=1.0) for r in whole]
    out = summarise(both, benchmark="wemath")
    assert out.derived["score_strict"].value == 0.25
    assert out.as_vlmevalkit is not None and out.as_vlmevalkit.derived["score_strict"] == 1.0


def test_graded_scores_count_as_so_many_items() -> None:
    """0.25 and 0.75: p(1-p) = 1/4, spread 1/16, 2 (0.25 + 0.035) / (0.0625 + 0.035) = 5.84615 items; t(1) = 12.7062, so
    half the width is t / (2 sqrt(n + t^2))."""
    out = summarise([row("a", 0.25), row("b", 0.75)], benchmark="x")
    half = 12.706205 / (2 * math.sqrt(5.846154 + 12.706205**2))
    assert (out.low, out.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)


def answered(*counts: int) -> list[Answer]:
    """Items with so many of four samples right."""
    return [row(f"i{i}", float(s < right), s) for i, right in enumerate(counts) for s in range(4)]


def test_accuracy_of_several_samples_is_the_mean_of_the_items_means() -> None:
    """2, 2 and 3 of 4: means 1/2, 1/2, 3/4 with mean 7/12 and s^2 = (2/144 + 4/144) / 2 = 1/48; the error is
    sqrt(1/48 / 3) = 1/12. For the interval see test_stats.py::test_the_effective_number_by_hand."""
    out = summarise(answered(2, 2, 3), benchmark="x")
    assert (out.accuracy, out.stderr) == pytest.approx((7 / 12, 1 / 12))
    assert (out.low, out.high) == pytest.approx((0.207069, 0.882428), abs=1e-5)
    assert (out.n, out.k) == (3, 4)


def test_pass_at_k_is_unbiased() -> None:
    """Of 4 samples 3 and 1 right: at 1 the mean 1/2; at 2, 1 - C(1,2)/6 = 1 and 1 - C(3,2)/6 = 1/2; at 4, both."""
    out = summarise(answered(3, 1), benchmark="x")
    assert out.pass_at == pytest.approx({"1": 0.5, "2": 0.75, "4": 1.0})


def test_pass_at_goes_as_far_as_every_item_has_samples() -> None:
    rows = [r for r in answered(3, 1) if r.sample < 3 or r.id == "i0"]
    assert list(summarise(rows, benchmark="x").pass_at or ()) == ["1", "2", "3"]


def votes(name: str, *cast: tuple[str | None, float]) -> list[Answer]:
    return [
        row(name, score, i, extracted=text, outcome="unparsed" if text in (None, "zzz") else "wrong")
        for i, (text, score) in enumerate(cast)
    ]


@pytest.mark.parametrize(
    ("cast", "right"),
    [
        ([("A", 0), ("B", 1), ("B", 1), ("A", 0)], 0),  # a tie: the first sample said A
        ([("B", 1), ("A", 0), ("A", 0), ("B", 1)], 1),
        ([("zzz", 0), ("zzz", 0), ("zzz", 0), ("B", 1)], 1),  # what could not be read has no vote
        ([(None, 0), (None, 0), ("C", 0), ("B", 1)], 0),
        ([(None, 0), (None, 0), (None, 0), (None, 0)], 0),
        ([("12 ", 1), ("7", 0), (" 12", 1), ("7", 0)], 1),  # blanks do not make another answer
    ],
)
def test_majority(cast: list[tuple[str | None, float]], right: float) -> None:
    rows = [*votes("a", *cast), *votes("b", *[("A", 0.0)] * 4)]
    assert summarise(rows, benchmark="x").maj_at_k == right / 2


def test_samples_are_put_in_order() -> None:
    rows = [row("a", 0, s, extracted=str(s)) for s in (3, 0, 2, 1)]
    assert [r.sample for r in by_item(rows)["a"]] == [0, 1, 2, 3]


def test_items_of_one_source_are_one_observation() -> None:
    """Two pairs of twins, 1 1 and 0 0: the error is that of two observations, 1/2, and so is the interval, with t(1):
    half its width is 12.7062 / (2 sqrt(2 + 161.4476)) = 0.496932."""
    scores = {"a1": 1, "a2": 1, "b1": 0, "b2": 0}
    rows = [row(n, s, cluster=n[0], tags={"subject": "all"}) for n, s in scores.items()]
    out = summarise(rows, benchmark="x")
    assert out.stderr == pytest.approx(0.5)
    assert (out.low, out.high, out.clusters) == pytest.approx((0.003068, 0.996932, 2), abs=1e-6)
    assert asdict(out.by["subject"]["all"]) == {"accuracy": 0.5, "stderr": pytest.approx(0.5), "n": 4}


def test_parts_by_tag() -> None:
    """Level 1: 1, 0, 1 with mean 2/3, s^2 = 1/3, error 1/3. Level 2 has one source and no error."""
    rows = [row(str(i), s, tags={"level": "1"}) for i, s in enumerate((1, 0, 1))]
    rows += [row(f"t{i}", s, cluster="t", tags={"level": "2"}) for i, s in enumerate((1, 0))]
    assert {level: asdict(part) for level, part in summarise(rows, benchmark="x").by["level"].items()} == {
        "1": {"accuracy": pytest.approx(2 / 3), "stderr": pytest.approx(1 / 3), "n": 3},
        "2": {"accuracy": 0.5, "stderr": None, "n": 2},
    }


def test_a_tag_that_names_every_item_does_not_group() -> None:
    rows = [row(str(i), i % 2, tags={"serial": str(i), "kind": "k"}) for i in range(8)]
    out = summarise(rows, benchmark="x")
    assert list(out.by) == ["kind"] and out.by_kind == {"k": 0.5}


def test_what_went_wrong_is_counted_and_the_result_is_plain_json() -> None:
    names = ("right", "wrong", "unparsed", "truncated", "timed_out", "truncated")
    rows = [row(str(i), o == "right", outcome=o, tokens=i) for i, o in enumerate(names)]
    out = summarise(rows, benchmark="x")
    assert out.outcomes == {"right": 1, "wrong": 1, "unparsed": 1, "truncated": 2, "timed_out": 1}
    assert out.mean_tokens == 2.5
    assert from_json(Figures, json.loads(json.dumps(to_json(out), allow_nan=False))) == out


def test_one_source_has_no_error() -> None:
    with pytest.raises(DataError, match="at least two clusters"):
        summarise([row("a", 1, cluster="c"), row("b", 0, cluster="c")], benchmark="x")


# -- We-Math ----------------------------------------------------------------------------------------------------------


def values(rows: list[Answer], benchmark: str) -> dict[str, float]:
    return {name: found.value for name, found in summarise(rows, benchmark=benchmark).derived.items()}


def test_wemath_by_hand() -> None:
    """Mastered: c1, c6. Rote: c2 (a step right), c3 (none). Generalises badly: c4. Lacks knowledge: c5.

    Strict (6 - 1/2 - 2 - 1) / 6, loose (6 - 1/2 - 1 - 1) / 6; 10 of 14 steps; 3 of 4 problems of two steps, 1 of 2 of
    three; rote among those got right: 2 of 4, loosely 1 of 4. c7 was not asked as a whole and does not count.
    """
    rows = [
        *composite("c1", "11", 1),
        *composite("c2", "10", 1),
        *composite("c3", "00", 1),
        *composite("c4", "11", 0),
        *composite("c5", "101", 0),
        *composite("c6", "111", 1),
        *composite("c7", "11", 1)[:-1],
    ]
    out = summarise(rows, benchmark="wemath")
    assert {k: v.value for k, v in out.derived.items()} == pytest.approx(
        {
            "score_strict": 2.5 / 6,
            "score_loose": 3.5 / 6,
            "insufficient_knowledge": 1 / 6,
            "inadequate_generalisation": 1 / 6,
            "complete_mastery_strict": 2 / 6,
            "complete_mastery_loose": 3 / 6,
            "rote_memorisation_strict": 2 / 6,
            "rote_memorisation_loose": 1 / 6,
            "two_step": 3 / 4,
            "three_step": 1 / 2,
            "one_step": 10 / 14,
            "rote_rate_strict": 2 / 4,
            "rote_rate_loose": 1 / 4,
        }
    )
    assert out.derived["score_strict"].n == 6 and out.derived["two_step"].n == 4
    for figure in out.derived.values():
        assert 0 <= figure.low <= figure.value <= figure.high <= 1
    assert from_json(Figures, json.loads(json.dumps(to_json(out), allow_nan=False))) == out


@pytest.mark.parametrize("steps", [2, 3])
def test_wemath_scores_are_the_papers_formula_for_every_pattern(steps: int) -> None:
    """(N - IG / 2 - RM - IK) / N, each counted here from the patterns themselves."""
    patterns = list(itertools.product((0, 1), repeat=steps + 1))
    rows = [r for i, (w, *p) in enumerate(patterns) for r in composite(f"c{i}", "".join(map(str, p)), w)]
    ig = sum(all(p) for w, *p in patterns if not w)
    ik = sum(not all(p) for w, *p in patterns if not w)
    for name, rm in (
        ("strict", sum(not all(p) for w, *p in patterns if w)),
        ("loose", sum(not any(p) for w, *p in patterns if w)),
    ):
        n = len(patterns)
        assert values(rows, "wemath")[f"score_{name}"] == pytest.approx((n - ig / 2 - rm - ik) / n)


def test_wemath_of_several_samples_is_the_mean_of_the_samples_scores() -> None:
    """c1 is mastered in sample 0 and generalises badly in sample 1: 3/4. c2 lacks knowledge in both: 0."""
    rows = [
        *composite("c1", "11", 1),
        *composite("c1", "11", 0, 1),
        *composite("c2", "01", 0),
        *composite("c2", "10", 0, 1),
    ]
    assert cluster_scores("wemath", by_item(rows))["score_strict"] == {"c1": 0.75, "c2": 0.0}


def test_wemath_with_nothing_right_has_no_rote_rate() -> None:
    found = values([*composite("c1", "11", 0), *composite("c2", "00", 0)], "wemath")
    assert found["score_strict"] == 0.25 and "rote_rate_strict" not in found


def test_wemath_without_a_whole_problem_has_no_score() -> None:
    rows = [*composite("c1", "11", 1)[:-1], *composite("c2", "11", 1)[1:]]
    assert summarise(rows, benchmark="wemath").derived == {}


# -- the others -------------------------------------------------------------------------------------------------------


def variants(seed: str, scores: str, sample: int = 0) -> list[Answer]:
    return [row(f"{seed}/{i}", int(s), sample, cluster=seed, tags={"variant": str(i)}) for i, s in enumerate(scores, 1)]


def test_dynamath_counts_a_seed_only_with_all_its_variants_right() -> None:
    """7 of 8 right; of the seeds with three variants one of two is right throughout. s3 has lost a variant."""
    rows = [*variants("s1", "111"), *variants("s2", "110"), *variants("s3", "11")]
    out = summarise(rows, benchmark="dynamath")
    assert out.accuracy == pytest.approx(7 / 8)
    assert {k: (v.value, v.n) for k, v in out.derived.items()} == {
        "average": (pytest.approx(7 / 8), 3),
        "worst_case": (0.5, 2),
    }


def test_dynamath_of_several_samples_asks_all_variants_of_one_sample() -> None:
    """s1: all right in sample 0, not in sample 1. s2: each variant right once, but never all together."""
    rows = [*variants("s1", "11"), *variants("s1", "10", 1), *variants("s2", "10"), *variants("s2", "01", 1)]
    assert cluster_scores("dynamath", by_item(rows))["worst_case"] == {"s1": 0.5, "s2": 0.0}


def test_dynamath_with_one_variant_a_seed_has_no_worst_case() -> None:
    assert set(values([*variants("s1", "1"), *variants("s2", "0")], "dynamath")) == {"average"}


def test_mathverse_gives_its_vision_only_version_by_itself() -> None:
    right = {(1, "Vision Only")}
    rows = [
        row(f"{problem}{version}", (problem, version) in right, cluster=str(problem), tags={"version": version})
        for problem, version in itertools.product((1, 2), ("Text Lite", "Vision Only"))
    ]
    out = summarise(rows, benchmark="mathverse")
    assert out.accuracy == 0.25
    assert out.derived["vision_only"].value == 0.5 and out.derived["vision_only"].n == 2
    assert out.by["version"]["Text Lite"].accuracy == 0.0


def test_mmmu_pro_overall_is_the_mean_of_two_settings() -> None:
    """(0.3 + 0.2) / 2 with error (0.01 + 0.03) / 2 when the settings go together, and so with both ends."""
    any_ = summarise([row("a", 1), row("b", 0)], benchmark="x")
    ten = replace(any_, accuracy=0.3, stderr=0.01, low=0.28, high=0.33)
    stage = {
        "ten": ten,
        "seen": replace(any_, accuracy=0.2, stderr=0.03, low=0.14, high=0.29, differs=("9 of 10 items",)),
    }
    names = {"ten": "mmmu_pro_standard10", "seen": "mmmu_pro_vision"}
    found = mmmu_pro_overall({"m": stage}, names)
    assert found is not None
    assert astuple(found["m"])[:4] == pytest.approx((0.25, 0.02, 0.21, 0.31), abs=1e-9)
    assert found["m"].differs == ("seen: 9 of 10 items",)
    assert mmmu_pro_overall({"m": stage}, {"ten": "mmmu_pro_standard10", "seen": "mmmu_pro_standard4"}) is None


def test_the_headlines_are_the_benchmarks_own_scores_sets_in_order() -> None:
    """We-Math's strict score is no accuracy, DynaMath has two, MMMU-Pro's mean goes before its settings."""
    wemath = summarise([*composite("c1", "11", 1), *composite("c2", "10", 1)], benchmark="wemath")
    dynamath = summarise([*variants("s1", "11"), *variants("s2", "10")], benchmark="dynamath")
    four = [row("a", 1), row("b", 1), row("c", 1), row("d", 0)]
    ten = summarise(four, benchmark="mmmu_pro_standard10", differs=("4 of 1,730 items",))
    vision = summarise([row("a", 1), row("b", 0), row("c", 0), row("d", 0)], benchmark="mmmu_pro_vision")
    plain = summarise([row("a", 1), row("b", 0)], benchmark="sums")
    names = {"w": "wemath", "sums": "sums", "dynamath": "dynamath", "t": "mmmu_pro_standard10", "v": "mmmu_pro_vision"}
    stages = {"m": {"w": wemath, "sums": plain, "dynamath": dynamath, "t": ten, "v": vision}}
    found = headlines(stages, names, mmmu_pro_overall(stages, names))
    assert [(h.set, h.model, h.score, h.value) for h in found] == [
        ("w", "m", "score_strict", 0.5),
        ("sums", "m", "accuracy", 0.5),
        ("dynamath", "m", "average", 0.75),
        ("dynamath", "m", "worst_case", 0.5),
        ("mmmu_pro", "m", "overall", 0.5),
        ("t", "m", "accuracy", 0.75),
        ("v", "m", "accuracy", 0.25),
    ]
    assert (found[1].low, found[1].high) == (plain.low, plain.high)
    part = ("4 of 1,730 items",)
    assert [h.differs for h in found] == [(), (), (), (), (f"t: {part[0]}",), part, ()]


def test_every_headline_is_the_accuracy_or_a_score_of_the_benchmark(tmp_path: Path) -> None:
    """On the published layouts, every item right: each named score is formed, and is all that it can be."""
    files = layouts.write_all(tmp_path)
    for name in ("mme", "hallusionbench", "dynamath", "wemath"):
        rows = [row(i.id, 1.0, cluster=i.cluster, tags=i.tags) for i in load(name, path=files[name]).items]
        found, benchmark = summarise(rows, benchmark=name).derived, benchmarks()[name]
        for score in benchmark.headline:
            assert found[score].value == pytest.approx(benchmark.scale.get(score, 1.0)), score


def test_a_mean_over_clusters_has_the_interval_of_a_share() -> None:
    """One of two: half of Wilson's width is 1.959964 / (2 sqrt(2 + 3.841459)) = 0.405469. Seven alike count as seven
    items, with t(6) = 2.446912. The errors: 1/2 and none; 1 is the best."""
    assert astuple(interval([0.0, 1.0])) == pytest.approx((0.5, 0.094531, 0.905469, 2, 0.5, 1.0), abs=1e-6)
    half = 2.446912 / (2 * math.sqrt(7 + 2.446912**2))
    assert astuple(interval([0.5] * 7)) == pytest.approx((0.5, 0.5 - half, 0.5 + half, 7, 0.0, 1.0), abs=1e-6)


def test_the_interval_of_a_ratio_weighs_clusters() -> None:
    """(1 + 6) / (2 + 8) = 0.7, p(1-p) = 0.21. Over their shares by -0.4 and 0.4; over the mean weight 5, spread 0.0064.
    2 (0.21 + 0.035) / (0.0064 + 0.035) = 11.8357 items, with t(1). A cluster without weight does not count.
    The error: sqrt(2 * 0.32) / 10."""
    n, z, p = 11.835749, 12.706205, 0.7
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    found = interval([1.0, 0.0, 6.0], [2.0, 0.0, 8.0])
    assert astuple(found) == pytest.approx((0.7, centre - half, centre + half, 2, 0.08, 1.0), abs=1e-6)
