"""Two stored evaluations side by side. Numbers are worked out by hand; t(1) = 12.7062 and t(3) = 3.1824 at 97.5 %."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import own_code
from answers import composite, row
from vold.cli import main
from vold.data.benchmarks.registry import benchmarks
from vold.errors import CheckpointError, ConfigError, DataError
from vold.evals.compare import compare_answers, compare_runs, corrected, model_folder
from vold.evals.protocol import Protocol, protocol_hash
from vold.evals.stats import holm, paired_difference, t_interval
from vold.report.tables import print_comparison
from vold.run.answers import Answer
from vold.run.console import console
from vold.run.records import to_json

PROTOCOL = Protocol("rule", "mathvision", "test", "ab", "1", 8192, 0.0, 1, None, None, "r1", "cd")


TAGS = {"subset": "chart", "figure": "1", "question": "1"}
"""What HallusionBench's scores are made of."""


def rows(scores: str, **more: Any) -> list[Answer]:
    """One answer to each of items 0, 1, ..., marked as the digits say; a dot for none."""
    return [row(str(i), int(s), **more) for i, s in enumerate(scores) if s != "."]


def test_clustered_paired_difference_by_hand() -> None:
    """Differences 1 1 0 0 in two clusters: error 1/2. They count as two pairs of which one is won: w = 2/4, l = 1/4,
    middle 1/4, error sqrt((3/4 - 1/16) / 4) = 0.414578, t = 0.603023 with one degree of freedom (Cauchy)."""
    found = paired_difference([1, 1, 0, 0], [0, 0, 0, 0], clusters=["a", "a", "b", "b"])
    assert (found.difference, found.stderr, found.n) == pytest.approx((0.5, 0.5, 4))
    assert (found.low, found.high) == (-1.0, 1.0)
    assert found.p_value == pytest.approx(1 - 2 / math.pi * math.atan(0.603023), abs=1e-5)


def test_clusters_of_one_change_nothing() -> None:
    a, b = [1.0, 0.5, 0.0, 1.0], [0.0, 0.5, 0.5, 0.25]
    plain, clustered = paired_difference(a, b), paired_difference(a, b, clusters=range(4))
    assert asdict(clustered) == pytest.approx(asdict(plain))
    assert t_interval(a, clusters=range(4)) == pytest.approx(t_interval(a))


def test_one_cluster_is_no_sample() -> None:
    with pytest.raises(DataError, match="at least two clusters"):
        t_interval([1, 0, 1], clusters=["a", "a", "a"])


def test_item_by_item() -> None:
    """Differences 1 0 1 0: mean 1/2, s^2 = 1/3, error sqrt(1/12) = 0.2887. One more won by each: w = 3/6, l = 1/6,
    middle 1/3, error sqrt((2/3 - 1/9) / 6) = 0.3043; t = 1.0954 with 3 degrees has p = 0.3534, and t(3) * 0.3043 is
    0.9684. Two wins and no loss: McNemar 2 / 4. Detectable: (1.9600 + 0.8416) * 0.2887."""
    c = compare_answers("set", rows("1110"), rows("0100"))
    error = math.sqrt(1 / 12)
    assert (c.accuracy_a, c.accuracy_b, c.difference, c.n) == (0.75, 0.25, 0.5, 4)
    assert c.stderr == pytest.approx(error) and c.p_value == pytest.approx(0.3534, abs=1e-4)
    assert (c.low, c.high) == pytest.approx((1 / 3 - 0.96839, 1.0), abs=1e-4)
    assert c.mcnemar_p == pytest.approx(0.5)
    assert c.detectable == pytest.approx(2.80159 * error, abs=1e-5)
    assert (c.only_a, c.only_b, c.clustered, c.forced, c.derived) == (0, 0, False, (), {})


def test_the_other_way_round_turns_the_sign() -> None:
    there, back = compare_answers("set", rows("1110"), rows("0100")), compare_answers("set", rows("0100"), rows("1110"))
    assert (back.difference, back.low, back.high) == pytest.approx((-there.difference, -there.high, -there.low))
    assert back.p_value == pytest.approx(there.p_value)


def test_items_are_matched_by_id_and_what_only_one_has_is_counted() -> None:
    """In common are 0, 1 and 3, in another order: 1 1 1 against 0 1 0."""
    c = compare_answers("set", rows("111100"), rows("01.0")[::-1])
    assert (c.n, c.only_a, c.only_b) == (3, 3, 0)
    assert (c.accuracy_a, c.accuracy_b) == pytest.approx((1.0, 1 / 3))


def test_several_samples_are_averaged_and_have_no_mcnemar() -> None:
    """Item 0: 1/2 against 0; item 1: 1 against 1."""
    a = [*rows("11"), *rows("01", sample=1)]
    c = compare_answers("set", a, [*rows("01"), *rows("01", sample=1)])
    assert (c.difference, c.mcnemar_p) == (0.25, None)


def test_items_of_one_source_are_clustered_and_have_no_mcnemar() -> None:
    a = [row(n, s, cluster=n[0]) for n, s in (("a1", 1), ("a2", 1), ("b1", 0), ("b2", 0))]
    c = compare_answers("set", a, [replace(r, score=0.0) for r in a])
    assert c.clustered and c.mcnemar_p is None
    assert (c.difference, c.stderr, c.p_value) == pytest.approx((0.5, 0.5, 0.654545), abs=1e-6)
    assert c.detectable == 1.0  # 2.80159 * 0.5, and no difference is larger


def test_equal_answers_do_not_prove_that_two_models_are_equal() -> None:
    """w = l = 1/6, error sqrt(1/3 / 6) = 0.2357, t(3) * 0.2357 = 0.7501; detectable: 2.80159 * sqrt(1/3) / sqrt(4)."""
    c = compare_answers("set", rows("1010"), rows("1010"))
    assert (c.difference, c.p_value, c.mcnemar_p) == (0.0, 1.0, 1.0)
    assert (c.low, c.high, c.detectable) == pytest.approx((-0.75011, 0.75011, 0.80875), abs=1e-5)


def test_too_little_in_common() -> None:
    with pytest.raises(DataError, match="fewer than two items"):
        compare_answers("set", rows("11"), rows(".11"))


def test_derived_scores_are_compared_problem_by_problem() -> None:
    """Strict scores 1, 0, 1/2 against 0, 0, 0: differences with mean 1/2, s^2 = 1/4 and error 1/(2 sqrt 3)."""
    a = [*composite("c1", "11", 1), *composite("c2", "10", 1), *composite("c3", "11", 0)]
    b = [*composite("c1", "00", 0), *composite("c2", "00", 0), *composite("c3", "10", 0)]
    found = compare_answers("set", a, b, benchmark="wemath").derived["score_strict"]
    assert (found.difference, found.stderr, found.n) == pytest.approx((0.5, 0.5 / math.sqrt(3), 3))


def variants(scores: str) -> list[Answer]:
    """Two variants of each seed question."""
    return [row(f"{i // 2}/{i % 2}", int(s), cluster=str(i // 2)) for i, s in enumerate(scores)]


def test_a_set_is_compared_by_the_score_it_is_judged_by() -> None:
    """DynaMath's average is a ratio: 1/2 a seed more in two of three, so 1/3, as for accuracy. Worst case: 1, 0, 0."""
    c = compare_answers("set", variants("111010"), variants("100010"), benchmark="dynamath")
    average, worst = c.derived["average"], c.derived["worst_case"]
    assert c.headline == ("average", "worst_case")
    assert (average.a, average.b, average.difference, average.n) == pytest.approx((4 / 6, 2 / 6, 1 / 3, 3))
    assert average.difference == pytest.approx(c.difference)
    assert (worst.a, worst.b, worst.difference) == pytest.approx((1 / 3, 0.0, 1 / 3))
    assert compare_answers("set", rows("10"), rows("01")).headline == ("accuracy",)


def test_points_are_compared_on_their_own_scale() -> None:
    """MME's subtask: both questions of a picture right is 1 of 1, one of them 1/4; of 200 points two at best."""
    marks = {f"OCR/{i}/{q}": (int(x), int(y)) for i, pair in enumerate(("11 10", "10 10")) for q, (x, y) in
             enumerate(zip(*pair.split(), strict=True))}  # fmt: skip
    x, y = (
        [row(n, s[i], cluster=n.rpartition("/")[0], tags={"subtask": "OCR"}) for n, s in marks.items()] for i in (0, 1)
    )
    found = compare_answers("mme", x, y, benchmark="mme")
    ocr = found.derived["OCR"]
    assert (ocr.a, ocr.b, ocr.difference) == pytest.approx((1.25, 0.5, 0.75))
    assert -2.0 <= ocr.low < ocr.high <= 2.0
    assert found.headline == ("accuracy",)  # no sum without all of its subtasks


def test_p_values_allow_for_all_scores_that_are_read_first() -> None:
    a, b = variants("11101011"), variants("10001000")
    one = compare_answers("x", a, b, benchmark="dynamath")
    two = compare_answers("y", rows("1110"), rows("0100"))
    first, second = corrected([one, two])
    ps = [one.derived[s].p_value for s in ("average", "worst_case")] + [two.p_value]
    assert [first.derived[s].corrected_p for s in ("average", "worst_case")] + [second.corrected_p] == holm(ps)
    assert first.corrected_p is None


def test_the_mean_of_two_settings_is_compared_question_by_question(tmp_path: Path) -> None:
    for folder, ten, vision in (("a", "1110", "1100"), ("b", "0100", "0100")):
        for name, scores in (("mmmu_pro_standard10", ten), ("mmmu_pro_vision", vision)):
            store(tmp_path / folder, scores, name, benchmark=name)
    whole, *parts = compare_runs(tmp_path / "a", tmp_path / "b")
    assert (whole.name, [c.name for c in parts]) == ("mmmu_pro", ["mmmu_pro_standard10", "mmmu_pro_vision"])
    assert (whole.accuracy_a, whole.accuracy_b, whole.n, whole.clustered) == (5 / 8, 2 / 8, 8, True)
    assert whole.difference == pytest.approx(sum(c.difference for c in parts) / 2)
    store(tmp_path / "a", "111", "mmmu_pro_vision", benchmark="mmmu_pro_vision")
    assert len(compare_runs(tmp_path / "a", tmp_path / "b")) == 2  # of unequal parts it is another figure


def test_22_sets_are_read_in_100_columns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in benchmarks():
        for folder, scores in (("a", "1110"), ("b", "0100")):
            store(tmp_path / folder, scores, name, benchmark=name)
    monkeypatch.setattr(console, "_width", 100)
    monkeypatch.setattr(console, "_force_terminal", True)
    print_comparison("a", "b", compare_runs(tmp_path / "a", tmp_path / "b"))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 100
    found = [line.split() for line in lines]
    assert ["set", "score", "A,", "%", "B,", "%", "difference", "p", "corrected"] in found  # a table, and no list
    assert {row[0] for row in found if row} >= {"mmmu_pro", *benchmarks()}
    assert any(row[:2] == ["mathvision:", "of"] and "items" in row for row in found)


def store(folder: Path, scores: str, name: str = "set", **changed: Any) -> Path:
    """Write an evaluation as `vold eval` does."""
    folder.mkdir(parents=True, exist_ok=True)
    protocol = Protocol(**{**asdict(PROTOCOL), **changed})
    stamp = {"hash": protocol_hash(protocol), "protocol": asdict(protocol)}
    (folder / f"{name}.protocol.json").write_text(json.dumps(stamp) + "\n")
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(to_json(r)) + "\n" for r in rows(scores, tags=TAGS)))
    return folder


def test_runs_are_compared_on_the_sets_they_share(tmp_path: Path) -> None:
    store(tmp_path / "a/eval/vold", "1110")
    store(tmp_path / "a/eval/vold", "1100", "other")
    store(tmp_path / "a/eval/sft", "0000")
    store(tmp_path / "b/eval/base", "0100")
    (found,) = compare_runs(tmp_path / "a", tmp_path / "b")
    assert (found.name, found.difference, found.forced) == ("set", 0.5, ())
    (same_run,) = compare_runs(tmp_path / "a", tmp_path / "a/eval/sft")
    assert same_run.difference == 0.75


def test_a_comparison_says_of_how_many_items_it_is_and_what_else_differs(tmp_path: Path) -> None:
    """Four of MATH-Vision's 3,040; on one side two answers to an item, and a server that did not give one."""
    a, b = store(tmp_path / "a", "1110"), store(tmp_path / "b", "0100", samples=2)
    stored = [*rows("010"), replace(row("3", 0), note="not answered: too long")]
    (b / "set.jsonl").write_text("".join(json.dumps(to_json(r)) + "\n" for r in stored))
    (found,) = compare_runs(a, b, force=True)
    assert found.official_n == 3040
    assert found.differs == (
        "4 of 3,040 items",
        "B: 2 answers to each item; published figures are of one",
        "B: 1 of 4 answers scores 0 because the server gave no answer",
    )


def test_another_revision_with_the_same_content_is_the_same_test(tmp_path: Path) -> None:
    a = store(tmp_path / "a", "1110")
    assert compare_runs(a, store(tmp_path / "b", "0100", revision="r2"))[0].difference == 0.5


def test_other_protocols_are_refused_with_every_difference_named(tmp_path: Path) -> None:
    a = store(tmp_path / "a", "1110")
    b = store(tmp_path / "b", "0100", max_new_tokens=2048, prompt_version="ff", content_hash="ee")
    with pytest.raises(ConfigError) as raised:
        compare_runs(a, b)
    for words in ("token budget: 8192 and 2048", "prompt text: ab and ff", "golds: cd and ee", "force=true"):
        assert words in str(raised.value)


def test_forced_comparisons_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    b = store(tmp_path / "b", "0100", max_new_tokens=2048)
    (found,) = compare_runs(store(tmp_path / "a", "1110"), b, force=True)
    assert found.difference == 0.5 and found.forced == ("token budget: 8192 and 2048",)
    print_comparison("A", "B", [found])
    printed = capsys.readouterr().out
    assert "forced although the protocols differ" in printed and "+50.0" in printed


OWN = """
from dataclasses import replace

from vold.data.benchmarks.registry import benchmarks

print("own.py was run")


def first_half(items):
    return {"first_half": {name: items[name][0].score for name in items if name in "01"}}


MINE = replace(benchmarks()["mathvision"], cluster_scores=first_half, headline=("first_half",))
"""
RECIPE = """
run: {dir: runs/mine}
student: {path: demo:student}
eval: {sampling: {max_new_tokens: 8}, benchmarks: {set: {name: "own:MINE", path: set.jsonl}}}
"""


def test_scores_of_ones_own_benchmark_are_compared_where_a_recipe_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Items 0 and 1: 1 1 against 0 1, so 100% and 50%. Stored results that name a module run nothing of it."""
    home = tmp_path / "home"
    a, b = (str(store(home / n, s, benchmark="own:MINE")) for n, s in (("a", "1110"), ("b", "0100")))
    (home / "own.py").write_text(OWN)
    (home / "mine.yaml").write_text(RECIPE)
    with own_code.forgotten(home):
        assert main(["compare", a, b]) == 0
        said = capsys.readouterr().out
        assert "set: accuracy alone is compared" in said
        assert "own.py was run" not in said and "first half" not in said
        assert main(["compare", a, b, "--recipe", str(home / "mine.yaml")]) == 0
        said = capsys.readouterr().out
    assert "accuracy alone" not in said
    assert re.search(r"set +first half +100\.0 +50\.0 +\+50\.0", said)


def test_another_hash_of_the_same_fields_is_refused(tmp_path: Path) -> None:
    a, b = store(tmp_path / "a", "1110"), store(tmp_path / "b", "0100")
    (b / "set.protocol.json").write_text(json.dumps({"hash": "0" * 16, "protocol": asdict(PROTOCOL)}) + "\n")
    with pytest.raises(ConfigError, match="hash: "):
        compare_runs(a, b)


def test_a_protocol_file_cut_short_is_named(tmp_path: Path) -> None:
    a, b = store(tmp_path / "a", "1110"), store(tmp_path / "b", "0100")
    (b / "set.protocol.json").write_text('{"hash": "ab')
    with pytest.raises(CheckpointError, match=r"set\.protocol\.json"):
        compare_runs(a, b)


@pytest.mark.parametrize(
    ("models", "chosen"),
    [(("base", "sft", "vold"), "vold"), (("base", "sft"), "sft"), (("org/name-3b",), "org/name-3b")],
)
def test_the_last_stage_of_a_run_is_meant(tmp_path: Path, models: tuple[str, ...], chosen: str) -> None:
    for name in models:
        store(tmp_path / "eval" / name, "10")
    assert model_folder(tmp_path) == tmp_path / "eval" / chosen
    assert model_folder(tmp_path / "eval" / models[0]) == tmp_path / "eval" / models[0]


def test_of_unknown_models_one_must_be_named(tmp_path: Path) -> None:
    store(tmp_path / "eval/x", "10")
    store(tmp_path / "eval/y", "10")
    with pytest.raises(DataError, match=r"got:\s+x, y"):
        model_folder(tmp_path)


def test_where_nothing_was_evaluated_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no evaluation here"):
        compare_runs(tmp_path, tmp_path)
    with pytest.raises(DataError, match="no set in common"):
        compare_runs(store(tmp_path / "a", "10", "x"), store(tmp_path / "b", "10", "y"))
