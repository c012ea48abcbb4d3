"""Studies: what is chosen on the selection tasks, what a rule decides, and what is refused."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from studies import arm, begin_as_copies, ran, results, study_dict
from vold.cli import main
from vold.demo.plan import plan_study
from vold.demo.study import _generations, run_study
from vold.demo.study_file import Arm, Study, load_study
from vold.errors import ConfigError, TrainingError
from vold.evals.claims import Claim, decide, decide_all
from vold.evals.study_results import ArmResult, Measure, StudyResults
from vold.evals.study_tables import MARK, table, write_tables
from vold.run.files import read_json
from vold.run.lock import RunLock
from vold.run.records import to_json


def claim(rule: str, margin: float = 0.02) -> Claim:
    return Claim.model_validate(
        {"claim": "a beats b", "better": "a", "worse": "b", "measure": "image", "rule": rule, "margin": margin}
    )


# Differences over three seeds of mean m and spread (m - s, m, m + s) have standard error s / sqrt(3) and, with
# t(0.975, 2) = 4.302653, the interval m +- 2.484138 s.
@pytest.mark.parametrize(
    ("rule", "mean", "spread", "verdict"),
    [
        ("gain", 0.10, 0.04, "holds"),  # [0.0006, 0.1994]
        ("gain", 0.10, 0.041, "undecided"),  # [-0.0018, 0.2018]
        ("gain", -0.10, 0.04, "does not hold"),  # [-0.1994, -0.0006]
        ("gain", 0.0, 0.008, "does not hold"),  # within +-0.0199
        ("gain", 0.0, 0.0081, "undecided"),  # +-0.0201
        ("no gain", 0.0, 0.008, "holds"),
        ("no gain", -0.3, 0.1, "holds"),
        ("no gain", 0.0, 0.0081, "undecided"),
        ("no gain", 0.10, 0.04, "does not hold"),
        ("no gain", 0.10, 0.041, "undecided"),
    ],
)
def test_a_rule_reads_its_verdict_off_the_interval(rule: str, mean: float, spread: float, verdict: str) -> None:
    base = [0.30, 0.50, 0.40]
    better = [b + mean + d for b, d in zip(base, (-spread, 0.0, spread), strict=True)]
    arms = {"a": arm(better), "b": arm(base)}
    out = decide(claim(rule), arms, [1, 2, 3])
    assert out.verdict == verdict
    half = 4.302653 * spread / math.sqrt(3)
    assert out.figures.low == pytest.approx(mean - half, abs=1e-6)
    assert out.figures.high == pytest.approx(mean + half, abs=1e-6)


def test_an_arm_without_training_is_compared_with_every_seed() -> None:
    out = decide(claim("gain"), {"a": arm([0.5, 0.6, 0.7]), "b": arm([0.2])}, [1, 2, 3])
    assert out.figures.difference == pytest.approx(0.4)


def test_a_claim_about_a_figure_that_an_arm_lacks_decides_nothing() -> None:
    arms = {"a": arm([0.9, 0.8, 0.85]), "b": arm([0.1, 0.2, 0.15])}
    bare = {"a": arms["a"], "b": replace(arms["b"], seeds=tuple(replace(one, measures={}) for one in arms["b"].seeds))}
    out = decide(claim("gain"), bare, [1, 2, 3])
    assert (out.verdict, out.figures.seeds) == ("undecided", 0) and out.rule.endswith("b has no such figure")
    assert decide(claim("gain"), arms, [1, 2, 3]).verdict == "holds"


def test_seeds_are_paired_by_number_not_by_place() -> None:
    a, b = arm([0.1, 0.5, 0.91]), arm([0.0, 0.4, 0.8])
    b = replace(b, seeds=b.seeds[::-1])
    assert decide(claim("gain"), {"a": a, "b": b}, [1, 2, 3]).verdict == "holds"


@pytest.mark.parametrize("values", [[0.52, 0.53], [0.55, 0.55, 0.55], [0.52, 0.54, 0.53, 0.55, 0.56]])
def test_two_seeds_or_equal_differences_decide_nothing(values: list[float]) -> None:
    """Two seeds with a p of 0.03 are too few; five whose differences are all 0.02 have no spread to judge by."""
    far = [v - 0.02 for v in values] if len(values) == 5 else [0.2] * 3 if len(values) == 3 else [0.2, 0.211]
    for rule in ("gain", "no gain"):
        out = decide(claim(rule, margin=0.5), {"a": arm(values), "b": arm(far)}, list(range(1, len(values) + 1)))
        assert out.verdict == "undecided"
        assert out.figures.low is not None and -1 <= out.figures.low < (out.figures.difference or 0.0)


def test_equal_shares_of_all_seeds_are_not_at_least_anything() -> None:
    out = decide(at_least(0.9), {"a": arm([1.0] * 5)}, [1, 2, 3, 4, 5])
    assert (out.verdict, out.figures.low, out.figures.high, out.figures.p_value) == ("undecided", 0.0, 1.0, 1.0)


def test_equal_numbers_that_are_no_shares_have_no_interval() -> None:
    arms = {
        n: ArmResult(0.1, {}, tuple(ran(i, steps=Measure(value=v)) for i in (1, 2, 3)))
        for n, v in (("a", 5.0), ("b", 4.0))
    }
    out = decide(claim("gain").model_copy(update={"measure": "steps"}), arms, [1, 2, 3])
    assert (out.verdict, out.figures.low, out.figures.high) == ("undecided", None, None)
    assert "| value: +1 |" in table(replace(results({"x": arm([0.1, 0.2])}), claims={"c": out}))


def test_shares_of_seeds_stay_between_0_and_1() -> None:
    """0.97, 0.99 and 1.00: mean 0.9867, error 0.00882, t(2) * 0.00882 = 0.038."""
    out = decide(at_least(0.9), {"a": arm([0.97, 0.99, 1.0])}, [1, 2, 3])
    assert (out.verdict, out.figures.high) == ("holds", 1.0)
    assert "98.7 [94.9, 100.0]" in table(results({"a": arm([0.97, 0.99, 1.0])}))


# With two degrees of freedom p = 1 - t / sqrt(2 + t^2), t = sqrt(3) m / s: for s = 0.01 and m = 0.1, 0.03 and 0.028
# 0.003317, 0.035099 and 0.039984. Holm: three times the first, twice the second, and the third at least as much.
@pytest.mark.parametrize(
    ("means", "corrected", "verdicts"),
    [
        ([0.028], [0.039984], ["holds"]),
        ([0.1, 0.03, 0.028], [0.009950, 0.070197, 0.070197], ["holds", "undecided", "undecided"]),
        # one that is undecided by itself counts as well
        ([0.028, 0.021], [0.079969, 1.0], ["undecided", "undecided"]),
    ],
)
def test_claims_of_a_study_are_corrected_for_their_number(
    means: list[float], corrected: list[float], verdicts: list[str]
) -> None:
    arms = {"b": arm([0.3, 0.5, 0.4])}
    arms |= {f"a{i}": arm([0.3 + m - 0.01, 0.5 + m, 0.4 + m + 0.01]) for i, m in enumerate(means)}
    claims = {f"c{i}": claim("gain", margin=0.0).model_copy(update={"better": f"a{i}"}) for i in range(len(means))}
    out = decide_all(claims, arms, [1, 2, 3])
    assert [v.verdict for v in out.values()] == verdicts
    assert [v.figures.corrected_p for v in out.values()] == pytest.approx(corrected, abs=1e-5)
    assert [v.alone for v in out.values()][: len(means)] == ["holds" if m > 0.024841 else "undecided" for m in means]
    shown = table(replace(results(arms), claims=out))
    assert f"| {out['c0'].figures.p_value:.3f} | {corrected[0]:.3f} | holds | {verdicts[0]} |" in shown


# The level at which a rule decides, for m = 0 and s = 0.008: both margins of 0.02 are t = 0.02 sqrt(3) / 0.008 away.
@pytest.mark.parametrize("rule", ["gain", "no gain"])
def test_a_margin_has_its_p_value(rule: str) -> None:
    out = decide(claim(rule), {"a": arm([0.292, 0.5, 0.408]), "b": arm([0.3, 0.5, 0.4])}, [1, 2, 3])
    t = 0.02 * math.sqrt(3) / 0.008
    assert out.figures.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-6)
    assert out.verdict == {"gain": "does not hold", "no gain": "holds"}[rule]


def at_least(value: float) -> Claim:
    return Claim.model_validate({"claim": "x", "better": "a", "measure": "image", "rule": "at least", "value": value})


# 0.50, 0.60, 0.70: mean 0.6, sample deviation 0.1, interval 0.6 +- 0.248414 = [0.3516, 0.8484].
@pytest.mark.parametrize(("value", "verdict"), [(0.35, "holds"), (0.36, "undecided"), (0.85, "does not hold")])
def test_a_claim_about_one_arm_compares_its_interval_with_a_value(value: float, verdict: str) -> None:
    out = decide(at_least(value), {"a": arm([0.5, 0.6, 0.7])}, [1, 2, 3])
    assert out.verdict == verdict
    assert out.figures.mean == pytest.approx(0.6)
    assert out.figures.low == pytest.approx(0.351586, abs=1e-6)
    assert out.figures.high == pytest.approx(0.848414, abs=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"rule": "at least"},
        {"rule": "at least", "value": 0.5, "worse": "b"},
        {"rule": "gain"},
        {"rule": "gain", "worse": "b", "value": 1},
    ],
)
def test_a_claim_has_what_its_rule_compares(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="at least"):
        Claim.model_validate({"claim": "x", "better": "a", "measure": "image"} | change)


def test_a_claim_can_be_about_one_kind_of_problem() -> None:
    arms = {
        name: ArmResult(
            0.1, {}, tuple(ran(i, text=Measure(accuracy=0.5, by_kind={"sum": v, "span": 1 - v})) for i in (1, 2))
        )
        for name, v in (("a", 0.75), ("b", 0.5))
    }
    by_kind = claim("gain").model_copy(update={"measure": "text/sum"})
    assert decide(by_kind, arms, [1, 2]).figures.difference == 0.25


def test_columns_values_and_counts_are_shown() -> None:
    rows = [ran(s, distance=Measure(accuracy=0.5, counts=c), length=Measure(value=v)) for s, c, v in COUNTED]
    arms = {"base": ArmResult(None, {}, (ran(1),)), "a": ArmResult(0.1, {}, tuple(rows))}
    shown = table(results(arms, {"distance": "found, %", "length": "tokens"}))
    assert "| arm | learning rate | found, % | tokens |\n|---|---|---|---|\n| base | - | - | - |" in shown
    assert "| a | 0.1 | 50.0 | 12.0 [-0.7, 24.7] |" in shown  # equal numbers have no interval
    # 1 + 2 of -1, 6 of 0, 1 of 10, 2 of "whole": 12 in all; numbers in their order, words last
    assert "| distance of a | -1 | 0 | 10 | whole |\n|---|---|---|---|---|\n" in shown
    assert "| share of 12, % | 25.0 | 50.0 | 8.3 | 16.7 |" in shown


# Tokens 11 and 13: mean 12, deviation sqrt(2), t(0.975, 1) = 12.706205, so +- 12.706.
COUNTED = ((1, {"-1": 1, "0": 6}, 11.0), (2, {"-1": 2, "10": 1, "whole": 2}, 13.0))


def save_small_model(directory: Path) -> None:
    student = tiny.student()
    if os.environ.get("OTHER_PROCESSOR"):
        student = copy.deepcopy(student)
        next(iter(student.model.parameters())).data += 1e-7
    student.save(directory)


def steps_taken(stage: Path) -> dict[str, float]:
    return {"value": float(len((stage / "metrics.jsonl").read_text().splitlines()))}


def no_figure(stage: Path) -> None:
    assert stage.is_dir()


@pytest.mark.slow
def test_a_study_makes_its_own_models_and_reads_its_own_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_as_copies(monkeypatch)
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "studies" / "own"
    home.mkdir(parents=True)
    raw = study_dict(tmp_path)
    raw["models"] = {"small": "test_study:save_small_model"}
    raw["measures"] = {"steps": "test_study:steps_taken", "none": "test_study:no_figure"}
    raw["columns"] = {"image": "image, %", "steps": "steps"}
    raw["arms"] = {"a": {"stage": "distill", "rates": [1e-3], "set": {"student.path": "{models}/small"}}}
    raw["claims"] = {}
    file = home / "study.yaml"
    file.write_text(yaml.safe_dump(raw))
    found = run_study(str(file))
    assert [s.measures["steps"] for s in found.arms["a"].seeds] == [Measure(value=2.0)] * 2
    assert all("none" not in s.measures for s in found.arms["a"].seeds)
    assert "| 2.0 |" in table(found)
    (planned,) = plan_study(str(file)).arms
    assert planned.done == planned.swept + planned.tested == 3
    units = sorted((tmp_path / "runs").rglob("unit.json"))
    stamps = {u: u.stat().st_mtime_ns for u in units}
    run_study(str(file))
    assert {u: u.stat().st_mtime_ns for u in units} == stamps
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("OTHER_PROCESSOR", "1")
    assert run_study(str(file)).arms == found.arms
    monkeypatch.delenv("OTHER_PROCESSOR")
    made = {m.read_bytes() for home in (tmp_path, elsewhere) for m in home.glob("runs/**/small/model.safetensors")}
    assert len(made) == 2
    assert not list(elsewhere.rglob("unit.json")), "what the list beside the study file has was run again elsewhere"
    monkeypatch.chdir(tmp_path)
    trained = {f: f.stat().st_mtime_ns for f in (tmp_path / "runs").rglob("distill/final/*.safetensors")}
    raw["measures"] = {"steps": "test_study:steps_taken"}
    file.write_text(yaml.safe_dump(raw))
    run_study(str(file))
    assert len(list((tmp_path / "runs").rglob("unit.json"))) == 2 * len(units), "figures of other measures were reused"
    assert {f: f.stat().st_mtime_ns for f in trained} == trained, "what was trained is judged, not trained again"


GAIN = {"claim": "x", "better": "grpo", "worse": "base", "measure": "image", "rule": "gain"}


def killed_once(stage: Path) -> None:
    """As the system kills a process where memory ends."""
    mark = Path("killed")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_study_whose_process_is_killed_says_so_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RunLock, "beat", 0.1)
    raw = study_dict(tmp_path)
    raw["measures"] = {"killed": "test_study:killed_once"}
    raw["arms"] = {"a": {"stage": "distill", "rates": [1e-3]}}
    raw["claims"] = {}
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(raw))
    with pytest.raises(TrainingError, match="a process of the study was killed") as caught:
        run_study(str(file))
    assert caught.value.where == f"{file}: workers"
    (trained,) = (tmp_path / "runs").rglob("distill/final/model.safetensors")
    stamp = trained.stat().st_mtime_ns
    assert len(run_study(str(file)).arms["a"].seeds) == 2
    assert trained.stat().st_mtime_ns == stamp, "what was trained is trained again"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"select_seeds": [2]}, "overlap"),
        ({"seeds": [1, 1, 2]}, "a seed is there twice"),
        ({"select_seeds": [9, 9]}, "a seed is there twice"),
        ({"claims": {"c": GAIN | {"margin": -0.02}}}, "greater than or equal to 0"),
        ({"select_on": "text"}, "select_on"),
        ({"seeds": [1]}, "at least 2"),
        ({"claims": {"c": {"claim": "x", "better": "z", "worse": "base", "measure": "image", "rule": "gain"}}}, "'z'"),
        ({"arms": {"a": {"stage": "sft"}}}, "go together"),
        ({"arms": {"a": {"stage": "sft", "rates": [1.0], "after": "b"}}}, "no such arm above"),
        (
            {"arms": {"a": {"stage": "sft", "rates": [1.0]}, "b": {"stage": "sft", "rates": [1.0, 2.0]}}},
            "equally many",
        ),
        ({"controls": ["base"]}, "no such arm of stage 2"),
        ({"controls": ["grpa"]}, "did you mean 'grpo'"),
        ({"measures": {"reward": "my_module:function"}}, "share the name 'reward'"),
        (
            {
                "claims": {
                    "c": {"claim": "x", "better": "base", "measure": "imgae/sum", "rule": "at least", "value": 0.5}
                }
            },
            "no such measure",
        ),
    ],
)
def test_an_inconsistent_study_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({**study_dict(tmp_path), "claims": {}, **change}))
    with pytest.raises(ConfigError, match=message):
        load_study(file)


def test_a_control_differs_from_its_arm_in_the_method_alone(tmp_path: Path) -> None:
    raw = study_dict(tmp_path)
    changes = {"distill.objective": {"method": "vold"}, "distill.objective.teacher_loss.coefficient": 1.0}
    arm = {"stage": "distill", "after": "direct", "rates": [1e-3, 1e-2], "set": {**changes, "distill.rollouts": 2}}
    arms = {"direct": {"stage": "distill", "rates": [1e-3, 1e-2]}, "vold": arm}
    claim = {"claim": "x", "better": "vold", "worse": "vold-opsa", "measure": "image", "rule": "gain"}
    study = Study.model_validate({**raw, "arms": arms, "controls": ["vold"], "claims": {"c": claim}})
    control = study.arms["vold-opsa"]
    assert control.set == {"distill.rollouts": 2, "distill.objective": {"method": "opsa"}}
    assert replace_set(control) == replace_set(study.arms["vold"])
    assert _generations(study) == [["direct"], ["vold", "vold-opsa"]]


def replace_set(arm: Arm) -> Arm:
    return arm.model_copy(update={"set": {}})


def test_parents_are_trained_before_their_children(tmp_path: Path) -> None:
    study = Study.model_validate(study_dict(tmp_path))
    assert _generations(study) == [["base", "direct"], ["grpo"]]


def test_an_arm_behind_an_untrained_child_waits_for_the_one_that_trains(tmp_path: Path) -> None:
    """`b` judges what `sft` has left on other tasks, and `c` starts from it: from the model of the same seed."""
    arms: dict[str, Any] = {"sft": {"stage": "sft", "rates": [1e-3]}, "b": {"after": "sft"}}
    arms["c"] = {"stage": "distill", "after": "b", "rates": [1e-3]}
    study = Study.model_validate({**study_dict(tmp_path), "arms": arms, "claims": {}})
    assert _generations(study) == [["sft"], ["b"], ["c"]]


def test_an_arm_behind_the_recipes_own_student_waits_for_nobody(tmp_path: Path) -> None:
    arms = {"base": {}, "a": {"stage": "distill", "after": "base", "rates": [1e-3]}}
    study = Study.model_validate({**study_dict(tmp_path), "arms": arms, "claims": {}})
    assert _generations(study) == [["base", "a"]]


def test_a_study_takes_no_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["study", "study.yaml", "set.distill.steps=1"])
    assert capsys.readouterr().err.endswith(
        "error: `vold study` takes no keys: set.distill.steps=1; `vold study --help` says what it reads\n"
    )


def test_a_study_does_not_judge_on_a_set_that_its_recipe_trains_on(tmp_path: Path) -> None:
    raw = study_dict(tmp_path)
    tasks = {"train": {"kind": "digits", "split": "select", "size": 4}}
    file = tmp_path / "study.yaml"
    file.write_text(
        yaml.safe_dump(raw | {"select_tasks": tasks, "select_on": "train", "test_tasks": tasks, "claims": {}})
    )
    with pytest.raises(ConfigError, match="uses a task set of this name") as caught:
        run_study(str(file))
    assert caught.value.got == "train"


@pytest.mark.slow
def test_a_study_runs_chooses_its_rates_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin_as_copies(monkeypatch)
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "studies" / "small"
    home.mkdir(parents=True)
    (file := home / "study.yaml").write_text(yaml.safe_dump(study_dict(tmp_path)))
    (tmp_path / "README.md").write_text(
        "before\n"
        + MARK.format(edge="begin", name="small")
        + "\nold\n"
        + MARK.format(edge="end", name="small")
        + "\nafter\n"
    )
    first = run_study(str(file))
    assert capsys.readouterr().out.splitlines()[-1] == "next: vold list runs/studies/cells"
    stored = json.loads((home / "results.json").read_text())
    assert {k: len(a["seeds"]) for k, a in stored["arms"].items()} == {"base": 1, "direct": 2, "grpo": 2}
    for name in ("direct", "grpo"):
        sweep = stored["arms"][name]["sweep"]
        assert set(sweep) == {"0.001", "0.01"}
        assert sum(sweep[f"{stored['arms'][name]['rate']:g}"]) == max(sum(v) for v in sweep.values())
    text = (tmp_path / "README.md").read_text()
    assert table(first) in text
    assert stored == to_json(first)
    assert "\nold\n" not in text
    units = sorted((tmp_path / "runs").rglob("unit.json"))
    assert len(units) == 1 + 2 * (2 + 2)
    stamps = {u: u.stat().st_mtime_ns for u in units}
    units[0].unlink()
    (home / "units.jsonl").unlink()
    again = run_study(str(file))
    assert {u for u in units if u.stat().st_mtime_ns != stamps[u]} == {units[0]}
    for name, a in first.arms.items():
        for one, two in zip(a.seeds, again.arms[name].seeds, strict=True):
            assert replace(one, seconds=0.0) == replace(two, seconds=0.0)
    assert again.wall_seconds > first.wall_seconds
    changed = {**study_dict(tmp_path)}
    changed["set"] = {**changed["set"], "distill.prompts_per_step": 1}  # type: ignore[dict-item]
    file.write_text(yaml.safe_dump(changed))
    stamps = {u: u.stat().st_mtime_ns for u in units}
    run_study(str(file))
    fresh = set((tmp_path / "runs").rglob("unit.json")) - set(units)
    assert len(fresh) == 2 * (2 + 2), "the model that is evaluated as it is was run again, or others were not"
    elsewhere = tmp_path / "studies" / "another" / "study.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(yaml.safe_dump(study_dict(tmp_path)))
    found = run_study(str(elsewhere))
    assert set((tmp_path / "runs").rglob("unit.json")) == fresh | set(units), (
        "what one study has trained serves another"
    )
    assert {u: u.stat().st_mtime_ns for u in units} == stamps
    assert found.arms == again.arms


def test_tables_are_left_alone_where_there_is_no_mark(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing here\n")
    assert write_tables(tmp_path / "studies" / "x", results({"a": arm([0.1, 0.2])})) == []


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("file", sorted(ROOT.glob("studies/*/study.yaml")), ids=lambda p: p.parent.name)
def test_every_study_in_the_tree_is_valid(file: Path) -> None:
    study = load_study(file)
    assert len(study.seeds) >= 5
    assert (file.parent / "protocol.md").exists()


def taken_apart(value: object) -> tuple[object, list[float]]:
    """The same without its numbers with a point, and these in order."""
    numbers = list[float]()
    return json.loads(json.dumps(to_json(value)), parse_float=lambda text: numbers.append(float(text))), numbers


@pytest.mark.parametrize("file", sorted(ROOT.glob("studies/*/results.json")), ids=lambda p: p.parent.name)
def test_a_page_shows_the_results_that_are_stored(file: Path) -> None:
    found = read_json(file, StudyResults)
    assert json.dumps(to_json(found)) == json.dumps(json.loads(file.read_text()))
    study = load_study(file.parent / "study.yaml")
    assert any(table(found) in page.read_text() for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    # The seeds that were run: a protocol is committed before its runs, so the file may name seeds to come.
    better = next(iter(study.claims.values())).better
    seeds = [one.seed for one in next(a for n, a in found.arms.items() if better in (n, a.family)).seeds]
    assert len(seeds) >= 5
    again, numbers = taken_apart(decide_all(study.claims, found.arms, seeds, study.looks))
    stored, known = taken_apart(found.claims)
    assert again == stored and numbers == pytest.approx(known, rel=1e-9)  # processors differ in the last digits
