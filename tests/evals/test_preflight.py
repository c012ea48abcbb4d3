"""`vold check`: what it refuses, what it warns of, and that it leaves recipes alone in which nothing is odd."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from vold.cli import main
from vold.evals.disk import planned, probe, size_text, state_bytes
from vold.evals.recipe_doubts import recipe_doubts
from vold.evals.subject import Subject
from vold.model.place import Place
from vold.model.policy import Policy
from vold.run.directory import open_stage
from vold.run.recipe import Recipe, load_recipe
from vold.run.shipped import resolve
from vold.training.optim import apply_update, build_optimizer
from vold.training.state_writer import StateWriter

RECIPES = Path(__file__).parents[2] / "recipes"
DEMO = str(RECIPES / "demo.yaml")
SMALL = (
    "tasks.cold_start.size=40", "tasks.train.size=40", "tasks.image.size=8", "tasks.text.size=8",
    "tasks.overlap.size=8", "sft.batch_size=8", "sft.steps=40",
)  # fmt: skip
"""The demo with little data."""


def checked(capsys: pytest.CaptureFixture[str], *overrides: str, recipe: str = DEMO) -> list[str]:
    """Keys of the warnings of `vold check`, which ends well whatever they are and says how many there were."""
    assert main(["check", recipe, *overrides]) == 0
    said = capsys.readouterr().out
    warned = re.findall(r"^warn  (.+?)  ", said, re.MULTILINE)
    counted = re.findall(r"^(\d+) warnings?:", said, re.MULTILINE)
    assert counted == ([str(len(warned))] if warned else [])
    return warned


def rows(tmp_path: Path, *found: dict[str, Any]) -> str:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in found))
    return f"{{kind: jsonl, path: {file}, grader: exact}}"


@pytest.fixture
def home(tmp_path: Path) -> list[str]:
    return [*SMALL, f"run.dir={tmp_path / 'run'}"]


ONE = {
    "rollouts of one": (["distill.rollouts=1"], "distill.rollouts"),
    "a verdict without weight": (["distill.objective.outcome.weight=0"], "distill.objective.outcome.weight"),
    "more traces a step than there are": (["sft.batch_size=41"], "sft.batch_size"),
    "many passes": (["sft.steps=300"], "sft.steps"),
    "more prompts a step than there are": (["distill.prompts_per_step=41"], "distill.prompts_per_step"),
    "a warm-up without end": (["sft.optimizer.warmup_steps=40"], "sft.optimizer.warmup_steps"),
    "a warm-up of stage 2": (["distill.optimizer.warmup_steps=700"], "distill.optimizer.warmup_steps"),
    "no checkpoint": (["sft.checkpoint_every=41"], "sft.checkpoint_every"),
    "no rollouts kept": (["distill.keep_rollouts_every=601"], "distill.keep_rollouts_every"),
    "a high rate": (["sft.optimizer.lr=0.5"], "sft.optimizer.lr"),
    "a rate of nothing": (["distill.optimizer.lr=1.0e-12"], "distill.optimizer.lr"),
    "decay of all": (["sft.optimizer.weight_decay=50"], "sft.optimizer.weight_decay"),
    "hot rollouts": (
        ["distill.sampling.temperature=4", "align.sampling.temperature=4"],
        "distill.sampling.temperature",
    ),
    "cold rollouts": (
        ["distill.sampling.temperature=0.1", "align.sampling.temperature=0.1"],
        "distill.sampling.temperature",
    ),
    "hot traces": (["traces.sampling.temperature=3"], "traces.sampling.temperature"),
    "another temperature": (["align.sampling.temperature=0.7"], "align.sampling.temperature"),
    "greedy samples": (["eval.sampling.temperature=0", "eval.samples=4"], "eval.samples"),
    "traces thrown away": (["traces.max_tokens=20", "distill.sampling.max_new_tokens=40"], "traces.max_tokens"),
    "rollouts cut": (["distill.sampling.max_new_tokens=20"], "distill.sampling.max_new_tokens"),
    "answers cut": (["eval.sampling.max_new_tokens=20"], "eval.sampling.max_new_tokens"),
    "a budget below a response": (["distill.token_budget=30"], "distill.token_budget"),
    "a silent teacher": (
        ["distill.objective.teacher_loss.coefficient=0"],
        "distill.objective.teacher_loss.coefficient",
    ),
    "a gate that drops all": (
        ["distill.objective.method=uni_opd", "distill.objective.teacher_advantage.gate=0.001"],
        "distill.objective.teacher_advantage.gate",
    ),
    "a mask of single rollouts": (
        ["distill.objective={method: opd, teacher_advantage: {mask: passed}}", "distill.rollouts=1"],
        "distill.objective.teacher_advantage.mask",
    ),
    "steps without tools": (
        ["distill.objective={method: sod, outcome: {tool_reward: null}}"],
        "distill.objective.teacher_advantage.steps",
    ),
    "pay for calls without tools": (
        ["distill.objective={method: sod, teacher_advantage: {steps: null}}"],
        "distill.objective.outcome.tool_reward",
    ),
    "a cold start without traces": (["traces=null"], "sft"),
    "stage 2 without a cold start": (["sft=null"], "distill"),
    "a teacher that is the student": (["teacher.path=demo:student"], "teacher.path"),
    "training on the test": (["tasks.train.split=test", "tasks.train.seed=3"], "eval.tasks: text"),
    "a cold start on the test": (["tasks.cold_start.split=test", "tasks.cold_start.seed=3"], "eval.tasks: text"),
    "no room on the disk": (["distill.steps=2000000000", "distill.keep_rollouts_every=1"], "disk of run.dir"),
    "no room in memory": (["eval.batch_size=100000000"], "memory of eval"),
}  # fmt: skip
"""Changes of the demo, each with the key of its one warning."""


@pytest.mark.parametrize("name", ONE)
def test_a_recipe_with_one_odd_value_gets_one_warning(
    name: str, home: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    overrides, key = ONE[name]
    (warned,) = checked(capsys, *home, *overrides)
    assert warned.startswith(key)


def row(i: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"digits {i} 5 . sum ?", "reference": str(i + 5), "id": f"r{i}", **more}


def test_rows_that_are_there_twice_are_told(
    home: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["distill.prompts_per_step=2", "distill.tasks=train"]
    found = rows(tmp_path, row(1), row(2), row(3, id="r1"))
    assert main(["check", DEMO, *home, *few, f"tasks.train={found}"]) == 2
    assert "line 1 and line 3" in capsys.readouterr().err
    found = rows(tmp_path, row(1), row(2), row(1, id="other"), row(1, id="r1#2"))
    assert main(["check", DEMO, *home, *few, f"tasks.train={found}"]) == 0
    out = capsys.readouterr().out
    assert "1 row asks what another asks" in out  # a copy that `vold balance` has made is meant
    assert "1 warning:" in out
    mixed = ["tasks.all={kind: mixture, sources: {a: train}}", "distill.tasks=all", "distill.prompts_per_step=2"]
    found = rows(tmp_path, row(1), row(2), row(1, id="r3"))
    assert checked(capsys, *home, f"tasks.train={found}", *mixed) == ["tasks.train"]
    without_id = {"prompt": "digits 1 5 . sum ?", "reference": "6"}
    found = rows(tmp_path, without_id, row(2), without_id)
    assert checked(capsys, *home, *few, f"tasks.train={found}") == ["tasks.train"]


def test_a_line_ends_where_the_file_that_is_trained_on_ends_it(
    home: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A carriage return between two keys is a blank of JSON."""
    found = rows(tmp_path, row(1), row(2))
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b", ", b",\r"))
    assert checked(capsys, *home, "distill.prompts_per_step=2", f"tasks.train={found}") == []


def test_words_that_a_tokenizer_does_not_know_are_told(
    home: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(tmp_path, row(1), {"prompt": "digits 2 5 . hypotenuse ?", "reference": "7"}, row(3))
    assert main(["check", DEMO, *home, "distill.prompts_per_step=2", f"tasks.train={found}"]) == 0
    out = capsys.readouterr().out
    assert "1 of the first 3 prompts hold words that the student's tokenizer does not know" in out
    assert "1 warning:" in out


def test_pictures_and_words_together_make_a_problem(home: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """All image prompts of the demo use the same few words: only the same picture makes them the same problem."""
    handwriting = ["tasks.train.form=image", "distill.objective.teacher_loss.mask=failed"]
    assert checked(capsys, *home, *handwriting) == []
    same = ["tasks.train.split=test", "tasks.train.seed=3", "tasks.text.split=select"]
    assert checked(capsys, *home, *handwriting, *same) == ["eval.tasks: image"]


def test_filters_that_leave_nothing_are_told(
    home: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    solved = rows(tmp_path, *(row(i, response="\\boxed{ 8 }") for i in range(9)))
    data = ["traces.answers=data", f"tasks.cold_start={solved}", "sft.batch_size=4", "sft.steps=30"]
    assert checked(capsys, *home, *data) == []
    assert checked(capsys, *home, *data, "traces.max_tokens=2") == ["traces.max_tokens"]
    bare = rows(tmp_path, *(row(i, reference="") for i in range(9)))
    kept = [f"tasks.cold_start={bare}", "traces.keep=correct", "sft.batch_size=4", "sft.steps=30"]
    assert checked(capsys, *home, *kept) == ["traces.keep"]


def changed_student(tmp_path: Path, change: Any) -> str:
    policy = Policy.load(resolve("demo:student"))
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.copy_(change(parameter))
    policy.save(tmp_path / "student")
    return f"student.path={tmp_path / 'student'}"


@pytest.mark.parametrize(
    "change",
    [torch.zeros_like, torch.trunc, lambda p: torch.full_like(p, 0.01), lambda p: torch.randn_like(p) * 0.02],
    ids=["zero", "int8", "constant", "random"],
)
def test_a_student_that_knows_nothing_is_told(
    change: Any, home: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    assert checked(capsys, *home, changed_student(tmp_path, change)) == ["student"]


def test_a_student_of_no_numbers_is_refused(
    home: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = changed_student(tmp_path, lambda p: torch.full_like(p, float("nan")))
    assert main(["check", DEMO, *home, student]) == 2
    assert "does not give finite numbers" in capsys.readouterr().err


def test_a_teacher_that_knows_nothing_is_told(
    home: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.teacher().save(tmp_path / "teacher")
    more = [f"teacher.path={tmp_path / 'teacher'}", "distill.sampling.max_new_tokens=40"]
    assert checked(capsys, *home, *more) == ["teacher"]


SHIPPED = sorted(RECIPES.glob("*.yaml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_nothing_is_odd_about_the_values_of_a_shipped_recipe(file: Path) -> None:
    assert [f"{found.what}: {found.how}" for found in recipe_doubts(Subject(load_recipe(file)))] == []


@pytest.mark.parametrize("name", ["demo", "gkd-mini", "mopd-mini", "prefix_teach-mini", "sod-mini", "uni_opd-mini"])
def test_a_shipped_recipe_gets_no_warning(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(capsys, f"run.dir={tmp_path / 'run'}", recipe=str(RECIPES / f"{name}.yaml")) == []


def test_a_run_that_is_about_to_distill_too_early_is_told(
    home: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final = open_stage(load_recipe(DEMO, home), "sft") / "final"
    final.mkdir()
    assert checked(capsys, *home) == ["align"]  # not compared since
    assert checked(capsys, *home, "distill.init=demo:student") == []  # of another model nothing is known
    assert checked(capsys, *home, "distill.objective.method=grpo") == []  # no teacher
    stored = tmp_path / "run" / "align" / "align.json"
    stored.parent.mkdir()
    for verdict, student, warned in (
        ("ready", str(final), []),
        ("doubtful", str(final), ["align"]),
        ("not aligned", str(final), ["align"]),
        ("ready", "demo:student", ["align"]),
    ):
        stored.write_text(json.dumps({"verdict": verdict, "student": student, "words": "as it says"}))
        assert checked(capsys, *home) == warned
    stored.write_text("{torn")
    assert checked(capsys, *home) == ["align"]


def test_a_stage_that_the_run_holds_with_other_settings_is_told_by_the_check(
    home: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As the stage itself would refuse it; what may change does not matter."""
    short = [*home, "tasks.cold_start.size=4", "traces.keep=all", "traces.sampling.max_new_tokens=8"]
    assert main(["traces", DEMO, *short]) == 2  # the answers are stored, and none is whole
    assert main(["check", DEMO, *short, "traces.max_tokens=5"]) == 0
    capsys.readouterr()
    for verb in ("check", "traces"):
        assert main([verb, DEMO, *short, "traces.sampling.temperature=0.5"]) == 2
        assert "already holds `traces` with other settings" in capsys.readouterr().err


def test_the_probe_leaves_nothing_behind(home: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run" / "sft").mkdir(parents=True)
    cache = f"teacher.cache={tmp_path / 'a' / 'cache'}"
    before = sorted(tmp_path.rglob("*"))
    assert main(["check", DEMO, *home, cache]) == 0
    assert f"run.dir {tmp_path / 'run'}, teacher.cache {tmp_path / 'a' / 'cache'}" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "place", ["file", "file/run", "loop", "dangling", "/proc/run", "/sys/run", "n" * 300, "/".join(["n" * 200] * 30)]
)
@pytest.mark.parametrize("key", ["run.dir", "teacher.cache"])
def test_a_place_that_cannot_be_written_is_refused(
    place: str, key: str, home: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("/nowhere/at/all")
    assert main(["check", DEMO, *home, f"{key}={tmp_path / place}"]) == 2
    err = capsys.readouterr().err
    assert "nothing can be written here" in err
    assert f"where: {key}" in err
    assert "fix:" in err


def test_a_stage_whose_folder_is_a_file_is_refused(
    home: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "distill").write_text("")
    assert main(["check", DEMO, *home]) == 2
    assert f"{tmp_path / 'run' / 'distill'}" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o755)
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        try:
            probe(tmp_path / "theirs" / "run", "run.dir")
        except ValueError:
            os._exit(3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def size_of(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rank", [0, 4])
def test_planned_bytes_of_a_state_and_a_model_are_those_written(dtype: str, rank: int, tmp_path: Path) -> None:
    lora = f"{{rank: {rank}, alpha: 8}}" if rank else "null"
    recipe = load_recipe(DEMO, [f"student.dtype={dtype}", f"student.lora={lora}"])
    policy = Policy.load(resolve("demo:student"), dtype=dtype, freeze=("vision", "projector"))
    state, model = state_bytes(policy, recipe.learner.lora)
    if rank:
        policy.add_lora(rank=rank, alpha=8, seed=1)
    assert recipe.sft is not None
    optimizer = build_optimizer(policy, recipe.sft.optimizer)
    for _, p in policy.trainable():
        p.grad = torch.ones_like(p, dtype=torch.float32)
    apply_update(policy, optimizer, lr=1e-3, max_grad_norm=1.0)
    writer = StateWriter(tmp_path / "stage", policy, optimizer, Place(policy.model.device, optimizer))
    writer.begin(1)
    writer.settle(wait=True)
    policy.save(tmp_path / "final")
    headers = 60_000  # names and shapes of some hundred tensors
    assert state <= size_of(tmp_path / "stage") <= state + headers
    assert model <= size_of(tmp_path / "final") <= model + headers


def test_planned_bytes_count_two_states_and_every_response(tmp_path: Path) -> None:
    recipe: Recipe = load_recipe(DEMO, [*SMALL, f"run.dir={tmp_path}", f"teacher.cache={tmp_path / 'cache'}"])
    subject = Subject(recipe)
    run, cache = planned(subject)
    state, model = state_bytes(subject.student, None)
    assert run.parts["sft: states and model"] == state + max(state, model)
    assert run.parts["rollouts"] == 6 * 80 * (32 * 40 + 1024)  # steps 0, 50, ... 200 and the last; 16 x 5 of 40 tokens
    assert run.parts["traces"] == 40 * (16 * 40 + 300)
    assert run.parts["answers"] == 16 * 3 * (8 * 40 + 700)  # base, sft and vold on two sets of 8
    assert (cache.files, cache.total) == (250 * 80, 250 * 80 * 4096)


def test_both_figures_of_the_disk_are_told(home: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", DEMO, *home]) == 0
    (line,) = (one for one in capsys.readouterr().out.splitlines() if "disk of" in one)
    found = re.search(r"([\d.,]+) MiB still to be written .*, ([\d.,]+) [GM]iB free", line)
    assert found is not None and float(found[1]) > 0
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "there").write_bytes(bytes(2**22))  # what is there need not be written again
    assert main(["check", DEMO, *home]) == 0
    again = re.search(r"([\d.,]+) MiB still to be written", capsys.readouterr().out)
    assert again is not None
    assert float(found[1]) - float(again[1]) == pytest.approx(4, abs=0.11)


def test_sizes_are_told_in_the_unit_that_fits() -> None:
    assert [size_text(n) for n in (0, 2**20, 2**30, 5 * 2**40)] == ["0.0 MiB", "1.0 MiB", "1.0 GiB", "5,120.0 GiB"]


def test_a_prompt_that_fills_the_context_gets_advice_that_can_be_followed(
    home: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = {"prompt": "digits " + "7 " * 400, "reference": "8"}
    assert main(["check", DEMO, *home, f"tasks.train={rows(tmp_path, long)}"]) == 2
    err = capsys.readouterr().err
    assert "leave out prompts as long as this" in err
    assert "set max_new_tokens" not in err


def test_all_that_is_named_and_not_there_is_told_at_once(home: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    gone = ["student.path=./gone", "teacher.path=/no/teacher", "tasks.train={kind: jsonl, path: no.jsonl}"]
    assert main(["check", DEMO, *home, *gone]) == 2
    said = capsys.readouterr().err
    assert "3 mistakes" in said
    here = "no directory ./gone, seen from where the command runs"
    for key, got in (
        ("student.path", here), ("teacher.path", "no directory /no/teacher"), ("tasks.train.path", "no.jsonl"),
    ):  # fmt: skip
        assert f"recipe: {key}\n       got:   {got}\n" in said


def test_the_problem_that_is_too_long_is_named(
    home: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = rows(
        tmp_path,
        {"id": "short", "prompt": "1 2", "reference": "3"},
        {"id": "long", "prompt": "1 " * 900, "reference": "3"},
    )
    assert main(["check", DEMO, *home, f"tasks.train={asked}"]) == 2
    assert "problem long" in capsys.readouterr().err
