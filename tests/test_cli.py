"""Mistakes as a user types them: exit status 2, what, where and how to mend it, and never a traceback."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import tiny
from vold.cli import VERBS, main
from vold.objective import PRESETS, Objective
from vold.run.files import read_jsonl

ROOT = Path(__file__).parent.parent
DEMO = str(ROOT / "recipes" / "demo.yaml")


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """A recipe file over tiny models."""
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(tiny.recipe_dict(tmp_path)))
    return str(tmp_path / "r.yaml")


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(list(argv)) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"vold {argv[0]}: ")
    assert "Traceback" not in err
    return err


def data_file(tmp_path: Path, *rows: object) -> str:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return f"{{kind: jsonl, path: {file}}}"


GOOD = {"prompt": "digits 3 5 . sum ?", "reference": "8"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([GOOD, {"prompt": "digits 1 . sum ?"}], ["reference", "line 2"]),
        ([GOOD, {"prompt": "digits 1 . sum ?", "reference": " "}], ["empty reference", "line 2"]),
        ([GOOD, "{not json"], ["line 2"]),
        ([{**GOOD, "refrence": "8"}], ["refrence", "line 1"]),
        ([{**GOOD, "grader": "exakt"}], ["unknown grader", "line 1, key grader", "did you mean 'exact'?"]),
        ([], ["not a single task"]),
        ([{**GOOD, "reference": "\\frac{1}{", "grader": "math"}], ["itself", "rows-1"]),
        ([{**GOOD, "reference": "banana", "grader": "choice"}], ["itself", "rows-1"]),
        ([{**GOOD, "images": ["nowhere.png"]}], ["cannot open this picture", "line 1"]),
    ],
)
def test_rows_that_cannot_be_used_are_named(
    rows: list[object], said: list[str], recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = fails(capsys, "check", recipe, f"tasks.bad={data_file(tmp_path, *rows)}", "distill.tasks=bad")
    for text in said:
        assert text in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["check", "nowhere.yaml"], "cannot read this recipe"),
        (["sft", DEMO, "sft.stepz=3"], "did you mean 'steps'?"),
        (["distill", DEMO, "tasks.train={kind: jsonl, path: x.jsonl, grader: exakt}"], "did you mean 'exact'?"),
        (["distill", DEMO, "distill.objective.teacher_loss.estimator=k1"], "k1"),
        (["check", DEMO, "student.path=demo:pupil"], "demo:student"),
        (["check", DEMO, "student.path=/nowhere/at/all"], "no model directory"),
        (["check", DEMO, "distill.sampling.max_new_tokens=4000"], "do not fit"),
        (["show", "/nowhere/at/all"], "/nowhere/at/all"),
        (["study", "nowhere.yaml"], "cannot read this study"),
    ],
)
def test_typing_mistakes_are_answered_in_words(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in fails(capsys, *argv)


def test_stages_out_of_order_say_what_to_run_first(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "vold traces" in fails(capsys, "sft", recipe)
    assert "vold sft" in fails(capsys, "distill", recipe)


def test_a_teacher_with_other_ids_is_refused_before_anything_runs(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "teacher" / "tokenizer.json"
    text = json.loads(file.read_text())
    words = text["model"]["vocab"]
    words["sum"], words["span"] = words["span"], words["sum"]
    file.write_text(json.dumps(text))
    for verb in ("check", "traces"):
        err = fails(capsys, verb, recipe)
        assert "other ids to 2" in err
        assert "'sum'" in err
    assert not list((tmp_path / "run").rglob("traces.jsonl"))


def test_a_teacher_that_stops_with_another_token_is_refused(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "teacher" / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config["eos_token"] = "<pad>"
    file.write_text(json.dumps(config))
    assert "end a response with different tokens" in fails(capsys, "check", recipe)


def test_a_corrupt_checkpoint_is_named_and_left_in_place(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_traces(tmp_path, tiny.recipe(tmp_path))
    assert main(["sft", recipe]) == 0
    (checkpoint,) = (tmp_path / "run" / "sft").glob("step-*")
    weights = checkpoint / "weights.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(bytes(raw))
    final = tmp_path / "run" / "sft" / "final"
    final.rename(tmp_path / "set-aside")
    err = fails(capsys, "sft", recipe)
    assert "corrupt" in err
    assert "weights.safetensors" in err
    assert weights.exists()
    (tmp_path / "set-aside" / "model.safetensors").write_bytes(b"\0" * 64)
    (tmp_path / "set-aside").rename(final)
    assert "corrupt" in fails(capsys, "distill", recipe)


def test_a_run_directory_is_not_continued_with_other_settings(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_traces(tmp_path, tiny.recipe(tmp_path))
    assert main(["sft", recipe]) == 0
    err = fails(capsys, "sft", recipe, "sft.optimizer.lr=0.5")
    assert "sft.optimizer.lr: 0.001 before, 0.5 now" in err
    assert "traces.keep" in fails(capsys, "sft", recipe, "traces.keep=correct")


def test_weights_that_are_not_numbers_are_refused_before_training(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_traces(tmp_path, tiny.recipe(tmp_path))
    file = tmp_path / "student" / "model.safetensors"
    tensors = load_file(file)
    name = next(n for n in tensors if "visual" not in n and "norm" in n)
    tensors[name][0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    err = fails(capsys, "sft", recipe)
    assert "does not give finite numbers" in err
    assert str(tmp_path / "student") in err


def test_an_answer_that_hangs_the_grader_is_counted_and_the_evaluation_ends(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vold.model.chat import Chat

    rows = [{"prompt": f"digits {i} . sum ?", "reference": "1/3", "grader": "math"} for i in range(3)]
    hostile = iter(["\\boxed{9^{9^{9^{9}}}}", "\\boxed{\\frac{2}{6}}", "\\boxed{((10!)!)!}"])
    monkeypatch.setattr(Chat, "text", lambda _self, _ids: next(hostile))
    tasks = data_file(tmp_path, *rows)
    finite = "eval.sampling={max_new_tokens: 60, temperature: 0}"
    assert main(["eval", recipe, f"tasks.text={tasks}", "eval.tasks=[text]", finite]) == 0
    stored = read_jsonl(tmp_path / "run" / "eval" / "base" / "text.jsonl")
    assert len(stored) == 3
    assert stored[0]["score"] == stored[2]["score"] == 0.0
    assert stored[0]["outcome"] != "right"


def test_check_of_the_demo_recipe_prints_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", DEMO]) == 0
    out = capsys.readouterr().out
    for text in (
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen3ForCausalLM",
        "105 of the student's 105 tokens",
        "eval.tasks: image",
    ):
        assert text in out


def test_unknown_verbs_and_missing_arguments_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["distil", DEMO], ["sft"], []):
        with pytest.raises(SystemExit) as stopped:
            main(argv)
        assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert "no verb 'distil'; did you mean 'distill'?" in err
    assert "required: RECIPE" in err
    assert "give a verb: init, check, run, traces" in err


def test_every_verb_has_a_help_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    said = set()
    for name, verb in VERBS.items():
        with pytest.raises(SystemExit) as stopped:
            main([name, "--help"])
        assert stopped.value.code == 0
        out = capsys.readouterr().out
        assert out.startswith(f"usage: vold {name} ")
        assert verb.help and verb.help in out
        assert all(one in out for one in verb.takes)
        said.add(verb.help)
    assert len(said) == len(VERBS)


def test_help_of_a_verb_may_be_asked_for_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["help", "show"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("usage: vold show ")
    with pytest.raises(SystemExit, match="2"):
        main(["help", "shwo"])
    assert "no verb 'shwo'; did you mean 'show'?" in capsys.readouterr().err


def test_a_slip_in_an_option_or_a_demo_model_is_answered_with_what_was_meant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["show", "runs/a", "--sevre"])
    assert "unrecognized arguments: --sevre; did you mean --serve?" in capsys.readouterr().err
    assert main(["check", DEMO, "student.path=demo:studnt"]) == 2
    assert "did you mean 'demo:student'?" in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_args: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(VERBS, "sft", replace(VERBS["sft"], run=interrupted))
    assert main(["sft", DEMO]) == 130
    assert "goes on from here" in capsys.readouterr().err


def test_a_fault_of_the_program_shows_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def faulty(_args: argparse.Namespace) -> None:
        raise KeyError("a\x1b[2J")

    monkeypatch.setitem(VERBS, "sft", replace(VERBS["sft"], run=faulty))
    assert main(["sft", DEMO]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "in faulty" in err
    assert "please report it" in err
    assert "\x1b[" not in err


def test_the_installed_command_prints_an_error_and_status_two(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vold.cli", "sft", str(tmp_path / "none.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("vold sft: cannot read this recipe")


def test_the_whole_pipeline_runs_verb_by_verb(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write_traces(tmp_path, tiny.recipe(tmp_path))
    for verb in ("check", "traces", "align", "sft", "align", "distill", "eval"):
        assert main([verb, recipe]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "paired difference" in out
    results = json.loads((tmp_path / "run" / "eval" / "results.json").read_text())
    assert list(results["stages"]) == ["base", "sft", "vold"]
    for model, sets in results["stages"].items():
        for name, figures in sets.items():
            scores = [r["score"] for r in read_jsonl(tmp_path / "run" / "eval" / model / f"{name}.jsonl")]
            mean = sum(scores) / 10
            variance = sum((s - mean) ** 2 for s in scores) / 9
            assert figures["accuracy"] == pytest.approx(mean)
            assert figures["stderr"] == pytest.approx((variance / 10) ** 0.5)
            assert sum(figures["outcomes"].values()) == figures["n"] == 10
    assert main(["show", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report.html").stat().st_size > 5000


def test_run_takes_every_stage_in_order_and_ends_as_verb_by_verb(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_traces(tmp_path, tiny.recipe(tmp_path))
    one, other = tmp_path / "one", tmp_path / "other"
    shutil.copytree(tmp_path / "run", one)
    (tmp_path / "run").rename(other)
    commands = []
    for verb in ("check", "sft", "align", "distill", "eval"):
        assert main([verb, recipe, f"run.dir={other}"]) == 0, capsys.readouterr().err
        commands += [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    assert [c.split()[2] for c in commands] == ["run", "align", "distill", "eval", "show"]
    assert main(["check", recipe, f"run.dir={other}", "distill.steps=8"]) == 0
    found = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"ok sft done, 6 steps", "ok distill continues from step-000006"} <= {*found}
    assert main(["run", recipe, f"run.dir={one}"]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    places = [out.index(f"\n{stage}: ") for stage in ("check", "traces", "sft", "align", "distill", "eval")]
    assert places == sorted(places)
    assert out.splitlines()[-1] == f"next: vold show {one}"
    assert (one / "report.html").is_file()
    for stage in ("sft", "distill"):
        mine, theirs = (load_file(place / stage / "final" / "model.safetensors") for place in (one, other))
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)
    stamps = {file: file.stat().st_mtime_ns for file in one.rglob("*.safetensors")}
    assert main(["run", recipe, f"run.dir={one}"]) == 0
    assert {file: file.stat().st_mtime_ns for file in one.rglob("*.safetensors")} == stamps


def test_a_recipe_of_the_package_is_found_by_its_name_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", "demo", "run.dir=here"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "next: vold run demo run.dir=here"
    assert "did you mean sod-mini?" in fails(capsys, "sft", "sod-minni")
    Path("sod-minni").write_text("[]")
    assert "a recipe is a mapping" in fails(capsys, "sft", "sod-minni")


def test_an_evaluation_is_made_afresh_when_the_weights_have_changed(recipe: str, tmp_path: Path) -> None:
    assert main(["eval", recipe]) == 0
    file = tmp_path / "run" / "eval" / "base" / "text.jsonl"
    before = file.read_text()
    assert main(["eval", recipe]) == 0
    assert file.read_text() == before
    tiny.student(seed=9).save(tmp_path / "student")
    assert main(["eval", recipe]) == 0
    assert file.read_text() != before


def test_a_model_compared_with_itself_has_no_gap(recipe: str, tmp_path: Path) -> None:
    student = tmp_path / "teacher"
    assert main(["align", recipe, f"student={{path: {student}, freeze: []}}"]) == 0
    figures = json.loads((tmp_path / "run" / "align" / "align.json").read_text())
    assert figures["kl"] == pytest.approx(0.0, abs=1e-6)
    assert figures["top1_agreement"] == 1.0
    assert figures["student_entropy"] == pytest.approx(figures["teacher_entropy"])


def test_an_expansion_is_what_a_recipe_would_resolve_the_method_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "sod", "--expand", "reading=library"]) == 0
    tree = yaml.safe_load(capsys.readouterr().out)["objective"]
    assert tree["teacher_advantage"]["steps"]["delta"] == 0.5
    assert Objective.model_validate(tree) == Objective.model_validate({"method": "sod", "reading": "library"})


def test_the_list_of_methods_and_one_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in PRESETS)
    assert main(["methods", "uni_opd"]) == 0
    assert "reading=mask" in capsys.readouterr().out
    assert main(["methods", "sodd", "--expand"]) == 2
    assert "there is no such method" in capsys.readouterr().err


def test_expand_belongs_to_one_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "recipes/demo.yaml", "--expand"])
    assert "unrecognized arguments: --expand" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["schema"], ["completion", "bash"]], ids=" ".join)
def test_a_reader_that_stops_reading_is_no_error(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "vold.cli", *words], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
