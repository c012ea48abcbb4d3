"""Methods whose teacher is more than one frozen model: they train, and killed they end in the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny
from killed import in_a_process_killed_at, weights_of
from vold.errors import ConfigError
from vold.evals.overlap import align
from vold.evals.preflight import check
from vold.model.memory import plan
from vold.model.reading import read_config
from vold.model.together import refuse_together
from vold.run.files import read_jsonl
from vold.run.recipe import Recipe, recipe_from
from vold.run.rollouts import load_rollouts, stored_step
from vold.training.distill import distill

HINT = {"hint": "sum is {reference}"}


def made(home: Path, method: str, teacher: dict[str, Any], **more: Any) -> Recipe:
    raw = tiny.recipe_dict(home)
    student = raw["student"]["path"]
    if "student" in teacher or more.get("tasks") == "image":
        raw["teacher"]["path"] = student
    raw["teacher"].update(teacher)
    raw["distill"].update({"objective": {"method": method}, "init": student, "steps": 3, "checkpoint_every": 1, **more})
    return recipe_from(raw, where="test")


def last_row(home: Path) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [*read_jsonl(home / "run" / "distill" / "metrics.jsonl")]
    return rows[-1]


@pytest.mark.parametrize("operation", [30, 55])
@pytest.mark.parametrize("weights", ["ema", "live"])
def test_a_killed_student_that_teaches_itself_ends_in_the_same_weights(
    weights: str, operation: int, tmp_path: Path
) -> None:
    teacher = {"student": {"weights": weights}, "system": "sum", **HINT}
    whole, broken = (made(tmp_path / name, "sdpo", teacher) for name in "ab")
    assert in_a_process_killed_at(10**9, lambda: distill(whole))
    assert not in_a_process_killed_at(operation, lambda: distill(broken)), "the kill came after the end"
    assert in_a_process_killed_at(10**9, lambda: distill(broken))
    assert weights_of(tmp_path / "a/run/distill") == weights_of(tmp_path / "b/run/distill")


def test_what_the_teacher_knows_besides_is_what_makes_it_one(tmp_path: Path) -> None:
    """A student that is shown no more than it sees has nothing to learn from itself; with a hint it has."""
    for name, told in (("same", {}), ("told", HINT)):
        distill(made(tmp_path / name, "opsd", {"student": {"weights": "live"}, **told}))
    assert last_row(tmp_path / "same")["teacher_loss"] == pytest.approx(0, abs=1e-6)
    assert last_row(tmp_path / "told")["teacher_loss"] > 2e-6


def test_with_adapters_the_start_is_the_student_without_them(tmp_path: Path) -> None:
    raw = tiny.recipe_dict(tmp_path)
    path = raw["student"]["path"]
    lora = {"student": {"path": path, "lora": {"rank": 2, "alpha": 4}}}
    teacher = {"path": path, "student": {"weights": "start"}, **HINT}
    recipe = tiny.recipe(
        tmp_path, **lora, teacher=teacher, distill={"objective": {"method": "opsd"}, "init": path, "steps": 2}
    )
    distill(recipe)
    config = read_config(path)
    scoring = next(p for p in plan(recipe, config, config) if p.name == "update")
    assert "teacher" not in scoring.parts, "it shares the student's weights"


def test_the_average_is_in_the_plan(tmp_path: Path) -> None:
    config = {}
    for weights in ("ema", "live"):
        recipe = made(tmp_path, "sdpo", {"student": {"weights": weights}})
        config[weights] = {p.name: p for p in plan(recipe, read_config(recipe.learner.path))}
    trained = sum(p.numel() for _, p in tiny.student().trainable())
    ema, live = config["ema"], config["live"]
    assert "teacher scoring" in live
    assert "teacher" not in live["teacher scoring"].parts
    more = ema["update"].parts["optimizer"] - live["update"].parts["optimizer"]
    frozen = sum(p.numel() for n, p in tiny.student().model.named_parameters() if ".visual." in n)
    assert more == 4 * (trained - frozen)
    assert ema["teacher scoring"].parts["student meanwhile"] == more


def test_a_policy_shift_is_that_of_teacher_and_base(tmp_path: Path) -> None:
    """The stored reward is the difference of what the two models say of the tokens, and its mean is in the log."""
    tiny.teacher(seed=7).save(tmp_path / "base")
    distill(made(tmp_path, "direct_opd", {"base": {"path": str(tmp_path / "base")}}))
    row = last_row(tmp_path)
    stored = [s.rollout for s in load_rollouts(stored_step(tmp_path / "run", 2))]
    shift = [v for r in stored for v in r.token_values["policy_shift"][r.completion.action_mask].tolist()]
    assert row["mean_policy_shift"] == pytest.approx(sum(shift) / len(shift), rel=1e-5)
    assert row["policy_loss"] == pytest.approx(-sum(shift) / len(shift), rel=1e-3)
    twin = {"base": {"path": str(tmp_path / "teacher")}}
    distill(made(tmp_path / "twin", "direct_opd", {"path": str(tmp_path / "teacher"), **twin}))
    assert last_row(tmp_path / "twin")["mean_policy_shift"] == 0, "a teacher that is its own base has not moved"


def test_a_teacher_that_sees_is_asked_with_and_without_the_picture(tmp_path: Path) -> None:
    distill(made(tmp_path, "va_opd", {}, tasks="image"))
    stored = [s.rollout for s in load_rollouts(stored_step(tmp_path / "run", 2))]
    weights = [r.token_values["own_loss_weight"] for r in stored]
    assert all(w.std() > 0 for w in weights if len(w) > 2), "tokens differ in what the picture changes"
    groups: dict[int, list[float]] = {}
    for r, w in zip(stored, weights, strict=True):
        groups.setdefault(r.group, []).append(float(w[r.completion.action_mask].mean()))
    assert [sum(g) / len(g) for g in groups.values()] == pytest.approx([1.0] * len(groups), rel=1e-4)


def test_a_problem_the_teacher_solves_is_learnt_from_the_teacher(tmp_path: Path) -> None:
    """Tags of the data reach the masks, and are stored with the rollouts."""
    options = {"tag": "digits", "value": 4}
    objective = {"outcome": {"mask_options": options}, "teacher_advantage": {"mask_options": options}}
    distill(made(tmp_path, "tgopd", {}, objective={"method": "tgopd", **objective}, prompts_per_step=6))
    stored = [s.rollout for s in load_rollouts(stored_step(tmp_path / "run", 2))]
    trusted = [int(r.tags["digits"]) >= 4 for r in stored]
    assert {True, False} == {*trusted}
    assert [r.teacher is not None for r in stored] == trusted
    assert last_row(tmp_path)["mean_teacher_mask"] == pytest.approx(sum(trusted) / len(trusted))


def test_a_student_that_teaches_itself_is_checked_and_compared_as_one(tmp_path: Path) -> None:
    """`vold check` loads no second model, `vold align` asks the student with the hint; nothing is odd about it."""
    recipe = made(tmp_path, "sdpo", {"student": {"weights": "ema"}, **HINT})
    lines = check(recipe)
    assert "teacher: the student itself" in lines
    assert not [line for line in lines if line.startswith("warn: teacher")]
    found = align(recipe)
    assert 0 < abs(found.kl) < 1
    bare = check(made(tmp_path / "bare", "opsd", {"student": {"weights": "live"}}))
    doubts = [line for line in bare if line.startswith("warn: teacher")]
    assert [line.partition(":")[2].partition(":")[0].strip() for line in doubts] == ["teacher.path", "teacher.hint"]


def test_what_a_base_is_is_said_by_the_check(tmp_path: Path) -> None:
    tiny.teacher(seed=7).save(tmp_path / "base")
    lines = check(made(tmp_path, "exopd", {"base": {"path": str(tmp_path / "base")}}))
    assert [line for line in lines if line.startswith("asked again: Qwen3ForCausalLM")]
    assert "asked of the teacher: the sampled token's log-prob, the sampled token's log-prob by its own base" in lines


def test_a_student_that_teaches_itself_as_it_changes_is_trained_in_one_process(tmp_path: Path) -> None:
    for weights in ("ema", "live"):
        with pytest.raises(ConfigError, match="trained in one process"):
            refuse_together(made(tmp_path, "sdpo", {"student": {"weights": weights}}), 2, "distill")
    refuse_together(made(tmp_path, "sdpo", {"student": {"weights": "start"}}), 2, "distill")
    refuse_together(made(tmp_path, "sdpo", {"student": {"weights": "live"}}), 2, "sft")
