"""Whole evaluations as a user runs them: every benchmark, killed and continued, compared, and refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

import layouts
import metric_docs
from killed import in_a_process_killed_at
from vold.cli import main
from vold.data.benchmarks.registry import benchmarks
from vold.evals.evaluate import evaluate
from vold.run.answers import ModelStamp
from vold.run.files import read_jsonl
from vold.run.recipe import load_recipe

ROOT = Path(__file__).parents[2]
MINI = ROOT / "recipes" / "eval-mini.yaml"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mini recipe with its paths made absolute."""
    raw = yaml.safe_load(MINI.read_text())
    raw["student"]["path"] = str(ROOT / raw["student"]["path"])
    for spec in raw["eval"]["benchmarks"].values():
        spec["path"] = str(ROOT / spec["path"])
    file = tmp_path_factory.mktemp("mini") / "mini.yaml"
    file.write_text(yaml.safe_dump(raw))
    return file


@pytest.fixture(scope="module")
def run(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole evaluation of every benchmark."""
    directory = tmp_path_factory.mktemp("run") / "run"
    assert main(["eval", str(recipe), f"run.dir={directory}"]) == 0
    return directory


def answers_of(directory: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted((directory / "eval" / "base").iterdir())}


def test_every_benchmark_is_in_the_mini_recipe_and_runs(run: Path) -> None:
    results = json.loads((run / "eval" / "results.json").read_text())
    assert set(results["sets"]) == set(benchmarks())
    # Counted by hand in layouts.py: rows, less bad rows, less golds that do not grade themselves.
    expected = {
        "mmmu_pro_standard10": (4, 0, 1),
        "mmmu_pro_standard4": (4, 0, 1),
        "mmmu_pro_vision": (4, 0, 0),
        "mathvision": (9, 0, 0),
        "mathvista": (6, 0, 1),
        "logicvista": (5, 1, 0),
        "mmmu": (3, 0, 0),
        "mathverse": (10, 0, 5),
        "mathverse_vision_only": (2, 0, 1),
        "wemath": (10, 0, 0),
        "dynamath": (6, 0, 0),
        "mmstar": (4, 0, 0),
        "mme": (56, 0, 0),
        "hallusionbench": (5, 0, 0),
        "geometry3k": (3, 0, 0),
        "emma_mini": (4, 0, 0),
        "visulogic": (3, 0, 0),
        "olympiadbench_mm_maths": (3, 0, 0),
        "math500": (3, 0, 0),
        "gsm8k": (2, 1, 0),
        "aime2024": (2, 0, 0),
        "aime2025": (2, 1, 0),
    }
    for name, (kept, bad_rows, bad_golds) in expected.items():
        about, figures = results["sets"][name], results["stages"]["base"][name]
        assert (figures["n"], len(about["bad_rows"]), len(about["bad_golds"])) == (kept, bad_rows, bad_golds), name
        rows = read_jsonl(run / "eval" / "base" / f"{name}.jsonl")
        assert len(rows) == 2 * kept
        assert sum(figures["outcomes"].values()) == len(rows)
        assert figures["accuracy"] == pytest.approx(sum(r["score"] for r in rows) / len(rows))
        assert {len(about["protocol"]["hash"])} == {16}
    ten, vision = (results["stages"]["base"][f"mmmu_pro_{s}"]["accuracy"] for s in ("standard10", "vision"))
    assert results["mmmu_pro_overall"]["base"]["value"] == pytest.approx((ten + vision) / 2)
    headlines = {(h["set"], h["score"]): h["value"] for h in results["headlines"]}
    assert headlines["mmmu_pro", "overall"] == pytest.approx((ten + vision) / 2)
    assert headlines["mme", "perception"] == results["stages"]["base"]["mme"]["derived"]["perception"]["value"]
    assert {s for s, _ in headlines} == set(benchmarks()) | {"mmmu_pro"}
    assert (run / "eval" / "results.html").stat().st_size > 20_000


def test_every_key_of_the_results_stands_on_the_page_of_metrics_and_is_seen(run: Path) -> None:
    """But comparisons, as there is one model only, and what the protocol `rule` has not: published figures, a judge and
    VLMEvalKit's verdict."""
    known = metric_docs.on_the_page()["eval/results.json"]
    found = metric_docs.keys_of([json.loads((run / "eval" / "results.json").read_text())], known)
    for place, names in found.items():
        judged = {"as_vlmevalkit", "judge_agreement"}
        if not (place.startswith(("comparisons", "sets.*.published")) or place.rpartition(".")[2] in judged):
            assert names == known[place] - judged, place


def test_clusters_are_the_shared_sources(run: Path) -> None:
    stages = json.loads((run / "eval" / "results.json").read_text())["stages"]["base"]
    assert stages["mathverse"]["clusters"] == 2  # problems, of five versions each
    assert stages["dynamath"]["clusters"] == 3  # seed questions, of two variants each
    assert stages["wemath"]["clusters"] == 3  # composite problems
    assert stages["mathvista"]["clusters"] == 6


def test_a_second_evaluation_gives_the_same_bytes(recipe: Path, run: Path, tmp_path: Path) -> None:
    before = answers_of(run)
    assert main(["eval", str(recipe), f"run.dir={run}"]) == 0
    assert answers_of(run) == before
    assert main(["eval", str(recipe), f"run.dir={tmp_path / 'again'}"]) == 0
    assert answers_of(tmp_path / "again") == before


@pytest.mark.parametrize("operation", [5, 12, 21, 30])
def test_a_killed_evaluation_goes_on_and_gives_the_same_bytes(
    recipe: Path, run: Path, tmp_path: Path, operation: int
) -> None:
    made = load_recipe(recipe, [f"run.dir={tmp_path / 'run'}"])
    assert not in_a_process_killed_at(operation, lambda: evaluate(made))
    partly = {f.name for f in (tmp_path / "run" / "eval" / "base").glob("*.jsonl")}
    assert len(partly) < len(benchmarks())
    evaluate(made)
    assert answers_of(tmp_path / "run") == answers_of(run)


def test_runs_are_compared_item_by_item(
    recipe: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    assert main(["eval", str(recipe), f"run.dir={other}", "run.seed=2"]) == 0
    capsys.readouterr()
    assert main(["compare", str(run), str(other)]) == 0
    out = capsys.readouterr().out
    assert "mathverse_vision_only" in out
    assert "detectable" in out


def test_another_protocol_is_refused_with_every_field_named_unless_forced(
    recipe: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    assert main(["eval", str(recipe), f"run.dir={other}", "eval.sampling.temperature=0.5", "eval.samples=1"]) == 0
    capsys.readouterr()
    assert main(["compare", str(run), str(other)]) == 2
    err = capsys.readouterr().err
    assert "not comparable" in err
    assert "temperature: 1.0 and 0.5" in err
    assert "answers to each problem: 2 and 1" in err
    assert main(["compare", str(run), str(other), "force=true"]) == 0
    assert "forced although the protocols differ" in capsys.readouterr().out


def test_a_mistake_in_a_set_claims_no_directory_and_sets_may_come_and_go(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, where = ROOT / "recipes" / "eval-mini" / "data", f"run.dir={tmp_path / 'run'}"
    assert main(["eval", str(recipe), where, "eval.benchmarks={math500: {path: nowhere}}"]) == 2
    assert not (tmp_path / "run").exists()
    one = f"math500: {{path: {data / 'math500.jsonl'}}}"
    assert main(["eval", str(recipe), where, f"eval.benchmarks={{{one}}}"]) == 0
    before = answers_of(tmp_path / "run")
    two = f"gsm8k: {{path: {data / 'gsm8k.jsonl'}}}"
    assert main(["eval", str(recipe), where, f"eval.benchmarks={{{one}, {two}}}"]) == 0
    assert before.items() < answers_of(tmp_path / "run").items()
    capsys.readouterr()
    assert main(["eval", str(recipe), where, f"eval.benchmarks={{{one.replace('}', ', limit: 2}')}}}"]) == 2
    assert "eval.benchmarks.math500.limit" in capsys.readouterr().err


def test_other_data_is_another_protocol(
    recipe: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = layouts.mathvision()
    rows[0]["answer"] = "12"
    file = layouts.parquet(tmp_path / "changed.parquet", rows)
    only = f"eval.benchmarks={{mathvision: {{path: {file}, split: testmini}}}}"
    assert main(["eval", str(recipe), f"run.dir={tmp_path / 'other'}", only]) == 0
    capsys.readouterr()
    assert main(["compare", str(run), str(tmp_path / "other")]) == 2
    assert "questions, pictures or golds" in capsys.readouterr().err


def test_changed_data_is_answered_afresh(recipe: Path, tmp_path: Path) -> None:
    file = layouts.parquet(tmp_path / "data.parquet", layouts.mathvision())
    override = f"eval.benchmarks={{mathvision: {{path: {file}, split: testmini}}}}"
    arguments = ["eval", str(recipe), f"run.dir={tmp_path / 'run'}", override]
    assert main(arguments) == 0
    rows = layouts.mathvision()
    rows[0]["question"] = "How many now? <image1>"
    layouts.parquet(file, rows)
    assert main(arguments) == 0
    stored = read_jsonl(tmp_path / "run" / "eval" / "base" / "mathvision.jsonl")
    assert "How many now?" in stored[0]["prompt"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("eval.benchmarks={mathvison: {}}", "did you mean 'mathvision'"),
        ("eval.benchmarks={mathvista: {split: test}}", "no such split"),
        ("eval.benchmarks={mathvista: {path: nowhere.zip}}", "no such data"),
        ("eval.benchmarks={mathvista: {protocol: vlmevalkit}}", "needs a judge"),
        ("eval.benchmarks={}", "needs `tasks` or `benchmarks`"),
    ],
)
def test_mistakes_are_named(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, words: str
) -> None:
    assert main(["eval", str(recipe), f"run.dir={tmp_path / 'run'}", override]) == 2
    assert words in capsys.readouterr().err


def test_the_wrong_file_names_the_missing_column(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = layouts.parquet(tmp_path / "x.parquet", layouts.mmstar())
    override = f"eval.benchmarks={{mathvision: {{path: {file}, split: testmini}}}}"
    assert main(["eval", str(recipe), f"run.dir={tmp_path / 'run'}", override]) == 2
    err = capsys.readouterr().err
    assert "there is no column 'id'" in err
    assert "l2_category" in err


def test_a_question_too_long_for_the_context_is_stored_as_truncated(recipe: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "recipes" / "eval-mini" / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 200
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    rows = [
        {"problem": "What is 1 / 2?" * (30 if n else 1), "answer": "1", "subject": "a", "level": 1, "unique_id": str(n)}
        for n in range(2)
    ]
    file = tmp_path / "m.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    overrides = [
        f"run.dir={tmp_path / 'run'}",
        f"student.path={tmp_path / 'model'}",
        f"eval.benchmarks={{math500: {{path: {file}}}}}",
    ]
    assert main(["eval", str(recipe), *overrides]) == 0
    stored = read_jsonl(tmp_path / "run" / "eval" / "base" / "math500.jsonl")
    assert [r["outcome"] == "truncated" and "was not asked" in r["note"] for r in stored] == [False, False, True, True]
    assert (
        main(["eval", str(recipe), *overrides, "eval.sampling.max_new_tokens=200", f"run.dir={tmp_path / 'no'}"]) == 0
    )
    stored = read_jsonl(tmp_path / "no" / "eval" / "base" / "math500.jsonl")
    assert [r["outcome"] for r in stored] == ["truncated"] * 4, "there is room for no answer"


def test_two_models_are_compared_also_in_derived_scores(recipe: Path, tmp_path: Path) -> None:
    model = ROOT / "recipes" / "eval-mini" / "model"
    overrides = [f"run.dir={tmp_path / 'run'}", f"eval.models={{a: {model}, b: {model}}}"]
    assert main(["eval", str(recipe), *overrides]) == 0
    results = json.loads((tmp_path / "run" / "eval" / "results.json").read_text())
    found = {c["set"]: c for c in results["comparisons"]}
    # The same weights and seeds: no difference anywhere, and none in the derived scores.
    assert {c["difference"] for c in found.values()} == {0.0}
    assert found["dynamath"]["derived"]["worst_case"]["difference"] == 0.0
    assert found["wemath"]["derived"]["score_strict"]["n"] == 3


def test_a_check_says_how_many_of_a_benchmarks_items_would_be_asked(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ROOT / "recipes" / "eval-mini" / "data" / "mmmu_pro_standard10"
    one = f"{{mmmu_pro_standard10: {{path: {data}}}}}"
    assert main(["check", str(recipe), f"run.dir={tmp_path / 'run'}", f"eval.benchmarks={one}"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "4 of 1,730 items (1,725 not in the data, 1 with a gold that cannot be marked)" in told


def with_a_trained_model(recipe: Path, home: Path) -> tuple[Path, Path]:
    """The recipe with a single benchmark, and a run of it, evaluated, whose cold start has left the model as it was."""
    raw = yaml.safe_load(recipe.read_text())
    raw["eval"]["benchmarks"] = {"mathvista": raw["eval"]["benchmarks"]["mathvista"]}
    (file := home / "one.yaml").write_text(yaml.safe_dump(raw))
    shutil.copytree(raw["student"]["path"], home / "before" / "sft" / "final")
    assert main(["eval", str(file), f"run.dir={home / 'before'}"]) == 0
    return file, home / "before"


def made_when(run: Path, model: str) -> int:
    return (run / "eval" / model / "mathvista.jsonl").stat().st_mtime_ns


def test_the_answers_of_a_run_that_was_renamed_stay(recipe: Path, tmp_path: Path) -> None:
    file, run = with_a_trained_model(recipe, tmp_path)
    before = made_when(run, "sft")
    after = run.rename(tmp_path / "after")
    assert main(["eval", str(file), f"run.dir={after}"]) == 0
    assert made_when(after, "sft") == before
    assert json.loads((after / "eval/sft/model.json").read_text())["path"] == str(after / "sft" / "final")


def test_a_model_with_other_weights_is_answered_afresh(recipe: Path, tmp_path: Path) -> None:
    file, run = with_a_trained_model(recipe, tmp_path)
    before = {model: made_when(run, model) for model in ("base", "sft")}
    weights = run / "sft" / "final" / "model.safetensors"
    save_file({name: found + 1.0 for name, found in load_file(weights).items()}, weights, {"format": "pt"})
    assert main(["eval", str(file), f"run.dir={run}"]) == 0
    assert made_when(run, "base") == before["base"] and made_when(run, "sft") > before["sft"]


NOTHING = hashlib.sha256(b"").hexdigest()
"""The digest of no weight file at all."""


@pytest.mark.parametrize(
    ("before", "now", "same"), [("ab", "ab", True), ("ab", "cd", False), (NOTHING, NOTHING, False)], ids=str
)
def test_a_stamp_of_another_path_is_of_the_same_model_where_the_weights_say_so(
    before: str, now: str, same: bool
) -> None:
    assert ModelStamp("there", now).is_of(ModelStamp("here", before)) == same
